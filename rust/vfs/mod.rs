// SPDX-License-Identifier: GPL-2.0
//! Everything between the engine and the kernel, and the only code with `unsafe` beside
//! `bindings/`.
//!
//! Two directions meet here. Upwards, the VFS calls our operation tables; each entry is an
//! `unsafe extern "C"` function that turns its arguments into [`inode::Inode`] or
//! [`super_block::SuperBlock`] and calls safe code. Downwards, the engine's needs of the machine
//! are [`platform`] and [`bdev`]. What `ioctl/` may use is exported below; all of it is safe to
//! call.
//!
//! Locks of its own: the snapshot lock of a subvolume, the delalloc mutex of an inode, and leaves
//! (the list of subvolumes, the daemons' threads, the volume behind a sysfs file, the workspaces of
//! decompression); docs/LOCKING.md has their order. A call takes one view of the last commit (a
//! `Reader`) and gives it up before it returns.

pub mod platform;

mod anon_dev;
mod attributes;
mod balance_resume;
mod bdev;
mod before_commit;
mod cleaner;
mod committer;
mod control_device;
mod defrag;
mod delalloc;
mod device_number;
mod dir;
mod encoded;
mod evict;
mod export;
mod fallocate;
mod fiemap;
mod file;
mod filesystem;
mod fs_context;
mod fsync;
mod iget;
mod inode;
mod ioctl;
mod lock;
mod mount_options;
mod namespace;
mod page_cache;
mod read_ahead;
mod replace;
mod security;
mod setsize;
mod shrinker;
mod shutdown;
mod snapshot_lock;
mod special;
mod statfs;
mod stub;
mod subvol_modify;
mod subvol_path;
mod subvolume;
mod super_block;
mod symlink;
mod sysfs;
mod sysfs_files;
mod sysfs_space;
mod table;
mod thread;
mod workqueue;
mod write;
mod writeback;
mod writers;
mod xattr;

pub(crate) use control_device::Devices;
pub(crate) use defrag::DefragArgs;
pub(crate) use filesystem::Registration;
pub(crate) use ioctl::{
    capable_dac_read_search, capable_sys_admin, with_current, zeroed_box, FileSink, OpenFile,
    UserArg,
};
