// SPDX-License-Identifier: GPL-2.0
//! Which extents count as shared, against all places of all subvolumes that have them.

use rbtrfs_engine::backref::sharing::Sharing;
use rbtrfs_engine::format::root::RootItem;
use rbtrfs_engine::format::{item_type, tree_id, Key};
use rbtrfs_engine::subvol::file_extent::{self, Extent, Kind};
use rbtrfs_engine::trans::Reader;
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::MemDevice;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::vec::Vec;

/// A volume of `tests/images`; `None` where there is no `xz`.
fn packed(name: &str) -> Option<MemDevice> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/images/{name}.img.xz"));
    let Ok(output) = Command::new("xz").arg("-dc").arg(&path).output() else {
        eprintln!("SKIP: xz is not installed");
        return None;
    };
    assert!(output.status.success(), "xz -dc {path:?}");
    let unpacked = std::env::temp_dir().join(format!("rbtrfs-{name}-{}", std::process::id()));
    std::fs::File::create(&unpacked)
        .unwrap()
        .write_all(&output.stdout)
        .unwrap();
    let device = MemDevice::from_file(&unpacked).unwrap();
    std::fs::remove_file(&unpacked).unwrap();
    Some(device)
}

fn subvolumes(reader: &Reader) -> Vec<u64> {
    let mut cursor = reader.cursor(reader.root(tree_id::ROOT).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    let mut ids = vec![];
    while let Some((key, bytes)) = cursor.item() {
        if key.typ == item_type::ROOT_ITEM && tree_id::is_fs_tree(key.objectid) {
            assert_ne!(RootItem::parse(bytes).unwrap().refs.get(), 0);
            ids.push(key.objectid);
        }
        cursor.next().unwrap();
    }
    ids
}

/// Calls `each` with every part of every file of a subvolume.
fn for_each_part(reader: &Reader, tree: u64, each: &mut dyn FnMut(u64, &Extent<'_>)) {
    let root = reader.root(tree).unwrap();
    let sectorsize = reader.fs().geometry.sectorsize;
    let mut cursor = reader.cursor(root);
    cursor.seek(&Key::MIN).unwrap();
    while let Some((key, bytes)) = cursor.item() {
        if key.typ == item_type::EXTENT_DATA {
            each(
                key.objectid,
                &file_extent::parse(&key, bytes, sectorsize).unwrap(),
            );
        }
        cursor.next().unwrap();
    }
}

/// The extent of a part, and the file offset that its first byte would have.
fn place(part: &Extent<'_>) -> Option<(u64, u64)> {
    match part.kind {
        Kind::Regular(extent) | Kind::Prealloc(extent) => Some((
            extent.disk_bytenr,
            part.offset.wrapping_sub(extent.extent_offset),
        )),
        _ => None,
    }
}

fn compare(name: &str) {
    let Some(device) = packed(name) else {
        return;
    };
    let device = kernel::sync::Arc::new(device, kernel::prelude::GFP_KERNEL).unwrap();
    let options = OpenOptions {
        read_only: true,
        ..OpenOptions::default()
    };
    let fs = Fs::open(device, &options).unwrap();
    let reader = fs.reader().unwrap();
    let mut places: BTreeMap<u64, BTreeSet<(u64, u64, u64)>> = BTreeMap::new();
    for tree in subvolumes(&reader) {
        for_each_part(&reader, tree, &mut |ino, part| {
            if let Some((bytenr, start)) = place(part) {
                places.entry(bytenr).or_default().insert((tree, ino, start));
            }
        });
    }
    let mut counts = [0u32; 2];
    for tree in subvolumes(&reader) {
        let root = reader.root(tree).unwrap();
        let mut files: BTreeMap<u64, Sharing<'_, Reader>> = BTreeMap::new();
        for_each_part(&reader, tree, &mut |ino, part| {
            let sharing = files
                .entry(ino)
                .or_insert_with(|| Sharing::new(&reader, root, ino).unwrap());
            let expected = place(part).is_some_and(|(bytenr, _)| places[&bytenr].len() > 1);
            let shared = place(part).is_some_and(|(bytenr, _)| {
                let found = sharing.is_shared(bytenr, part.generation, part.offset);
                found.unwrap()
            });
            assert_eq!(shared, expected, "tree {tree} ino {ino} {part:?}");
            counts[usize::from(expected)] += 1;
        });
    }
    assert!(counts.iter().all(|count| *count > 5), "{counts:?}");
}

#[test]
fn parts_of_extents_in_several_places() {
    compare("extents");
}

#[test]
fn many_snapshots() {
    compare("snapshots");
}
