// SPDX-License-Identifier: GPL-2.0
//! What users are told of the space in use: what is so now, not what was so at the last commit.

use crate::files::*;
use crate::support::*;
use kernel::prelude::EIO;
use rbtrfs_engine::balance::committed_usage::{committed, usage};
use rbtrfs_engine::format::chunk::block_group_flags as bg;
use rbtrfs_engine::space::usage::{allocated, Usage, Usages};
use rbtrfs_engine::subvol::write::{evict, unlink, InodeId};
use rbtrfs_engine::volume::Fs;

const MIB: u64 = 1 << 20;

fn sum(sums: &Usages, kind: u64, of: fn(&Usage) -> u64) -> u64 {
    sums.iter().filter(|u| u.flags & kind != 0).map(of).sum()
}

fn data_in_use(fs: &Fs) -> u64 {
    sum(&usage(fs).unwrap(), bg::DATA, Usage::in_use)
}

/// Right after a commit, what is in use now is what the commit says.
#[track_caller]
fn assert_is_committed(fs: &Fs) {
    let (now, last) = (
        usage(fs).unwrap(),
        committed(&fs.reader().unwrap()).unwrap(),
    );
    for (now, last) in now.iter().zip(&last) {
        let of = |u: &Usage| (u.flags, u.groups, u.total, u.used, u.supers);
        assert_eq!(of(now), of(last));
        assert_eq!((now.reserved, now.read_only), (0, 0));
    }
    let reader = fs.reader().unwrap();
    let device = &reader.superblock().dev_item;
    assert_eq!(allocated(&now), device.bytes_used.get());
}

fn remove(fs: &Fs, name: &str) {
    let gone = unlink(fs, ROOT, name.as_bytes(), now()).unwrap();
    let id = InodeId {
        ino: gone.ino,
        ..ROOT
    };
    evict(fs, id).unwrap();
}

#[test]
fn what_is_in_use_shows_before_the_commit() {
    for kind in KINDS {
        let scratch = Scratch::new("write-usage");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        assert!(fs.usages().is_none());
        let first = data_in_use(&fs);

        let id = file(&fs, ROOT, "large").unwrap();
        assert_eq!(data_in_use(&fs), first);
        let generation = fs.generation();
        // Space that has no data yet is in use, too.
        let extent = fs.alloc_data(None, MIB).unwrap();
        assert_eq!(data_in_use(&fs), first + MIB);
        drop(extent);
        write(&fs, id, 0, &vec![7; 3 * MIB as usize], 3 * MIB).unwrap();
        assert_eq!(data_in_use(&fs), first + 3 * MIB);
        assert_eq!(fs.generation(), generation, "nothing was committed");
        assert!(fs.usages().is_some());
        fs.commit().unwrap();
        assert_eq!(data_in_use(&fs), first + 3 * MIB);
        assert_is_committed(&fs);

        // What is freed stays in use until the commit, and then waits for readers, which counts as
        // free.
        remove(&fs, "large");
        assert_eq!(data_in_use(&fs), first + 3 * MIB);
        let reader = fs.reader().unwrap();
        fs.commit().unwrap();
        assert_eq!(data_in_use(&fs), first);
        let pinned = |fs: &Fs| sum(&usage(fs).unwrap(), bg::DATA, |u| u.pinned);
        assert_eq!(pinned(&fs), 3 * MIB);
        drop(reader);
        file(&fs, ROOT, "next").unwrap();
        assert_eq!(pinned(&fs), 0);
        fs.commit().unwrap();
        assert_is_committed(&fs);
    }
}

/// A new chunk shows, and is not taken for free space on the device any more.
#[test]
fn new_chunks_show_before_the_commit() {
    let scratch = Scratch::new("write-usage-chunk");
    let device = share(make_mem(&scratch, &["-m", "single"]));
    let fs = open(&device).unwrap();
    let before = usage(&fs).unwrap();
    let want = sum(&before, bg::DATA, |u| u.total - u.used);
    let id = file(&fs, ROOT, "large").unwrap();
    let generation = fs.generation();
    write(&fs, id, 0, &vec![1; want as usize + MIB as usize], want).unwrap();
    assert_eq!(fs.generation(), generation);
    let after = usage(&fs).unwrap();
    let groups = |sums| sum(sums, bg::DATA, |u| u.groups);
    assert!(groups(&after) > groups(&before));
    assert!(allocated(&after) > allocated(&before));
    fs.commit().unwrap();
    assert_is_committed(&fs);
}

/// Once the volume failed, the last commit is all that there is.
#[test]
fn a_volume_that_failed_shows_its_last_commit() {
    let scratch = Scratch::new("write-usage-failed");
    let device = share(make_mem(&scratch, &[]));
    let fs = open(&device).unwrap();
    let first = data_in_use(&fs);
    let id = file(&fs, ROOT, "large").unwrap();
    write(&fs, id, 0, &vec![7; MIB as usize], MIB).unwrap();
    assert_eq!(data_in_use(&fs), first + MIB);
    fs.force_read_only(EIO);
    assert_eq!(data_in_use(&fs), first);
}
