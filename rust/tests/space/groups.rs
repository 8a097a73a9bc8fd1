// SPDX-License-Identifier: GPL-2.0
//! Extents that come and go, and the free space that they leave.

use crate::account::*;
use crate::support::*;
use crate::{kinds, INO, KIB};
use rbtrfs_engine::format::chunk::block_group_flags::DATA;
use rbtrfs_engine::format::inode::inode_flags::NODATASUM;
use rbtrfs_engine::space::chunk_alloc;

#[test]
fn what_mkfs_made_adds_up() {
    for kind in kinds() {
        let scratch = Scratch::new("space-mkfs");
        let image = make_image(&scratch, kind);
        let fs = open_image(&image);
        assert!(verify(&fs).groups >= 3);
    }
}

#[test]
fn data_extents_come_and_go() {
    for kind in kinds() {
        let scratch = Scratch::new("space-data");
        let image = make_image(&scratch, kind);
        let fs = open_image(&image);
        let mut trans = begin(&fs);
        make_file(&mut trans, INO, "extents", NODATASUM);
        for n in 0..300 {
            append(&mut trans, INO, n * 64 * KIB, (4 * KIB) << (n % 5)).unwrap();
        }
        trans.commit().unwrap();
        verify(&fs);
        assert_clean(&image);
        for round in 0..3 {
            let mut trans = begin(&fs);
            for n in (0..300).filter(|n| n * 7 % 3 == round) {
                punch(&mut trans, INO, n * 64 * KIB);
            }
            trans.commit().unwrap();
            verify(&fs);
            assert_clean(&image);
        }
    }
}

#[test]
fn consecutive_allocations_lie_together() {
    let scratch = Scratch::new("space-order");
    let image = make_image(&scratch, &[]);
    let fs = open_image(&image);
    let mut trans = begin(&fs);
    make_file(&mut trans, INO, "extents", NODATASUM);
    let starts: Vec<u64> = (0..50)
        .map(|n| append(&mut trans, INO, n * 64 * KIB, 64 * KIB).unwrap())
        .collect();
    let breaks = starts
        .windows(2)
        .filter(|w| w[0] + 64 * KIB != w[1])
        .count();
    assert!(breaks <= 2, "{starts:?}");
    trans.cancel();
    verify(&fs);
}

/// A fragmented block group turns to bitmaps, and back to extents once it is less so.
#[test]
fn fragmentation_turns_extents_to_bitmaps_and_back() {
    let scratch = Scratch::new("space-bitmaps");
    let image = make_large(&scratch, 3 << 30, &[]);
    let fs = open_image(&image);
    const COUNT: u64 = 4000;
    let mut trans = begin(&fs);
    // A chunk of its own, of a tenth of the device, whose thresholds are 462 and 362.
    chunk_alloc::create_chunk(&mut trans, DATA).unwrap();
    make_file(&mut trans, INO, "extents", NODATASUM);
    for n in 0..COUNT {
        append(&mut trans, INO, n * 4 * KIB, 4 * KIB).unwrap();
    }
    trans.commit().unwrap();
    assert_eq!(verify(&fs).bitmaps, 0);
    let mut seen = vec![];
    for step in [0, 2, 1, 3] {
        for half in 0..4 {
            let mut trans = begin(&fs);
            let range = COUNT / 4 * half..COUNT / 4 * (half + 1);
            for n in range.filter(|n| n % 4 == step) {
                punch(&mut trans, INO, n * 4 * KIB);
            }
            trans.commit().unwrap();
            seen.push(verify(&fs).bitmaps);
        }
        assert_clean(&image);
    }
    // The one that mkfs made is small, and stays with bitmaps.
    assert!(seen.contains(&2), "never turned to bitmaps: {seen:?}");
    assert_eq!(seen.last(), Some(&1), "never turned back: {seen:?}");
    drop(fs);
    // Bitmaps that another mount finds.
    let fs = open_image(&image);
    let mut trans = begin(&fs);
    for n in 0..COUNT {
        append(&mut trans, INO, (COUNT + n) * 4 * KIB, 4 * KIB).unwrap();
    }
    trans.commit().unwrap();
    let mut trans = begin(&fs);
    for n in (0..COUNT).step_by(2) {
        punch(&mut trans, INO, (COUNT + n) * 4 * KIB);
    }
    trans.commit().unwrap();
    assert_eq!(verify(&fs).bitmaps, 2);
    drop(fs);
    let fs = open_image(&image);
    let mut trans = begin(&fs);
    for n in (1..COUNT).step_by(4) {
        punch(&mut trans, INO, (COUNT + n) * 4 * KIB);
        append(&mut trans, INO, (2 * COUNT + n) * 4 * KIB, 4 * KIB).unwrap();
    }
    trans.commit().unwrap();
    verify(&fs);
    drop(fs);
    assert_clean(&image);
}
