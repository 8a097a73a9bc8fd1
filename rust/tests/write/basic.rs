// SPDX-License-Identifier: GPL-2.0
//! The plain course of things.

use crate::files::*;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::format::inode::{inode_flags, Timespec};
use rbtrfs_engine::subvol::file_extent::{self, Kind};
use rbtrfs_engine::subvol::subvolume::{self, NewSnapshot};
use rbtrfs_engine::subvol::write::*;
use rbtrfs_engine::subvol::xattr;
use rbtrfs_engine::trans::View;
use rbtrfs_engine::volume::Fs;
use std::vec::Vec;

#[test]
fn what_was_written_is_there() {
    for kind in KINDS {
        let scratch = Scratch::new("write-basic");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        let sub = mkdir(&fs, ROOT, "sub").unwrap();
        let (small, large) = (pattern(1234, 1), pattern(300_001, 2));
        let a = file(&fs, sub, "small").unwrap();
        fill(&fs, a, &small).unwrap();
        let b = file(&fs, sub, "large").unwrap();
        fill(&fs, b, &large).unwrap();
        let unchecked = NewInode {
            flags: inode_flags::NODATASUM,
            ..new(mode::REG | 0o644)
        };
        let made = create(&fs, sub, b"unchecked", &unchecked).unwrap();
        let c = InodeId {
            ino: made.ino,
            ..sub
        };
        fill(&fs, c, &large).unwrap();
        let target = NewInode {
            target: b"sub/large",
            ..new(mode::LNK | 0o777)
        };
        create(&fs, ROOT, b"link", &target).unwrap();
        link(&fs, b.ino, ROOT, b"other", now()).unwrap();
        // Before and after the commit, and by a later mount.
        assert_eq!(read(&fs, a).unwrap(), small);
        assert_eq!(read(&fs, b).unwrap(), large);
        assert_eq!(read(&fs, c).unwrap(), large);
        fs.commit().unwrap();
        assert_eq!(read(&fs, b).unwrap(), large);
        assert_eq!(read(&fs, c).unwrap(), large);
        drop(fs);
        scratch.assert_clean(&device);
        let fs = open(&device).unwrap();
        assert_eq!(lookup(&fs, sub, "small").unwrap(), Some(a));
        assert_eq!(read(&fs, a).unwrap(), small);
        assert_eq!(read(&fs, b).unwrap(), large);
        mounted(&scratch, &device, |dir| {
            assert_eq!(std::fs::read(dir.join("sub/small")).unwrap(), small);
            assert_eq!(std::fs::read(dir.join("link")).unwrap(), large);
            assert_eq!(std::fs::read(dir.join("other")).unwrap(), large);
        });
    }
}

/// The parts of a file: where each starts, its length, its logical address, and whether it has
/// data.
fn parts(fs: &Fs, id: InodeId) -> Vec<(u64, u64, u64, bool)> {
    let view = fs.running_view(id.tree).unwrap();
    let root = view.tree_root(id.tree).unwrap();
    let mut found = vec![];
    let (sector, all) = (fs.geometry.sectorsize, (0, u64::MAX / 2));
    file_extent::for_each(&view, root, id.ino, sector, all, &mut |extent| {
        match extent.kind {
            Kind::Prealloc(r) | Kind::Regular(r) => {
                let start = r.disk_bytenr + r.extent_offset;
                let has_data = matches!(extent.kind, Kind::Regular(_));
                found.push((extent.offset, extent.len, start, has_data));
            }
            _ => {}
        }
        Ok(true)
    })
    .unwrap();
    found
}

