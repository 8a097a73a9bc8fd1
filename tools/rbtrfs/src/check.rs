// SPDX-License-Identifier: GPL-2.0
//! `rbtrfs check-nodes`.

use crate::errno::What;
use crate::{open, progress};
use anyhow::{bail, Result};
use rbtrfs_engine::format::{item_type, tree_id, Key};
use rbtrfs_engine::trans::Reader;
use rbtrfs_engine::tree::check::check_tree;
use std::path::Path;

/// The ids of all trees, those that the superblock knows first.
pub fn trees(reader: &Reader) -> Result<Vec<u64>> {
    let mut ids = vec![tree_id::ROOT, tree_id::CHUNK];
    let mut cursor = reader.cursor(reader.root(tree_id::ROOT).what("root tree")?);
    cursor.seek(&Key::MIN).what("root tree")?;
    while let Some((key, _)) = cursor.item() {
        if key.typ == item_type::ROOT_ITEM && ids.last() != Some(&key.objectid) {
            ids.push(key.objectid);
        }
        cursor.next().what("root tree")?;
    }
    Ok(ids)
}

pub fn run(image: &Path) -> Result<()> {
    let fs = open::open(image, false)?;
    let reader = fs.reader().what("last commit")?;
    let bar = progress::count("tree blocks");
    let (mut blocks, mut items, mut problems) = (0, 0, 0);
    for id in trees(&reader)? {
        let root = match reader.root(id) {
            Ok(root) => root,
            Err(error) => {
                eprintln!("tree {}: no root: error {}", id as i64, error.to_errno());
                problems += 1;
                continue;
            }
        };
        let summary = check_tree(&reader, root, reader.generation(), &mut |problem| {
            bar.suspend(|| eprintln!("{problem}"));
        })
        .what(format_args!("tree {id}"))?;
        blocks += summary.nodes + summary.leaves;
        items += summary.items;
        problems += summary.problems;
        bar.set_position(blocks);
    }
    bar.finish_and_clear();
    println!("{blocks} tree blocks, {items} items, {problems} problems");
    if problems > 0 {
        bail!("{}: {problems} problems found", image.display());
    }
    Ok(())
}
