// SPDX-License-Identifier: GPL-2.0
//! Subvolumes and snapshots, and the cleaner.

use crate::files::*;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::format::tree_id;
use rbtrfs_engine::subvol::subvolume::{self, *};
use rbtrfs_engine::subvol::write::*;
use rbtrfs_engine::volume::Fs;
use std::string::String;
use std::vec::Vec;

pub fn subvolume(fs: &Fs, name: &str, n: u8) -> Result<InodeId> {
    let new = NewSubvolume {
        uuid: [n; 16],
        uid: 0,
        gid: 0,
        mode: 0o755,
        now: now(),
    };
    let made = create_subvolume(fs, ROOT, name.as_bytes(), &new)?;
    Ok(InodeId {
        tree: made.tree,
        ino: 256,
    })
}

pub fn snap(fs: &Fs, source: u64, name: &str, n: u8, read_only: bool) -> Result<InodeId> {
    let new = NewSnapshot {
        uuid: [n; 16],
        read_only,
        now: now(),
    };
    let made = subvolume::snapshot(fs, source, ROOT, name.as_bytes(), &new)?;
    Ok(InodeId {
        tree: made.tree,
        ino: 256,
    })
}

pub fn delete(fs: &Fs, name: &str) -> Result<u64> {
    Ok(delete_subvolume(fs, ROOT, name.as_bytes(), now())?.tree)
}

/// Where a subvolume was received from.
pub fn received(n: u8) -> Received {
    Received {
        uuid: [n; 16],
        stransid: 77,
        stime: now(),
        now: now(),
    }
}

fn fill_dir(fs: &Fs, dir: InodeId, count: u64, seed: u64) {
    for n in 0..count {
        let id = file(fs, dir, &format!("file-{seed}-{n:04}")).unwrap();
        let len = if n % 3 == 0 { 9000 } else { 300 };
        fill(fs, id, &pattern(len, seed + n)).unwrap();
    }
}

/// Every way in which a tree can share its blocks with another, and every order of deletion.
#[test]
fn snapshots_come_and_go_in_any_order() {
    let mut orders: Vec<Vec<&str>> = vec![];
    for a in ["sub", "one", "two"] {
        for b in ["sub", "one", "two"] {
            for c in ["sub", "one", "two"] {
                if a != b && b != c && a != c {
                    orders.push(vec![a, b, c]);
                }
            }
        }
    }
    for (round, order) in orders.iter().enumerate() {
        let kind = KINDS[round % KINDS.len()];
        let scratch = Scratch::new("write-snapshots");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        let sub = subvolume(&fs, "sub", 1).unwrap();
        fill_dir(&fs, sub, 120, 1);
        let one = snap(&fs, sub.tree, "one", 2, false).unwrap();
        fill_dir(&fs, sub, 40, 1000);
        fill_dir(&fs, one, 30, 2000);
        fs.commit().unwrap();
        let two = snap(&fs, one.tree, "two", 3, false).unwrap();
        fill_dir(&fs, two, 30, 3000);
        fill_dir(&fs, one, 10, 4000);
        fs.commit().unwrap();
        scratch.assert_clean(&device);
        for (n, name) in order.iter().enumerate() {
            delete(&fs, name).unwrap();
            if n == 1 {
                fs.commit().unwrap();
                scratch.assert_clean(&device);
            }
            assert!(clean_subvolumes(&fs, &|_| true, &|| false).unwrap());
            fs.commit().unwrap();
            scratch.assert_clean(&device);
        }
        assert_eq!(
            trees(&fs).iter().filter(|t| **t >= 256).count(),
            data_reloc(&fs)
        );
    }
}

/// The tree that mkfs makes for relocation by the C driver.
fn data_reloc(fs: &Fs) -> usize {
    usize::from(fs.reader().unwrap().root(tree_id::DATA_RELOC).is_ok())
}

/// Files stay what they are for those who have them open.
#[test]
fn a_deleted_subvolume_in_use_stays() {
    let scratch = Scratch::new("write-deleted-in-use");
    let device = share(make_mem(&scratch, &["-n", "4096"]));
    let fs = open(&device).unwrap();
    let (open_one, other) = (
        subvolume(&fs, "open", 1).unwrap(),
        subvolume(&fs, "other", 2).unwrap(),
    );
    fill_dir(&fs, open_one, 50, 1);
    fill_dir(&fs, other, 50, 2);
    let id = file(&fs, open_one, "written later").unwrap();
    fs.commit().unwrap();
    delete(&fs, "open").unwrap();
    delete(&fs, "other").unwrap();

    let claim = |tree| tree != open_one.tree;
    assert!(clean_subvolumes(&fs, &claim, &|| false).unwrap());
    fs.commit().unwrap();
    let is_there = |tree| fs.reader().unwrap().root(tree).is_ok();
    assert!(is_there(open_one.tree) && !is_there(other.tree));
    let data = pattern(50_000, 9);
    fill(&fs, id, &data).unwrap();
    assert!(read(&fs, id).unwrap() == data);
    fs.commit().unwrap();
    scratch.assert_clean(&device);

    assert!(clean_subvolumes(&fs, &|_| true, &|| false).unwrap());
    fs.commit().unwrap();
    assert!(!is_there(open_one.tree));
    scratch.assert_clean(&device);
}