#[test]
fn preallocated_space_is_used_once() {
    for kind in KINDS {
        let scratch = Scratch::new("write-prealloc");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        let a = file(&fs, ROOT, "a").unwrap();
        preallocate(&fs, a, 0, 16 * SECTOR, 16 * SECTOR, now()).unwrap();
        let start = parts(&fs, a)[0].2;
        assert_eq!(parts(&fs, a), [(0, 16 * SECTOR, start, false)]);
        assert!(is_preallocated(&fs, a, 0, 16 * SECTOR).unwrap());
        assert!(!is_preallocated(&fs, a, 0, 17 * SECTOR).unwrap());
        // Side by side and out of order, in the middle and at the ends.
        let size = 16 * SECTOR;
        let mut wanted = vec![0; size as usize];
        for (at, len) in [(4, 2), (6, 1), (15, 1), (0, 2)] {
            let data = pattern(len * SECTOR as usize, at);
            let from = (at * SECTOR) as usize;
            wanted[from..from + data.len()].copy_from_slice(&data);
            write(&fs, a, at * SECTOR, &data, size).unwrap();
        }
        let at = |first: u64, len: u64, has_data| {
            let place = first * SECTOR;
            (place, len * SECTOR, start + place, has_data)
        };
        let now_there = [
            at(0, 2, true),
            at(2, 2, false),
            at(4, 3, true),
            at(7, 8, false),
            at(15, 1, true),
        ];
        assert_eq!(parts(&fs, a), now_there);
        assert_eq!(read(&fs, a).unwrap(), wanted);
        // What is written is not written over, and what others share is not written to.
        write(&fs, a, 0, &pattern(SECTOR as usize, 99), size).unwrap();
        wanted[..SECTOR as usize].copy_from_slice(&pattern(SECTOR as usize, 99));
        assert_ne!(parts(&fs, a)[0].2, start);
        let b = file(&fs, ROOT, "b").unwrap();
        let range = CloneRange {
            src: a,
            src_offset: 0,
            len: size,
            dst: b,
            dst_offset: 0,
            dst_size: size,
        };
        clone_range(&fs, &range, Some(now())).unwrap();
        assert!(!is_preallocated(&fs, a, 8 * SECTOR, SECTOR).unwrap());
        write(&fs, b, 8 * SECTOR, &pattern(SECTOR as usize, 7), size).unwrap();
        assert_eq!(read(&fs, a).unwrap(), wanted);
        let c = file(&fs, ROOT, "c").unwrap();
        preallocate(&fs, c, 0, size, size, now()).unwrap();
        let shot = NewSnapshot {
            uuid: [1; 16],
            read_only: true,
            now: now(),
        };
        subvolume::snapshot(&fs, ROOT.tree, ROOT, b"shot", &shot).unwrap();
        assert!(!is_preallocated(&fs, c, 0, SECTOR).unwrap());
        write(&fs, c, 0, &pattern(SECTOR as usize, 8), size).unwrap();
        fs.commit().unwrap();
        scratch.assert_clean(&device);
        mounted(&scratch, &device, |dir| {
            assert_eq!(std::fs::read(dir.join("a")).unwrap(), wanted);
            let zeros = vec![0; size as usize];
            assert_eq!(std::fs::read(dir.join("shot/c")).unwrap(), zeros);
        });
    }
}

#[test]
fn space_after_the_end_is_given_back() {
    let scratch = Scratch::new("write-trim");
    let device = share(make_mem(&scratch, KINDS[0]));
    let fs = open(&device).unwrap();
    let a = file(&fs, ROOT, "a").unwrap();
    preallocate(&fs, a, 0, 16 * SECTOR, 0, now()).unwrap();
    // Growing keeps what is there.
    let item = truncate(&fs, a, 5 * SECTOR, now()).unwrap();
    assert_eq!(item.nbytes.get(), 16 * SECTOR);
    let item = trim(&fs, a).unwrap();
    assert_eq!(
        (item.size.get(), item.nbytes.get()),
        (5 * SECTOR, 5 * SECTOR)
    );
    assert_eq!(parts(&fs, a).len(), 1);
    assert_eq!(grow(&fs, a, 4 * SECTOR).unwrap().size.get(), 5 * SECTOR);
    let b = file(&fs, ROOT, "b").unwrap();
    let item = grow(&fs, b, 7 * SECTOR + 1).unwrap();
    assert_eq!((item.size.get(), item.nbytes.get()), (7 * SECTOR + 1, 0));
    // A hole may begin after the end, too, and end where no file can.
    preallocate(&fs, a, 0, 16 * SECTOR, 0, now()).unwrap();
    let item = punch(&fs, a, 8 * SECTOR, 10 * SECTOR, now()).unwrap();
    assert_eq!(item.nbytes.get(), 14 * SECTOR);
    let everything = (i64::MAX as u64) / SECTOR * SECTOR;
    let item = punch(&fs, a, 5 * SECTOR, everything, now()).unwrap();
    assert_eq!(
        (item.size.get(), item.nbytes.get()),
        (5 * SECTOR, 5 * SECTOR)
    );
    fs.commit().unwrap();
    scratch.assert_clean(&device);
}

#[test]
fn what_is_the_same_is_shared_in_a_snapshot() {
    for kind in KINDS {
        let scratch = Scratch::new("write-same");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        let data = pattern(4 * SECTOR as usize, 1);
        let [a, b] = ["a", "b"].map(|name| file(&fs, ROOT, name).unwrap());
        for id in [a, b] {
            write(&fs, id, 0, &data, data.len() as u64).unwrap();
        }
        let shot = NewSnapshot {
            uuid: [1; 16],
            read_only: true,
            now: now(),
        };
        let made = subvolume::snapshot(&fs, ROOT.tree, ROOT, b"shot", &shot).unwrap();
        let dst = InodeId {
            tree: made.tree,
            ino: b.ino,
        };
        let range = CloneRange {
            src: a,
            src_offset: SECTOR,
            len: 2 * SECTOR,
            dst,
            dst_offset: SECTOR,
            dst_size: 4 * SECTOR,
        };
        let late = Timespec {
            sec: 1_800_000_000.into(),
            nsec: 0.into(),
        };
        let refused = clone_range(&fs, &range, Some(late));
        assert_eq!(refused.map(|_| ()), Err(EROFS));
        let item = clone_range(&fs, &range, None).unwrap();
        assert_eq!([item.mtime, item.ctime].map(|t| t.sec), [now().sec; 2]);
        assert_eq!(parts(&fs, dst)[1].2, parts(&fs, a)[0].2 + SECTOR);
        assert_eq!(read(&fs, dst).unwrap(), data);
        fs.commit().unwrap();
        scratch.assert_clean(&device);
    }
}

