// SPDX-License-Identifier: GPL-2.0
//! Opening and walking real volumes.

mod images;

use images::{device, make, make_in_memory, Scratch};
use kernel::prelude::*;
use kernel::sync::Arc;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_engine::format::{item_type, tree_id, Key};
use rbtrfs_engine::trans::Reader;
use rbtrfs_engine::tree::check::check_tree;
use rbtrfs_engine::tree::{NodePtr, Nodes, TreeRoot};
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::{FaultDevice, FileDevice, Op};
use std::collections::BTreeMap;
use std::process::Command;
use std::string::String;
use std::vec::Vec;

const VARIANTS: &[&[&str]] = &[
    &["-n", "4096", "-m", "single"],
    &["-n", "4096", "-m", "dup", "-d", "dup"],
    &["-n", "16384", "-m", "dup"],
    &["-n", "16384", "-m", "single", "-O", "^no-holes"],
    &["-n", "65536", "-m", "dup", "-O", "block-group-tree"],
    &["-n", "4096", "-O", "block-group-tree,^extref"],
    &["-n", "16384", "-R", "^free-space-tree"],
    &["-n", "4096", "-O", "^skinny-metadata"],
];

fn read_only() -> OpenOptions {
    OpenOptions {
        read_only: true,
        ..OpenOptions::default()
    }
}

fn open(device: Arc<dyn BlockDevice>) -> Result<Arc<Fs>> {
    Fs::open(device, &read_only())
}

/// All trees: those of the superblock, and those with root items.
fn trees(reader: &Reader) -> Result<Vec<u64>> {
    let mut ids = vec![tree_id::ROOT, tree_id::CHUNK];
    let mut cursor = reader.cursor(reader.root(tree_id::ROOT)?);
    cursor.seek(&Key::MIN)?;
    while let Some((key, _)) = cursor.item() {
        if key.typ == item_type::ROOT_ITEM {
            ids.push(key.objectid);
        }
        cursor.next()?;
    }
    Ok(ids)
}

fn keys(reader: &Reader, root: TreeRoot) -> Result<Vec<Key>> {
    let mut keys = Vec::new();
    let mut cursor = reader.cursor(root).with_readahead();
    cursor.seek(&Key::MIN)?;
    while let Some((key, _)) = cursor.item() {
        keys.push(key);
        cursor.next()?;
    }
    Ok(keys)
}

/// The number of items of each tree, by `btrfs inspect-internal dump-tree`.
fn dumped_items(image: &std::path::Path) -> BTreeMap<u64, usize> {
    let output = Command::new("btrfs")
        .args(["inspect-internal", "dump-tree"])
        .arg(image)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut counts = BTreeMap::new();
    let mut owner = 0;
    for line in text.lines() {
        if line.starts_with("leaf ") && !line.starts_with("leaf backref") {
            if let Some((_, name)) = line.split_once("owner ") {
                owner = match name.trim() {
                    "ROOT_TREE" => tree_id::ROOT,
                    "EXTENT_TREE" => tree_id::EXTENT,
                    "CHUNK_TREE" => tree_id::CHUNK,
                    "DEV_TREE" => tree_id::DEV,
                    "FS_TREE" => tree_id::FS,
                    "CSUM_TREE" => tree_id::CSUM,
                    "UUID_TREE" => tree_id::UUID,
                    "FREE_SPACE_TREE" => tree_id::FREE_SPACE,
                    "BLOCK_GROUP_TREE" => tree_id::BLOCK_GROUP,
                    "DATA_RELOC_TREE" => tree_id::DATA_RELOC,
                    other => panic!("a tree without a name here: {other}"),
                };
            }
        } else if line.starts_with("\titem ") && line.contains(" key (") {
            *counts.entry(owner).or_insert(0) += 1;
        }
    }
    counts
}

#[test]
fn every_item_of_every_tree_is_found() {
    for options in VARIANTS {
        let scratch = Scratch::new();
        let image = make(&scratch, options);
        let fs = open(device(FileDevice::open(&image, false).unwrap())).unwrap();
        let reader = fs.reader().unwrap();
        let mut found = BTreeMap::new();
        for id in trees(&reader).unwrap() {
            let root = reader.root(id).unwrap();
            let keys = keys(&reader, root).unwrap();
            let summary = check_tree(&reader, root, reader.generation(), &mut |problem| {
                panic!("{options:?}: {problem}")
            })
            .unwrap();
            assert_eq!(summary.items, keys.len() as u64, "{options:?} tree {id}");
            if !keys.is_empty() {
                found.insert(id, keys.len());
            }
        }
        assert!(found[&tree_id::FS] > 1000);
        assert_eq!(found, dumped_items(&image), "{options:?}");
    }
}

