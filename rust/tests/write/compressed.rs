// SPDX-License-Identifier: GPL-2.0
//! Extents that hold compressed data, as they are made, cut, shared and moved.

use crate::files::*;
use crate::script::used;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::balance::relocate::relocate_block_group;
use rbtrfs_engine::format::superblock::incompat;
use rbtrfs_engine::format::CompressionMethod::{self, Lzo, Zlib, Zstd};
use rbtrfs_engine::space::ordered_extent::push_checksums;
use rbtrfs_engine::space::space_info::SpaceContext;
use rbtrfs_engine::subvol::file_extent::{self, Kind};
use rbtrfs_engine::subvol::write::*;
use rbtrfs_engine::trans::View;
use rbtrfs_engine::volume::Fs;
use std::vec::Vec;

const PIECE: u64 = 128 << 10;

/// How an extent is compressed: the method, the bytes that it takes and those that it holds.
type Compressed = (CompressionMethod, u64, u64);

/// What a file's items say: where each starts, its length, and how its extent is compressed.
fn extents(fs: &Fs, id: InodeId) -> Vec<(u64, u64, Option<Compressed>)> {
    let all = (0, item(fs, id).unwrap().size.get().next_multiple_of(SECTOR));
    let view = fs.running_view(id.tree).unwrap();
    let root = view.tree_root(id.tree).unwrap();
    let mut found = vec![];
    let sectorsize = fs.geometry.sectorsize;
    file_extent::for_each(&view, root, id.ino, sectorsize, all, &mut |extent| {
        let of = |number, disk, ram| {
            CompressionMethod::of_extent(number).map(|method| (method, disk, ram))
        };
        let how = match extent.kind {
            Kind::Regular(r) => of(r.compression, r.disk_num_bytes, r.ram_bytes),
            Kind::Inline(i) => of(i.compression, i.data.len() as u64, i.ram_bytes),
            _ => None,
        };
        found.push((extent.offset, extent.len, how));
        Ok(true)
    })
    .unwrap();
    found
}

fn incompat_flags(fs: &Fs) -> u64 {
    let mut bits = 0;
    for bit in [incompat::COMPRESS_LZO, incompat::COMPRESS_ZSTD] {
        let trans = begin(fs);
        if trans.has_incompat(bit) {
            bits |= bit;
        }
    }
    bits
}

#[test]
fn pieces_become_extents_of_their_own() {
    for (kind, method) in KINDS.into_iter().zip([Zlib, Lzo, Zstd].into_iter().cycle()) {
        let scratch = Scratch::new("compressed");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        compress_by(Some(method));
        assert_eq!(incompat_flags(&fs), 0);
        let id = file(&fs, ROOT, "file").unwrap();
        let len = 3 * PIECE + 2 * SECTOR + 100;
        let mut data = pattern(len as usize, 1);
        // The second piece is noise.
        compress_by(None);
        data[PIECE as usize..][..PIECE as usize].copy_from_slice(&pattern(PIECE as usize, 4));
        compress_by(Some(method));
        fill(&fs, id, &data).unwrap();
        assert_eq!(incompat_flags(&fs), method.incompat());
        let found = extents(&fs, id);
        let starts: Vec<_> = found.iter().map(|(start, ..)| *start).collect();
        assert_eq!(starts, [0, PIECE, 2 * PIECE, 3 * PIECE]);
        for (n, (_, len, how)) in found.iter().enumerate() {
            if n == 1 {
                assert_eq!((*len, *how), (PIECE, None));
                continue;
            }
            let (by, disk, ram) = how.unwrap();
            assert_eq!((by, ram), (method, *len));
            assert!(disk + SECTOR <= ram && disk % SECTOR == 0);
        }
        // The file's own count is of what it holds; on the device it takes less.
        assert_eq!(item(&fs, id).unwrap().nbytes.get(), 3 * PIECE + 3 * SECTOR);
        let on_disk = found
            .iter()
            .map(|(_, len, how)| how.map_or(*len, |(_, disk, _)| disk));
        assert!(on_disk.sum::<u64>() < 3 * PIECE);
        assert!(read(&fs, id).unwrap() == data);

        let small = file(&fs, ROOT, "small").unwrap();
        let text = pattern(4000, 2);
        fill(&fs, small, &text).unwrap();
        let [(0, 4000, Some((by, stored, 4000)))] = extents(&fs, small)[..] else {
            panic!("{:?}", extents(&fs, small));
        };
        assert!(by == method && stored <= MAX_INLINE as u64);
        assert_eq!(item(&fs, small).unwrap().nbytes.get(), 4000);
        assert!(read(&fs, small).unwrap() == text);
        fs.commit().unwrap();
        drop(fs);
        scratch.assert_clean(&device);
        mounted(&scratch, &device, |dir| {
            assert!(std::fs::read(dir.join("file")).unwrap() == data);
            assert!(std::fs::read(dir.join("small")).unwrap() == text);
        });
    }
}