#[test]
fn small_files_are_cloned_to_where_they_have_no_place() {
    for kind in KINDS {
        let scratch = Scratch::new("write-clone-inline");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        let small = pattern(1234, 1);
        let source = file(&fs, ROOT, "source").unwrap();
        fill(&fs, source, &small).unwrap();
        // Behind the end of a file, within one, and far after the end of an empty one.
        let cases = [(3 * SECTOR, 3), (SECTOR, 3), (8 * SECTOR, 0)];
        let mut wanted = vec![];
        for (n, (at, sectors)) in cases.into_iter().enumerate() {
            let mut data = pattern((sectors * SECTOR) as usize, 2);
            let name = format!("target-{n}");
            let target = file(&fs, ROOT, &name).unwrap();
            fill(&fs, target, &data).unwrap();
            let size = (data.len() as u64).max(at + small.len() as u64);
            let range = CloneRange {
                src: source,
                src_offset: 0,
                len: SECTOR,
                dst: target,
                dst_offset: at,
                dst_size: size,
            };
            let item = clone_range(&fs, &range, Some(now())).unwrap();
            assert_eq!(item.size.get(), size);
            let at = at as usize;
            data.resize(size as usize, 0);
            let sector = at + SECTOR as usize;
            let end = sector.min(data.len());
            data[at..end].fill(0);
            data[at..at + small.len()].copy_from_slice(&small);
            assert!(read(&fs, target).unwrap() == data);
            wanted.push((name, data));
        }
        fs.commit().unwrap();
        scratch.assert_clean(&device);
        mounted(&scratch, &device, |dir| {
            for (name, data) in &wanted {
                assert!(std::fs::read(dir.join(name)).unwrap() == *data);
            }
        });
    }
}

/// A target is as long as an item and a sector allow.
#[test]
fn symbolic_links_have_long_targets() {
    for (nodesize, longest) in [("4096", 3949), ("16384", 4095)] {
        let scratch = Scratch::new("write-long-links");
        let device = share(make_mem(&scratch, &["-n", nodesize]));
        let fs = open(&device).unwrap();
        let target = pattern(5000, 1);
        let target: Vec<u8> = target.iter().map(|b| b'a' + b % 26).collect();
        let make = |len: usize| {
            let link = NewInode {
                target: &target[..len],
                ..new(mode::LNK | 0o777)
            };
            create(&fs, ROOT, format!("{len}").as_bytes(), &link).map(|made| made.ino)
        };
        assert_eq!(make(longest + 1).err(), Some(ENAMETOOLONG));
        let lengths = [1, 2048, 2049, longest - 1, longest];
        let made = lengths.map(|len| (len, make(len).unwrap()));
        fs.commit().unwrap();
        drop(fs);
        scratch.assert_clean(&device);
        let fs = open(&device).unwrap();
        for (len, ino) in made {
            let id = InodeId { ino, ..ROOT };
            assert_eq!(read(&fs, id).unwrap(), &target[..len]);
        }
    }
}

/// An ACL and the mode that says the rest of it change together, or not at all.
#[test]
fn an_acl_changes_with_the_mode() {
    let scratch = Scratch::new("write-acl");
    let device = share(make_mem(&scratch, &["-n", "4096"]));
    let fs = open(&device).unwrap();
    let id = file(&fs, ROOT, "file").unwrap();
    let name = b"system.posix_acl_access";
    let set = |value: Option<&[u8]>, bits: u32| {
        set_acl(&fs, id, name, value, mode::REG | bits, now()).map(|item| item.mode.get())
    };
    let stored = || {
        let view = fs.running_view(id.tree).unwrap();
        let root = view.tree_root(id.tree).unwrap();
        xattr::get(&view, root, id.ino, name, |value| Ok(value.to_vec()))
    };
    // Removing what is not there changes the mode all the same.
    assert_eq!(set(None, 0o600), Ok(mode::REG | 0o600));
    assert_eq!(set(Some(b"one"), 0o640), Ok(mode::REG | 0o640));
    assert_eq!(stored().unwrap(), b"one");
    assert_eq!(set(Some(&[0; 5000]), 0o777), Err(ENOSPC));
    assert_eq!(item(&fs, id).unwrap().mode.get(), mode::REG | 0o640);
    assert_eq!(stored().unwrap(), b"one");
    assert_eq!(set(None, 0o644), Ok(mode::REG | 0o644));
    assert_eq!(stored().err(), Some(ENODATA));
    fs.commit().unwrap();
    scratch.assert_clean(&device);
}
