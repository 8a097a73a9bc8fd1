// SPDX-License-Identifier: GPL-2.0
//! As much is cloned beside a relocation as without: which places are found first follows the
//! addresses of leaves, and of some less can be cloned than of others.

use crate::contents::*;
use crate::files::*;
use crate::judge::assert_as_good;
use crate::stops::*;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::format::chunk::block_group_flags as bg;
use rbtrfs_engine::send::SendArgs;
use rbtrfs_engine::subvol::write::{clone_range, truncate, CloneRange, InodeId};
use rbtrfs_engine::volume::Fs;

const KIB: u64 = 1 << 10;

/// Extents that are shared each.
const EXTENTS: u64 = 12;

/// Files enough for what comes next to be in another leaf.
fn other_leaf(fs: &Fs, name: &str) {
    for n in 0..60 {
        file(fs, ROOT, &format!("{name}-{n:070}")).unwrap();
    }
}

fn share_part(fs: &Fs, src: InodeId, src_offset: u64, len: u64, dst: InodeId) {
    let range = CloneRange {
        src,
        src_offset,
        len,
        dst,
        dst_offset: 0,
        dst_size: len,
    };
    clone_range(fs, &range, Some(now())).unwrap();
}

/// A read-only snapshot whose leaves have references of their own, so that these, and not inodes,
/// are what is found from an extent. Of each extent there is a half, and then other data, in one
/// file, all of it in another one, and the middle in a third: its clone is whole only from the
/// second.
fn make(fs: &Fs) -> u64 {
    let each = |name: &str, make: &dyn Fn(InodeId, InodeId, u64)| {
        for n in 0..EXTENTS {
            let whole = lookup(fs, ROOT, &format!("first-{n}")).unwrap().unwrap();
            make(whole, file(fs, ROOT, &format!("{name}-{n}")).unwrap(), n);
            other_leaf(fs, &format!("after-{name}-{n}"));
        }
    };
    for n in 0..EXTENTS {
        let first = file(fs, ROOT, &format!("first-{n}")).unwrap();
        let data = pattern(128 << 10, n);
        write(fs, first, 0, &data, data.len() as u64).unwrap();
    }
    each("half", &|whole, half, n| {
        share_part(fs, whole, 0, 64 * KIB, half);
        let data = pattern(64 << 10, 100 + n);
        write(fs, half, 64 * KIB, &data, 128 * KIB).unwrap();
    });
    each("whole", &|whole, other, _| {
        share_part(fs, whole, 0, 128 * KIB, other)
    });
    each("wants", &|whole, wants, _| {
        share_part(fs, whole, 32 * KIB, 64 * KIB, wants)
    });
    for n in 0..EXTENTS {
        let first = lookup(fs, ROOT, &format!("first-{n}")).unwrap().unwrap();
        truncate(fs, first, 0, now()).unwrap();
    }
    snapshot_alone(fs)
}

/// Relocates tree blocks until `left` has been asked for so often, so that some have new addresses
/// and some have not.
fn balance_some(fs: &Fs, left: usize) {
    let left = std::cell::Cell::new(left);
    let stopped = balance_with(fs, bg::METADATA, &|| {
        left.set(left.get().checked_sub(1).ok_or(ECANCELED)?);
        Ok(())
    });
    assert!(matches!(stopped, Ok(()) | Err(ECANCELED)), "{stopped:?}");
}

#[test]
fn as_much_is_cloned_whatever_moves() {
    let scratch = Scratch::new("beside-clones");
    let volume = Volume::of(make_mem(&scratch, &["--metadata", "single"]));
    let fs = &volume.fs;
    let args = SendArgs {
        root: make(fs),
        parent: None,
        clones: &[],
        flags: 0,
        version: 1,
    };
    let mut others = 0;
    for some in 0..12 {
        fs.commit().unwrap();
        let (alone, steps) = volume.send_alone(&args);
        fs.cache.shrink(0);
        let (stream, _) = volume
            .send(&args, 2, move |fs| {
                balance_some(fs, 50 * (1 + some));
                fs.cache.shrink(0);
            })
            .unwrap();
        let place = format!("{some} of {steps} steps");
        let reader = fs.reader().unwrap();
        assert_as_good(&reader, args.root, &stream, &alone, &place);
        others += usize::from(stream != alone);
    }
    assert!(others > 0, "no other place was found first");
}
