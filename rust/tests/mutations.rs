// SPDX-License-Identifier: GPL-2.0
//! Damaged volumes by the thousand, each with checksums that fit: all that can be done with one
//! ends, without a panic.
//!
//! The same each time; `RBTRFS_ROUNDS` asks for more of them, and `tools/fuzz` goes on from there.

#[path = "support/mod.rs"]
mod support;

use rbtrfs_testdev::exercise::{exercise, Done};
use rbtrfs_testdev::mutate::Seed;
use rbtrfs_testdev::{corpus, MemDevice};
use std::sync::Mutex;
use support::contents::packed;
use support::every::every;
use support::Scratch;

/// The places that one script damages at most, and its bytes for each.
const PLACES: u64 = 4;
const BYTES: u64 = 9;

/// The script of a number.
fn script(n: u64) -> Vec<u8> {
    let mut random = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let len = BYTES * (1 + n % PLACES);
    let bytes = (0..len).map(|_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 32) as u8
    });
    bytes.collect()
}

fn damage(image: MemDevice, rounds: u64) {
    let asked = std::env::var("RBTRFS_ROUNDS").ok();
    let rounds = asked.map_or(rounds, |rounds| rounds.parse().unwrap());
    let whole = exercise(&image);
    assert!(
        whole.opened && whole.balanced && whole.sent > 0 && whole.bytes > 0,
        "{whole:?}"
    );
    let seed = Seed::new(image).unwrap();
    let all: Mutex<Vec<Done>> = Mutex::default();
    every("script", |n| {
        let done = exercise(&seed.damaged(&script(n)));
        all.lock().unwrap().push(done);
        n < rounds
    });
    let all = all.into_inner().unwrap();
    let part =
        |of: &dyn Fn(&Done) -> bool| all.iter().filter(|done| of(done)).count() * 100 / all.len();
    let opened = part(&|done| done.opened);
    let hurt = part(&|done| *done != whole);
    let balanced = part(&|done| done.balanced);
    println!("{opened} % opened, {hurt} % hurt, {balanced} % balanced");
    // Neither are all of them turned away at the door nor does it go unnoticed.
    assert!(
        opened > 50 && hurt > 20 && balanced > 0,
        "{opened} {hurt} {balanced}"
    );
}

#[test]
fn a_small_volume() {
    damage(packed("tiny"), 1500);
}

#[test]
fn many_kinds_of_extents() {
    damage(packed("extents"), 60);
}

/// The largest image that is taken into memory, in bytes.
const LARGEST: u64 = 512 << 20;

/// Odd and damaged volumes of others, as they are and with more damage.
#[test]
fn volumes_of_others() {
    let scratch = Scratch::new("others");
    let image = scratch.path("image");
    for folder in ["fuzz", "fsck"] {
        let Some(images) = corpus::images(folder) else {
            return;
        };
        for packed in images {
            corpus::unpack(&packed, &image);
            // Gigabytes of nothing are for `corpus.rs`, which reads files.
            if image.metadata().unwrap().len() > LARGEST {
                continue;
            }
            let image = MemDevice::from_file(&image).unwrap();
            let (seed, _) = kernel::log::capture(|| Seed::new(image.clone()));
            println!("{}: {:?}", packed.display(), exercise(&image));
            if let Ok(seed) = seed {
                every("script", |n| {
                    exercise(&seed.damaged(&script(n)));
                    n < 4
                });
            }
        }
    }
}
