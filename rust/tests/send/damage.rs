// SPDX-License-Identifier: GPL-2.0
//! Damage that only send notices, or that it can do without.

use super::*;
use rbtrfs_engine::format::crc::checksum;
use rbtrfs_engine::format::file_extent::{FileExtentItem, TYPE_REG};
use rbtrfs_engine::format::header::{HEADER_SIZE, ITEM_SIZE};
use rbtrfs_engine::format::{self, item_type, tree_id, Key};
use rbtrfs_engine::trans::Reader;
use std::ops::Range;
use std::string::String;

/// The items of a tree.
fn items(reader: &Reader, tree: u64) -> Vec<(Key, Vec<u8>)> {
    let mut out = Vec::new();
    let mut cursor = reader.cursor(reader.root(tree).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    while let Some((key, data)) = cursor.item() {
        out.push((key, data.to_vec()));
        cursor.next().unwrap();
    }
    out
}

/// Rewrites the leaf that has `key` with a checksum that fits: `change` gets the block and where in
/// it are the item's head and data.
fn edit(
    image: &MemDevice,
    tree: u64,
    key: &Key,
    change: impl FnOnce(&mut [u8], usize, Range<usize>),
) {
    let fs = open(Arc::new(image.clone(), GFP_KERNEL).unwrap()).unwrap();
    let reader = fs.reader().unwrap();
    let mut cursor = reader.cursor(reader.root(tree).unwrap());
    assert!(cursor.seek(key).unwrap(), "no {key} in tree {tree}");
    let leaf = cursor.node_at(0).unwrap();
    let mut bytes = leaf.bytes().to_vec();
    let head = HEADER_SIZE + cursor.slot_at(0) * ITEM_SIZE;
    let field = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let start = HEADER_SIZE + field(head + 17);
    let data = start..start + field(head + 21);
    change(&mut bytes, head, data);
    let sum = checksum(&bytes[32..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    let mirrors = fs
        .chunk_map()
        .mirrors(leaf.bytenr(), bytes.len() as u64)
        .unwrap();
    for physical in mirrors.iter() {
        image.copy_in(physical, &bytes);
    }
}

fn send_logged(image: &MemDevice, args: &SendArgs<'_>) -> (Result<Vec<u8>>, String) {
    let fs = open(Arc::new(image.clone(), GFP_KERNEL).unwrap()).unwrap();
    let (result, log) = kernel::log::capture(|| stream_of(&fs, args));
    (result, log.join("\n"))
}

/// An uncompressed extent of `tree`: its key, address, and size.
fn extents(reader: &Reader, tree: u64) -> Vec<(Key, FileExtentItem)> {
    let items = items(reader, tree).into_iter();
    items
        .filter(|(key, _)| key.typ == item_type::EXTENT_DATA)
        .filter_map(|(key, data)| Some((key, format::read::<FileExtentItem>(&data).ok()?)))
        .filter(|(_, item)| item.head.typ == TYPE_REG && item.disk_bytenr.get() != 0)
        .collect()
}

fn reader_of(image: &MemDevice) -> Reader {
    let fs = open(Arc::new(image.clone(), GFP_KERNEL).unwrap()).unwrap();
    fs.reader().unwrap()
}

#[test]
fn a_sector_that_does_not_match_its_checksum() {
    let image = volume();
    let wanted = richest();
    let reader = reader_of(&image);
    let (_, extent) = extents(&reader, wanted.root)[0];
    let at = extent.disk_bytenr.get();
    let physical = reader.fs().chunk_map().mirrors(at, 4096).unwrap().first();
    image.flip(physical + 5);
    let (result, log) = send_logged(&image, &wanted.args());
    assert_eq!(result, Err(EIO), "{log}");
    assert!(log.contains("csum failed root"), "{log}");
    assert!(log.contains("send: IO error at offset"), "{log}");
    // Without data nobody looks.
    let args = SendArgs {
        flags: flags::NO_FILE_DATA,
        ..wanted.args()
    };
    assert!(send_logged(&image, &args).0.is_ok());
}

#[test]
fn references_that_do_not_add_up_mean_data_instead_of_a_clone() {
    let image = volume();
    let plain = recorded();
    let wanted = plain
        .iter()
        .filter(|stream| stream.clones.is_empty() && stream.flags == 0)
        .max_by_key(|stream| stream.root)
        .unwrap();
    let clones = |stream: &[u8]| {
        let mut rest = &stream[17..];
        let mut count = 0;
        while let Some((head, tail)) = rest.split_at_checked(10) {
            count += usize::from(head[4] == 16);
            rest = &tail[u32::from_le_bytes(head[..4].try_into().unwrap()) as usize..];
        }
        count
    };
    let (good, _) = send_logged(&image, &wanted.args());
    let before = clones(&good.unwrap());
    assert!(before > 0);
    for (key, data) in items(&reader_of(&image), tree_id::EXTENT) {
        // Data extents with several references, which are the ones that clones come from.
        if key.typ == item_type::EXTENT_ITEM && data[16] == 1 && data[0] > 1 {
            edit(&image, tree_id::EXTENT, &key, |bytes, _, data| {
                bytes[data.start] += 1
            });
        }
    }
    let (result, log) = send_logged(&image, &wanted.args());
    assert!(log.contains("sending its data"), "{log}");
    assert_eq!(clones(&result.unwrap()), 0);
}

#[test]
fn an_inode_whose_item_is_not_there() {
    let wanted = richest();
    let image = volume();
    let reader = reader_of(&image);
    let (key, _) = items(&reader, wanted.root)
        .into_iter()
        .find(|(key, _)| key.typ == item_type::INODE_REF && key.objectid > 256)
        .unwrap();
    // The inode item becomes one of the inode before, after whose own it sorts.
    let item = Key::new(key.objectid, item_type::INODE_ITEM, 0);
    edit(&image, wanted.root, &item, |bytes, head, _| {
        bytes[head..head + 8].copy_from_slice(&(key.objectid - 1).to_le_bytes());
        bytes[head + 8] = 200;
    });
    let (result, log) = send_logged(&image, &wanted.args());
    assert!(
        matches!(result, Err(EIO | EUCLEAN | ENOENT)),
        "{result:?} {log}"
    );
    assert!(log.contains("BTRFS"), "{log}");
}

#[test]
fn directories_in_a_circle() {
    let wanted = richest();
    let image = volume();
    let reader = reader_of(&image);
    let all = items(&reader, wanted.root);
    let entries = |dir: u64| {
        let of_dir = move |(key, _): &&(Key, Vec<u8>)| key.is(dir, item_type::DIR_INDEX);
        all.iter().filter(of_dir)
    };
    // A directory above another one with a higher number that something is in.
    let (upper, lower) = all
        .iter()
        .filter(|(key, data)| key.typ == item_type::DIR_INDEX && data[29] == 2 && data[8] == 1)
        .map(|(key, data)| {
            (
                key.objectid,
                u64::from_le_bytes(data[..8].try_into().unwrap()),
            )
        })
        .find(|(upper, lower)| *upper > 256 && upper < lower && entries(*lower).count() > 0)
        .unwrap();
    let (name, _) = all
        .iter()
        .find(|(key, _)| key.is(upper, item_type::INODE_REF))
        .unwrap();
    edit(&image, wanted.root, name, |bytes, head, _| {
        bytes[head + 9..head + 17].copy_from_slice(&lower.to_le_bytes());
    });
    let (result, log) = send_logged(&image, &wanted.args());
    assert_eq!(result, Err(ENAMETOOLONG), "{log}");
    assert!(log.contains("Send: inconsistent snapshot"), "{log}");
}

#[test]
fn a_name_with_a_slash() {
    let wanted = richest();
    let image = volume();
    let reader = reader_of(&image);
    let (key, _) = items(&reader, wanted.root)
        .into_iter()
        .rfind(|(key, _)| key.typ == item_type::INODE_REF)
        .unwrap();
    edit(&image, wanted.root, &key, |bytes, _, data| {
        bytes[data.end - 1] = b'/'
    });
    let (result, log) = send_logged(&image, &wanted.args());
    assert_eq!(result, Err(EUCLEAN), "{log}");
    assert!(log.contains("BTRFS"), "{log}");
}
