// SPDX-License-Identifier: GPL-2.0
//! What a scrub finds, and what becomes of it.

use crate::places::*;
use crate::support::*;
use rbtrfs_engine::format::tree_id;
use rbtrfs_engine::state::ScrubProgress;
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::MemDevice;

const NODE: usize = 16384;
/// The offset of the generation in a tree block's header, of its owner, and of its level.
const GENERATION: usize = 80;
const OWNER: usize = 88;
const LEVEL: usize = 100;

/// Damages a copy of a sector of file data and of two tree blocks, the second copy of one.
fn damage(fs: &Fs, image: &MemDevice) {
    let (_, data) = first_file(fs);
    image.flip(copies(fs, data, 4096)[0] + 100);
    image.flip(copies(fs, root_block(fs, tree_id::CSUM), NODE as u64)[0] + 5000);
    image.flip(copies(fs, root_block(fs, tree_id::FS), NODE as u64)[1]);
}

/// What such damage counts as.
fn expect(found: &ScrubProgress) {
    assert_eq!(
        (found.csum_errors, found.verify_errors, found.read_errors),
        (1, 8, 0)
    );
    assert_eq!((found.corrected_errors, found.uncorrectable_errors), (9, 0));
}

#[test]
fn a_bad_copy_is_written_over_with_a_good_one() {
    let (scratch, image, fs) = volume("scrub-repair", DUP);
    let before = (*image).clone();
    damage(&fs, &image);
    let (found, log) = kernel::log::capture(|| run_all(&fs, &EVERYTHING));
    expect(&found);
    assert_eq!(image.fingerprint(&before), before.fingerprint(&before));
    assert_eq!(fs.stats.get(), [0, 0, 0, 1, 0]);
    let fixed = log
        .iter()
        .filter(|line| line.contains("scrub: fixed up error at logical"));
    assert_eq!(fixed.count(), 3, "{log:?}");
    let again = run_all(&fs, &EVERYTHING);
    assert_eq!(
        (
            again.corrected_errors,
            again.csum_errors,
            again.verify_errors
        ),
        (0, 0, 0)
    );
    fs.commit().unwrap();
    drop(fs);
    scratch.assert_clean(&image);
}

#[test]
fn a_scrub_that_only_reads_writes_nothing() {
    let scratch = Scratch::new("scrub-only-reads");
    let image = share(make_mem(&scratch, DUP));
    for mounted_read_only in [false, true] {
        let options = OpenOptions {
            read_only: mounted_read_only,
            ..OpenOptions::default()
        };
        let device = share((*image).clone());
        let fs = Fs::open(device.clone(), &options).unwrap();
        damage(&fs, &device);
        let damaged = (*device).clone();
        expect(&run_all(&fs, &READ_ONLY));
        assert_eq!(device.fingerprint(&damaged), damaged.fingerprint(&damaged));
        if mounted_read_only {
            assert_eq!(run(&fs, &EVERYTHING).result, Err(kernel::prelude::EROFS));
        }
    }
}

#[test]
fn what_has_no_good_copy_is_named() {
    let (_scratch, image, fs) = volume("scrub-named", DUP);
    let (ino, data) = first_file(&fs);
    for place in copies(&fs, data, 4096) {
        image.flip(place);
    }
    let block = root_block(&fs, tree_id::CSUM);
    for place in copies(&fs, block, NODE as u64) {
        image.flip(place + 200);
    }
    let damaged = (*image).clone();
    // The tree of checksums is in memory, or there would be no scrub of data.
    let (found, log) = kernel::log::capture(|| {
        let outcome = run(&fs, &EVERYTHING);
        (outcome.result, outcome.progress)
    });
    let (result, found) = found;
    assert_eq!(result, Ok(()), "{log:?}");
    assert_eq!((found.csum_errors, found.verify_errors), (2, 8));
    assert_eq!(
        (found.corrected_errors, found.uncorrectable_errors),
        (0, 10)
    );
    assert_eq!(image.fingerprint(&damaged), damaged.fingerprint(&damaged));
    let place = copies(&fs, data, 4096)[1];
    let line = format!(
        "scrub: checksum error at logical {data} on dev /dev/mem, physical {place} root 5 inode {ino} offset 0 length 4096 links 1 (path: dir"
    );
    assert!(log.iter().any(|one| one.contains(&line)), "{line}: {log:?}");
    let place = copies(&fs, block, NODE as u64)[0];
    let line = format!(
        "scrub: header error at logical {block} on dev /dev/mem, physical {place}: metadata leaf (level 0) in tree 7"
    );
    assert!(log.iter().any(|one| one.contains(&line)), "{line}: {log:?}");
}

#[test]
fn a_tree_block_is_proved_as_a_read_does() {
    let changes: [(&str, usize, u8); 3] = [
        ("generation", GENERATION, 1),
        ("owner", OWNER, 1),
        ("level", LEVEL, 1),
    ];
    for (what, at, by) in changes {
        let (_scratch, image, fs) = volume(&format!("scrub-{what}"), DUP);
        let before = (*image).clone();
        let place = copies(&fs, root_block(&fs, tree_id::CSUM), NODE as u64)[1];
        forge(&image, place, NODE, |bytes| {
            bytes[at] = bytes[at].wrapping_add(by)
        });
        let found = run_all(&fs, &EVERYTHING);
        assert_eq!(
            (found.verify_errors, found.corrected_errors),
            (4, 4),
            "{what}"
        );
        assert_eq!(image.fingerprint(&before), before.fingerprint(&before));
        let generation = u64::from(what == "generation");
        assert_eq!(fs.stats.get(), [0, 0, 0, 0, generation], "{what}");
    }
}

#[test]
fn superblocks_are_written_anew() {
    let (scratch, image, fs) = volume("scrub-supers", DUP);
    let generation = fs.generation();
    image.flip((64 << 20) + 300);
    assert_eq!(run_all(&fs, &READ_ONLY).super_errors, 1);
    assert_eq!(fs.generation(), generation);
    assert_eq!(run_all(&fs, &EVERYTHING).super_errors, 1);
    assert_eq!(run_all(&fs, &EVERYTHING).super_errors, 0);
    drop(fs);
    scratch.assert_clean(&image);
}
