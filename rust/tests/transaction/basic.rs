// SPDX-License-Identifier: GPL-2.0
//! Growing, shrinking, copying and sharing trees, and transactions that are given up.

use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::format::tree_id;
use rbtrfs_engine::format::Key;
use rbtrfs_engine::trans::transaction::Reserve;
use rbtrfs_engine::tree::{edit, Nodes};
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::RecordingDevice;

#[test]
fn an_empty_transaction_writes_nothing() {
    let scratch = Scratch::new("empty");
    let device = share(RecordingDevice::new(make_mem(&scratch, &[])));
    let fs = open(&device).unwrap();
    let before = fs.reader().unwrap().generation();
    begin(&fs).commit().unwrap();
    drop(begin(&fs));
    begin(&fs).cancel();
    assert_eq!(fs.reader().unwrap().generation(), before);
    assert!(device.events().is_empty());
}

#[test]
fn every_leaf_of_every_tree_can_move() {
    for kind in KINDS {
        let scratch = Scratch::new("cow");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        let before = fs.reader().unwrap().generation();
        for round in 1..=5 {
            cow_everything(&fs);
            assert_eq!(fs.reader().unwrap().generation(), before + round);
            scratch.assert_clean(&device);
        }
        drop(fs);
        // A new mount reads what was written.
        let fs = open(&device).unwrap();
        assert_eq!(fs.reader().unwrap().generation(), before + 5);
        cow_everything(&fs);
        drop(fs);
        scratch.assert_clean(&device);
    }
}

#[test]
fn trees_grow_and_shrink() {
    for kind in KINDS {
        let scratch = Scratch::new("grow");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        const ITEMS: u64 = 3000;
        for part in 0..6 {
            let mut trans = begin(&fs);
            for n in (0..ITEMS).filter(|n| n * 7 % 6 == part) {
                let len = (n * 37 % 300) as usize;
                edit::insert(&mut trans, tree_id::ROOT, &key(n), &vec![n as u8; len]).unwrap();
            }
            trans.commit().unwrap();
        }
        scratch.assert_clean(&device);
        {
            let reader = fs.reader().unwrap();
            let mut cursor = reader.cursor(reader.root(tree_id::ROOT).unwrap());
            cursor.seek(&key(0)).unwrap();
            for n in 0..ITEMS {
                let (found, data) = cursor.item().unwrap();
                assert_eq!(found, key(n));
                assert_eq!(data, &vec![n as u8; (n * 37 % 300) as usize][..]);
                cursor.next().unwrap();
            }
        }
        for part in 0..4 {
            let mut trans = begin(&fs);
            for n in (0..ITEMS).filter(|n| n * 5 % 4 == part) {
                edit::delete(&mut trans, tree_id::ROOT, &key(n)).unwrap();
            }
            trans.commit().unwrap();
        }
        drop(fs);
        scratch.assert_clean(&device);
    }
}

#[test]
fn a_hundred_transactions_reuse_what_they_free() {
    let scratch = Scratch::new("hundred");
    let device = share(make_mem(&scratch, &["-n", "4096"]));
    let fs = open(&device).unwrap();
    let used = fs.reader().unwrap().superblock().bytes_used.get();
    for n in 0..100 {
        let mut trans = begin(&fs);
        for i in 0..50 {
            edit::insert(&mut trans, tree_id::ROOT, &key(n * 50 + i), &[7; 100]).unwrap();
        }
        if n > 0 {
            for i in 0..50 {
                edit::delete(&mut trans, tree_id::ROOT, &key((n - 1) * 50 + i)).unwrap();
            }
        }
        trans.commit().unwrap();
    }
    let now = fs.reader().unwrap().superblock().bytes_used.get();
    assert!(now < used + (64 << 12), "{used} bytes used became {now}");
    drop(fs);
    scratch.assert_clean(&device);
}

#[test]
fn a_reader_keeps_what_it_sees() {
    let scratch = Scratch::new("reader");
    let device = share(make_mem(&scratch, &["-n", "4096"]));
    let fs = open(&device).unwrap();
    let reader = fs.reader().unwrap();
    let before = leaves(&fs, tree_id::FS);
    for _ in 0..20 {
        cow_everything(&fs);
    }
    fs.cache.shrink(0);
    // Read from the device again: nothing of the old commit was overwritten.
    let mut stack = vec![reader.root(tree_id::FS).unwrap().into()];
    let mut found = vec![];
    while let Some(ptr) = stack.pop() {
        let node = reader.node(&ptr).unwrap();
        if node.is_leaf() {
            found.push(node.key(0).unwrap());
            continue;
        }
        for slot in 0..node.nritems() as usize {
            stack.push(node.child_ptr(slot, tree_id::FS).unwrap());
        }
    }
    assert_eq!(found, before);
    drop(reader);
    cow_everything(&fs);
    drop(fs);
    scratch.assert_clean(&device);
}

#[test]
fn cancel_leaves_no_trace_and_writing_goes_on() {
    let scratch = Scratch::new("cancel");
    let device = share(RecordingDevice::new(make_mem(&scratch, &["-n", "4096"])));
    let fs = open(&device).unwrap();
    for n in 0..3 {
        let before = device.events().len();
        let mut trans = begin(&fs);
        for i in 10..200 {
            edit::insert(&mut trans, tree_id::ROOT, &key(i), &[1; 200]).unwrap();
        }
        trans.cancel();
        assert_eq!(device.events().len(), before);
        let mut trans = begin(&fs);
        edit::insert(&mut trans, tree_id::ROOT, &key(n), &[1; 200]).unwrap();
        trans.commit().unwrap();
        scratch.assert_clean(&device.image());
    }
}

