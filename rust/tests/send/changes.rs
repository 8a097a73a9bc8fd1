// SPDX-License-Identifier: GPL-2.0
//! Incremental streams: those of the C driver, for cases that are known to be hard and for random changes.

use super::*;
use rbtrfs_engine::format::{objectid, tree_id};
use rbtrfs_engine::subvol::dir;
use std::string::String;

/// A recorded volume, and the streams that the C driver made of it.
struct Set {
    volume: &'static [u8],
    list: &'static str,
}

macro_rules! set {
    ($name:literal) => {
        Set {
            volume: include_bytes!(concat!("changes/", $name, ".zst")),
            list: include_str!(concat!("changes/", $name, ".txt")),
        }
    };
}

const CASES: Set = set!("cases");
const MIXED: Set = set!("mixed");

impl Set {
    /// The streams of one case, or of all, with the names of their cases.
    fn streams(&self, case: Option<&str>) -> Vec<(&'static str, Recorded)> {
        let lines = self.list.lines().map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let parent = fields[1].parse().unwrap();
            (fields[0], Recorded::new(Some(parent), &fields[2..]))
        });
        lines
            .filter(|(name, _)| case.is_none_or(|case| case == *name))
            .collect()
    }

    /// Sends everything, and compares.
    fn check(&self, case: Option<&str>) {
        let fs = open(Arc::new(unpack(self.volume), GFP_KERNEL).unwrap()).unwrap();
        let streams = self.streams(case);
        assert!(streams.len() >= 8);
        for (name, wanted) in streams {
            let stream = stream_of(&fs, &wanted.args()).unwrap();
            let what = format!(
                "{name}: root {} parent {:?} flags {} version {} clones {:?}",
                wanted.root, wanted.parent, wanted.flags, wanted.version, wanted.clones
            );
            assert_eq!(stream.len(), wanted.size, "size, {what}");
            assert_eq!(fnv(&stream), wanted.hash, "hash, {what}");
        }
    }
}

/// The stream of mixed changes that has most in it.
pub(super) fn richest() -> Subject {
    let streams = MIXED.streams(None).into_iter();
    let (_, wanted) = streams.max_by_key(|(_, stream)| stream.size).unwrap();
    Subject {
        volume: unpack(MIXED.volume),
        wanted,
    }
}

macro_rules! cases {
    ($($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                CASES.check(Some(stringify!($case)));
            }
        )*

        #[test]
        fn every_recorded_case_is_tested() {
            let tested = [$(stringify!($case)),*];
            for (name, _) in CASES.streams(None) {
                assert!(tested.contains(&name), "{name}");
            }
        }
    };
}

cases! {
    move_below_renamed
    invert_two
    invert_chain
    name_of_a_waiting_directory
    waiting_for_each_other
    waits_twice
    removed_with_waiting_child
    removed_tree_of_many
    removed_and_made_again
    names_rotate
    changed_places
    ancestor_loses_its_name
    links_into_orphans
    first_name_taken
    thousand_links
    names_like_orphans
    deep_paths
    kinds_change
    nested_subvolumes
    attributes
    holes
    many_extents
    clones_of_the_parent
    hundred_directories
    replaced_inodes
}

#[test]
fn random_moves_of_directories() {
    set!("dirs").check(None);
}

#[test]
fn random_names() {
    set!("names").check(None);
}

#[test]
fn random_data() {
    set!("data").check(None);
}

#[test]
fn random_changes() {
    MIXED.check(None);
}

/// The tree of a subvolume at the top of the volume.
fn tree_of(fs: &Fs, name: &str) -> u64 {
    let reader = fs.reader().unwrap();
    let top = reader.root(tree_id::FS).unwrap();
    let found = dir::lookup(&reader, top, objectid::FIRST_FREE, name.as_bytes()).unwrap();
    found.unwrap().location.objectid
}

/// The two attributes of every RENAME in a stream, one line each.
fn renames(stream: &[u8]) -> Vec<String> {
    let mut rest = &stream[17..];
    let mut out = Vec::new();
    while let Some((head, tail)) = rest.split_at_checked(10) {
        let (body, tail) =
            tail.split_at(u32::from_le_bytes(head[..4].try_into().unwrap()) as usize);
        if head[4] == 9 {
            let len = usize::from(body[2]);
            let (from, to) = (&body[4..4 + len], &body[8 + len..]);
            out.push(format!(
                "{} {}",
                String::from_utf8_lossy(from),
                String::from_utf8_lossy(to)
            ));
        }
        rest = tail;
    }
    out
}

/// The C driver gives up on this one with `ENOENT`.
#[test]
fn new_directory_waits() {
    let fs = open(Arc::new(unpack(CASES.volume), GFP_KERNEL).unwrap()).unwrap();
    let args = SendArgs {
        root: tree_of(&fs, "new_directory_waits-sent"),
        parent: Some(tree_of(&fs, "new_directory_waits-parent")),
        clones: &[],
        flags: 0,
        version: 0,
    };
    let stream = stream_of(&fs, &args).unwrap();
    let renames = renames(&stream);
    let orphan = renames[0]
        .split('/')
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap();
    assert!(orphan.starts_with("o257-"));
    let expected = [
        format!("y {orphan}/y2"),
        format!("x {orphan}/y2/x"),
        "z z2".into(),
        format!("{orphan} z2/n"),
    ];
    assert_eq!(renames, expected);
}

#[test]
fn nothing_changed() {
    let set = CASES;
    let fs = open(Arc::new(unpack(set.volume), GFP_KERNEL).unwrap()).unwrap();
    let (_, wanted) = set.streams(None).remove(0);
    let args = SendArgs {
        parent: Some(wanted.root),
        ..wanted.args()
    };
    let stream = stream_of(&fs, &args).unwrap();
    // The head, SNAPSHOT and END.
    let snapshot = &stream[17..];
    assert_eq!(snapshot[4], 2);
    let len = u32::from_le_bytes(snapshot[..4].try_into().unwrap()) as usize;
    let end = &snapshot[10 + len..];
    assert_eq!((end.len(), end[4]), (10, 21));
}

#[test]
fn parents_are_refused_as_by_the_c_driver() {
    let fs = open(Arc::new(unpack(CASES.volume), GFP_KERNEL).unwrap()).unwrap();
    let (_, wanted) = CASES.streams(None).remove(0);
    let with = |parent| {
        let args = SendArgs {
            parent: Some(parent),
            ..wanted.args()
        };
        stream_of(&fs, &args).err()
    };
    assert_eq!(with(wanted.parent.unwrap()), None);
    assert_eq!(with(999_999), Some(ENOENT));
    // Not a subvolume, the top-level one, and one that can be written to.
    assert_eq!(with(2), Some(ENOENT));
    assert_eq!(with(5), Some(EPERM));
    assert_eq!(with(256), Some(EPERM));
}
