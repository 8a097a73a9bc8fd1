// SPDX-License-Identifier: GPL-2.0
//! A second opinion on how a volume accounts for its space, and files whose extents tests choose.

use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::extent::refs::RefKind;
use rbtrfs_engine::format::chunk::{BlockGroupItem, Chunk, DevExtent, DevItem, Stripe};
use rbtrfs_engine::format::crc::name_hash;
use rbtrfs_engine::format::file_extent::{FileExtentHead, FileExtentItem, TYPE_REG};
use rbtrfs_engine::format::free_space::{FreeSpaceInfo, USING_BITMAPS};
use rbtrfs_engine::format::inode::InodeItem;
use rbtrfs_engine::format::superblock::{compat_ro, COPIES};
use rbtrfs_engine::format::{self, objectid};
use rbtrfs_engine::format::{item_type, tree_id, DiskKey, Key};
use rbtrfs_engine::space::space_info::SpaceContext;
use rbtrfs_engine::trans::transaction::Transaction;
use rbtrfs_engine::tree::TreeRoot;
use rbtrfs_engine::tree::{edit, EditContext};
use rbtrfs_engine::volume::Fs;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::vec::Vec;
use zerocopy::{FromBytes, IntoBytes};

/// Disjoint ranges, by start: start and end.
type Ranges = BTreeMap<u64, u64>;

/// Makes an image of `size` bytes, larger than the usual one.
pub fn make_large(scratch: &Scratch, size: u64, options: &[&str]) -> PathBuf {
    let image = scratch.path("large");
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(size).unwrap();
    let mkfs = std::process::Command::new("mkfs.btrfs")
        .arg("-q")
        .args(options)
        .arg(&image)
        .output()
        .unwrap();
    assert!(mkfs.status.success(), "{mkfs:?}");
    image
}

/// All items of a tree of the last commit.
pub fn items(fs: &Fs, tree: u64) -> Vec<(Key, Vec<u8>)> {
    let reader = fs.reader().unwrap();
    let root: TreeRoot = reader.root(tree).unwrap();
    let mut cursor = reader.cursor(root);
    cursor.seek(&Key::MIN).unwrap();
    let mut all = vec![];
    while let Some((key, data)) = cursor.item() {
        all.push((key, data.to_vec()));
        cursor.next().unwrap();
    }
    all
}

fn add(ranges: &mut Ranges, start: u64, end: u64) {
    if start == end {
        return;
    }
    let before = ranges.range(..=start).next_back().map(|(s, e)| (*s, *e));
    if let Some((s, e)) = before.filter(|(_, e)| *e >= start) {
        assert_eq!(e, start, "ranges overlap");
        ranges.insert(s, end);
    } else {
        ranges.insert(start, end);
    }
}

/// What the extent tree leaves free in a block group, and the bytes that it does not.
fn gaps(extents: &[(u64, u64)], start: u64, end: u64) -> (Ranges, u64) {
    let (mut free, mut used, mut at) = (Ranges::new(), 0, start);
    for (from, to) in extents.iter().filter(|e| start <= e.0 && e.0 < end) {
        assert!(*from >= at && *to <= end, "extents overlap at {from}");
        add(&mut free, at, *from);
        used += to - from;
        at = *to;
    }
    add(&mut free, at, end);
    (free, used)
}

/// How many block groups the free space tree keeps as bitmaps.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub groups: usize,
    pub bitmaps: usize,
}

