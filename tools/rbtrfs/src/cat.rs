// SPDX-License-Identifier: GPL-2.0
//! `rbtrfs cat`.

use crate::errno::What;
use crate::{open, path};
use anyhow::{bail, Result};
use rbtrfs_engine::subvol::{data, inode};
use std::io::Write;
use std::path::Path;

const PIECE: usize = 1 << 20;
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;

pub fn run(image: &Path, name: &str) -> Result<()> {
    let fs = open::open(image, false)?;
    let reader = fs.reader().what("last commit")?;
    let place = path::walk(&reader, name)?;
    let item = inode::read(&reader, place.root, place.ino).what(name)?;
    if item.mode.get() & S_IFMT != S_IFREG {
        bail!("{name}: not a regular file");
    }
    let mut out = std::io::stdout().lock();
    let mut buf = vec![0; PIECE];
    let mut offset = 0u64;
    loop {
        let len = data::read_file(&reader, place.root, place.ino, offset, &mut buf).what(name)?;
        if len == 0 {
            return Ok(out.flush()?);
        }
        out.write_all(&buf[..len])?;
        offset += len as u64;
    }
}
