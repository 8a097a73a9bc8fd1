// SPDX-License-Identifier: GPL-2.0
//! Full volumes: `ENOSPC` comes early and breaks nothing, what was promised is kept, and deletion
//! makes space.

use crate::files::*;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::space::ordered_extent::push_checksums;
use rbtrfs_engine::subvol::subvolume::{self, *};
use rbtrfs_engine::subvol::write::*;
use rbtrfs_engine::volume::Fs;

const MIB: u64 = 1 << 20;

/// Writes files of `size` bytes until there is no space. Returns how many.
fn fill_up(fs: &Fs, name: &str, size: usize) -> usize {
    let data = pattern(size, 1);
    for n in 0.. {
        let id = match file(fs, ROOT, &format!("{name}{n}")) {
            Ok(id) => id,
            Err(e) => {
                assert_eq!(e, ENOSPC);
                return n;
            }
        };
        if let Err(e) = fill(fs, id, &data) {
            assert_eq!(e, ENOSPC);
            assert!(!fs.is_read_only());
            return n;
        }
    }
    unreachable!()
}

/// Removes files until there are none.
fn remove_all(fs: &Fs, name: &str) {
    for n in 0.. {
        match unlink(fs, ROOT, format!("{name}{n}").as_bytes(), now()) {
            Ok(gone) => {
                let id = InodeId {
                    tree: ROOT.tree,
                    ino: gone.ino,
                };
                evict(fs, id).unwrap();
            }
            Err(e) => {
                assert_eq!(e, ENOENT);
                return;
            }
        }
    }
}

#[test]
fn data_fills_a_volume_and_goes_again() {
    for kind in [&["-n", "4096", "-m", "single"][..], &["-n", "16384"]] {
        let scratch = Scratch::new("write-full");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        let large = fill_up(&fs, "large", MIB as usize);
        assert!(large > 100, "{large}");
        let small = fill_up(&fs, "small", 4096);
        fs.commit().unwrap();
        scratch.assert_clean(&device);
        remove_all(&fs, "large");
        remove_all(&fs, "small");
        fs.commit().unwrap();
        scratch.assert_clean(&device);
        let again = fill_up(&fs, "again", MIB as usize);
        assert!(again + 20 > large, "{again} after {large} and {small}");
        fs.commit().unwrap();
        scratch.assert_clean(&device);
    }
}

#[test]
fn what_is_promised_can_be_written() {
    reserve_and_write("write-promise", 1);
}

#[test]
fn what_is_promised_can_be_written_together() {
    reserve_and_write("write-promise-together", 256);
}

/// Fills a volume with reservations, and writes what was promised, `most` sectors at a time.
fn reserve_and_write(name: &str, most: u64) {
    let scratch = Scratch::new(name);
    let device = share(make_mem(&scratch, &["-n", "4096", "-m", "single"]));
    let fs = open(&device).unwrap();
    // Ever smaller reservations, until not a sector is left.
    let mut reservations = vec![];
    let mut size = 64 * MIB;
    while size >= SECTOR {
        match fs.reserve_data(size) {
            Ok(reservation) => reservations.push(reservation),
            Err(e) => {
                assert_eq!(e, ENOSPC);
                size /= 2;
            }
        }
    }
    let total: u64 = reservations
        .iter()
        .map(|reservation| reservation.bytes())
        .sum();
    assert!(total > 60 * MIB, "{total}");
    // Whatever others do meanwhile, for as long as they can.
    let mut inode = 0;
    while inode < 3000 && file(&fs, ROOT, &format!("{inode}-{}", "x".repeat(200))).is_ok() {
        inode += 1;
    }
    assert!(!fs.is_read_only());
    // In single sectors, from the end of a file to its start, so that each has an extent of its
    // own.
    let id = file(&fs, ROOT, "promised").or_else(|e| {
        assert_eq!(e, ENOSPC);
        remove_one(&fs, 0).map(|()| file(&fs, ROOT, "promised").unwrap())
    });
    let id = id.unwrap();
    let sector = pattern(SECTOR as usize, 1);
    let mut sums = KVVec::new();
    push_checksums(&sector, &fs.geometry, &mut sums).unwrap();
    let mut at = total.min(16 * MIB);
    let mut waiting = vec![];
    let mut operations = 0;
    while at > 0 {
        let reservation = reservations.last_mut().unwrap();
        if reservation.bytes() == 0 {
            reservations.pop();
            continue;
        }
        at -= SECTOR;
        let extent = fs.alloc_data(Some(reservation), SECTOR).unwrap();
        extent.write(0, &sector).unwrap();
        waiting.push(NewData {
            offset: at,
            extent,
            encoded: None,
            sums: copied(&sums),
            size: at + SECTOR,
        });
        if waiting.len() as u64 == most || at == 0 {
            while !waiting.is_empty() {
                let (_, count) = insert_pieces(&fs, id, &mut waiting.iter_mut()).unwrap();
                waiting.drain(..count);
                operations += 1;
            }
        }
    }
    println!("{operations} operations");
    drop(reservations);
    fs.commit().unwrap();
    scratch.assert_clean(&device);
}