#[test]
fn lack_of_space_is_found_before_the_commit() {
    for kind in [
        &["-b", "64M", "-n", "4096", "-m", "single"][..],
        &["-b", "128M", "-m", "dup"],
    ] {
        let scratch = Scratch::new("full");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        let max = edit::max_item_size(&fs.geometry).min(3000);
        let mut n = 0;
        let mut step = 1000;
        // Smaller and smaller transactions, until not even one item finds space.
        while step > 0 {
            let inserted = fs.begin(Reserve::default()).and_then(|mut trans| {
                for i in 0..step {
                    let done = edit::insert(&mut trans, tree_id::ROOT, &key(n + i), &vec![7; max]);
                    if let Err(e) = done {
                        trans.cancel();
                        return Err(e);
                    }
                }
                Ok(trans)
            });
            match inserted {
                Ok(trans) => {
                    trans.commit().unwrap();
                    n += step;
                }
                Err(e) => {
                    assert_eq!(e, ENOSPC);
                    step /= 2;
                }
            }
        }
        assert!(n > 1000);
        scratch.assert_clean(&device);
        // What was filled can be emptied again.
        let freeing = Reserve {
            freeing: true,
            ..Reserve::default()
        };
        for part in 0..n.div_ceil(200) {
            let mut trans = fs.begin(freeing).unwrap();
            for i in part * 200..n.min((part + 1) * 200) {
                edit::delete(&mut trans, tree_id::ROOT, &key(i)).unwrap();
            }
            trans.commit().unwrap();
        }
        scratch.assert_clean(&device);
    }
}

#[test]
fn drop_aborts_and_forces_read_only() {
    let scratch = Scratch::new("abort");
    let device = share(RecordingDevice::new(make_mem(&scratch, &[])));
    let fs = open(&device).unwrap();
    let mut trans = begin(&fs);
    edit::insert(&mut trans, tree_id::ROOT, &key(0), &[1; 200]).unwrap();
    drop(trans);
    assert!(device.events().is_empty());
    assert_eq!(fs.begin(Reserve::default()).err(), Some(EROFS));
    read_everything(&fs);
}

#[test]
fn snapshots_share_blocks_and_part_again() {
    for kind in KINDS {
        let scratch = Scratch::new("snapshot");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        for id in 256..260 {
            let mut trans = begin(&fs);
            snapshot(&mut trans, id, &format!("snapshot-{id}"));
            trans.commit().unwrap();
            scratch.assert_clean(&device);
            // Every other leaf of the source parts from the snapshots.
            let mut trans = begin(&fs);
            for key in leaves(&fs, tree_id::FS).iter().step_by(2) {
                edit::cow_to(&mut trans, tree_id::FS, key, 0).unwrap();
            }
            trans.commit().unwrap();
            scratch.assert_clean(&device);
        }
        // A snapshot that changes while others still hold its leaves, in another order each time.
        for id in [258, 256, tree_id::FS, 259, 257] {
            let mut trans = begin(&fs);
            for key in leaves(&fs, id).iter().rev().step_by(3) {
                edit::cow_to(&mut trans, id, key, 0).unwrap();
            }
            trans.commit().unwrap();
            scratch.assert_clean(&device);
        }
        for _ in 0..3 {
            cow_everything(&fs);
            scratch.assert_clean(&device);
        }
        drop(fs);
        let fs = open(&device).unwrap();
        assert!((256..260).all(|id| trees(&fs).contains(&id)));
    }
}

#[test]
fn a_snapshot_is_what_its_source_was_even_within_one_transaction() {
    let scratch = Scratch::new("within");
    let device = share(make_mem(&scratch, &["-n", "4096"]));
    let fs = open(&device).unwrap();
    let count = |fs: &Fs, tree| {
        let reader = fs.reader().unwrap();
        let mut cursor = reader.cursor(reader.root(tree).unwrap());
        cursor.seek(&Key::MIN).unwrap();
        let mut n = 0;
        while cursor.item().is_some() {
            n += 1;
            cursor.next().unwrap();
        }
        n
    };
    let before = count(&fs, tree_id::FS);
    let mut trans = begin(&fs);
    // Blocks of this very transaction come to be shared.
    for key in leaves(&fs, tree_id::FS) {
        edit::cow_to(&mut trans, tree_id::FS, &key, 0).unwrap();
    }
    snapshot(&mut trans, 256, "first");
    for key in leaves(&fs, tree_id::FS) {
        edit::cow_to(&mut trans, tree_id::FS, &key, 0).unwrap();
        edit::cow_to(&mut trans, 256, &key, 0).unwrap();
    }
    snapshot(&mut trans, 257, "second");
    for key in leaves(&fs, tree_id::FS).iter().step_by(2) {
        edit::cow_to(&mut trans, 257, key, 0).unwrap();
    }
    trans.commit().unwrap();
    scratch.assert_clean(&device);
    // Two entries in the source for each snapshot, of which the second one has those of the first.
    assert_eq!(count(&fs, tree_id::FS), before + 4);
    assert_eq!(count(&fs, 256), before);
    assert_eq!(count(&fs, 257), before + 2);
    cow_everything(&fs);
    drop(fs);
    scratch.assert_clean(&device);
}
