// SPDX-License-Identifier: GPL-2.0
//! Numbers of objects and orphans across mounts: a number that was in use since the mount does not
//! come again, and what became an orphan since the mount is left to the one who has it open.

use crate::files::*;
use crate::subvolumes::{delete, snap, subvolume};
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::subvol::subvolume::clean_subvolumes;
use rbtrfs_engine::subvol::write::*;
use rbtrfs_engine::volume::Fs;

fn clean_all(fs: &Fs) {
    assert!(clean_subvolumes(fs, &|_| true, &|| false).unwrap());
}

/// Removes a file as the VFS does when nobody has it open.
fn remove(fs: &Fs, name: &str) -> u64 {
    let id = lookup(fs, ROOT, name).unwrap().unwrap();
    unlink(fs, ROOT, name.as_bytes(), now()).unwrap();
    evict(fs, id).unwrap();
    id.ino
}

#[test]
fn the_number_of_a_removed_inode_does_not_come_again() {
    let scratch = Scratch::new("write-reuse-inode");
    let device = share(make_mem(&scratch, &["-n", "4096"]));
    let fs = open(&device).unwrap();
    for name in ["a", "b", "c"] {
        file(&fs, ROOT, name).unwrap();
    }
    fs.commit().unwrap();
    drop(fs);

    // The first thing after the mount is the removal of the newest.
    let fs = open(&device).unwrap();
    let (c, b) = (remove(&fs, "c"), remove(&fs, "b"));
    assert!(c > b);
    fs.commit().unwrap();
    assert_eq!(file(&fs, ROOT, "next").unwrap().ino, c + 1);
    fs.commit().unwrap();
    scratch.assert_clean(&device);
}

#[test]
fn the_number_of_an_orphan_that_a_mount_removes_does_not_come_again() {
    let scratch = Scratch::new("write-reuse-orphan");
    let device = share(make_mem(&scratch, &["-n", "4096"]));
    let fs = open(&device).unwrap();
    let left = tmpfile(&fs, ROOT, &new(mode::REG | 0o600)).unwrap().ino;
    fs.commit().unwrap();
    drop(fs);

    let fs = open(&device).unwrap();
    clean_orphans(&fs, ROOT.tree).unwrap();
    let id = InodeId { ino: left, ..ROOT };
    assert_eq!(item(&fs, id).err(), Some(ENOENT));
    assert_eq!(file(&fs, ROOT, "next").unwrap().ino, left + 1);
    fs.commit().unwrap();
    scratch.assert_clean(&device);
}

#[test]
fn the_number_of_a_dropped_subvolume_does_not_come_again() {
    let scratch = Scratch::new("write-reuse-subvolume");
    let device = share(make_mem(&scratch, &["-n", "4096"]));
    let fs = open(&device).unwrap();
    let first = subvolume(&fs, "first", 1).unwrap();
    let newest = snap(&fs, first.tree, "newest", 2, true).unwrap();
    file(&fs, first, "a").unwrap();
    fs.commit().unwrap();
    drop(fs);

    let fs = open(&device).unwrap();
    assert_eq!(delete(&fs, "newest").unwrap(), newest.tree);
    clean_all(&fs);
    let made = subvolume(&fs, "made", 3).unwrap();
    assert_eq!(made.tree, newest.tree + 1);
    delete(&fs, "made").unwrap();
    clean_all(&fs);
    let snapshot = snap(&fs, first.tree, "made", 4, false).unwrap();
    assert_eq!(snapshot.tree, newest.tree + 2);
    fs.commit().unwrap();
    drop(fs);

    // As does one that was deleted before the mount, and dropped after.
    let fs = open(&device).unwrap();
    delete(&fs, "made").unwrap();
    fs.commit().unwrap();
    drop(fs);
    let fs = open(&device).unwrap();
    clean_all(&fs);
    let made = subvolume(&fs, "made", 5).unwrap();
    assert_eq!(made.tree, snapshot.tree + 1);
    fs.commit().unwrap();
    scratch.assert_clean(&device);
}

/// A subvolume may be looked through for orphans late: it was read-only, or the volume was frozen.
#[test]
fn an_orphan_in_use_is_not_removed() {
    let scratch = Scratch::new("write-orphan-in-use");
    let device = share(make_mem(&scratch, &["-n", "4096"]));
    let fs = open(&device).unwrap();
    let left = tmpfile(&fs, ROOT, &new(mode::REG | 0o600)).unwrap().ino;
    let old = file(&fs, ROOT, "old").unwrap();
    fill(&fs, old, &pattern(9000, 1)).unwrap();
    fs.commit().unwrap();
    drop(fs);

    let fs = open(&device).unwrap();
    unlink(&fs, ROOT, b"old", now()).unwrap();
    let made = tmpfile(&fs, ROOT, &new(mode::REG | 0o600)).unwrap().ino;
    let made = InodeId { ino: made, ..ROOT };
    fill(&fs, made, &pattern(5000, 2)).unwrap();
    clean_orphans(&fs, ROOT.tree).unwrap();
    let left = InodeId { ino: left, ..ROOT };
    assert_eq!(item(&fs, left).err(), Some(ENOENT));
    assert_eq!(read(&fs, old).unwrap(), pattern(9000, 1));
    assert_eq!(read(&fs, made).unwrap(), pattern(5000, 2));
    // Those of a snapshot are its own: nobody has them open.
    let snapshot = snap(&fs, ROOT.tree, "snapshot", 1, false).unwrap();
    clean_orphans(&fs, snapshot.tree).unwrap();
    let copy = InodeId {
        ino: old.ino,
        ..snapshot
    };
    assert_eq!(item(&fs, copy).err(), Some(ENOENT));
    // One that got a name again and lost it is in use as well.
    link(&fs, made.ino, ROOT, b"name", now()).unwrap();
    unlink(&fs, ROOT, b"name", now()).unwrap();
    clean_orphans(&fs, ROOT.tree).unwrap();
    assert_eq!(read(&fs, made).unwrap(), pattern(5000, 2));
    evict(&fs, made).unwrap();
    evict(&fs, old).unwrap();
    assert_eq!(item(&fs, old).err(), Some(ENOENT));
    fs.commit().unwrap();
    scratch.assert_clean(&device);
}
