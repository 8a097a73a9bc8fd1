// SPDX-License-Identifier: GPL-2.0
//! `rbtrfs send`.

use crate::errno::What;
use crate::{open, path, progress};
use anyhow::{bail, Context, Result};
use indicatif::ProgressBar;
use kernel::error::code::EIO;
use rbtrfs_engine::format::objectid;
use rbtrfs_engine::send::{self, flags, SendArgs, Sink};
use rbtrfs_engine::trans::Reader;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The image or device.
    image: PathBuf,
    /// The read-only subvolume, as a path from the top-level subvolume.
    subvolume: String,
    /// Send only the differences to this read-only subvolume, which the receiver has.
    #[arg(short = 'p', long = "parent", value_name = "PARENT")]
    parent: Option<String>,
    /// Clone data from this read-only subvolume, which the receiver has; the parent is one without
    /// being named.
    #[arg(short = 'c', long = "clone-source", value_name = "CLONE")]
    clones: Vec<String>,
    /// Write the stream to this file rather than to standard output.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// The version of the stream.
    #[arg(long, default_value_t = 1)]
    proto: u32,
    /// Send compressed extents as they are (version 2).
    #[arg(long)]
    compressed_data: bool,
    /// Send no file data.
    #[arg(long)]
    no_data: bool,
}

struct Output {
    to: Box<dyn Write>,
    error: Option<std::io::Error>,
    bar: ProgressBar,
}

impl Sink for Output {
    fn write(&mut self, bytes: &[u8]) -> kernel::error::Result {
        self.bar.inc(bytes.len() as u64);
        self.to.write_all(bytes).map_err(|error| {
            self.error = Some(error);
            EIO
        })
    }
}

pub fn run(args: &Args) -> Result<()> {
    let to: Box<dyn Write> = match &args.file {
        Some(file) => {
            let file =
                File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
            Box::new(file)
        }
        None if std::io::stdout().is_terminal() => {
            bail!("not dumping send stream into a terminal, redirect it into a file")
        }
        None => Box::new(std::io::stdout()),
    };
    let fs = open::open(&args.image, false)?;
    let reader = fs.reader().what("last commit")?;
    let root = tree_of(&reader, &args.subvolume)?;
    let parent = match &args.parent {
        Some(parent) => Some(tree_of(&reader, parent)?),
        None => None,
    };
    let mut clones = parent.into_iter().collect::<Vec<_>>();
    for source in &args.clones {
        clones.push(tree_of(&reader, source)?);
    }
    let mut bits = flags::VERSION;
    if args.compressed_data {
        bits |= flags::COMPRESSED;
    }
    if args.no_data {
        bits |= flags::NO_FILE_DATA;
    }
    let wanted = SendArgs {
        root,
        parent,
        clones: &clones,
        flags: bits,
        version: args.proto,
    };
    let mut output = Output {
        to,
        error: None,
        bar: progress::bytes("stream"),
    };
    let sent = send::run(reader, &wanted, &mut output);
    output.bar.finish_and_clear();
    if let Some(error) = output.error {
        return Err(error).context("cannot write the stream");
    }
    sent.what("send failed")?;
    Ok(output.to.flush()?)
}

/// The tree of a read-only subvolume.
fn tree_of(reader: &Reader, subvolume: &str) -> Result<u64> {
    let place = path::walk(reader, subvolume)?;
    if place.ino != objectid::FIRST_FREE {
        bail!("{subvolume}: not a subvolume");
    }
    let item = reader.root_item(place.root.id).what(subvolume)?;
    if !item.is_read_only() {
        bail!("subvolume {subvolume} is not read-only");
    }
    Ok(place.root.id)
}
