// SPDX-License-Identifier: GPL-2.0
//! `rbtrfs replay-log`.

use crate::open;
use anyhow::{bail, Result};
use std::path::Path;

pub fn run(image: &Path) -> Result<()> {
    // Opening it for writing replays the log.
    let fs = open::open(image, true)?;
    if fs.has_log() {
        bail!("{}: the log cannot be replayed", image.display());
    }
    Ok(())
}
