// SPDX-License-Identifier: GPL-2.0
//! Damage to a sound volume, with checksums that fit. `RBTRFS_FUZZ_IMAGE` names the volume.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rbtrfs_testdev::exercise::exercise;
use rbtrfs_testdev::mutate::Seed;
use rbtrfs_testdev::MemDevice;
use std::sync::LazyLock;

static SEED: LazyLock<Seed> = LazyLock::new(|| {
    let path = std::env::var_os("RBTRFS_FUZZ_IMAGE").expect("RBTRFS_FUZZ_IMAGE names an image");
    Seed::new(MemDevice::from_file(path).expect("the image")).expect("a sound volume")
});

fuzz_target!(|script: &[u8]| {
    exercise(&SEED.damaged(script));
});