/// Holds all that describes space in the last commit against each other, and against what is in
/// memory.
pub fn verify(fs: &Fs) -> Found {
    let mut found = Found::default();
    let superblock = {
        let reader = fs.reader().unwrap();
        **reader.superblock()
    };
    let nodesize = u64::from(superblock.nodesize.get());
    let features = superblock.compat_ro_flags.get();
    let extents: Vec<(u64, u64)> = items(fs, tree_id::EXTENT)
        .iter()
        .filter_map(|(key, _)| match key.typ {
            item_type::EXTENT_ITEM => Some((key.objectid, key.objectid + key.offset)),
            item_type::METADATA_ITEM => Some((key.objectid, key.objectid + nodesize)),
            _ => None,
        })
        .collect();
    let group_tree = if features & compat_ro::BLOCK_GROUP_TREE != 0 {
        tree_id::BLOCK_GROUP
    } else {
        tree_id::EXTENT
    };
    let groups: Vec<(Key, BlockGroupItem)> = items(fs, group_tree)
        .iter()
        .filter(|(key, _)| key.typ == item_type::BLOCK_GROUP_ITEM)
        .map(|(key, data)| (*key, format::read(data).unwrap()))
        .collect();
    let tracked = if features & compat_ro::FREE_SPACE_TREE_VALID != 0 {
        Some(items(fs, tree_id::FREE_SPACE))
    } else {
        None
    };
    let (mut total_used, mut tracked_items) = (0, 0);
    let mut free_by_group = BTreeMap::new();
    for (key, item) in &groups {
        let (start, end) = (key.objectid, key.objectid + key.offset);
        let (free, used) = gaps(&extents, start, end);
        assert_eq!(item.used.get(), used, "used bytes of block group {start}");
        total_used += used;
        if let Some(tracked) = &tracked {
            let own: Vec<_> = tracked
                .iter()
                .filter(|(key, _)| start <= key.objectid && key.objectid < end)
                .collect();
            tracked_items += own.len();
            found.bitmaps += usize::from(verify_tracked(&own, start, end, &free));
        }
        free_by_group.insert(start, free);
    }
    if let Some(tracked) = &tracked {
        // `mkfs.btrfs` forgets items of a block group that it makes at first and removes.
        let first = groups.first().map_or(0, |(key, _)| key.objectid);
        let left = tracked.iter().filter(|(key, _)| key.objectid >= first);
        assert_eq!(
            left.count(),
            tracked_items,
            "free space outside of block groups"
        );
    }
    assert_eq!(superblock.bytes_used.get(), total_used);
    let in_groups = gaps(&extents, 0, u64::MAX).1;
    assert_eq!(in_groups, total_used, "extents outside of block groups");
    found.groups = groups.len();
    verify_chunks(fs, &groups);
    verify_memory(fs, &free_by_group);
    found
}

/// One block group of the free space tree. Returns whether it has bitmaps.
fn verify_tracked(own: &[&(Key, Vec<u8>)], start: u64, end: u64, free: &Ranges) -> bool {
    let (key, data) = own[0];
    assert_eq!(
        *key,
        Key::new(start, item_type::FREE_SPACE_INFO, end - start)
    );
    let info: FreeSpaceInfo = format::read(data).unwrap();
    let bitmaps = info.flags.get() & USING_BITMAPS != 0;
    let (mut found, mut at) = (Ranges::new(), start);
    for (key, data) in &own[1..] {
        if !bitmaps {
            assert_eq!(key.typ, item_type::FREE_SPACE_EXTENT);
            assert!(found.values().all(|end| *end != key.objectid), "not merged");
            add(&mut found, key.objectid, key.objectid + key.offset);
            continue;
        }
        assert_eq!((key.typ, key.objectid), (item_type::FREE_SPACE_BITMAP, at));
        at += key.offset;
        assert!(at == end || key.offset == 4096 * 2048);
        for sector in 0..key.offset / 4096 {
            if data[(sector / 8) as usize] & (1 << (sector % 8)) != 0 {
                let from = key.objectid + sector * 4096;
                add(&mut found, from, from + 4096);
            }
        }
    }
    assert!(!bitmaps || at == end, "bitmaps are missing");
    assert_eq!(found, *free, "free space of block group {start}");
    assert_eq!(info.extent_count.get() as usize, free.len());
    let high = (end - start).div_ceil(4096 * 2048) * 281 / 25;
    if bitmaps {
        assert!(free.len() as u64 >= high.saturating_sub(100));
    } else {
        assert!(free.len() as u64 <= high);
    }
    bitmaps
}

