// SPDX-License-Identifier: GPL-2.0
//! The rules for items, each broken by itself in a leaf that is right but for that.

mod extents;
mod files;
mod leaf;
mod roots;
mod space;

use leaf::Leaf;
use rbtrfs_engine::format::{item_type, tree_id, Key};
use std::collections::BTreeSet;
use std::string::String;

#[test]
fn a_leaf_without_rules_passes() {
    let leaf = Leaf::new(tree_id::UUID).with(1, item_type::UUID_SUBVOL, 2, &[0; 8]);
    assert_eq!(leaf.complaint(), None);
    // No item has the lowest key.
    let mut lowest = leaf.clone();
    *lowest.key(0) = Key::MIN;
    let message = lowest.complaint().unwrap();
    assert!(
        message.ends_with("slot=0, bad key order, current (0 0 0)"),
        "{message}"
    );
}

/// The names of rules in a source file: its texts, but for those that say what is expected.
fn rules(source: &str) -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    for line in source.lines() {
        let line = line.trim();
        if line.starts_with("//") || line.contains("Words(") {
            continue;
        }
        let texts = line.split('"').skip(1).step_by(2);
        rules.extend(texts.map(String::from));
    }
    // These are chosen among, and handed to `Words`.
    for words in [
        "that of an extended attribute (8)",
        "that of a file",
        "extents, as the block group is without bitmaps",
        "bitmaps, as the block group uses them",
    ] {
        rules.remove(words);
    }
    rules
}

#[test]
fn every_rule_has_a_case() {
    let sources = [
        include_str!("../../tree/check/block_group.rs"),
        include_str!("../../tree/check/chunk.rs"),
        include_str!("../../tree/check/csum.rs"),
        include_str!("../../tree/check/device.rs"),
        include_str!("../../tree/check/dir.rs"),
        include_str!("../../tree/check/extent.rs"),
        include_str!("../../tree/check/extent_ref.rs"),
        include_str!("../../tree/check/feature.rs"),
        include_str!("../../tree/check/file_extent.rs"),
        include_str!("../../tree/check/free_space.rs"),
        include_str!("../../tree/check/inode.rs"),
        include_str!("../../tree/check/item.rs"),
        include_str!("../../tree/check/root.rs"),
    ];
    let cases = [
        files::CASES,
        extents::CASES,
        extents::SUMS,
        space::CASES,
        space::EXTENTS,
        space::GROUPS,
        space::FREES,
        roots::CASES,
        roots::FEATURES,
    ];
    let mut tested = 0;
    for rule in sources.iter().flat_map(|source| rules(source)) {
        let says = std::format!("{rule}, have ");
        let has_case = cases
            .iter()
            .copied()
            .flatten()
            .any(|case| case.says.starts_with(&says));
        assert!(has_case, "no case for: {rule}");
        tested += 1;
    }
    assert!(tested > 80, "{tested}");
}
