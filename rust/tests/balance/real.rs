// SPDX-License-Identifier: GPL-2.0
//! Whole volumes, of `mkfs.btrfs` and of the C driver.

use crate::contents::*;
use crate::support::*;
use rbtrfs_engine::format::chunk::block_group_flags as flags;
use rbtrfs_testdev::MemDevice;

/// Balances `image` by kind and as a whole, and looks at it each time.
fn balance_in_all_ways(scratch: &Scratch, image: MemDevice, name: &str) {
    let device = share(image);
    let fs = open(&device).unwrap();
    let before = contents_now(&fs);
    assert!(!before.is_empty());
    for kinds in [
        flags::METADATA,
        flags::DATA,
        flags::SYSTEM,
        EVERYTHING,
        EVERYTHING,
    ] {
        let old = block_groups(&fs, kinds).unwrap();
        balance(&fs, kinds).unwrap_or_else(|e| panic!("{name} {kinds}: {e:?}"));
        let new = block_groups(&fs, EVERYTHING).unwrap();
        for start in old {
            let gone = !new.contains(&start);
            assert!(gone, "{name} {kinds}: block group {start} is still there");
        }
        read_everything(&fs);
        assert_eq!(contents_now(&fs), before, "{name} {kinds}");
    }
    drop(fs);
    scratch.assert_clean(&device);
    // What a later mount sees, with nothing in memory.
    let fs = open(&device).unwrap();
    assert_eq!(contents_now(&fs), before, "{name}");
}

#[test]
fn volumes_of_mkfs() {
    for options in [
        &["-n", "4096", "-m", "single"][..],
        &["-n", "4096", "-O", "^skinny-metadata", "-m", "dup"],
        &["-n", "16384", "-d", "dup", "-m", "dup"],
        &["-n", "16384", "-R", "^free-space-tree"],
        &["-n", "16384", "-O", "block-group-tree"],
        &["-n", "65536", "-O", "^no-holes"],
    ] {
        let scratch = Scratch::new("balance-mkfs");
        let image = make_mem(&scratch, options);
        balance_in_all_ways(&scratch, image, &format!("{options:?}"));
    }
}

#[test]
fn volumes_with_snapshots() {
    for options in KINDS {
        let scratch = Scratch::new("balance-small");
        let image = small(&scratch, options);
        balance_in_all_ways(&scratch, image, &format!("{options:?}"));
    }
}

/// Volumes that the C driver filled.
#[test]
fn volumes_of_the_kernel() {
    for name in ["snapshots", "extents"] {
        let image = packed(name);
        let scratch = Scratch::new("balance-kernel");
        balance_in_all_ways(&scratch, image, name);
    }
}