/// Chunks, device extents, the device item and the superblock's system chunks.
fn verify_chunks(fs: &Fs, groups: &[(Key, BlockGroupItem)]) {
    let superblock = {
        let reader = fs.reader().unwrap();
        **reader.superblock()
    };
    let (mut stripes, mut chunks, mut system) = (vec![], vec![], vec![]);
    let mut bytes_used = None;
    for (key, data) in items(fs, tree_id::CHUNK) {
        if key.typ == item_type::DEV_ITEM {
            bytes_used = Some(format::read::<DevItem>(&data).unwrap().bytes_used.get());
            continue;
        }
        let chunk: Chunk = format::read(&data).unwrap();
        let (start, len, flags) = (key.offset, chunk.length.get(), chunk.typ.get());
        chunks.push((start, len, flags));
        assert_eq!(chunk.num_stripes.get(), if flags & 32 != 0 { 2 } else { 1 });
        for i in 0..usize::from(chunk.num_stripes.get()) {
            let stripe: Stripe = format::read_at(&data, 48 + 32 * i).unwrap();
            assert_eq!(stripe.dev_uuid, superblock.dev_item.uuid);
            stripes.push((stripe.offset.get(), len, start));
        }
        if flags & 2 != 0 {
            let mut entry = DiskKey::from(key).as_bytes().to_vec();
            entry.extend_from_slice(&data);
            system.push(entry);
        }
    }
    let by_group: Vec<_> = groups
        .iter()
        .map(|(key, item)| (key.objectid, key.offset, item.flags.get()))
        .collect();
    assert_eq!(chunks, by_group);
    stripes.sort();
    let devices: Vec<_> = items(fs, tree_id::DEV)
        .iter()
        .filter(|(key, _)| key.typ == item_type::DEV_EXTENT)
        .map(|(key, data)| {
            let item: DevExtent = format::read(data).unwrap();
            (key.offset, item.length.get(), item.chunk_offset.get())
        })
        .collect();
    assert_eq!(stripes, devices);
    assert!(stripes.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
    let sum = stripes.iter().map(|s| s.1).sum();
    assert_eq!(bytes_used, Some(sum));
    assert_eq!(superblock.dev_item.bytes_used.get(), sum);
    // System chunks stand in the superblock in any order.
    let mut array = &superblock.sys_chunk_array[..superblock.sys_chunk_array_size.get() as usize];
    let mut count = 0;
    while !array.is_empty() {
        let entry = system.iter().find(|entry| array.starts_with(entry));
        array = &array[entry.expect("an unknown system chunk").len()..];
        count += 1;
    }
    assert_eq!(count, system.len());
}

/// What the next transaction will allocate from.
fn verify_memory(fs: &Fs, free_by_group: &BTreeMap<u64, Ranges>) {
    let trans = begin(fs);
    let map = fs.chunk_map();
    for group in trans
        .space()
        .block_groups()
        .iter()
        .filter(|g| !g.is_dirty())
    {
        let mut expected = free_by_group[&group.start].clone();
        let chunk = map.lookup(group.start).unwrap();
        for (stripe, copy) in chunk.stripes().flat_map(|s| COPIES.map(|copy| (s, copy))) {
            if stripe <= copy && copy < stripe + chunk.length {
                let start = group.start + copy - stripe;
                expected = without(&expected, start, start + 65536);
            }
        }
        let bytes: u64 = expected.iter().map(|(s, e)| e - s).sum();
        let waiting = (group.pinned(), group.reserved());
        assert_eq!(waiting, (0, 0), "block group {}", group.start);
        assert_eq!(group.available(), bytes, "block group {}", group.start);
        if let Some(free) = group.free_space() {
            let free: Ranges = free.iter().map(|e| (e.start, e.end())).collect();
            assert_eq!(free, expected, "block group {}", group.start);
        }
    }
    trans.cancel();
}

fn without(ranges: &Ranges, start: u64, end: u64) -> Ranges {
    let mut left = Ranges::new();
    for (s, e) in ranges {
        for (from, to) in [(*s, (*e).min(start)), ((*s).max(end), *e)] {
            if from < to {
                left.insert(from, to);
            }
        }
    }
    left
}

/// Makes a file in the root directory of the top-level subvolume, without data and without data
/// checksums.
pub fn make_file(trans: &mut Transaction<'_>, ino: u64, name: &str, flags: u64) {
    let transid = trans.transid();
    let mut inode = InodeItem::read_from_bytes(&[0u8; 160]).unwrap();
    inode.generation = transid.into();
    inode.transid = transid.into();
    inode.nlink = 1.into();
    inode.mode = 0o100644.into();
    inode.flags = flags.into();
    let key = Key::new(ino, item_type::INODE_ITEM, 0);
    edit::insert(trans, tree_id::FS, &key, inode.as_bytes()).unwrap();
    let (dir, index) = (256, 100_000 + ino);
    let mut inode_ref = index.to_le_bytes().to_vec();
    inode_ref.extend_from_slice(&(name.len() as u16).to_le_bytes());
    inode_ref.extend_from_slice(name.as_bytes());
    let key = Key::new(ino, item_type::INODE_REF, dir);
    edit::insert(trans, tree_id::FS, &key, &inode_ref).unwrap();
    let location = DiskKey::from(Key::new(ino, item_type::INODE_ITEM, 0));
    let mut entry = location.as_bytes().to_vec();
    entry.extend_from_slice(&transid.to_le_bytes());
    entry.extend_from_slice(&0u16.to_le_bytes());
    entry.extend_from_slice(&(name.len() as u16).to_le_bytes());
    entry.push(1);
    entry.extend_from_slice(name.as_bytes());
    for key in [
        Key::new(dir, item_type::DIR_ITEM, name_hash(name.as_bytes())),
        Key::new(dir, item_type::DIR_INDEX, index),
    ] {
        edit::insert(trans, tree_id::FS, &key, &entry).unwrap();
    }
    resize(trans, dir, 2 * name.len() as i64, 0);
}

/// Changes an inode's size and the bytes it has allocated.
fn resize(trans: &mut Transaction<'_>, ino: u64, size: i64, nbytes: i64) {
    change_inode(trans, ino, |item| {
        item.size = item.size.get().wrapping_add_signed(size).into();
        item.nbytes = item.nbytes.get().wrapping_add_signed(nbytes).into();
    });
}

/// Puts a new extent at the end of what [`make_file`] made.
pub fn append(trans: &mut Transaction<'_>, ino: u64, offset: u64, len: u64) -> Result<u64> {
    let bytenr = trans.alloc_data(len, 0)?;
    let item = FileExtentItem {
        head: FileExtentHead {
            generation: trans.transid().into(),
            ram_bytes: len.into(),
            compression: 0,
            encryption: 0,
            other_encoding: 0.into(),
            typ: TYPE_REG,
        },
        disk_bytenr: bytenr.into(),
        disk_num_bytes: len.into(),
        offset: 0.into(),
        num_bytes: len.into(),
    };
    let key = Key::new(ino, item_type::EXTENT_DATA, offset);
    edit::insert(trans, tree_id::FS, &key, item.as_bytes()).unwrap();
    trans.add_ref(bytenr, len, owner(ino, offset), 1).unwrap();
    resize(trans, ino, len as i64, len as i64);
    Ok(bytenr)
}

/// Makes a hole of an extent of [`append`].
pub fn punch(trans: &mut Transaction<'_>, ino: u64, offset: u64) {
    let key = Key::new(ino, item_type::EXTENT_DATA, offset);
    let data = edit::get(trans, tree_id::FS, &key).unwrap().unwrap();
    let item: FileExtentItem = format::read(&data).unwrap();
    edit::delete(trans, tree_id::FS, &key).unwrap();
    let (bytenr, len) = (item.disk_bytenr.get(), item.disk_num_bytes.get());
    trans.add_ref(bytenr, len, owner(ino, offset), -1).unwrap();
    resize(trans, ino, 0, -(len as i64));
}

fn owner(ino: u64, offset: u64) -> RefKind {
    RefKind::Data {
        root: tree_id::FS,
        ino,
        offset,
    }
}

/// Checksums there are, by logical address.
pub fn csums(fs: &Fs) -> BTreeMap<u64, [u8; 4]> {
    let mut all = BTreeMap::new();
    for (key, data) in items(fs, tree_id::CSUM) {
        assert_eq!(key.objectid, objectid::EXTENT_CSUM);
        for (i, sum) in data.chunks(4).enumerate() {
            let logical = key.offset + 4096 * i as u64;
            assert!(all.insert(logical, sum.try_into().unwrap()).is_none());
        }
    }
    all
}
