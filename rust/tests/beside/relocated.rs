// SPDX-License-Identifier: GPL-2.0
//! A send that is stopped at each of its steps, with everything relocated there and what that frees
//! used for something else: the stream is the one without.

use crate::contents::*;
use crate::files::*;
use crate::judge::assert_as_good;
use crate::stops::*;
use crate::support::contents::packed;
use kernel::prelude::*;
use rbtrfs_engine::format::chunk::block_group_flags as bg;
use rbtrfs_engine::send::{flags, SendArgs};
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::recorded;

/// What is relocated, one after the other.
#[derive(Clone, Copy, Debug)]
enum What {
    Metadata,
    Data,
    Both,
    Twice,
}

const ALL: [What; 4] = [What::Metadata, What::Data, What::Both, What::Twice];

/// A send that is stopped while it reads holds its commit, so that what is freed meanwhile may be
/// all there is.
fn or_full(result: Result) {
    assert!(matches!(result, Ok(()) | Err(ENOSPC)), "{result:?}");
}

impl What {
    fn relocate(self, fs: &Fs, seed: u64) {
        let rounds: &[u64] = match self {
            What::Metadata => &[bg::METADATA],
            What::Data => &[bg::DATA],
            What::Both => &[EVERYTHING],
            What::Twice => &[EVERYTHING, EVERYTHING],
        };
        for kinds in rounds {
            or_full(balance(fs, *kinds));
            or_full(reuse(fs, seed));
        }
    }
}

/// Fills space that was freed with other data and other tree blocks.
fn reuse(fs: &Fs, seed: u64) -> Result {
    let name = format!("reused-{seed}");
    let id = match lookup(fs, ROOT, &name)? {
        Some(id) => id,
        None => file(fs, ROOT, &name)?,
    };
    let data = pattern(512 << 10, seed);
    write(fs, id, 0, &data, data.len() as u64)?;
    fs.commit()
}

/// How a stream is compared with the one that is sent with nothing beside it.
#[derive(Clone, Copy)]
enum Judge {
    /// Byte for byte.
    Bytes,
    /// What it makes is the same, and as much of it is cloned: there are extents that files share.
    Tree,
}

/// Stops at every `nth` step; `all` relocates everything there is to relocate at each of them, or
/// one after the other.
fn check(
    volume: &Volume,
    what: &str,
    args: &SendArgs<'_>,
    (nth, all): (usize, bool),
    judge: Judge,
) {
    let (alone, steps) = volume.send_alone(args);
    let mut moved = 0;
    for (stop, at) in (1..=steps).step_by(nth).enumerate() {
        let kinds = match all {
            true => &ALL[..],
            false => &ALL[stop % ALL.len()..][..1],
        };
        for kind in kinds.iter().copied() {
            let before = volume.fs.reader().unwrap().relocated();
            // What is not read again would hide what was read wrongly.
            volume.fs.cache.shrink(0);
            let sent = volume.send(args, at, move |fs| {
                kind.relocate(fs, (at % 7) as u64);
                fs.cache.shrink(0);
            });
            let place = format!("{what}: step {at} of {steps}, {kind:?} moved");
            let (stream, _) = sent.unwrap_or_else(|error| panic!("{place}: {error:?}"));
            match judge {
                Judge::Bytes => assert!(stream == alone, "{place}: another stream"),
                Judge::Tree => {
                    let reader = volume.fs.reader().unwrap();
                    assert_as_good(&reader, args.root, &stream, &alone, &place);
                }
            }
            moved += usize::from(volume.fs.reader().unwrap().relocated() != before);
        }
    }
    assert!(moved * nth * 2 > steps, "{what}: {moved} relocations");
}

/// Every step of every kind of send, of a small volume with shared extents and a little of
/// everything.
#[test]
fn every_step() {
    let args = SendArgs {
        root: 259,
        parent: None,
        clones: &[],
        flags: 0,
        version: 1,
    };
    let incremental = SendArgs {
        parent: Some(258),
        ..args
    };
    let version_2 = |more| SendArgs {
        version: 2,
        flags: flags::VERSION | more,
        ..incremental
    };
    let cases = [
        ("full", args),
        (
            "clones",
            SendArgs {
                clones: &[258],
                ..args
            },
        ),
        ("incremental", incremental),
        ("compressed", version_2(flags::COMPRESSED)),
        ("no data", version_2(flags::NO_FILE_DATA)),
        (
            "backwards",
            SendArgs {
                root: 258,
                parent: Some(259),
                clones: &[259],
                ..version_2(flags::COMPRESSED)
            },
        ),
    ];
    let volume = Volume::of(packed("tiny"));
    for (what, args) in &cases {
        check(&volume, what, args, (1, true), Judge::Bytes);
    }
}

/// Some steps of streams that were recorded, of larger volumes.
fn recorded_streams(name: &str, streams: usize, stops: usize, judge: Judge) {
    let all = recorded::streams(name);
    for wanted in all.iter().step_by(all.len().div_ceil(streams)) {
        // After a relocation, what is sent alone is not what was recorded either, where extents are
        // shared.
        let volume = Volume::recorded(name);
        let (alone, steps) = volume.send_alone(&wanted.args());
        assert!(is_recorded(&alone, wanted));
        let nth = steps.div_ceil(stops);
        check(&volume, &wanted.name, &wanted.args(), (nth, false), judge);
    }
}

#[test]
fn full_sends() {
    recorded_streams("full", 4, 6, Judge::Bytes);
}

#[test]
fn file_data() {
    recorded_streams("data", 6, 4, Judge::Tree);
}

#[test]
fn directory_moves() {
    recorded_streams("dirs", 6, 4, Judge::Bytes);
}

#[test]
fn compressed_data() {
    recorded_streams("compressed-data", 4, 4, Judge::Tree);
}
