// SPDX-License-Identifier: GPL-2.0
//! Power cuts at any point, devices that fail, and lack of memory: the volume is always what one of its commits made it.

use crate::files::*;
use crate::model::{load, Kind, Model, Subvolume, Target};
use crate::support::*;
use kernel::fault;
use kernel::prelude::*;
use rbtrfs_engine::format::tree_id;
use rbtrfs_engine::subvol::manage::{self, *};
use rbtrfs_engine::subvol::write::*;
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::{FaultDevice, MemDevice, Op, RecordingDevice};
use std::collections::BTreeMap;
use std::vec::Vec;

#[test]
fn a_power_cut_leaves_what_was_committed() {
    for seed in 0..2 {
        let scratch = Scratch::new(&format!("write-cut-{seed}"));
        let kind = [
            &["-n", "4096", "-m", "single"][..],
            &["-n", "16384", "-m", "dup"],
        ];
        let device = share(RecordingDevice::new(make_mem(&scratch, kind[seed])));
        let fs = open(&device).unwrap();
        let mut model = Model::new(&fs, 77 + seed as u64);
        let mut commits = BTreeMap::from([(fs.generation(), model.clone())]);
        for step in 0..250 {
            model.step(&fs).unwrap();
            if step % 8 == 0 {
                fs.commit().unwrap();
            }
            commits
                .entry(fs.generation())
                .or_insert_with(|| model.clone());
        }
        drop(fs);
        let events = device.events().len();
        let (mut random, mut last, mut within) = (12345u64, 0, 0);
        for n in 0..=events {
            let survives = |_| {
                random = random
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                random >> 63 == 0
            };
            if n % 3 != 0 && n != events {
                continue;
            }
            let image = share(device.cut_with(n, survives));
            let fs = open(&image).unwrap();
            let found = fs.generation();
            assert!(found >= last, "{n} of {events}: {found} after {last}");
            if found != last || n % 60 == 0 {
                // An operation that drops much may commit between two pieces of its work.
                match commits.get(&found) {
                    Some(model) => model.assert_same(&fs),
                    None => within += 1,
                }
                drop(fs);
                scratch.assert_clean_lowmem(&image);
            }
            last = found;
        }
        assert_eq!(last, *commits.keys().last().unwrap());
        assert!(within * 4 < commits.len(), "{within} of {}", commits.len());
    }
}

/// Something of everything. `committed` is called after every commit.
fn script(fs: &Fs, committed: &mut dyn FnMut(&Fs)) -> Result {
    let dir = mkdir(fs, ROOT, "dir")?;
    let a = file(fs, dir, "a")?;
    fill(fs, a, &pattern(40_000, 1))?;
    let b = file(fs, dir, "b")?;
    fill(fs, b, &pattern(700, 2))?;
    set_xattr(fs, a, b"user.x", Some(b"value"), XattrMode::Set, now())?;
    fs.commit()?;
    committed(fs);
    write(fs, a, 8192, &pattern(9000, 3), 40_000)?;
    link(fs, a.ino, ROOT, b"link", now())?;
    let end = |dir, name| RenameEnd { dir, name };
    rename(
        fs,
        end(dir, b"b"),
        end(ROOT, b"moved"),
        RenameMode::Replace,
        now(),
    )?;
    rename(
        fs,
        end(ROOT, b"link"),
        end(ROOT, b"moved"),
        RenameMode::Exchange,
        now(),
    )?;
    truncate(fs, a, 20_000, now())?;
    punch(fs, a, 4096, 8192, now())?;
    preallocate(fs, b, 4096, 65536, 65536, now())?;
    let range = CloneRange {
        src: a,
        src_offset: 8192,
        len: 8192,
        dst: b,
        dst_offset: 16384,
        dst_size: 65536,
    };
    clone_range(fs, &range, now())?;
    fs.commit()?;
    committed(fs);
    let new = NewSubvolume {
        uuid: [3; 16],
        uid: 0,
        gid: 0,
        mode: 0o755,
        now: now(),
    };
    let sub = create_subvolume(fs, dir, b"sub", &new)?;
    let sub = InodeId {
        tree: sub.tree,
        ino: 256,
    };
    for n in 0..12 {
        let id = file(fs, sub, &format!("f{n}"))?;
        fill(fs, id, &pattern(5000, n))?;
    }
    let new = NewSnapshot {
        uuid: [4; 16],
        read_only: false,
        now: now(),
    };
    let snap = manage::snapshot(fs, sub.tree, ROOT, b"snap", &new)?;
    let snap = InodeId {
        tree: snap.tree,
        ino: 256,
    };
    let gone = unlink(fs, snap, b"f3", now())?;
    fs.commit()?;
    committed(fs);
    let gone = InodeId {
        tree: snap.tree,
        ino: gone.ino,
    };
    evict(fs, gone)?;
    delete_subvolume(fs, dir, b"sub", now())?;
    fs.commit()?;
    committed(fs);
    clean_subvolumes(fs, &|_| true, &|| false)?;
    fs.commit()?;
    committed(fs);
    Ok(())
}

