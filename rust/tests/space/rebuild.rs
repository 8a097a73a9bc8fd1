// SPDX-License-Identifier: GPL-2.0
//! Free space trees that are not valid.

use crate::account::*;
use crate::support::*;
use crate::{kinds, INO, KIB};
use rbtrfs_engine::format::chunk::block_group_flags::DATA;
use rbtrfs_engine::format::crc;
use rbtrfs_engine::format::inode::inode_flags::NODATASUM;
use rbtrfs_engine::format::superblock::{compat_ro, SuperBlock, COPIES};
use rbtrfs_engine::space::chunk_alloc;
use rbtrfs_engine::volume::Fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use zerocopy::{FromBytes, IntoBytes};

/// Clears the mark of a complete free space tree.
fn invalidate_free_space_tree(image: &Path) {
    set_features(image, |flags| flags & !compat_ro::FREE_SPACE_TREE_VALID);
}

/// Changes the features in all superblocks.
fn set_features(image: &Path, change: impl Fn(u64) -> u64) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(image)
        .unwrap();
    for copy in [COPIES[0], COPIES[1]] {
        let mut bytes = vec![0; 4096];
        file.read_exact_at(&mut bytes, copy).unwrap();
        let mut superblock = SuperBlock::read_from_bytes(&bytes).unwrap();
        let flags = change(superblock.compat_ro_flags.get());
        superblock.compat_ro_flags = flags.into();
        let sum = crc::checksum(&superblock.as_bytes()[32..]);
        superblock.csum[..4].copy_from_slice(&sum.to_le_bytes());
        file.write_all_at(superblock.as_bytes(), copy).unwrap();
    }
}

fn is_valid(fs: &Fs) -> bool {
    let reader = fs.reader().unwrap();
    let flags = reader.superblock().compat_ro_flags.get();
    flags & compat_ro::FREE_SPACE_TREE_VALID != 0
}

#[test]
fn the_first_transaction_rebuilds() {
    // With a block group tree, the free space tree must be valid.
    let can_be_invalid = |kind: &&[&str]| !kind.contains(&"-R") && !kind.contains(&"-O");
    for kind in kinds().into_iter().filter(can_be_invalid) {
        let scratch = Scratch::new("space-rebuild");
        let image = make_image(&scratch, kind);
        invalidate_free_space_tree(&image);
        let fs = open_image(&image);
        assert!(!is_valid(&fs));
        // Rebuilding is a transaction of its own, before the first.
        begin(&fs).cancel();
        assert!(is_valid(&fs));
        verify(&fs);
        assert_clean(&image);
        let mut trans = begin(&fs);
        make_file(&mut trans, INO, "extents", NODATASUM);
        for n in 0..300 {
            append(&mut trans, INO, n * 64 * KIB, (4 * KIB) << (n % 5)).unwrap();
        }
        trans.commit().unwrap();
        verify(&fs);
        let mut trans = begin(&fs);
        for n in (0..300).step_by(2) {
            punch(&mut trans, INO, n * 64 * KIB);
        }
        trans.commit().unwrap();
        verify(&fs);
        drop(fs);
        assert_clean(&image);
    }
}

/// What no longer described the volume when it was last written to is of no use to anybody.
#[test]
fn a_tree_of_another_time_is_replaced() {
    let scratch = Scratch::new("space-stale");
    let image = make_image(&scratch, &["-n", "4096"]);
    set_features(&image, |flags| {
        flags & !(compat_ro::FREE_SPACE_TREE | compat_ro::FREE_SPACE_TREE_VALID)
    });
    let fs = open_image(&image);
    let mut trans = begin(&fs);
    make_file(&mut trans, INO, "extents", NODATASUM);
    for n in 0..300 {
        append(&mut trans, INO, n * 64 * KIB, (4 * KIB) << (n % 5)).unwrap();
    }
    trans.commit().unwrap();
    verify(&fs);
    drop(fs);
    set_features(&image, |flags| flags | compat_ro::FREE_SPACE_TREE);
    let fs = open_image(&image);
    begin(&fs).commit().unwrap();
    assert!(is_valid(&fs));
    verify(&fs);
    drop(fs);
    assert_clean(&image);
}

/// The options `space_cache=v2` and `clear_cache`: a volume without the tree gets it, and knows the
/// block groups that were made before; one with a tree has it made anew, whatever was wrong with
/// it.
#[test]
fn it_is_made_anew_when_asked_for() {
    for kind in kinds() {
        let scratch = Scratch::new("space-renew");
        let image = make_large(&scratch, 4 << 30, kind);
        let fs = open_image(&image);
        let mut trans = begin(&fs);
        make_file(&mut trans, INO, "extents", NODATASUM);
        for n in 0..300 {
            append(&mut trans, INO, n * 64 * KIB, (4 * KIB) << (n % 5)).unwrap();
        }
        chunk_alloc::create_chunk(&mut trans, DATA).unwrap();
        trans.commit().unwrap();
        for _ in 0..2 {
            fs.renew_free_space_tree().unwrap();
            assert!(is_valid(&fs));
            verify(&fs);
            assert_clean(&image);
        }
        let mut trans = begin(&fs);
        for n in (0..300).step_by(2) {
            punch(&mut trans, INO, n * 64 * KIB);
        }
        trans.commit().unwrap();
        verify(&fs);
        drop(fs);
        assert_clean(&image);
    }
}