#[test]
fn seeks_land_where_they_should() {
    let image = make_in_memory(&["-n", "4096"]);
    let fs = open(device(image)).unwrap();
    let reader = fs.reader().unwrap();
    let root = reader.root(tree_id::FS).unwrap();
    assert!(root.level >= 2, "a tree worth the name");
    let keys = keys(&reader, root).unwrap();
    let mut cursor = reader.cursor(root);
    for (i, key) in keys.iter().enumerate() {
        assert!(cursor.seek(key).unwrap());
        assert_eq!(cursor.key(), Some(*key));
        let above = key.successor().unwrap();
        let exact = cursor.seek(&above).unwrap();
        assert_eq!(exact, keys.get(i + 1) == Some(&above));
        assert_eq!(cursor.key(), keys.get(i + 1).copied());
        assert!(cursor.seek_before(&above).unwrap());
        let expected = if exact { above } else { *key };
        assert_eq!(cursor.key(), Some(expected));
        let below = key.predecessor().unwrap();
        let before = keys.get(..=i).unwrap().iter().rfind(|k| **k <= below);
        assert_eq!(cursor.seek_before(&below).unwrap(), before.is_some());
        assert_eq!(cursor.key(), before.copied());
    }
    // From after the end back to the start, and once more past the start.
    assert!(!cursor.seek(&Key::MAX).unwrap());
    assert!(cursor.item().is_none());
    for key in keys.iter().rev() {
        assert!(cursor.prev().unwrap());
        assert_eq!(cursor.key(), Some(*key));
    }
    assert!(!cursor.prev().unwrap());
    assert!(cursor.item().is_none());
    // A cursor after the last item turns back, also after it was asked to go on twice.
    cursor.seek(keys.last().unwrap()).unwrap();
    assert!(!cursor.next().unwrap() && !cursor.next().unwrap());
    assert!(cursor.prev().unwrap());
    assert_eq!(cursor.key(), keys.last().copied());
}

#[test]
fn a_tree_that_is_not_there() {
    let image = make_in_memory(&[]);
    let fs = open(device(image)).unwrap();
    let reader = fs.reader().unwrap();
    assert_eq!(reader.root(4711).unwrap_err(), ENOENT);
    assert_eq!(reader.root(tree_id::QUOTA).unwrap_err(), ENOENT);
    assert_eq!(reader.root(tree_id::FS), reader.root(tree_id::FS));
    let item = reader.root_item(tree_id::FS).unwrap();
    assert_eq!(item.root_dirid.get(), 256);
}

#[test]
fn the_cache_stays_within_its_bounds() {
    let image = make_in_memory(&["-n", "4096"]);
    let options = OpenOptions {
        cache_bytes: 512 << 10,
        ..read_only()
    };
    let fs = Fs::open(device(image), &options).unwrap();
    let reader = fs.reader().unwrap();
    for id in trees(&reader).unwrap() {
        keys(&reader, reader.root(id).unwrap()).unwrap();
        assert!(fs.cache.bytes() <= options.cache_bytes);
    }
    assert!(fs.cache.len() > 16);
    let (bytes, nodes) = (fs.cache.bytes(), fs.cache.len());
    assert_eq!(fs.cache.shrink(bytes / 2) > 0, fs.cache.bytes() < bytes);
    let left = fs.cache.len();
    assert!(left < nodes && left > 0);
    let evicted = fs.cache.reclaim(5);
    assert!((1..=16).contains(&evicted));
    assert_eq!(fs.cache.len(), left - evicted);
    fs.cache.shrink(0);
    assert!(fs.cache.is_empty() && fs.cache.bytes() == 0);
    // What was evicted is read again.
    assert!(!keys(&reader, reader.root(tree_id::FS).unwrap())
        .unwrap()
        .is_empty());
}

