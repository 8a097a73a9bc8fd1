// SPDX-License-Identifier: GPL-2.0
//! Balance where there is hardly space: it fails without harm, or it finds a way.

use crate::contents::*;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::format::chunk::block_group_flags as flags;
use rbtrfs_engine::volume::Fs;

/// Makes empty block groups of data until the device has no space for another one.
fn fill(fs: &Fs) -> Result {
    loop {
        let mut trans = begin(fs);
        let made = rbtrfs_engine::space::chunk_alloc::create_chunk(&mut trans, flags::DATA);
        match made {
            Ok(_) => trans.commit()?,
            Err(ENOSPC) => {
                trans.cancel();
                return Ok(());
            }
            Err(error) => {
                trans.cancel();
                return Err(error);
            }
        }
    }
}

#[test]
fn a_full_device_is_no_harm() {
    for options in [
        &["-n", "4096", "-m", "single"][..],
        &["-n", "16384", "-m", "dup"],
    ] {
        let scratch = Scratch::new("balance-full");
        let device = share(small(&scratch, options));
        let fs = open(&device).unwrap();
        fill(&fs).unwrap();
        let before = contents_now(&fs);
        let generation = fs.reader().unwrap().generation();
        // There is one block group of metadata, and no space for another.
        assert_eq!(balance(&fs, flags::METADATA), Err(ENOSPC));
        assert_eq!(fs.reader().unwrap().generation(), generation);
        assert_writable(&fs);
        assert_eq!(contents_now(&fs), before);
        scratch.assert_clean(&device);
        // Empty block groups of data give the space back.
        balance(&fs, flags::DATA).unwrap();
        assert_writable(&fs);
        balance(&fs, flags::METADATA).unwrap();
        assert_eq!(contents_now(&fs), before);
        scratch.assert_clean(&device);
    }
}

/// A reader that stays keeps all that was freed from being used again, until nothing is left.
#[test]
fn a_reader_that_stays_fills_the_device() {
    let scratch = Scratch::new("balance-held");
    let device = share(small(&scratch, &["-n", "16384", "-m", "dup"]));
    let fs = open(&device).unwrap();
    let reader = fs.reader().unwrap();
    let before = contents(&reader).unwrap();
    let mut rounds = 0;
    let error = loop {
        match balance(&fs, EVERYTHING) {
            Ok(()) => rounds += 1,
            Err(error) => break error,
        }
        assert!(rounds < 50, "removed chunks are used again");
    };
    assert_eq!(error, ENOSPC, "after {rounds} rounds");
    assert!(!fs.is_read_only());
    assert_eq!(contents(&reader).unwrap(), before);
    assert_eq!(contents_now(&fs), before);
    scratch.assert_clean(&device);
    drop(reader);
    assert_writable(&fs);
    assert_writable(&fs);
    balance(&fs, EVERYTHING).unwrap();
    assert_eq!(contents_now(&fs), before);
    scratch.assert_clean(&device);
}
