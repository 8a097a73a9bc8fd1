// SPDX-License-Identifier: GPL-2.0
//! References of data extents on real images: inline, in items of their own, shared, and back.

use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::extent::backref::{all_refs, find_extent};
use rbtrfs_engine::extent::refs::RefKind;
use rbtrfs_engine::format::file_extent::FileExtentItem;
use rbtrfs_engine::format::inode::InodeItem;
use rbtrfs_engine::format::{self, item_type, tree_id, Key};
use rbtrfs_engine::trans::transaction::Transaction;
use rbtrfs_engine::tree::edit;
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::corpus;
use std::vec::Vec;
use zerocopy::IntoBytes;

/// A file extent item of the top-level subvolume for a whole extent, and its key.
fn some_extent(fs: &Fs) -> (Key, FileExtentItem) {
    let reader = fs.reader().unwrap();
    let mut cursor = reader.cursor(reader.root(tree_id::FS).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    loop {
        let (key, bytes) = cursor.item().unwrap();
        if key.typ == item_type::EXTENT_DATA && bytes.len() == size_of::<FileExtentItem>() {
            return (key, format::read(bytes).unwrap());
        }
        cursor.next().unwrap();
    }
}

/// The inode numbers of the empty files.
fn empty_files(fs: &Fs) -> Vec<u64> {
    let reader = fs.reader().unwrap();
    let mut cursor = reader.cursor(reader.root(tree_id::FS).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    let mut found = vec![];
    while let Some((key, bytes)) = cursor.item() {
        if key.typ == item_type::INODE_ITEM {
            let item: InodeItem = format::read(bytes).unwrap();
            if item.size.get() == 0 && item.mode.get() & 0o170000 == 0o100000 {
                found.push(key.objectid);
            }
        }
        cursor.next().unwrap();
    }
    found
}

/// How often each of the empty files uses the extent in these tests.
const USES: u64 = 5;

/// Lets a file use an extent `USES` times, one after the other.
fn clone_into(trans: &mut Transaction<'_>, ino: u64, item: &FileExtentItem) {
    let len = item.num_bytes.get();
    for n in 0..USES {
        let key = Key::new(ino, item_type::EXTENT_DATA, n * len);
        edit::insert(trans, tree_id::FS, &key, item.as_bytes()).unwrap();
        let kind = RefKind::Data {
            root: tree_id::FS,
            ino,
            offset: n * len,
        };
        trans
            .add_ref(item.disk_bytenr.get(), item.disk_num_bytes.get(), kind, 1)
            .unwrap();
    }
    change_inode(trans, ino, |inode| {
        inode.size = (USES * len).into();
        inode.nbytes = (USES * len).into();
    });
}

/// Undoes [`clone_into`].
fn empty_again(trans: &mut Transaction<'_>, ino: u64, item: &FileExtentItem) {
    let len = item.num_bytes.get();
    for n in 0..USES {
        let key = Key::new(ino, item_type::EXTENT_DATA, n * len);
        edit::delete(trans, tree_id::FS, &key).unwrap();
        let kind = RefKind::Data {
            root: tree_id::FS,
            ino,
            offset: n * len,
        };
        trans
            .add_ref(item.disk_bytenr.get(), item.disk_num_bytes.get(), kind, -1)
            .unwrap();
    }
    change_inode(trans, ino, |inode| {
        inode.size = 0.into();
        inode.nbytes = 0.into();
    });
}

/// The number of holders of an extent, inline and all, and the sum of their counts.
fn holders(fs: &Fs, bytenr: u64) -> (usize, usize, u64) {
    let reader = fs.reader().unwrap();
    let root = reader.root(tree_id::EXTENT).unwrap();
    let found = find_extent(fs, &reader, root, bytenr).unwrap().unwrap();
    let all = all_refs(fs, &reader, root, &found).unwrap();
    (found.record.inline().len(), all.len(), found.record.refs)
}

#[test]
fn references_overflow_into_items_and_come_back() {
    for kind in KINDS {
        let scratch = Scratch::new("overflow");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        let (_, item) = some_extent(&fs);
        let bytenr = item.disk_bytenr.get();
        let files = empty_files(&fs);
        assert_eq!(files.len(), DIRS * FILES / 4);
        let before = holders(&fs, bytenr);
        for some in files.chunks(7) {
            let mut trans = begin(&fs);
            for &ino in some {
                clone_into(&mut trans, ino, &item);
            }
            trans.commit().unwrap();
        }
        scratch.assert_clean(&device);
        let (inline, all, refs) = holders(&fs, bytenr);
        assert_eq!(all, before.1 + files.len() * USES as usize);
        assert_eq!(refs, all as u64);
        assert!(inline < all, "no reference has an item of its own");

        // A snapshot shares the leaves, and parting makes references by leaves of them.
        let mut trans = begin(&fs);
        snapshot(&mut trans, 256, "snapshot");
        trans.commit().unwrap();
        for &ino in &files[..files.len() / 2] {
            let mut trans = begin(&fs);
            empty_again(&mut trans, ino, &item);
            trans.commit().unwrap();
        }
        scratch.assert_clean(&device);
        cow_everything(&fs);
        scratch.assert_clean(&device);
        for some in files[files.len() / 2..].chunks(9) {
            let mut trans = begin(&fs);
            for &ino in some.iter().rev() {
                empty_again(&mut trans, ino, &item);
            }
            trans.commit().unwrap();
        }
        scratch.assert_clean(&device);
    }
}

#[test]
fn the_last_reference_frees_data_and_checksums() {
    for kind in KINDS {
        let scratch = Scratch::new("free");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        let used = fs.reader().unwrap().superblock().bytes_used.get();
        let (key, item) = some_extent(&fs);
        let mut trans = begin(&fs);
        edit::delete(&mut trans, tree_id::FS, &key).unwrap();
        let kind = RefKind::Data {
            root: tree_id::FS,
            ino: key.objectid,
            offset: key.offset,
        };
        trans
            .add_ref(item.disk_bytenr.get(), item.disk_num_bytes.get(), kind, -1)
            .unwrap();
        change_inode(&mut trans, key.objectid, |inode| {
            let left = inode.nbytes.get() - item.num_bytes.get();
            inode.nbytes = left.into();
            inode.size = left.into();
        });
        trans.commit().unwrap();
        scratch.assert_clean(&device);
        let now = fs.reader().unwrap().superblock().bytes_used.get();
        assert_eq!(now, used - item.disk_num_bytes.get());
    }
}

#[test]
fn a_reference_that_is_not_there_aborts() {
    let scratch = Scratch::new("missing");
    let device = share(make_mem(&scratch, &[]));
    let fs = open(&device).unwrap();
    let (key, item) = some_extent(&fs);
    let before = fs.reader().unwrap().generation();
    let mut trans = begin(&fs);
    let kind = RefKind::Data {
        root: tree_id::FS,
        ino: key.objectid + 100_000,
        offset: 0,
    };
    trans
        .add_ref(item.disk_bytenr.get(), item.disk_num_bytes.get(), kind, -1)
        .unwrap();
    let (result, log) = kernel::log::capture(|| trans.commit());
    assert_eq!(result, Err(EUCLEAN));
    let expected = format!(
        "unable to find ref byte nr {} parent 0 root 5 owner {} offset 0",
        item.disk_bytenr.get(),
        key.objectid + 100_000
    );
    assert!(log.iter().any(|line| line.contains(&expected)), "{log:?}");
    assert!(fs.is_read_only());
    assert_eq!(fs.reader().unwrap().generation(), before);
    scratch.assert_clean(&device);
}

/// Volumes with every shape of reference that the C driver makes.
#[test]
fn every_shape_of_reference_survives_copying() {
    let Some(images) = corpus::images("fsck") else {
        return;
    };
    let scratch = Scratch::new("shapes");
    let mut done = 0;
    for path in images {
        let image = scratch.path("image");
        corpus::unpack(&path, &image);
        if check(&image).is_err() {
            continue;
        }
        let Ok(mem) = rbtrfs_testdev::MemDevice::from_file(&image) else {
            continue;
        };
        let device = share(mem);
        let Ok(fs) = open(&device) else {
            continue;
        };
        match fs.begin(Default::default()) {
            Ok(trans) => drop(trans),
            Err(e) => {
                eprintln!("{}: not writable: {e:?}", path.display());
                continue;
            }
        }
        for _ in 0..3 {
            cow_everything(&fs);
        }
        if let Err(text) = scratch.check(&device) {
            panic!("{}: {text}", path.display());
        }
        eprintln!("{}: fine", path.display());
        done += 1;
    }
    assert!(done >= 20, "only {done} images could be used");
}
