// SPDX-License-Identifier: GPL-2.0
//! Opening a volume.

use crate::errno::What;
use anyhow::{Context, Result};
use kernel::prelude::GFP_KERNEL;
use kernel::sync::Arc;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_engine::log::{self, Replay};
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::FileDevice;
use std::path::Path;

/// Opens the volume in `image`, for writing if `writable`.
pub fn open(image: &Path, writable: bool) -> Result<Arc<Fs>> {
    let device = FileDevice::open(image, writable)
        .with_context(|| format!("cannot open {}", image.display()))?;
    let device: Arc<dyn BlockDevice> =
        Arc::new(device, GFP_KERNEL).map_err(|_| anyhow::anyhow!("out of memory"))?;
    let options = OpenOptions {
        read_only: !writable,
        ..OpenOptions::default()
    };
    // Without writing there is no replay.
    let replay = if writable { Replay::Yes } else { Replay::No };
    log::open(device, &options, replay).what(image.display())
}
