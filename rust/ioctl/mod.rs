// SPDX-License-Identifier: GPL-2.0
//! The ioctls: numbers, structures as user space lays them out, and one line per command.
//!
//! Commands are told apart by the whole number, size and direction included, as two share the lower
//! part. What user space gives is copied in once and checked; the work is the engine's. No lock is
//! owned here.

mod balance;
mod btrfs_control;
mod defrag;
mod encoded;
mod info;
mod logical;
mod lookup;
mod refused;
mod resize;
mod scrub;
mod send;
mod shutdown;
mod subvol_info;
mod subvol_modify;
mod sync;
mod tree_search;
mod trim;

use crate::vfs::{OpenFile, UserArg};
use kernel::prelude::*;

pub(crate) use btrfs_control::control;

/// The type byte of btrfs's ioctls.
const MAGIC: u32 = 0x94;

const fn none(nr: u32) -> u32 {
    MAGIC << 8 | nr
}

const fn sized(direction: u32, nr: u32, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | MAGIC << 8 | nr
}

/// User space writes, the kernel reads.
const fn write<T>(nr: u32) -> u32 {
    sized(1, nr, size_of::<T>())
}

/// The kernel writes, user space reads.
const fn read<T>(nr: u32) -> u32 {
    sized(2, nr, size_of::<T>())
}

const fn both<T>(nr: u32) -> u32 {
    sized(3, nr, size_of::<T>())
}

const SNAP_CREATE: u32 = write::<subvol_modify::VolArgs>(1);
const RESIZE: u32 = write::<subvol_modify::VolArgs>(3);
const SYNC: u32 = none(8);
const SUBVOL_CREATE: u32 = write::<subvol_modify::VolArgs>(14);
const SNAP_DESTROY: u32 = write::<subvol_modify::VolArgs>(15);
const DEFRAG: u32 = write::<subvol_modify::VolArgs>(2);
const DEFRAG_RANGE: u32 = write::<defrag::RangeArgs>(16);
const TREE_SEARCH: u32 = both::<tree_search::Args>(17);
const TREE_SEARCH_V2: u32 = both::<tree_search::ArgsV2>(17);
const INO_LOOKUP: u32 = both::<lookup::Args>(18);
const DEFAULT_SUBVOL: u32 = write::<u64>(19);
const SPACE_INFO: u32 = both::<info::SpaceArgs>(20);
const WAIT_SYNC: u32 = write::<u64>(22);
const SNAP_CREATE_V2: u32 = write::<subvol_modify::VolArgsV2>(23);
const SUBVOL_CREATE_V2: u32 = write::<subvol_modify::VolArgsV2>(24);
const START_SYNC: u32 = read::<u64>(24);
const SUBVOL_GETFLAGS: u32 = read::<u64>(25);
const SUBVOL_SETFLAGS: u32 = write::<u64>(26);
const SCRUB: u32 = both::<scrub::Args>(27);
const SCRUB_CANCEL: u32 = none(28);
const SCRUB_PROGRESS: u32 = both::<scrub::Args>(29);
const DEV_INFO: u32 = both::<info::DevInfo>(30);
const FS_INFO: u32 = read::<info::FsInfo>(31);
const BALANCE_V2: u32 = both::<balance::Args>(32);
const BALANCE_CTL: u32 = write::<i32>(33);
const BALANCE_PROGRESS: u32 = read::<balance::Args>(34);
const INO_PATHS: u32 = both::<logical::InoPathArgs>(35);
const LOGICAL_INO: u32 = both::<logical::LogicalInoArgs>(36);
const SET_RECEIVED_SUBVOL: u32 = both::<subvol_modify::ReceivedArgs<subvol_info::Time>>(37);
const SET_RECEIVED_SUBVOL_32: u32 = both::<subvol_modify::ReceivedArgs<subvol_info::Time32>>(37);
const SEND: u32 = write::<send::Args>(38);
const SEND_32: u32 = write::<send::Args32>(38);
const GET_FSLABEL: u32 = read::<info::Label>(49);
const SET_FSLABEL: u32 = write::<info::Label>(50);
const GET_DEV_STATS: u32 = both::<info::DevStats>(52);
const GET_FEATURES: u32 = read::<info::Features>(57);
const GET_SUPPORTED_FEATURES: u32 = read::<[info::Features; 3]>(57);
const LOGICAL_INO_V2: u32 = both::<logical::LogicalInoArgs>(59);
const GET_SUBVOL_INFO: u32 = read::<subvol_info::Info>(60);
const GET_SUBVOL_INFO_32: u32 = read::<subvol_info::Info32>(60);
const GET_SUBVOL_ROOTREF: u32 = both::<subvol_info::RootRefs>(61);
const INO_LOOKUP_USER: u32 = both::<lookup::UserArgs>(62);
const SNAP_DESTROY_V2: u32 = write::<subvol_modify::VolArgsV2>(63);
const ENCODED_READ: u32 = read::<encoded::Args>(64);
const ENCODED_WRITE: u32 = write::<encoded::Args>(64);
const SUBVOL_SYNC_WAIT: u32 = write::<subvol_modify::WaitArgs>(65);
/// `_IOR('v', 1, long)`, of which only the lower half is written.
const GETVERSION: u32 = 0x8008_7601;
/// The same for a 32-bit program.
const GETVERSION_32: u32 = 0x8004_7601;
/// `_IOWR('X', 121, struct fstrim_range)`.
const FITRIM: u32 = 0xc018_5879;
/// `_IOR('X', 125, __u32)`, as XFS numbers it.
const SHUTDOWN: u32 = 0x8004_587d;

