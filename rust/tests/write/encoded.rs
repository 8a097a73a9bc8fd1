// SPDX-License-Identifier: GPL-2.0
//! Data of files as it is stored, read from one file and written to another.

use crate::files::*;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::format::CompressionMethod;
use rbtrfs_engine::subvol::data::Owner;
use rbtrfs_engine::subvol::decompress::decompress;
use rbtrfs_engine::subvol::encoded::{read_encoded, write_encoded, EncodedRead, NewEncoded};
use rbtrfs_engine::subvol::write::*;
use rbtrfs_engine::volume::Fs;
use std::vec::Vec;

const PIECE: u64 = 128 << 10;

fn get(fs: &Fs, id: InodeId, offset: u64, most: u64) -> Result<Option<EncodedRead>> {
    let item = item(fs, id)?;
    let owner = Owner::new(fs, id.tree, id.ino, item.flags.get());
    read_encoded(fs, &owner, item.size.get(), offset, most)
}

/// What was read, decompressed.
fn decoded(fs: &Fs, read: &EncodedRead) -> Vec<u8> {
    // Only a hole has zeros, and that has nothing else.
    assert!(read.zeros == 0 || read.bytes.is_empty());
    let Some(method) = read.method else {
        let mut data = read.bytes.to_vec();
        data.resize(data.len() + read.zeros as usize, 0);
        assert_eq!(read.len, data.len() as u64);
        assert_eq!((read.unencoded_len, read.unencoded_offset), (read.len, 0));
        return data;
    };
    let mut all = vec![0xee; read.unencoded_len as usize];
    decompress(
        method.number(),
        &read.bytes,
        &mut all,
        fs.geometry.sectorsize,
    )
    .unwrap();
    all[read.unencoded_offset as usize..][..read.len as usize].to_vec()
}

