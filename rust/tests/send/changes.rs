// SPDX-License-Identifier: GPL-2.0
//! Incremental streams: those of the C driver, for cases that are known to be hard and for random
//! changes.

use super::*;
use rbtrfs_engine::format::{objectid, tree_id};
use rbtrfs_engine::subvol::dir;
use std::string::String;

const CASES: &str = "cases";
const MIXED: &str = "mixed";

fn open_recorded(name: &str) -> Arc<Fs> {
    open(Arc::new(recordings::volume(name), GFP_KERNEL).unwrap()).unwrap()
}

/// Sends all that was recorded of one case.
fn check_case(case: &str) {
    let fs = open_recorded(CASES);
    let mut streams = recordings::streams(CASES);
    streams.retain(|stream| stream.name == case);
    assert_eq!(streams.len(), 8);
    for wanted in streams {
        check(&fs, &wanted);
    }
}

/// Sends all that was recorded of a volume of `seeds` subvolumes with random changes.
fn check_seeds(name: &str, seeds: usize) {
    let fs = open_recorded(name);
    let streams = recordings::streams(name);
    assert_eq!(streams.len(), 8 * seeds);
    for wanted in streams {
        check(&fs, &wanted);
    }
}

/// The stream of mixed changes that has most in it.
pub(super) fn richest() -> Subject {
    let streams = recordings::streams(MIXED).into_iter();
    Subject {
        volume: recordings::volume(MIXED),
        wanted: streams.max_by_key(|stream| stream.size).unwrap(),
    }
}

macro_rules! cases {
    ($($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                check_case(stringify!($case));
            }
        )*

        #[test]
        fn every_recorded_case_is_tested() {
            let tested = [$(stringify!($case)),*];
            for stream in recordings::streams(CASES) {
                assert!(tested.contains(&&*stream.name), "{}", stream.name);
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
    check_seeds("dirs", 90);
}

#[test]
fn random_names() {
    check_seeds("names", 72);
}

#[test]
fn random_data() {
    check_seeds("data", 60);
}

#[test]
fn random_data_compressed() {
    check_seeds("compressed-data", 36);
}

#[test]
fn random_changes() {
    check_seeds(MIXED, 60);
}

#[test]
fn random_changes_compressed() {
    check_seeds("compressed", 36);
}

#[test]
fn every_recorded_volume_is_tested() {
    let tested = [
        CASES,
        "compressed",
        "compressed-data",
        "data",
        "dirs",
        FULL,
        MIXED,
        "names",
    ];
    assert_eq!(recordings::names(), tested);
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
    let fs = open_recorded(CASES);
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
    let fs = open_recorded(CASES);
    let wanted = recordings::streams(CASES).remove(0);
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
    let fs = open_recorded(CASES);
    let wanted = recordings::streams(CASES).remove(0);
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

/// Sends what was recorded of a case, each stream with nothing in memory, and returns the most that
/// the reads of the streams that `take` wants amounted to.
fn cold_reads(case: &str, take: impl Fn(&Stream) -> bool) -> Counts {
    let mut most = Counts::default();
    let mut streams = recordings::streams(CASES);
    streams.retain(|stream| stream.name == case && stream.flags == 0 && take(stream));
    assert!(!streams.is_empty());
    for wanted in streams {
        let volume = Arc::new(recordings::volume(CASES), GFP_KERNEL).unwrap();
        let device = Arc::new(FaultDevice::new(volume), GFP_KERNEL).unwrap();
        let fs = open(device.clone()).unwrap();
        device.clear();
        check(&fs, &wanted);
        let counts = device.counts();
        most.waits = most.waits.max(counts.waits);
        most.reads = most.reads.max(counts.reads);
    }
    most
}

/// Leaf by leaf, each of these would wait two to ten times as often.
#[test]
fn what_differs_is_read_at_once() {
    for (case, waits) in [
        ("deep_paths", 6),
        ("hundred_directories", 18),
        ("names_like_orphans", 4),
        ("removed_tree_of_many", 4),
        ("thousand_links", 14),
        ("many_extents", 20),
    ] {
        let counts = cold_reads(case, |_| true);
        assert!(counts.waits <= waits, "{case}: {counts:?}");
    }
}

/// Of the extents that lie after a changed one, those are read with it that changed as well.
#[test]
fn data_that_did_not_change_is_not_read() {
    let forwards = |stream: &Stream| stream.parent.is_some_and(|parent| stream.root > parent);
    let counts = cold_reads("many_extents", forwards);
    assert!(counts.reads <= 30, "{counts:?}");
}