// The numbers of `linux/btrfs.h`, as user space has them compiled in.
const _: () = {
    assert!(SCRUB == 0xc400_941b && SCRUB_PROGRESS == 0xc400_941d);
    assert!(size_of::<trim::Range>() == 24);
    assert!(DEFRAG_RANGE == 0x4030_9410);
    assert!(SEND == 0x4048_9426 && SEND_32 == 0x4044_9426);
    assert!(BALANCE_V2 == 0xc400_9420 && BALANCE_CTL == 0x4004_9421);
    assert!(BALANCE_PROGRESS == 0x8400_9422 && SYNC == 0x9408);
    assert!(TREE_SEARCH == 0xd000_9411 && TREE_SEARCH_V2 == 0xc070_9411);
    assert!(INO_LOOKUP == 0xd000_9412 && INO_LOOKUP_USER == 0xd000_943e);
    assert!(SPACE_INFO == 0xc010_9414 && FS_INFO == 0x8400_941f);
    assert!(DEV_INFO == 0xd000_941e && GET_DEV_STATS == 0xc408_9434);
    assert!(START_SYNC == 0x8008_9418 && WAIT_SYNC == 0x4008_9416);
    assert!(SUBVOL_GETFLAGS == 0x8008_9419 && INO_PATHS == 0xc038_9423);
    assert!(LOGICAL_INO == 0xc038_9424 && LOGICAL_INO_V2 == 0xc038_943b);
    assert!(GET_FSLABEL == 0x8100_9431 && SET_FSLABEL == 0x4100_9432);
    assert!(GET_FEATURES == 0x8018_9439 && GET_SUPPORTED_FEATURES == 0x8048_9439);
    assert!(GET_SUBVOL_INFO == 0x81f8_943c && GET_SUBVOL_INFO_32 == 0x81e8_943c);
    assert!(GET_SUBVOL_ROOTREF == 0xd000_943d);
    assert!(SNAP_CREATE == 0x5000_9401 && SUBVOL_SETFLAGS == 0x4008_941a);
    assert!(SNAP_DESTROY == 0x5000_940f && SNAP_DESTROY_V2 == 0x5000_943f);
    assert!(SNAP_CREATE_V2 == 0x5000_9417 && SUBVOL_CREATE_V2 == 0x5000_9418);
    assert!(SET_RECEIVED_SUBVOL == 0xc0c8_9425 && SUBVOL_SYNC_WAIT == 0x4010_9441);
    assert!(ENCODED_READ == 0x8080_9440 && ENCODED_WRITE == 0x4080_9440);
};

