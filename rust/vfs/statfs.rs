// SPDX-License-Identifier: GPL-2.0
//! `statfs`: how large the volume is, and how much of it is free.

use super::inode::Inode;
use super::super_block::MAGIC;
use crate::bindings;
use crate::format::chunk::{block_group_flags, BlockGroupItem};
use crate::format::superblock::compat_ro;
use crate::format::{self, item_type, tree_id, Key};
use crate::volume::Reader;
use kernel::error::from_result;
use kernel::prelude::*;

/// Bytes, as a user of files counts them: where data is kept twice, half of what the device has.
struct Usage {
    total: u64,
    free: u64,
    available: u64,
}

/// The start of the device, which chunks leave alone, in bytes.
const DEVICE_START: u64 = 1 << 20;

/// Sums up the block groups of the last commit.
fn usage(reader: &Reader) -> Result<Usage> {
    let superblock = reader.superblock();
    let holder = if superblock.compat_ro_flags.get() & compat_ro::BLOCK_GROUP_TREE != 0 {
        tree_id::BLOCK_GROUP
    } else {
        tree_id::EXTENT
    };
    let root = reader.root(holder)?;
    let chunks = reader.fs().chunk_map();
    let mut cursor = reader.cursor(root);
    // In bytes of the device.
    let mut used: u64 = 0;
    let mut free_for_data: u64 = 0;
    let mut data_copies: u64 = 1;
    for chunk in chunks.iter() {
        let key = Key::new(chunk.logical, item_type::BLOCK_GROUP_ITEM, chunk.length);
        // Balance may have removed the chunk since.
        if !cursor.seek(&key)? {
            continue;
        }
        let (_, item) = cursor.item().ok_or(EUCLEAN)?;
        let group: BlockGroupItem = format::read(item)?;
        let copies = u64::from(chunk.copies());
        let group_used = group.used.get().min(chunk.length).saturating_mul(copies);
        used = used.saturating_add(group_used);
        if group.flags.get() & block_group_flags::DATA != 0 {
            data_copies = copies.max(1);
            let size = chunk.length.saturating_mul(copies);
            free_for_data = free_for_data.saturating_add(size.saturating_sub(group_used));
        }
    }
    let device = &superblock.dev_item;
    let in_use = device.bytes_used.get().saturating_add(DEVICE_START);
    let unallocated = device.total_bytes.get().saturating_sub(in_use);
    let total = superblock.total_bytes.get();
    // The number of copies is at least 1, as set above.
    let of_user = |bytes: u64| bytes.checked_div(data_copies).unwrap_or(bytes);
    Ok(Usage {
        total: of_user(total),
        free: of_user(total.saturating_sub(used)),
        available: of_user(free_for_data.saturating_add(unallocated)),
    })
}

/// The volume's UUID folded to 64 bits, as the C driver does it, with the subvolume mixed in.
fn fsid_of(fsid: &[u8; 16], tree: u64) -> [i32; 2] {
    let mut words = [0u32; 4];
    for (word, bytes) in words.iter_mut().zip(fsid.chunks_exact(4)) {
        *word = bytes
            .iter()
            .fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    let [a, b, c, d] = words;
    [
        (a ^ c ^ (tree >> 32) as u32) as i32,
        (b ^ d ^ tree as u32) as i32,
    ]
}

/// `super_operations::statfs`.
///
/// # Safety
///
/// As the VFS calls it, for a dentry of ours.
pub(super) unsafe extern "C" fn statfs(
    dentry: *mut bindings::dentry,
    stat: *mut kernel::bindings::kstatfs,
) -> kernel::ffi::c_int {
    // SAFETY: The VFS passes a dentry that it holds.
    let inode = unsafe { Inode::of_dentry(dentry) };
    let stat: *mut bindings::kstatfs = stat.cast();
    from_result(|| {
        let fs = inode.super_block().volume().fs();
        let reader = fs.reader()?;
        let usage = usage(&reader)?;
        let block = fs.geometry.sectorsize;
        let blocks = |bytes: u64| bytes.checked_div(u64::from(block)).unwrap_or(0);
        // SAFETY: The VFS passes a structure to be filled in; the kernel crate knows it by name alone.
        let stat = unsafe { &mut *stat };
        stat.f_type = MAGIC as isize;
        stat.f_bsize = block as isize;
        stat.f_namelen = format::dir::NAME_LEN as isize;
        stat.f_blocks = blocks(usage.total);
        stat.f_bfree = blocks(usage.free);
        stat.f_bavail = blocks(usage.available);
        stat.f_fsid.val = fsid_of(&reader.superblock().fsid, inode.info().tree);
        Ok(0)
    })
}
