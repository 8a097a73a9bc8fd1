// SPDX-License-Identifier: GPL-2.0
//! Defragmenting: what is worth being written anew, and that nothing is lost on the way. The test
//! writes it as the page cache would.

use crate::files::*;
use crate::subvolumes::snap;
use crate::support::cut::every_cut;
use crate::support::every::every;
use crate::support::proved::Proved;
use crate::support::*;
use kernel::fault;
use kernel::prelude::*;
use rbtrfs_engine::format::CompressionMethod::{self, Lzo, Zlib, Zstd};
use rbtrfs_engine::subvol::compress::Chosen;
use rbtrfs_engine::subvol::defrag::{targets, Defrag, Recompress};
use rbtrfs_engine::subvol::file_extent::{self, Kind};
use rbtrfs_engine::subvol::write::*;
use rbtrfs_engine::trans::View;
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::RecordingDevice;
use std::vec::Vec;

const PIECE: u64 = 4 * SECTOR;

const USUAL: Defrag = Defrag {
    threshold: 256 << 10,
    all: false,
};

const ALL: Defrag = Defrag {
    threshold: 256 << 10,
    all: true,
};

fn found(fs: &Fs, id: InodeId, range: (u64, u64), defrag: &Defrag) -> Vec<(u64, u64)> {
    let found = targets(fs, id, range, defrag).unwrap();
    found.iter().map(|range| (range.start, range.len)).collect()
}

/// Where the extents of a file are.
fn places(fs: &Fs, id: InodeId) -> Vec<(u64, u64)> {
    let view = fs.running_view(id.tree).unwrap();
    let root = view.tree_root(id.tree).unwrap();
    let mut places = vec![];
    let (all, sectorsize) = ((0, 1 << 30), fs.geometry.sectorsize);
    file_extent::for_each(&view, root, id.ino, sectorsize, all, &mut |extent| {
        if let Kind::Regular(regular) = extent.kind {
            places.push((extent.offset, regular.disk_bytenr));
        }
        Ok(true)
    })
    .unwrap();
    places
}

/// A file of `count` pieces, the last one of which was written first.
fn in_pieces(fs: &Fs, name: &str, count: u64) -> (InodeId, Vec<u8>) {
    let id = file(fs, ROOT, name).unwrap();
    let data = pattern((count * PIECE) as usize, 7);
    for n in (0..count).rev() {
        let piece = &data[(n * PIECE) as usize..][..PIECE as usize];
        write(fs, id, n * PIECE, piece, (n + 1) * PIECE).unwrap();
    }
    (id, data)
}

/// Writes what is to be written anew. The data is read first.
fn defragment(fs: &Fs, id: InodeId, range: (u64, u64), defrag: &Defrag) -> Result {
    let size = item(fs, id)?.size.get();
    for target in targets(fs, id, range, defrag)?.iter() {
        let data = read(fs, id)?;
        let end = target.end().min(data.len() as u64);
        let data = &data[target.start as usize..end as usize];
        write(fs, id, target.start, data, size)?;
    }
    Ok(())
}

#[test]
fn pieces_become_one_and_snapshots_keep_theirs() {
    for kind in KINDS {
        let scratch = Scratch::new("defrag");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        let (id, data) = in_pieces(&fs, "file", 12);
        let size = data.len() as u64;
        let snapshot = snap(&fs, ROOT.tree, "snapshot", 9, true).unwrap();
        let kept = InodeId {
            tree: snapshot.tree,
            ino: id.ino,
        };
        let before = places(&fs, id);
        assert_eq!(before.len(), 12);
        assert_eq!(found(&fs, id, (0, size), &USUAL), [(0, size)]);
        // What a range touches of a piece, and no more.
        let range = (SECTOR, 2 * PIECE + SECTOR);
        assert_eq!(found(&fs, id, range, &USUAL), [(SECTOR, 2 * PIECE)]);
        defragment(&fs, id, (0, size), &USUAL).unwrap();
        assert_eq!(places(&fs, id).len(), 1);
        assert_eq!(found(&fs, id, (0, size), &USUAL), []);
        assert_eq!(found(&fs, id, (0, size), &ALL), [(0, size)]);
        assert_eq!(places(&fs, kept), before);
        assert!(read(&fs, id).unwrap() == data && read(&fs, kept).unwrap() == data);
        fs.commit().unwrap();
        drop(fs);
        scratch.assert_clean(&device);
    }
}

