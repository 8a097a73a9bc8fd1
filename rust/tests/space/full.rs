// SPDX-License-Identifier: GPL-2.0
//! Volumes without space.

use crate::account::*;
use crate::support::*;
use crate::{kinds, INO, KIB, MIB};
use kernel::prelude::*;
use rbtrfs_engine::format::inode::inode_flags::NODATASUM;
use rbtrfs_engine::format::superblock::COPIES;
use rbtrfs_engine::format::tree_id;
use rbtrfs_engine::trans::transaction::Reserve;
use rbtrfs_engine::tree::edit;

/// Data grows over several chunks until the device is full; what is freed can be used again, and
/// superblocks are never overwritten.
#[test]
fn a_full_device_says_so_and_goes_on() {
    for kind in kinds() {
        let scratch = Scratch::new("space-full");
        let image = make_image(&scratch, kind);
        let fs = open_image(&image);
        let mut trans = begin(&fs);
        make_file(&mut trans, INO, "extents", NODATASUM);
        trans.commit().unwrap();
        let mut count = 0;
        let mut full = false;
        while !full {
            let mut trans = begin(&fs);
            for _ in 0..16 {
                match append(&mut trans, INO, count * MIB, MIB) {
                    Ok(start) => {
                        let map = fs.chunk_map();
                        for physical in map.mirrors(start, MIB).unwrap().iter() {
                            for copy in COPIES {
                                assert!(physical + MIB <= copy || copy + 64 * KIB <= physical);
                            }
                        }
                        count += 1;
                    }
                    Err(error) => {
                        assert_eq!(error, ENOSPC);
                        full = true;
                        break;
                    }
                }
            }
            trans.commit().unwrap();
        }
        assert!(count > 60, "full after {count} MiB");
        verify(&fs);
        assert_clean(&image);
        for round in 0..4 {
            let mut trans = begin(&fs);
            for n in (0..count).filter(|n| n % 4 == round) {
                punch(&mut trans, INO, n * MIB);
            }
            trans.commit().unwrap();
            let mut trans = begin(&fs);
            for n in (0..count).filter(|n| n % 4 == round) {
                append(&mut trans, INO, (count * (round + 1) + n) * MIB, MIB).unwrap();
            }
            trans.commit().unwrap();
        }
        verify(&fs);
        drop(fs);
        assert_clean(&image);
    }
}

/// Metadata grows over several chunks until there is no more space. The transaction that finds out
/// is refused when it begins, and those before it can all be committed.
#[test]
fn metadata_grows_and_is_refused_in_time() {
    for kind in [
        &["-n", "4096"][..],
        &["-n", "16384", "-m", "single"],
        &["-R", "^free-space-tree"],
    ] {
        let scratch = Scratch::new("space-metadata");
        let image = make_image(&scratch, kind);
        let fs = open_image(&image);
        let chunks = fs.chunk_map().len();
        let reserve = Reserve {
            nodes: 2000,
            ..Reserve::default()
        };
        let mut n = 0;
        let error = loop {
            let mut trans = match fs.begin(reserve) {
                Ok(trans) => trans,
                Err(error) => break error,
            };
            for _ in 0..1000 {
                edit::insert(&mut trans, tree_id::ROOT, &key(n), &[7; 2000]).unwrap();
                n += 1;
            }
            trans.commit().unwrap();
            assert!(n < 1_000_000);
        };
        assert_eq!(error, ENOSPC);
        assert!(fs.chunk_map().len() > chunks);
        verify(&fs);
        assert_clean(&image);
        // What frees space needs none reserved, as long as it touches little.
        for part in 0..n.div_ceil(200) {
            let mut trans = begin(&fs);
            for i in part * 200..n.min((part + 1) * 200) {
                edit::delete(&mut trans, tree_id::ROOT, &key(i)).unwrap();
            }
            trans.commit().unwrap();
        }
        fs.begin(reserve).unwrap().commit().unwrap();
        verify(&fs);
        drop(fs);
        assert_clean(&image);
    }
}