/// Carries out the command `cmd` on an open file. User space sees what is returned.
///
/// # Errors
///
/// `ENOTTY` for a command that is not known, `EOPNOTSUPP` for one that is not supported, and those
/// of the command.
pub(crate) fn dispatch(file: &OpenFile<'_>, cmd: u32, arg: UserArg, compat: bool) -> Result<isize> {
    let done = match cmd {
        SEND => send::send(file, arg),
        SEND_32 => send::send_32(file, arg),
        // These return more than that all went well.
        BALANCE_V2 => return balance::balance(file, arg),
        RESIZE => return resize::resize(file, arg),
        ENCODED_READ => return encoded::read(file, arg),
        ENCODED_WRITE => return encoded::write(file, arg),
        BALANCE_CTL => balance::control(file, arg),
        BALANCE_PROGRESS => balance::progress(file, arg),
        SCRUB => scrub::scrub(file, arg),
        SCRUB_CANCEL => scrub::cancel(file),
        SCRUB_PROGRESS => scrub::progress(file, arg),
        TREE_SEARCH => tree_search::search(file, arg),
        TREE_SEARCH_V2 => tree_search::search_v2(file, arg),
        INO_LOOKUP => lookup::ino_lookup(file, arg),
        INO_LOOKUP_USER => lookup::ino_lookup_user(file, arg),
        INO_PATHS => logical::ino_paths(file, arg),
        LOGICAL_INO => logical::logical_ino(file, arg),
        LOGICAL_INO_V2 => logical::logical_ino_v2(file, arg),
        SUBVOL_GETFLAGS => subvol_info::get_flags(file, arg),
        GET_SUBVOL_INFO => subvol_info::info(file, arg),
        GET_SUBVOL_INFO_32 => subvol_info::info_32(file, arg),
        GET_SUBVOL_ROOTREF => subvol_info::root_refs(file, arg),
        FS_INFO => info::fs_info(file, arg),
        DEV_INFO => info::dev_info(file, arg),
        SPACE_INFO => info::space_info(file, arg),
        GET_DEV_STATS => info::dev_stats(file, arg),
        GET_FEATURES => info::features(file, arg),
        GET_SUPPORTED_FEATURES => info::supported_features(arg),
        GET_FSLABEL => info::label(file, arg),
        SET_FSLABEL => info::set_label(file, arg),
        GETVERSION => arg.write(&file.generation()),
        GETVERSION_32 if compat => arg.write(&file.generation()),
        SYNC => sync::sync(file),
        DEFRAG => defrag::all(file),
        DEFRAG_RANGE => defrag::range(file, arg),
        FITRIM => trim::trim(file, arg),
        SHUTDOWN => shutdown::shutdown(file, arg),
        START_SYNC => sync::start(file, arg),
        WAIT_SYNC => sync::wait(file, arg),
        SUBVOL_CREATE => subvol_modify::create(file, arg),
        SUBVOL_CREATE_V2 => subvol_modify::create_v2(file, arg),
        SNAP_CREATE => subvol_modify::snapshot(file, arg),
        SNAP_CREATE_V2 => subvol_modify::snapshot_v2(file, arg),
        SNAP_DESTROY => subvol_modify::destroy(file, arg),
        SNAP_DESTROY_V2 => subvol_modify::destroy_v2(file, arg),
        SUBVOL_SETFLAGS => subvol_modify::set_flags(file, arg),
        DEFAULT_SUBVOL => subvol_modify::set_default(file, arg),
        SET_RECEIVED_SUBVOL => subvol_modify::set_received::<subvol_info::Time>(file, arg),
        SET_RECEIVED_SUBVOL_32 => subvol_modify::set_received::<subvol_info::Time32>(file, arg),
        SUBVOL_SYNC_WAIT => subvol_modify::wait_deleted(file, arg),
        _ => refused::dispatch(file, cmd, arg),
    };
    done.map(|()| 0)
}