fn copied(bytes: &[u8]) -> KVVec<u8> {
    let mut copy = KVVec::new();
    copy.extend_from_slice(bytes, GFP_KERNEL).unwrap();
    copy
}

fn remove_one(fs: &Fs, n: usize) -> Result {
    let name = format!("{n}-{}", "x".repeat(200));
    let gone = unlink(fs, ROOT, name.as_bytes(), now())?;
    let id = InodeId {
        tree: ROOT.tree,
        ino: gone.ino,
    };
    evict(fs, id)?;
    fs.commit()
}

#[test]
fn metadata_fills_a_volume_and_goes_again() {
    let scratch = Scratch::new("write-full-metadata");
    let device = share(make_mem(&scratch, &["-n", "4096", "-m", "dup"]));
    let fs = open(&device).unwrap();
    fill_up(&fs, "data", 4 * MIB as usize);
    let value = vec![7; 2000];
    let mut made = 0;
    loop {
        let xattr: (&[u8], &[u8]) = (b"user.large", &value);
        let new = NewInode {
            xattrs: &[xattr],
            ..new(mode::REG | 0o600)
        };
        match create(&fs, ROOT, format!("meta{made}").as_bytes(), &new) {
            Ok(_) => made += 1,
            Err(e) => {
                assert_eq!(e, ENOSPC);
                break;
            }
        }
    }
    assert!(!fs.is_read_only() && made > 1000, "{made}");
    fs.commit().unwrap();
    scratch.assert_clean(&device);
    // Every other operation says so as well, or does what it should.
    let fine = |result: Result| assert!(matches!(result, Ok(()) | Err(ENOSPC)), "{result:?}");
    for n in 0..200 {
        let id = lookup(&fs, ROOT, &format!("meta{n}")).unwrap().unwrap();
        fine(link(&fs, id.ino, ROOT, format!("link{n}").as_bytes(), now()).map(|_| ()));
        let value = Some(&value[..]);
        fine(set_xattr(&fs, id, b"user.more", value, XattrMode::Set, now()).map(|_| ()));
        let (old, new) = (format!("meta{n}"), format!("new{n}"));
        let end = |name| RenameEnd { dir: ROOT, name };
        let (from, to) = (end(old.as_bytes()), end(new.as_bytes()));
        fine(rename(&fs, from, to, RenameMode::Replace, now()).map(|_| ()));
        let shot = NewSnapshot {
            uuid: [n as u8; 16],
            read_only: false,
            now: now(),
        };
        let name = format!("shot{n}");
        fine(subvolume::snapshot(&fs, 5, ROOT, name.as_bytes(), &shot).map(|_| ()));
    }
    assert!(!fs.is_read_only());
    fs.commit().unwrap();
    scratch.assert_clean(&device);
    for n in 0..200 {
        match delete_subvolume(&fs, ROOT, format!("shot{n}").as_bytes(), now()) {
            Ok(_) | Err(ENOENT) => {}
            Err(e) => panic!("{e:?}"),
        }
    }
    clean_subvolumes(&fs, &|_| true, &|| false).unwrap();
    for n in 200..made {
        let gone = unlink(&fs, ROOT, format!("meta{n}").as_bytes(), now()).unwrap();
        let id = InodeId {
            tree: ROOT.tree,
            ino: gone.ino,
        };
        evict(&fs, id).unwrap();
    }
    fs.commit().unwrap();
    scratch.assert_clean(&device);
    for n in 0..made / 2 {
        file(&fs, ROOT, &format!("again{n}")).unwrap();
    }
    fs.commit().unwrap();
    scratch.assert_clean(&device);
}
