// SPDX-License-Identifier: GPL-2.0
//! The three failures for which the C driver had to keep relocation away from sends, in 2019: a
//! send went on by an address at which something else was by then. In concurrent mode the addresses
//! are used again here, too, in the middle of a send, which finds everything by its key.

use crate::contents::*;
use crate::files::*;
use crate::judge::assert_as_good;
use crate::stops::*;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::format::chunk::block_group_flags as bg;
use rbtrfs_engine::format::file_extent::{FileExtentItem, TYPE_REG};
use rbtrfs_engine::format::{self, item_type, tree_id, Key};
use rbtrfs_engine::send::SendArgs;
use rbtrfs_engine::subvol::write::{clone_range, CloneRange};
use rbtrfs_engine::volume::Fs;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::vec::Vec;

/// Files with data of their own, and as many that share it.
const FILES: u64 = 24;
const DATA: usize = 64 << 10;

/// A read-only snapshot of many files, whose blocks and extents nothing else has any more but for
/// what its own files share.
fn make(fs: &Fs, shares: bool) -> u64 {
    for n in 0..FILES {
        let whole = file(fs, ROOT, &format!("whole-{n}")).unwrap();
        write(fs, whole, 0, &pattern(DATA, n), DATA as u64).unwrap();
        for other in 0..40 {
            file(fs, ROOT, &format!("other-{n}-{other}")).unwrap();
        }
        if shares {
            let range = CloneRange {
                src: whole,
                src_offset: 0,
                len: DATA as u64,
                dst: file(fs, ROOT, &format!("copy-{n}")).unwrap(),
                dst_offset: 0,
                dst_size: DATA as u64,
            };
            clone_range(fs, &range, Some(now())).unwrap();
        }
    }
    snapshot_alone(fs)
}

/// The blocks of a tree as the last commit has it: their levels and generations, by address.
fn blocks(fs: &Fs, tree: u64) -> BTreeMap<u64, (u8, u64)> {
    let reader = fs.reader().unwrap();
    let root = reader.root(tree).unwrap();
    let mut cursor = reader.cursor(root);
    cursor.seek(&Key::MIN).unwrap();
    let mut found = BTreeMap::new();
    while cursor.key().is_some() {
        for level in 0..=root.level {
            let node = cursor.node_at(level).unwrap();
            found.insert(node.bytenr(), (node.level(), node.generation()));
        }
        cursor.next().unwrap();
    }
    found
}

/// The addresses of the data extents of a tree, as the last commit has it.
fn extents(fs: &Fs, tree: u64) -> BTreeSet<u64> {
    let reader = fs.reader().unwrap();
    let mut cursor = reader.cursor(reader.root(tree).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    let mut found = BTreeSet::new();
    while let Some((key, data)) = cursor.item() {
        if key.typ == item_type::EXTENT_DATA {
            let item: FileExtentItem = format::read(data).unwrap();
            if item.head.typ == TYPE_REG {
                found.insert(item.disk_bytenr.get());
            }
        }
        cursor.next().unwrap();
    }
    found
}

/// Relocates some of what the block groups of tree blocks have, and no more, so that these stay,
/// and what was freed in them is used again; or all data. Then uses what is free.
fn move_and_reuse(fs: &Fs, kinds: u64, round: u64) {
    let few = kinds == bg::METADATA;
    let left = AtomicU64::new(if few { 20 * (round + 1) } else { u64::MAX });
    let moved = balance_with(fs, kinds, &|| match left.load(Ordering::Relaxed) {
        0 => Err(ECANCELED),
        more => {
            left.store(more - 1, Ordering::Relaxed);
            Ok(())
        }
    });
    assert!(matches!(moved, Ok(()) | Err(ECANCELED)), "{moved:?}");
    fs.commit().unwrap();
    let generation = fs.generation();
    for n in 0..60 {
        let new = file(fs, ROOT, &format!("new-{generation}-{n}")).unwrap();
        if n < 6 {
            write(fs, new, 0, &pattern(DATA, 1000 + n), DATA as u64).unwrap();
        }
    }
    fs.commit().unwrap();
}

/// Where the parts of a snapshot were.
struct Before {
    blocks: BTreeMap<u64, (u8, u64)>,
    extents: BTreeSet<u64>,
}

/// Sends, and at a write in its midst moves and reuses until `is_gone` finds that a part of the
/// snapshot is not where it was. The stream is right nevertheless, and nobody complains.
fn check(name: &str, shares: bool, kinds: u64, is_gone: fn(&Before, &Fs, u64) -> bool) {
    let scratch = Scratch::new(name);
    let options = ["-n", "4096", "--metadata", "single"];
    let volume = Volume::of(make_mem(&scratch, &options));
    let root = make(&volume.fs, shares);
    let args = SendArgs {
        root,
        parent: None,
        clones: &[],
        flags: 0,
        version: 1,
    };
    let (alone, steps) = volume.send_alone(&args);
    let (sent, log) = kernel::log::capture(|| {
        // At a read a commit is held, so that nothing of it is used again.
        (steps / 3..=steps).find_map(|at| {
            let gone = std::sync::Arc::new(AtomicBool::new(false));
            let seen = gone.clone();
            volume.fs.cache.shrink(0);
            let sent = volume.send(&args, at, move |fs| {
                if fs.epochs.oldest().is_some() {
                    return;
                }
                let before = Before {
                    blocks: blocks(fs, root),
                    extents: extents(fs, root),
                };
                for round in 0..20 {
                    move_and_reuse(fs, kinds, round);
                    if is_gone(&before, fs, root) {
                        seen.store(true, Ordering::Relaxed);
                        break;
                    }
                }
                fs.cache.shrink(0);
            });
            let (stream, _) = sent.unwrap_or_else(|error| panic!("step {at}: {error:?}"));
            gone.load(Ordering::Relaxed).then_some(stream)
        })
    });
    let stream = sent.expect("nothing was moved");
    if shares {
        let reader = volume.fs.reader().unwrap();
        assert_as_good(&reader, root, &stream, &alone, name);
    } else {
        assert!(stream == alone, "another stream");
    }
    let complaints = ["transid", "backref", "level", "corrupt", "send:"];
    let complains = |line: &&std::string::String| complaints.iter().any(|word| line.contains(word));
    let complained: Vec<_> = log.iter().filter(complains).collect();
    assert!(complained.is_empty(), "{complained:?}");
}

/// "parent transid verify failed": a block of the snapshot was moved, and its address has one of a
/// later transaction.
#[test]
fn no_transid_is_stale() {
    check("beside-transid", false, bg::METADATA, |before, fs, _| {
        let now = blocks(fs, tree_id::FS);
        let reused = |(at, (_, generation)): (&u64, &(u8, u64))| {
            now.get(at).is_some_and(|(_, newer)| newer > generation)
        };
        before.blocks.iter().any(reused)
    });
}

/// A node came back as a leaf, which met a `BUG_ON`.
#[test]
fn no_node_is_a_leaf() {
    check("beside-level", false, bg::METADATA, |before, fs, _| {
        let now = blocks(fs, tree_id::FS);
        let reused = |(at, (level, _)): (&u64, &(u8, u64))| {
            *level > 0 && now.get(at).is_some_and(|(level, _)| *level == 0)
        };
        before.blocks.iter().any(reused)
    });
}

/// "did not find backref in send_root": extents were moved, and nothing of the snapshot refers to
/// their addresses any more.
#[test]
fn no_backref_is_missing() {
    check("beside-backref", true, bg::DATA, |before, fs, root| {
        let now = extents(fs, root);
        before.extents.iter().all(|at| !now.contains(at))
    });
}
