// SPDX-License-Identifier: GPL-2.0
//! The checksum tree.

use crate::account::*;
use crate::support::*;
use crate::{INO, KIB};
use kernel::prelude::*;
use rbtrfs_engine::extent::csum_tree;
use rbtrfs_engine::format::{crc, item_type, objectid, tree_id, Key};
use rbtrfs_engine::trans::transaction::Transaction;
use rbtrfs_engine::tree::{Cursor, EditContext};
use std::collections::BTreeMap;

/// Checksums come in any order, are overwritten and deleted, against a model.
#[test]
fn checksums_follow_a_model() {
    let scratch = Scratch::new("space-csums");
    let image = make_image(&scratch, &["-n", "4096"]);
    let fs = open_image(&image);
    // Far after all extents, so that nothing else has checksums there; never committed.
    const BASE: u64 = 1 << 40;
    let mut trans = begin(&fs);
    let mut model = BTreeMap::new();
    let mut random = 88172645463325252u64;
    let mut below = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    for round in 0..1500u32 {
        let start = below(9000);
        let count = if below(10) == 0 {
            below(2500) + 1
        } else {
            below(20) + 1
        };
        let logical = BASE + start * 4096;
        if below(3) == 0 {
            csum_tree::delete_csums(&mut trans, logical, count * 4096).unwrap();
            for n in start..start + count {
                model.remove(&n);
            }
        } else {
            let mut sums = vec![];
            for n in start..start + count {
                let sum = (round * 10_000 + n as u32).to_le_bytes();
                sums.extend_from_slice(&sum);
                model.insert(n, sum);
            }
            csum_tree::insert_csums(&mut trans, logical, &sums).unwrap();
        }
        if round % 50 == 49 {
            compare_csums(&trans, BASE, &model);
        }
    }
    csum_tree::delete_csums(&mut trans, BASE, 20_000 * 4096).unwrap();
    compare_csums(&trans, BASE, &Default::default());
    assert_eq!(
        csum_tree::delete_csums(&mut trans, BASE + 1, 4096),
        Err(EINVAL)
    );
    assert_eq!(
        csum_tree::insert_csums(&mut trans, BASE, &[1, 2, 3]),
        Err(EINVAL)
    );
    trans.cancel();
}

fn compare_csums(trans: &Transaction<'_>, base: u64, model: &BTreeMap<u64, [u8; 4]>) {
    let mut cursor = Cursor::new(trans, EditContext::root(trans, tree_id::CSUM).unwrap());
    cursor
        .seek(&Key::new(
            objectid::EXTENT_CSUM,
            item_type::EXTENT_CSUM,
            base,
        ))
        .unwrap();
    let mut found = BTreeMap::new();
    let most = (4096 - 101 - 50) / 4 - 1;
    while let Some((key, data)) = cursor.item() {
        assert!(!data.is_empty() && data.len() / 4 <= most);
        for (i, sum) in data.chunks(4).enumerate() {
            let n = (key.offset - base) / 4096 + i as u64;
            assert!(found.insert(n, sum.try_into().unwrap()).is_none());
        }
        cursor.next().unwrap();
    }
    assert_eq!(&found, model);
}

/// Data with checksums, as a writer of files makes it; `btrfs check` reads it all.
#[test]
fn checksums_go_with_their_extents() {
    let scratch = Scratch::new("space-datasum");
    let image = make_image(&scratch, &[]);
    let fs = open_image(&image);
    let before = csums(&fs);
    let mut trans = begin(&fs);
    make_file(&mut trans, INO, "extents", 0);
    for n in 0..200u64 {
        let len = (4 * KIB) << (n % 5);
        let start = append(&mut trans, INO, n * 64 * KIB, len).unwrap();
        let mut sums = vec![];
        for sector in 0..len / 4096 {
            let data = vec![(n + sector) as u8; 4096];
            let logical = start + sector * 4096;
            for physical in fs.chunk_map().mirrors(logical, 4096).unwrap().iter() {
                fs.device.write(physical, &data).unwrap();
            }
            sums.extend_from_slice(&crc::checksum(&data).to_le_bytes());
        }
        csum_tree::insert_csums(&mut trans, start, &sums).unwrap();
    }
    trans.commit().unwrap();
    verify(&fs);
    assert_clean(&image);
    for round in 0..3 {
        let mut trans = begin(&fs);
        for n in (0..200).filter(|n| n % 3 == round) {
            punch(&mut trans, INO, n * 64 * KIB);
        }
        trans.commit().unwrap();
        assert_clean(&image);
    }
    assert_eq!(csums(&fs), before);
}