#[test]
fn a_cached_node_is_held_against_each_pointer() {
    let image = make_in_memory(&["-m", "dup"]);
    let fs = open(device(image)).unwrap();
    let reader = fs.reader().unwrap();
    let root = reader.root(tree_id::FS).unwrap();
    let good = NodePtr::from(root);
    reader.node(&good).unwrap();
    let expect = |ptr: NodePtr, errno: Error, text: &str| {
        let (result, log) = kernel::log::capture(|| reader.node(&ptr).map(|_| ()));
        assert_eq!(result, Err(errno));
        let matching = log.iter().filter(|line| line.contains(text));
        assert_eq!(matching.count(), 2, "one line for each mirror: {log:?}");
    };
    let generation = good.generation + 3;
    let text = format!(
        "BTRFS error (device mem): parent transid verify failed on logical {} mirror 2 wanted {} found {}",
        good.bytenr, generation, good.generation
    );
    let (_, log) = kernel::log::capture(|| reader.node(&NodePtr { generation, ..good }).is_ok());
    assert!(log.contains(&text), "{log:?}");
    let level = good.level + 1;
    expect(NodePtr { level, ..good }, EUCLEAN, "level verify failed");
    let tree = tree_id::CSUM;
    expect(NodePtr { tree, ..good }, EUCLEAN, "owner mismatch");
    let first_key = Some(Key::MAX);
    expect(NodePtr { first_key, ..good }, EUCLEAN, "first key mismatch");
    assert!(reader.node(&good).is_ok());
}

#[test]
fn nodes_are_read_once_and_ahead() {
    let image = make_in_memory(&["-n", "4096"]);
    let fault = Arc::new(FaultDevice::new(device(image)), GFP_KERNEL).unwrap();
    let fs = open(fault.clone()).unwrap();
    let reader = fs.reader().unwrap();
    let root = reader.root(tree_id::FS).unwrap();
    let summary = check_tree(&reader, root, u64::MAX, &mut |p| panic!("{p}")).unwrap();
    let nodes = summary.nodes + summary.leaves;
    fs.cache.shrink(0);
    fault.clear();
    keys(&reader, root).unwrap();
    assert_eq!(fault.counts().reads, nodes);
    keys(&reader, root).unwrap();
    assert_eq!(fault.counts().reads, nodes, "all are in memory now");
}

#[test]
fn every_failing_read_is_an_error_or_served_by_the_other_mirror() {
    for (profile, survives) in [("single", false), ("dup", true)] {
        let image = make_in_memory(&["-n", "16384", "-m", profile]);
        let fault = Arc::new(FaultDevice::new(device(image)), GFP_KERNEL).unwrap();
        let everything = || -> Result<usize> {
            let fs = open(fault.clone())?;
            let reader = fs.reader()?;
            let mut items = 0;
            for id in trees(&reader)? {
                items += keys(&reader, reader.root(id)?)?.len();
            }
            Ok(items)
        };
        fault.clear();
        let items = everything().unwrap();
        let reads = fault.counts().reads;
        assert!(reads > 20);
        let mut failures = 0;
        for n in 0..reads {
            fault.fail_after(Op::Read, n);
            let (result, _) = kernel::log::capture(everything);
            match result {
                Ok(found) => assert_eq!(found, items),
                Err(e) => {
                    assert_eq!(e, EIO);
                    failures += 1;
                }
            }
        }
        assert_eq!(failures == 0, survives, "{profile}: {failures} of {reads}");
    }
}

#[test]
fn every_failing_allocation_is_an_error() {
    let image = make_in_memory(&["-n", "16384"]);
    let device = device(image);
    let everything = || -> Result<usize> {
        let fs = open(device.clone())?;
        let reader = fs.reader()?;
        Ok(keys(&reader, reader.root(tree_id::FS)?)?.len())
    };
    kernel::fault::clear();
    let items = everything().unwrap();
    let allocations = kernel::fault::count();
    for n in 0..allocations {
        kernel::fault::fail_alloc_after(n);
        let (result, log) = kernel::log::capture(everything);
        match result {
            // What only makes things faster may fail unseen.
            Ok(found) => assert_eq!(found, items),
            Err(e) => assert_eq!(e, ENOMEM, "allocation {n}: {log:?}"),
        }
    }
    kernel::fault::clear();
}

#[test]
fn readers_share_the_cache_from_many_threads() {
    let image = make_in_memory(&["-n", "4096"]);
    let options = OpenOptions {
        cache_bytes: 256 << 10,
        ..read_only()
    };
    let fs = Fs::open(device(image), &options).unwrap();
    let expected = {
        let reader = fs.reader().unwrap();
        keys(&reader, reader.root(tree_id::FS).unwrap()).unwrap()
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let reader = fs.reader().unwrap();
                let root = reader.root(tree_id::FS).unwrap();
                for _ in 0..3 {
                    assert_eq!(keys(&reader, root).unwrap(), expected);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..50 {
                fs.cache.shrink(0);
                std::thread::yield_now();
            }
        });
    });
    assert_eq!(fs.epochs.oldest(), None);
}
