// SPDX-License-Identifier: GPL-2.0
//! `rbtrfs info`.

use crate::errno::What;
use crate::{check, open};
use anyhow::Result;
use rbtrfs_engine::format::chunk::block_group_flags as flags;
use rbtrfs_engine::format::tree_id;
use std::path::Path;

fn uuid(bytes: &[u8; 16]) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(*bytes));
    let (a, b, c, d, e) = (
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    );
    format!("{a}-{b}-{c}-{d}-{e}")
}

fn tree_name(id: u64) -> String {
    match id {
        tree_id::ROOT => "root tree".into(),
        tree_id::EXTENT => "extent tree".into(),
        tree_id::CHUNK => "chunk tree".into(),
        tree_id::DEV => "device tree".into(),
        tree_id::FS => "top-level subvolume".into(),
        tree_id::CSUM => "checksum tree".into(),
        tree_id::QUOTA => "quota tree".into(),
        tree_id::UUID => "UUID tree".into(),
        tree_id::FREE_SPACE => "free space tree".into(),
        tree_id::BLOCK_GROUP => "block group tree".into(),
        tree_id::DATA_RELOC => "data relocation tree".into(),
        _ if tree_id::is_fs_tree(id) => "subvolume".into(),
        _ => "unknown tree".into(),
    }
}

fn chunk_type(typ: u64) -> String {
    let content = [
        (flags::DATA, "data"),
        (flags::SYSTEM, "system"),
        (flags::METADATA, "metadata"),
    ];
    let names: Vec<_> = content
        .iter()
        .filter(|(bit, _)| typ & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    let profile = if typ & flags::DUP != 0 {
        "dup"
    } else {
        "single"
    };
    format!("{} {profile}", names.join("+"))
}

pub fn run(image: &Path) -> Result<()> {
    let fs = open::open(image, false)?;
    let reader = fs.reader().what("last commit")?;
    let sb = reader.superblock();
    let label = sb.label.split(|byte| *byte == 0).next().unwrap_or(&[]);
    println!("label            {}", String::from_utf8_lossy(label));
    println!("uuid             {}", uuid(&sb.fsid));
    println!("generation       {}", sb.generation.get());
    println!("size             {} bytes", sb.total_bytes.get());
    println!("used             {} bytes", sb.bytes_used.get());
    println!("sector size      {} bytes", sb.sectorsize.get());
    println!("node size        {} bytes", sb.nodesize.get());
    println!("incompat         {:#x}", sb.incompat_flags.get());
    println!("compat_ro        {:#x}", sb.compat_ro_flags.get());
    println!(
        "\n{:>20}  {:>14}  {:>5}  {:>10}  name",
        "tree", "root", "level", "generation"
    );
    for id in check::trees(&reader)? {
        let root = reader.root(id).what(format_args!("tree {id}"))?;
        println!(
            "{:>20}  {:>14}  {:>5}  {:>10}  {}",
            id as i64,
            root.bytenr,
            root.level,
            root.generation,
            tree_name(id)
        );
    }
    println!(
        "\n{:>14}  {:>12}  {:<16}  physical",
        "chunk", "length", "type"
    );
    for chunk in fs.chunk_map().iter() {
        let places: Vec<_> = chunk.stripes().map(|stripe| stripe.to_string()).collect();
        println!(
            "{:>14}  {:>12}  {:<16}  {}",
            chunk.logical,
            chunk.length,
            chunk_type(chunk.flags),
            places.join(" ")
        );
    }
    Ok(())
}