/// A part of a compressed extent keeps all of it, until the last part goes; then all of it is free.
#[test]
fn parts_are_cut_shared_and_moved() {
    for method in CompressionMethod::ALL {
        let scratch = Scratch::new("compressed-parts");
        let device = share(make_mem(&scratch, KINDS[0]));
        let fs = open(&device).unwrap();
        compress_by(Some(method));
        fs.commit().unwrap();
        let before = used(&fs);
        let id = file(&fs, ROOT, "file").unwrap();
        let mut data = pattern(2 * PIECE as usize, 1);
        fill(&fs, id, &data).unwrap();

        punch(&fs, id, 4 * SECTOR, 6 * SECTOR, now()).unwrap();
        data[4 * SECTOR as usize..6 * SECTOR as usize].fill(0);
        let new = pattern(SECTOR as usize, 4);
        write(&fs, id, 9 * SECTOR, &new, 0).unwrap();
        data[9 * SECTOR as usize..10 * SECTOR as usize].copy_from_slice(&new);
        truncate(&fs, id, PIECE + 3 * SECTOR, now()).unwrap();
        data.truncate((PIECE + 3 * SECTOR) as usize);
        assert!(read(&fs, id).unwrap() == data);

        let copy = file(&fs, ROOT, "copy").unwrap();
        let range = CloneRange {
            src: id,
            src_offset: SECTOR,
            len: PIECE,
            dst: copy,
            dst_offset: 5 * SECTOR,
            dst_size: PIECE + 5 * SECTOR,
        };
        clone_range(&fs, &range, Some(now())).unwrap();
        let mut copied = vec![0; 5 * SECTOR as usize];
        copied.extend_from_slice(&data[SECTOR as usize..][..PIECE as usize]);
        assert!(read(&fs, copy).unwrap() == copied);

        let small = file(&fs, ROOT, "small").unwrap();
        let text = pattern(3000, 2);
        fill(&fs, small, &text).unwrap();
        let twin = file(&fs, ROOT, "twin").unwrap();
        let range = CloneRange {
            src: small,
            src_offset: 0,
            len: SECTOR,
            dst: twin,
            dst_offset: 0,
            dst_size: 3000,
        };
        clone_range(&fs, &range, Some(now())).unwrap();
        // What is in the tree is copied as it is.
        assert_eq!(extents(&fs, twin), extents(&fs, small));
        assert!(extents(&fs, twin)[0].2.is_some());
        truncate(&fs, twin, 100, now()).unwrap();
        fs.commit().unwrap();
        scratch.assert_clean(&device);

        let groups: Vec<u64> = {
            let trans = begin(&fs);
            let groups = trans.space().block_groups().iter();
            groups.map(|group| group.start).collect()
        };
        for start in groups {
            match relocate_block_group(&fs, start, &|| Ok(())) {
                Ok(()) | Err(ENOENT) | Err(ENOSPC) => {}
                Err(e) => panic!("{e:?}"),
            }
        }
        assert!(read(&fs, id).unwrap() == data);
        assert!(read(&fs, copy).unwrap() == copied);
        assert!(read(&fs, small).unwrap() == text);
        assert!(read(&fs, twin).unwrap() == text[..100]);
        scratch.assert_clean(&device);
        mounted(&scratch, &device, |dir| {
            assert!(std::fs::read(dir.join("file")).unwrap() == data);
            assert!(std::fs::read(dir.join("copy")).unwrap() == copied);
            assert!(std::fs::read(dir.join("twin")).unwrap() == text[..100]);
        });

        for name in ["file", "copy", "small", "twin"] {
            let gone = unlink(&fs, ROOT, name.as_bytes(), now()).unwrap();
            let id = InodeId {
                ino: gone.ino,
                ..ROOT
            };
            evict(&fs, id).unwrap();
        }
        fs.commit().unwrap();
        fs.commit().unwrap();
        assert!(used(&fs) <= before + 16 * u64::from(fs.geometry.nodesize));
        scratch.assert_clean(&device);
    }
}

