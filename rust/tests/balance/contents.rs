// SPDX-License-Identifier: GPL-2.0
//! What balance must not change, balance itself as these tests start it, and the volumes of `rust/tests/images`.

use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::balance::relocate::relocate_block_group;
use rbtrfs_engine::format::chunk::block_group_flags as flags;
use rbtrfs_engine::format::inode::InodeItem;
use rbtrfs_engine::format::root::RootItem;
use rbtrfs_engine::format::{self, item_type, tree_id, Key};
use rbtrfs_engine::subvol::data::read_file;
use rbtrfs_engine::volume::space::SpaceContext;
use rbtrfs_engine::volume::transaction::{Reserve, Transaction};
use rbtrfs_engine::volume::{Fs, Reader};
use rbtrfs_testdev::MemDevice;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::vec::Vec;

pub const EVERYTHING: u64 = flags::DATA | flags::METADATA | flags::SYSTEM;

/// Relocates the block groups that are there now and hold one of `kinds`, the last one first.
pub fn balance_with(fs: &Fs, kinds: u64, check: &dyn Fn() -> Result) -> Result {
    for start in block_groups(fs, kinds)?.into_iter().rev() {
        relocate_block_group(fs, start, check)?;
    }
    Ok(())
}

/// The block groups that are there now and hold one of `kinds`. Removed ones, whose addresses readers may still use,
/// do not count.
pub fn block_groups(fs: &Fs, kinds: u64) -> Result<Vec<u64>> {
    let trans = fs.begin(Reserve::default())?;
    let groups = trans.space().block_groups().iter();
    Ok(groups
        .filter(|group| group.flags & kinds != 0)
        .map(|group| group.start)
        .collect())
}

pub fn balance(fs: &Fs, kinds: u64) -> Result {
    balance_with(fs, kinds, &|| Ok(()))
}

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

/// One number for each subvolume that stands for all that is in it: items, and what can be read from its files.
/// Addresses on the disk do not count.
pub fn contents(reader: &Reader) -> Result<Vec<(u64, u64)>> {
    let mut all = vec![];
    let mut buf = vec![0; 2 << 20];
    for id in subvolumes(reader) {
        let root = reader.root(id)?;
        let mut hasher = DefaultHasher::new();
        let mut cursor = reader.cursor(root);
        cursor.seek(&Key::MIN)?;
        while let Some((key, bytes)) = cursor.item() {
            (key.objectid, key.typ, key.offset).hash(&mut hasher);
            if key.typ == item_type::EXTENT_DATA && bytes.len() == 53 && bytes[20] != 0 {
                bytes[..21].hash(&mut hasher);
                bytes[29..].hash(&mut hasher);
            } else {
                bytes.hash(&mut hasher);
            }
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

/// A volume of `rust/tests/images`. Where there is no `xz` the test says so, and has to do without.
pub fn packed(name: &str) -> Option<MemDevice> {
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
        .status();
    let Ok(status) = status else {
        eprintln!("SKIP: xz is not installed");
        return None;
    };
    assert!(status.success(), "xz -dc {path:?}");
    Some(MemDevice::from_file(&unpacked).unwrap())
}

/// A small volume with two snapshots, which the subvolume has parted from since, so that there are full back
/// references, by blocks and by leaves.
pub fn small(scratch: &Scratch, options: &[&str]) -> MemDevice {
    let device = share(make_mem(scratch, options));
    let fs = open(&device).unwrap();
    for id in [256, 257] {
        let mut trans = begin(&fs);
        snapshot(&mut trans, id, &format!("snapshot-{id}"));
        trans.commit().unwrap();
        touch(&fs, tree_id::FS, 7 + id as usize);
    }
    drop(fs);
    (*device).clone()
}

/// Changes every `nth` inode of a subvolume a little.
pub fn touch(fs: &Fs, tree: u64, nth: usize) {
    let mut trans = begin(fs);
    touch_in(&mut trans, tree, nth);
    trans.commit().unwrap();
}

/// As [`touch`], in a transaction that goes on.
pub fn touch_in(trans: &mut Transaction<'_>, tree: u64, nth: usize) {
    let reader = trans.fs().reader().unwrap();
    let mut cursor = reader.cursor(reader.root(tree).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    let mut seen = 0;
    while let Some(key) = cursor.key() {
        if key.typ == item_type::INODE_ITEM {
            seen += 1;
            if seen % nth == 0 {
                rbtrfs_engine::tree::edit::update_in_place(trans, tree, &key, |bytes| {
                    // The inode's sequence number, which nobody checks.
                    bytes[72] = bytes[72].wrapping_add(1);
                    Ok(())
                })
                .unwrap();
            }
        }
        cursor.next().unwrap();
    }
}

/// Whether a volume still takes changes.
#[track_caller]
pub fn assert_writable(fs: &Fs) {
    assert!(!fs.is_read_only());
    let mut trans = begin(fs);
    trans
        .update_root_item(tree_id::FS, |item| {
            item.rtransid = 0.into();
            Ok(())
        })
        .unwrap();
    trans.commit().unwrap();
}