#[test]
fn the_cleaner_goes_on_after_a_mount() {
    let scratch = Scratch::new("write-cleaner");
    let device = share(make_mem(&scratch, &["-n", "4096", "-m", "single"]));
    let mut fs = open(&device).unwrap();
    let sub = subvolume(&fs, "sub", 1).unwrap();
    fill_dir(&fs, sub, 3000, 1);
    snap(&fs, sub.tree, "keep", 2, true).unwrap();
    fill_dir(&fs, sub, 900, 10_000);
    fs.commit().unwrap();
    delete(&fs, "sub").unwrap();
    fs.commit().unwrap();
    let mut mounts = 0;
    loop {
        let left = std::cell::Cell::new(1);
        let stop = || left.replace(left.get() - 1) == 0;
        let done = clean_subvolumes(&fs, &|_| true, &stop).unwrap();
        fs.commit().unwrap();
        drop(fs);
        scratch.assert_clean(&device);
        fs = open(&device).unwrap();
        if done {
            break;
        }
        mounts += 1;
    }
    assert!(mounts > 3, "{mounts}");
    mounted(&scratch, &device, |dir| {
        assert_eq!(std::fs::read_dir(dir.join("keep")).unwrap().count(), 3000);
        let bytes = std::fs::read(dir.join("keep/file-1-0003")).unwrap();
        assert_eq!(bytes, pattern(9000, 4));
        assert!(!dir.join("sub").exists());
    });
}

#[test]
fn subvolumes_are_guarded() {
    let scratch = Scratch::new("write-guards");
    let device = share(make_mem(&scratch, &[]));
    let fs = open(&device).unwrap();
    let sub = subvolume(&fs, "sub", 1).unwrap();
    assert_eq!(subvolume(&fs, "sub", 2).err(), Some(EEXIST));
    let new = NewSubvolume {
        uuid: [9; 16],
        uid: 0,
        gid: 0,
        mode: 0o755,
        now: now(),
    };
    create_subvolume(&fs, sub, b"nested", &new).unwrap();
    assert_eq!(delete(&fs, "sub"), Err(ENOTEMPTY));
    let shot = snap(&fs, sub.tree, "shot", 3, false).unwrap();
    // The nested subvolume is not in the snapshot, only its name; that can go.
    let gone = rmdir(&fs, shot, b"nested", now()).unwrap();
    assert_eq!((gone.ino, gone.dir.size.get()), (2, 0));
    assert_eq!(rmdir(&fs, sub, b"nested", now()).err(), Some(EPERM));

    set_default(&fs, shot.tree).unwrap();
    assert_eq!(delete(&fs, "shot"), Err(EPERM));
    set_default(&fs, tree_id::FS).unwrap();
    struct Quiet;
    impl rbtrfs_engine::state::Log for Quiet {
        fn info(&self, _: core::fmt::Arguments<'_>) {}
        fn warn(&self, _: core::fmt::Arguments<'_>) {}
        fn error(&self, _: core::fmt::Arguments<'_>) {}
    }
    let token = fs.state.begin_send(&Quiet, shot.tree).unwrap();
    assert_eq!(delete(&fs, "shot"), Err(EPERM));
    set_read_only(&fs, shot.tree, true).unwrap();
    assert_eq!(set_read_only(&fs, shot.tree, false), Err(EPERM));
    drop(token);
    assert_eq!(file(&fs, shot, "no").err(), Some(EROFS));
    assert_eq!(
        delete_subvolume(&fs, ROOT, b"dir0", now()).err(),
        Some(EINVAL)
    );
    assert_eq!(delete(&fs, "nothing"), Err(ENOENT));
    set_read_only(&fs, shot.tree, false).unwrap();
    file(&fs, shot, "yes").unwrap();
    set_received(&fs, shot.tree, &received(7)).unwrap();
    set_read_only(&fs, shot.tree, true).unwrap();
    fs.commit().unwrap();
    scratch.assert_clean(&device);
    mounted(&scratch, &device, |dir| {
        let output = std::process::Command::new("btrfs")
            .args(["subvolume", "show"])
            .arg(dir.join("shot"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for wanted in [
            "Received UUID: \t\t07070707-0707-0707-0707-070707070707",
            "Send transid: \t\t77",
            "Flags: \t\t\treadonly",
            "Parent UUID: \t\t01010101-0101-0101-0101-010101010101",
        ] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
        // The driver deletes what we made.
        for name in ["shot", "sub/nested", "sub"] {
            let output = std::process::Command::new("btrfs")
                .args(["subvolume", "delete"])
                .arg(dir.join(name))
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
        }
    });
}