#[test]
fn what_gains_nothing_stays() {
    let scratch = Scratch::new("defrag-stays");
    let device = share(make_mem(&scratch, KINDS[0]));
    let fs = open(&device).unwrap();
    let (id, _) = in_pieces(&fs, "file", 6);
    let end = 6 * PIECE;
    // A hole and preallocated space between two pieces: they cannot come together.
    punch(&fs, id, PIECE, 2 * PIECE, now()).unwrap();
    punch(&fs, id, 3 * PIECE, 4 * PIECE, now()).unwrap();
    preallocate(&fs, id, 3 * PIECE, 4 * PIECE, end, now()).unwrap();
    let (first, last) = ((0, 4 * PIECE), (4 * PIECE, end));
    assert_eq!(found(&fs, id, first, &USUAL), []);
    assert_eq!(found(&fs, id, (0, end), &USUAL), [(4 * PIECE, 2 * PIECE)]);
    let all = [(0, PIECE), (2 * PIECE, PIECE), (4 * PIECE, 2 * PIECE)];
    assert_eq!(found(&fs, id, (0, end), &ALL), all);
    // The last one of a range is joined by the one that follows.
    assert_eq!(
        found(&fs, id, (4 * PIECE, 5 * PIECE), &USUAL),
        [(4 * PIECE, PIECE)]
    );
    // What is large enough.
    let small = Defrag {
        threshold: PIECE,
        all: false,
    };
    assert_eq!(found(&fs, id, last, &small), []);
    // A file that is kept in the tree, one without extents, and one whose extents follow each
    // other on the device.
    let inline = file(&fs, ROOT, "inline").unwrap();
    fill(&fs, inline, &pattern(500, 3)).unwrap();
    assert_eq!(found(&fs, inline, (0, SECTOR), &ALL), []);
    let empty = file(&fs, ROOT, "empty").unwrap();
    assert_eq!(found(&fs, empty, (0, SECTOR), &ALL), []);
    let whole = file(&fs, ROOT, "whole").unwrap();
    let data = pattern((2 * PIECE) as usize, 5);
    fill(&fs, whole, &data).unwrap();
    let cloned = file(&fs, ROOT, "cloned").unwrap();
    for offset in [0, PIECE] {
        let range = CloneRange {
            src: whole,
            src_offset: offset,
            len: PIECE,
            dst: cloned,
            dst_offset: offset,
            dst_size: offset + PIECE,
        };
        clone_range(&fs, &range, None).unwrap();
    }
    assert_eq!(places(&fs, cloned).len(), 2);
    assert_eq!(found(&fs, cloned, (0, 2 * PIECE), &USUAL), []);
}

#[test]
fn compressed_extents_are_full_at_their_most() {
    let scratch = Scratch::new("defrag-compressed");
    let device = share(make_mem(&scratch, KINDS[0]));
    let fs = open(&device).unwrap();
    compress_by(Some(Zstd));
    let id = file(&fs, ROOT, "file").unwrap();
    let data = pattern(3 * (128 << 10), 1);
    fill(&fs, id, &data).unwrap();
    assert_eq!(found(&fs, id, (0, data.len() as u64), &USUAL), []);
    let (small, data) = in_pieces(&fs, "small", 4);
    let size = data.len() as u64;
    assert_eq!(found(&fs, small, (0, size), &USUAL), [(0, size)]);
    compress_by(Some(Lzo));
    defragment(&fs, id, (0, 3 * (128 << 10)), &ALL).unwrap();
    defragment(&fs, small, (0, size), &USUAL).unwrap();
    compress_by(None);
    assert_eq!(places(&fs, small).len(), 1);
    assert!(read(&fs, small).unwrap() == data);
    fs.commit().unwrap();
    drop(fs);
    scratch.assert_clean(&device);
}

#[test]
fn compression_as_it_was_asked_for() {
    let levels = [-15, -1, 0, 1, 9, 15];
    let with = CompressionMethod::ALL
        .into_iter()
        .flat_map(|method| levels.map(|level| Recompress::With { method, level }));
    for how in with.chain([Recompress::AsWritten, Recompress::Not]) {
        assert_eq!(Recompress::from_bits(how.to_bits()), how);
    }
    let mounted = Some(Chosen {
        method: Zlib,
        level: 3,
        is_forced: true,
        gives_up: false,
    });
    let zstd = Recompress::With {
        method: Zstd,
        level: 0,
    };
    assert_eq!(Recompress::AsWritten.choose(mounted, true), mounted);
    assert_eq!(Recompress::Not.choose(mounted, true), None);
    assert_eq!(zstd.choose(mounted, false), None);
    let chosen = zstd.choose(mounted, true).unwrap();
    assert_eq!(
        (chosen.method, chosen.level, chosen.is_forced),
        (Zstd, 3, true)
    );
    assert!(!zstd.choose(None, true).unwrap().is_forced);
}

#[test]
fn lack_of_memory_changes_nothing() {
    let scratch = Scratch::new("defrag-memory");
    let device = share(make_mem(&scratch, KINDS[0]));
    let fs = open(&device).unwrap();
    let (id, data) = in_pieces(&fs, "file", 12);
    fs.commit().unwrap();
    let total = every("allocation", |n| {
        fault::fail_alloc_after(n);
        let result = targets(&fs, id, (0, data.len() as u64), &USUAL);
        let reached = fault::count() > n;
        fault::clear();
        match result {
            Ok(found) => assert_eq!(found.len(), 1),
            Err(error) => assert_eq!(error, ENOMEM),
        }
        reached
    });
    assert!(total > 1, "{total}");
    assert!(!fs.is_read_only());
}

#[test]
fn a_power_cut_leaves_the_contents() {
    let scratch = Scratch::new("defrag-cut");
    let image = share(make_mem(&scratch, KINDS[0]));
    let fs = open(&image).unwrap();
    let (id, data) = in_pieces(&fs, "file", 8);
    fs.commit().unwrap();
    drop(fs);
    let start = (*image).clone();
    let proved = Proved::new("defrag-cut-proved", &start);
    let device = share(RecordingDevice::new(start));
    let fs = open(&device).unwrap();
    for half in [(0, 4 * PIECE), (4 * PIECE, 8 * PIECE)] {
        defragment(&fs, id, half, &USUAL).unwrap();
        fs.commit().unwrap();
    }
    drop(fs);
    let cuts = every_cut(&device, 4, |_, image| {
        proved.assert_by(image, |fs| assert!(read(fs, id).unwrap() == data));
    });
    println!("{cuts} cuts, {} states", proved.checked());
    assert!(cuts > 10 && proved.checked() >= 3);
}
