// SPDX-License-Identifier: GPL-2.0
//! Who began to read before a balance reads the same throughout: nothing that it may look at is
//! used again.

use crate::contents::*;
use crate::support::*;
use kernel::sync::Arc;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_engine::format::chunk::block_group_flags as flags;
use rbtrfs_engine::volume::{Fs, OpenOptions};

#[test]
fn a_reader_sees_its_commit() {
    let scratch = Scratch::new("readers");
    let device: Arc<dyn BlockDevice> = share(small(&scratch, &["-n", "4096", "-m", "single"]));
    let options = OpenOptions {
        // So small that what is read comes from the device.
        cache_bytes: 256 << 10,
        ..OpenOptions::default()
    };
    let fs = Fs::open(device.clone(), &options).unwrap();
    let first = fs.reader().unwrap();
    let before = contents(&first).unwrap();
    let mut later = vec![];
    for round in 0..3usize {
        // Not everything each time: what the reader holds takes space on the device.
        let kinds = [EVERYTHING, flags::METADATA, flags::SYSTEM][round];
        balance(&fs, kinds).unwrap();
        assert_eq!(contents(&first).unwrap(), before, "round {round}");
        touch(&fs, 256, 5);
        let reader = fs.reader().unwrap();
        later.push((contents(&reader).unwrap(), reader));
    }
    for (contents_then, reader) in &later {
        assert_eq!(contents(reader).unwrap(), *contents_then);
    }
    drop(later);
    drop(first);
    // And with them gone their space is used again.
    for _ in 0..6 {
        balance(&fs, EVERYTHING).unwrap();
    }
}