#[test]
fn what_is_read_encoded_can_be_written() {
    for method in CompressionMethod::ALL {
        let scratch = Scratch::new("encoded");
        let device = share(make_mem(&scratch, KINDS[0]));
        let fs = open(&device).unwrap();
        compress_by(Some(method));
        let id = file(&fs, ROOT, "file").unwrap();
        let len = PIECE + 3 * SECTOR + 100;
        let mut data = pattern(len as usize, 1);
        fill(&fs, id, &data).unwrap();
        punch(&fs, id, 4 * SECTOR, 6 * SECTOR, now()).unwrap();
        data[4 * SECTOR as usize..6 * SECTOR as usize].fill(0);
        let to = file(&fs, ROOT, "to").unwrap();
        for committed in [false, true] {
            let mut at = 0;
            while at < len {
                let read = get(&fs, id, at, PIECE).unwrap().unwrap();
                let here = decoded(&fs, &read);
                assert!(here == data[at as usize..][..here.len()], "{method:?} {at}");
                let end = at + read.len;
                if let Some(method) = read.method {
                    let new = NewEncoded {
                        offset: at,
                        len: read.len,
                        unencoded_len: read.unencoded_len,
                        unencoded_offset: read.unencoded_offset,
                        method,
                    };
                    let size = item(&fs, to).unwrap().size.get();
                    new.check_bytes(read.bytes.len() as u64).unwrap();
                    new.check_place(&fs, size).unwrap();
                    write_encoded(&fs, to, &new, &read.bytes, size).unwrap();
                }
                at = end;
            }
            assert!(read(&fs, to).unwrap() == data);
            if !committed {
                fs.commit().unwrap();
            }
        }
        // Within an extent, and where the space is too small for it.
        let read_in = get(&fs, id, 9 * SECTOR, PIECE).unwrap().unwrap();
        assert_eq!(read_in.unencoded_offset, 9 * SECTOR);
        assert!(decoded(&fs, &read_in) == data[9 * SECTOR as usize..PIECE as usize]);
        let short = read_in.bytes.len() as u64 - 1;
        assert_eq!(get(&fs, id, 0, short).map(|_| ()), Err(ENOBUFS));
        // A hole is zeros, up to its end or as many as there is space for.
        let hole = get(&fs, id, 4 * SECTOR, PIECE).unwrap().unwrap();
        assert_eq!((hole.len, hole.method), (2 * SECTOR, None));
        let hole = get(&fs, id, 4 * SECTOR, 100).unwrap().unwrap();
        assert_eq!((hole.zeros, hole.bytes.len()), (100, 0));
        assert!(get(&fs, id, len, PIECE).unwrap().is_none());

        // Small files go from tree to tree.
        let small = file(&fs, ROOT, "small").unwrap();
        let text = pattern(3000, 2);
        fill(&fs, small, &text).unwrap();
        let read_in = get(&fs, small, 0, PIECE).unwrap().unwrap();
        assert!(read_in.bytes.len() <= MAX_INLINE && decoded(&fs, &read_in) == text);
        let twin = file(&fs, ROOT, "twin").unwrap();
        let new = NewEncoded {
            offset: 0,
            len: 3000,
            unencoded_len: 3000,
            unencoded_offset: 0,
            method,
        };
        write_encoded(&fs, twin, &new, &read_in.bytes, 0).unwrap();
        assert!(read(&fs, twin).unwrap() == text);
        let again = get(&fs, twin, 0, PIECE).unwrap().unwrap();
        assert_eq!(again.bytes[..], read_in.bytes[..]);

        // What is not compressed is read as it is.
        compress_by(None);
        let plain = file(&fs, ROOT, "plain").unwrap();
        let noise = pattern(3 * PIECE as usize + 100, 3);
        fill(&fs, plain, &noise).unwrap();
        for (offset, most) in [(0, PIECE), (5000, 10 * PIECE), (3 * PIECE + 50, PIECE)] {
            let read_in = get(&fs, plain, offset, most).unwrap().unwrap();
            assert!(!read_in.bytes.is_empty() && read_in.bytes.len() as u64 <= PIECE);
            let here = decoded(&fs, &read_in);
            assert!(here == noise[offset as usize..][..here.len()]);
        }
        fs.commit().unwrap();
        drop(fs);
        scratch.assert_clean(&device);
        mounted(&scratch, &device, |dir| {
            assert!(std::fs::read(dir.join("to")).unwrap() == data);
            assert!(std::fs::read(dir.join("twin")).unwrap() == text);
        });
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let scratch = Scratch::new("encoded-refused");
    let device = share(make_mem(&scratch, KINDS[0]));
    let fs = open(&device).unwrap();
    let good = NewEncoded {
        offset: 0,
        len: PIECE,
        unencoded_len: PIECE,
        unencoded_offset: 0,
        method: CompressionMethod::Zstd,
    };
    assert_eq!(good.check_bytes(PIECE - 1), Ok(()));
    assert_eq!(good.check_bytes(PIECE), Err(EINVAL));
    let long = NewEncoded {
        unencoded_len: PIECE + 1,
        ..good
    };
    assert_eq!(long.check_bytes(100), Err(EINVAL));
    let at = |offset, len, size| {
        NewEncoded {
            offset,
            len,
            ..good
        }
        .check_place(&fs, size)
    };
    assert_eq!(at(0, 100, 100), Ok(()));
    assert_eq!(at(0, 100, 101), Err(EINVAL));
    assert_eq!(at(0, SECTOR, 101 * SECTOR), Ok(()));
    assert_eq!(at(1, SECTOR, 0), Err(EINVAL));
    assert_eq!(at(u64::MAX - 4095, SECTOR, 0), Err(EFBIG));
    let inside = NewEncoded {
        unencoded_offset: 1,
        len: 100,
        ..good
    };
    assert_eq!(inside.check_place(&fs, 0), Err(EINVAL));
}

/// The rest of a hole is read at once, as far as the caller has memory; what is stored is not.
#[test]
fn a_hole_is_read_to_its_end() {
    let scratch = Scratch::new("encoded-hole");
    let device = share(make_mem(&scratch, KINDS[0]));
    let fs = open(&device).unwrap();
    let id = file(&fs, ROOT, "file").unwrap();
    fill(&fs, id, &pattern(5 * PIECE as usize, 1)).unwrap();
    punch(&fs, id, PIECE, 4 * PIECE, now()).unwrap();
    let lens = |offset, most| {
        let read = get(&fs, id, offset, most).unwrap().unwrap();
        (read.len, read.zeros, read.bytes.len() as u64)
    };
    assert_eq!(lens(PIECE, 8 * PIECE), (3 * PIECE, 3 * PIECE, 0));
    assert_eq!(
        lens(PIECE + 100, 8 * PIECE),
        (3 * PIECE - 100, 3 * PIECE - 100, 0)
    );
    assert_eq!(lens(PIECE, 2 * PIECE), (2 * PIECE, 2 * PIECE, 0));
    assert_eq!(lens(0, 8 * PIECE), (PIECE, 0, PIECE));
}