/// What no compressed extent can be is refused, and its space given back.
#[test]
fn what_makes_no_sense_is_refused() {
    let scratch = Scratch::new("compressed-refused");
    let device = share(make_mem(&scratch, KINDS[0]));
    let fs = open(&device).unwrap();
    let id = file(&fs, ROOT, "file").unwrap();
    let before = used(&fs);
    let good = Encoded {
        method: Zstd,
        ram_bytes: PIECE,
        offset: 0,
        num_bytes: PIECE,
    };
    let insert = |encoded: Encoded| {
        let extent = fs.alloc_data(None, 2 * SECTOR).unwrap();
        let bytes = vec![0; 2 * SECTOR as usize];
        extent.write(0, &bytes).unwrap();
        let mut sums = KVVec::new();
        push_checksums(&bytes, &fs.geometry, &mut sums).unwrap();
        let new = NewData {
            offset: 0,
            extent,
            encoded: Some(encoded),
            sums,
            size: PIECE,
        };
        insert_data(&fs, id, new).map(|item| item.nbytes.get())
    };
    for bad in [
        Encoded {
            ram_bytes: 2 * PIECE,
            ..good
        },
        Encoded {
            ram_bytes: PIECE - SECTOR,
            ..good
        },
        Encoded {
            ram_bytes: SECTOR,
            num_bytes: SECTOR,
            ..good
        },
        Encoded {
            offset: SECTOR,
            ..good
        },
        Encoded {
            offset: 100,
            num_bytes: SECTOR,
            ..good
        },
        Encoded {
            num_bytes: 0,
            ..good
        },
        Encoded {
            num_bytes: 100,
            ..good
        },
        Encoded {
            offset: u64::MAX - 4095,
            num_bytes: 2 * SECTOR,
            ..good
        },
    ] {
        assert_eq!(insert(bad), Err(EINVAL), "{bad:?}");
    }
    assert_eq!(used(&fs), before);
    let part = Encoded {
        offset: 3 * SECTOR,
        num_bytes: 5 * SECTOR,
        ..good
    };
    assert_eq!(insert(part), Ok(5 * SECTOR));

    let small = file(&fs, ROOT, "small").unwrap();
    let inline = |data, size| {
        let method = Some(Lzo);
        insert_inline(&fs, small, NewInline { data, size, method }).map(|_| ())
    };
    assert_eq!(inline(&[0; 100], 100), Err(EINVAL));
    assert_eq!(inline(&[0; 100], SECTOR + 1), Err(EINVAL));
    assert_eq!(inline(&[], 100), Err(EINVAL));
    assert_eq!(inline(&[0; MAX_INLINE + 1], SECTOR), Err(EINVAL));
    assert_eq!(incompat_flags(&fs), incompat::COMPRESS_ZSTD);
}
