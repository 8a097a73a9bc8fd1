// SPDX-License-Identifier: GPL-2.0
//! The volumes of `rust/tests/images`, and what is in a volume.

use super::Scratch;
use kernel::prelude::*;
use rbtrfs_engine::format::inode::InodeItem;
use rbtrfs_engine::format::root::RootItem;
use rbtrfs_engine::format::{self, item_type, tree_id, Key};
use rbtrfs_engine::subvol::data::read_file;
use rbtrfs_engine::trans::Reader;
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::MemDevice;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::vec::Vec;

/// The subvolumes, but for those that are being deleted.
pub fn subvolumes(reader: &Reader) -> Vec<u64> {
    let mut cursor = reader.cursor(reader.root(tree_id::ROOT).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    let mut ids = vec![];
    while let Some((key, bytes)) = cursor.item() {
        let is_root = key.typ == item_type::ROOT_ITEM && tree_id::is_fs_tree(key.objectid);
        if is_root && RootItem::parse(bytes).unwrap().refs.get() > 0 {
            ids.push(key.objectid);
        }
        cursor.next().unwrap();
    }
    ids
}

/// Takes an item of a subvolume in, but for where data is on the disk.
pub fn hash_item(hasher: &mut DefaultHasher, key: &Key, bytes: &[u8]) {
    (key.objectid, key.typ, key.offset).hash(hasher);
    if key.typ == item_type::EXTENT_DATA && bytes.len() == 53 && bytes[20] != 0 {
        bytes[..21].hash(hasher);
        bytes[29..].hash(hasher);
    } else {
        bytes.hash(hasher);
    }
}

/// One number for each subvolume that stands for all that is in it: items, and what can be read
/// from its files. Addresses on the disk do not count.
pub fn contents(reader: &Reader) -> Result<Vec<(u64, u64)>> {
    let mut all = vec![];
    let mut buf = vec![0; 2 << 20];
    for id in subvolumes(reader) {
        let root = reader.root(id)?;
        let mut hasher = DefaultHasher::new();
        let mut cursor = reader.cursor(root);
        cursor.seek(&Key::MIN)?;
        while let Some((key, bytes)) = cursor.item() {
            hash_item(&mut hasher, &key, bytes);
            if key.typ == item_type::INODE_ITEM {
                let item: InodeItem = format::read(bytes)?;
                if item.mode.get() & 0o170000 == 0o100000 {
                    let len = read_file(reader, root, key.objectid, 0, &mut buf)?;
                    assert!(len < buf.len());
                    buf[..len].hash(&mut hasher);
                }
            }
            cursor.next()?;
        }
        all.push((id, hasher.finish()));
    }
    Ok(all)
}

pub fn contents_now(fs: &Fs) -> Vec<(u64, u64)> {
    contents(&fs.reader().unwrap()).unwrap()
}

/// A volume of `rust/tests/images`.
pub fn packed(name: &str) -> MemDevice {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/images/{name}.img.xz"));
    assert!(path.exists(), "{path:?} is part of the sources");
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let scratch = Scratch::new(&format!("packed-{n}"));
    let unpacked = scratch.path("image");
    let status = Command::new("xz")
        .arg("-dc")
        .arg(&path)
        .stdout(Stdio::from(std::fs::File::create(&unpacked).unwrap()))
        .status()
        .expect("these tests need xz");
    assert!(status.success(), "xz -dc {path:?}");
    MemDevice::from_file(&unpacked).unwrap()
}
