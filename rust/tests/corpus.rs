// SPDX-License-Identifier: GPL-2.0
//! Damaged and odd volumes from the tests of btrfs-progs: opening and walking one ends in an error
//! or in an answer.

mod images;

use images::{device, Scratch};
use kernel::prelude::*;
use rbtrfs_engine::format::{item_type, tree_id, Key};
use rbtrfs_engine::tree::check::check_tree;
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::{corpus, FileDevice};
use std::path::Path;
use std::vec::Vec;

/// What became of a volume.
#[derive(Debug, Default)]
struct Outcome {
    trees: usize,
    items: u64,
    problems: u64,
}

fn walk(image: &Path) -> Result<Outcome> {
    let options = OpenOptions {
        read_only: true,
        ..OpenOptions::default()
    };
    let fs = Fs::open(device(FileDevice::open(image, false).unwrap()), &options)?;
    let reader = fs.reader()?;
    let mut ids = vec![tree_id::ROOT, tree_id::CHUNK];
    let mut cursor = reader.cursor(reader.root(tree_id::ROOT)?);
    cursor.seek(&Key::MIN)?;
    while let Some((key, _)) = cursor.item() {
        if key.typ == item_type::ROOT_ITEM {
            ids.push(key.objectid);
        }
        if cursor.next().is_err() {
            break;
        }
    }
    ids.dedup();
    let mut outcome = Outcome::default();
    for id in ids {
        outcome.trees += 1;
        let Ok(root) = reader.root(id) else {
            outcome.problems += 1;
            continue;
        };
        let summary = check_tree(&reader, root, reader.generation(), &mut |_| ())?;
        outcome.items += summary.items;
        outcome.problems += summary.problems;
        // The cursor has an end as well, forwards and back.
        let mut cursor = reader.cursor(root).with_readahead();
        let mut seen = 0u64;
        let mut step = cursor.seek(&Key::MIN).map(|_| true);
        while matches!(step, Ok(true)) {
            seen += 1;
            assert!(seen <= summary.items + 1 || summary.problems > 0);
            step = cursor.next();
        }
        let mut step = cursor.seek_before(&Key::MAX);
        while matches!(step, Ok(true)) {
            step = cursor.prev();
        }
    }
    Ok(outcome)
}

fn walk_all(folder: &str) -> Vec<(std::string::String, Result<Outcome>)> {
    let Some(images) = corpus::images(folder) else {
        return Vec::new();
    };
    let mut outcomes = Vec::new();
    let scratch = Scratch::new();
    let image = scratch.path("image");
    for packed in images {
        corpus::unpack(&packed, &image);
        let name = packed.file_name().unwrap().to_str().unwrap().to_owned();
        let (outcome, log) = kernel::log::capture(|| walk(&image));
        println!("{name}: {outcome:?}\n\t{}", log.join("\n\t"));
        if outcome.is_err() {
            let says =
                |line: &std::string::String| line.contains("error") || line.contains("warning");
            assert!(log.iter().any(says), "{name}: an error without a message");
        }
        outcomes.push((name, outcome));
    }
    outcomes
}

#[test]
fn volumes_of_the_fuzzers() {
    walk_all("fuzz");
}

#[test]
fn volumes_of_the_checkers_tests() {
    let outcomes = walk_all("fsck");
    // Every shape of reference, and nothing damaged.
    for (name, outcome) in &outcomes {
        // A relocation tree of what is no subvolume, which older kernels made: the C driver refuses
        // it as well.
        if name.contains("tree_reloc_for_data_reloc") {
            assert_eq!(outcome.as_ref().err(), Some(&EUCLEAN));
        } else if name.starts_with("020-extent-ref-cases") {
            let outcome = outcome.as_ref().expect(name);
            assert!(
                outcome.problems == 0 && outcome.items > 0,
                "{name}: {outcome:?}"
            );
        }
    }
}
