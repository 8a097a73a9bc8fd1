// SPDX-License-Identifier: GPL-2.0
//! `statfs`: how large the volume is, and how much of it is free.
//!
//! What was freed and waits for the next commit counts as free, as it is used before anybody is
//! told that there is no space. Data that is only in memory does not count.

use super::inode::Inode;
use super::super_block::MAGIC;
use crate::balance;
use crate::bindings;
use crate::format;
use crate::format::chunk::block_group_flags;
use crate::format::superblock::SuperBlock;
use crate::space::usage::allocated;
use crate::volume::Fs;
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

fn usage(fs: &Fs, superblock: &SuperBlock) -> Result<Usage> {
    let sums = balance::committed_usage::usage(fs)?;
    // In bytes of the device.
    let mut used: u64 = 0;
    let mut free_for_data: u64 = 0;
    let mut data_copies: Option<u64> = None;
    for sum in sums.iter().filter(|sum| sum.groups != 0) {
        let of_device = |bytes: u64| bytes.saturating_mul(sum.copies());
        used = used.saturating_add(of_device(sum.in_use()));
        if sum.flags & block_group_flags::DATA != 0 {
            // Where there is data of both profiles, the C driver divides by that which takes less.
            data_copies = Some(data_copies.map_or(sum.copies(), |least| least.min(sum.copies())));
            let free = sum.total.saturating_sub(sum.in_use());
            let usable = free.saturating_sub(sum.read_only);
            free_for_data = free_for_data.saturating_add(of_device(usable));
        }
    }
    let in_chunks = allocated(&sums).saturating_add(DEVICE_START);
    let unallocated = superblock.dev_item.total_bytes.get();
    let unallocated = unallocated.saturating_sub(in_chunks);
    let total = superblock.total_bytes.get();
    let of_user = |bytes: u64| bytes.checked_div(data_copies.unwrap_or(1)).unwrap_or(bytes);
    // What commits keep for themselves counts as used, by its logical size.
    let reserve = balance::committed_usage::commit_reserve(&sums, fs.geometry.nodesize);
    Ok(Usage {
        total: of_user(total),
        free: of_user(total.saturating_sub(used)).saturating_sub(reserve),
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
        let usage = usage(fs, reader.superblock())?;
        let block = fs.geometry.sectorsize;
        let blocks = |bytes: u64| bytes / block;
        // SAFETY: The VFS passes a structure to be filled in; the kernel crate knows it by name
        // alone.
        let stat = unsafe { &mut *stat };
        stat.f_type = MAGIC as isize;
        stat.f_bsize = u32::from(block) as isize;
        stat.f_namelen = format::dir::NAME_LEN as isize;
        stat.f_blocks = blocks(usage.total);
        stat.f_bfree = blocks(usage.free);
        stat.f_bavail = blocks(usage.available);
        stat.f_fsid.val = fsid_of(&reader.superblock().fsid, inode.info().tree);
        Ok(0)
    })
}