/// All subvolumes.
fn contents(fs: &Fs) -> Vec<(u64, Subvolume)> {
    let (mut found, mut todo) = (vec![], vec![tree_id::FS]);
    while let Some(tree) = todo.pop() {
        let subvolume = load(fs, tree).unwrap();
        for object in subvolume.values() {
            if let Kind::Dir(entries) = &object.kind {
                todo.extend(entries.values().filter_map(|target| match target {
                    Target::Subvolume(tree) => Some(*tree),
                    Target::Inode(_) => None,
                }));
            }
        }
        found.push((tree, subvolume));
    }
    found
}

type Commits = BTreeMap<u64, Vec<(u64, Subvolume)>>;

/// What each commit of [`script`] holds.
fn reference(start: &MemDevice) -> Commits {
    let fs = open(&share(start.clone())).unwrap();
    let mut commits = Commits::from([(fs.generation(), contents(&fs))]);
    script(&fs, &mut |fs| {
        commits.insert(fs.generation(), contents(fs));
    })
    .unwrap();
    commits
}

/// Holds what a later mount sees against the commits. Returns the generation.
#[track_caller]
fn assert_committed(image: &MemDevice, commits: &Commits, what: &str) -> u64 {
    let fs = open(&share(image.clone())).unwrap();
    let generation = fs.generation();
    let wanted = commits.get(&generation);
    let wanted = wanted.unwrap_or_else(|| panic!("{what}: generation {generation}"));
    assert!(contents(&fs) == *wanted, "{what}: generation {generation}");
    generation
}

#[test]
fn a_device_that_fails_loses_nothing() {
    let scratch = Scratch::new("write-fail");
    let start = make_mem(&scratch, &["-n", "4096", "-m", "dup"]);
    let commits = reference(&start);
    let counts = {
        let device = share(FaultDevice::new(share(start.clone())));
        let fs = open(&device).unwrap();
        device.clear();
        script(&fs, &mut |_| {}).unwrap();
        device.counts()
    };
    assert!(counts.writes > 100 && counts.flushes >= 5, "{counts:?}");
    for (op, count, step) in [
        (Op::Read, counts.reads, 1 + counts.reads / 40),
        (Op::Write, counts.writes, 1 + counts.writes / 80),
        (Op::Flush, counts.flushes, 1),
    ] {
        for n in (0..count).step_by(step as usize) {
            for all in [false, true] {
                let image = share(start.clone());
                let device = share(FaultDevice::new(image.clone()));
                let fs = open(&device).unwrap();
                if all {
                    device.fail_all_after(op, n);
                } else {
                    device.fail_after(op, n);
                }
                let result = script(&fs, &mut |_| {});
                device.clear();
                let what = format!("{op:?} {n} {all} {result:?}");
                if result.is_err() && fs.is_read_only() {
                    assert_eq!(fs.commit(), Err(EROFS), "{what}");
                    assert_eq!(file(&fs, ROOT, "no").err(), Some(EROFS), "{what}");
                }
                drop(fs);
                let found = assert_committed(&image, &commits, &what);
                if result.is_ok() {
                    assert_eq!(found, *commits.keys().last().unwrap(), "{what}");
                }
                if n % 8 == 0 {
                    scratch.assert_clean_lowmem(&image);
                }
            }
        }
    }
}

#[test]
fn lack_of_memory_loses_nothing() {
    let scratch = Scratch::new("write-memory");
    let start = make_mem(&scratch, &["-n", "4096", "-m", "single"]);
    let commits = reference(&start);
    let total = {
        let fs = open(&share(start.clone())).unwrap();
        fault::clear();
        script(&fs, &mut |_| {}).unwrap();
        fault::count()
    };
    assert!(total > 1000, "{total}");
    let (mut failed, mut clean) = (0, 0);
    for n in (0..total).step_by(1 + total as usize / 400) {
        let image = share(start.clone());
        let fs = open(&image).unwrap();
        fault::fail_alloc_after(n);
        let result = script(&fs, &mut |_| {});
        fault::clear();
        failed += u64::from(result.is_err());
        if result.is_err() && !fs.is_read_only() {
            // An error before the first change is nobody else's.
            clean += 1;
            file(&fs, ROOT, "afterwards").unwrap();
        }
        drop(fs);
        let found = assert_committed(&image, &commits, &format!("{n} {result:?}"));
        if result.is_ok() {
            assert_eq!(found, *commits.keys().last().unwrap(), "{n}");
        }
        if n % 16 == 0 {
            scratch.assert_clean_lowmem(&image);
        }
    }
    assert!(failed > 100 && clean > 0, "{failed} {clean} of {total}");
}
