// SPDX-License-Identifier: GPL-2.0
//! Scrubs while the volume changes: what goes on between two windows may move everything.

use crate::places::*;
use crate::support::*;
use rbtrfs_engine::balance::relocate::relocate_block_group;
use rbtrfs_engine::scrub::scrub;
use std::cell::Cell;

#[test]
fn nothing_that_changes_meanwhile_is_an_error() {
    for (number, options) in KINDS.iter().enumerate() {
        let (scratch, image, fs) = volume(&format!("scrub-beside-{number}"), options);
        let step = Cell::new(0);
        let outcome = scrub(&fs, &EVERYTHING, &|| {
            step.set(step.get() + 1);
            // No epoch is held while nothing is read.
            assert_eq!(fs.epochs.oldest(), None);
            match step.get() % 3 {
                0 => cow_everything(&fs),
                1 => {
                    let first = fs.chunk_map().iter().next().unwrap().logical;
                    relocate_block_group(&fs, first, &|| Ok(())).unwrap();
                }
                _ => {}
            }
            // What is relocated comes to lie behind, again and again.
            step.get() > 40
        });
        assert!(step.get() > 6);
        let found = outcome.progress;
        assert_eq!(
            (found.csum_errors, found.verify_errors, found.read_errors),
            (0, 0, 0)
        );
        assert_eq!((found.corrected_errors, found.uncorrectable_errors), (0, 0));
        assert!(found.super_errors == 0 && found.tree_bytes_scrubbed > 0);
        drop(fs);
        scratch.assert_clean(&image);
    }
}
