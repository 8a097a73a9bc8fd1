// SPDX-License-Identifier: GPL-2.0
//! A balance that is told to stop, at any time: nothing is lost, and the block group is of use
//! again.

use crate::contents::*;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::format::chunk::block_group_flags as flags;
use rbtrfs_engine::space::space_info::SpaceContext;
use std::cell::Cell;

#[test]
fn every_place_to_cancel_is_a_good_one() {
    let scratch = Scratch::new("cancel");
    let start = small(&scratch, &["-n", "4096", "-m", "single"]);
    let calls = Cell::new(0u64);
    {
        let fs = open(&share(start.clone())).unwrap();
        let count = || {
            calls.set(calls.get() + 1);
            Ok(())
        };
        balance_with(&fs, EVERYTHING, &count).unwrap();
    }
    let total = calls.get();
    assert!(total > 50, "{total}");
    let device = share(start.clone());
    let before = contents_now(&open(&device).unwrap());
    let step = (total / 150).max(1);
    for n in (0..total).step_by(step as usize) {
        let device = share(start.clone());
        let fs = open(&device).unwrap();
        calls.set(0);
        let check = || {
            calls.set(calls.get() + 1);
            if calls.get() > n {
                return Err(ECANCELED);
            }
            Ok(())
        };
        assert_eq!(balance_with(&fs, EVERYTHING, &check), Err(ECANCELED), "{n}");
        let trans = begin(&fs);
        for group in trans.space().block_groups() {
            assert!(!group.is_read_only(), "{n}: block group {}", group.start);
        }
        drop(trans);
        assert_writable(&fs);
        if n % (8 * step) == 0 {
            assert_eq!(contents_now(&fs), before, "{n}");
            balance(&fs, flags::METADATA).unwrap();
            scratch.assert_clean(&device);
        } else {
            read_everything(&fs);
        }
    }
}
