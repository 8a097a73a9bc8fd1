// SPDX-License-Identifier: GPL-2.0
//! `rbtrfs balance`.

use crate::errno::What;
use crate::{open, progress};
use anyhow::{bail, Result};
use rbtrfs_engine::balance::relocate::relocate_block_group;
use rbtrfs_engine::format::chunk::block_group_flags as flags;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The image or device, which nobody may have mounted.
    image: PathBuf,
    /// Relocate data.
    #[arg(short, long)]
    data: bool,
    /// Relocate metadata.
    #[arg(short, long)]
    metadata: bool,
    /// Relocate the chunk tree.
    #[arg(short, long)]
    system: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let kinds = [
        (args.data, flags::DATA),
        (args.metadata, flags::METADATA),
        (args.system, flags::SYSTEM),
    ];
    let wanted = kinds
        .iter()
        .filter(|(yes, _)| *yes)
        .fold(0, |bits, (_, bit)| bits | bit);
    if wanted == 0 {
        bail!("nothing to balance: give at least one of --data, --metadata, --system");
    }
    let fs = open::open(&args.image, true)?;
    let chunks = fs.chunk_map();
    let mut starts: Vec<_> = chunks
        .iter()
        .filter(|chunk| chunk.flags & wanted != 0)
        .map(|chunk| chunk.logical)
        .collect();
    // The newest first, as the kernel does: what moves goes to older ones or to new ones.
    starts.reverse();
    let total = chunks.iter().count();
    drop(chunks);
    let bar = progress::count("chunks");
    for start in &starts {
        relocate_block_group(&fs, *start, &|| Ok(())).what(format_args!("block group {start}"))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!(
        "Done, had to relocate {} out of {total} chunks",
        starts.len()
    );
    Ok(())
}
