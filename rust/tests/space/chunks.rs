// SPDX-License-Identifier: GPL-2.0
//! Chunks that are made and removed.

use crate::account::*;
use crate::support::*;
use crate::{kinds, INO, KIB, MIB};
use kernel::fault;
use kernel::prelude::*;
use rbtrfs_engine::format::chunk::block_group_flags::{DATA, DUP, METADATA, SYSTEM};
use rbtrfs_engine::format::inode::inode_flags::NODATASUM;
use rbtrfs_engine::format::superblock::COPIES;
use rbtrfs_engine::format::tree_id;
use rbtrfs_engine::space::block_group::Kind;
use rbtrfs_engine::space::chunk_alloc;
use rbtrfs_engine::space::space_info::SpaceContext;
use rbtrfs_engine::trans::transaction::Reserve;
use rbtrfs_engine::tree::edit;
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::{Event, MemDevice, RecordingDevice};

#[test]
fn chunks_are_made_and_removed() {
    for kind in kinds() {
        let scratch = Scratch::new("space-chunks");
        let image = make_large(&scratch, 4 << 30, kind);
        let fs = open_image(&image);
        let before = verify(&fs).groups;
        let mut made = vec![];
        for flags in [
            DATA,
            DATA | DUP,
            METADATA | DUP,
            SYSTEM | DUP,
            METADATA,
            SYSTEM,
        ] {
            let mut trans = begin(&fs);
            made.push(chunk_alloc::create_chunk(&mut trans, flags).unwrap());
            trans.commit().unwrap();
            verify(&fs);
            assert_clean(&image);
        }
        drop(fs);
        let fs = open_image(&image);
        for start in made {
            let mut trans = begin(&fs);
            assert_eq!(chunk_alloc::remove_chunk(&mut trans, start), Err(EBUSY));
            if trans.space().group_at(start).unwrap().used() != 0 {
                // Metadata went into it.
                trans.cancel();
                continue;
            }
            let (space, vol) = trans.allocator();
            space.set_read_only(vol, start).unwrap();
            chunk_alloc::remove_chunk(&mut trans, start).unwrap();
            trans.commit().unwrap();
            verify(&fs);
            assert_clean(&image);
            assert!(fs.chunk_map().lookup(start).is_none());
        }
        let after = verify(&fs).groups;
        assert!(after <= before + 4, "{before} block groups became {after}");
    }
}

/// Neither addresses nor device space of a chunk come back while somebody may read them.
#[test]
fn a_removed_chunk_waits_for_its_readers() {
    let scratch = Scratch::new("space-removed");
    let image = make_image(&scratch, &[]);
    let fs = open_image(&image);
    let mut trans = begin(&fs);
    let start = chunk_alloc::create_chunk(&mut trans, DATA).unwrap();
    trans.commit().unwrap();
    let old = *fs.chunk_map().lookup(start).unwrap();
    let reader = fs.reader().unwrap();
    let mut trans = begin(&fs);
    let (space, vol) = trans.allocator();
    space.set_read_only(vol, start).unwrap();
    chunk_alloc::remove_chunk(&mut trans, start).unwrap();
    trans.commit().unwrap();
    for _ in 0..2 {
        let mut trans = begin(&fs);
        let new = chunk_alloc::create_chunk(&mut trans, DATA).unwrap();
        let map = fs.chunk_map();
        assert_eq!(map.lookup(start), Some(&old));
        let made = map.lookup(new).unwrap();
        assert!(new >= old.logical + old.length);
        assert!(made.first >= old.first + old.length || made.first + made.length <= old.first);
        trans.cancel();
    }
    drop(reader);
    let mut trans = begin(&fs);
    let new = chunk_alloc::create_chunk(&mut trans, DATA).unwrap();
    assert_eq!(new, start);
    assert_eq!(fs.chunk_map().lookup(new).unwrap().first, old.first);
    trans.commit().unwrap();
    verify(&fs);
    assert_clean(&image);
}

#[test]
fn a_cancelled_chunk_leaves_nothing() {
    let scratch = Scratch::new("space-cancel");
    let image = make_image(&scratch, &[]);
    let fs = open_image(&image);
    let before = verify(&fs).groups;
    let chunks = fs.chunk_map().len();
    for flags in [DATA, METADATA | DUP, SYSTEM | DUP] {
        let mut trans = begin(&fs);
        chunk_alloc::create_chunk(&mut trans, flags).unwrap();
        trans.cancel();
        assert_eq!(verify(&fs).groups, before);
        assert_eq!(fs.chunk_map().len(), chunks);
    }
    let mut trans = begin(&fs);
    make_file(&mut trans, INO, "extents", NODATASUM);
    append(&mut trans, INO, 0, MIB).unwrap();
    trans.commit().unwrap();
    verify(&fs);
    assert_clean(&image);
}

/// Every allocation of memory fails once, in transactions that make and remove chunks and free and
/// allocate extents: either all is as the last commit left it, or all went well.
#[test]
fn failing_allocations_leave_the_last_commit() {
    let scratch = Scratch::new("space-memory");
    let image = make_image(&scratch, &["-n", "4096"]);
    {
        let fs = open_image(&image);
        let mut trans = begin(&fs);
        make_file(&mut trans, INO, "extents", NODATASUM);
        for n in 0..50 {
            append(&mut trans, INO, n * 64 * KIB, 4 * KIB).unwrap();
        }
        chunk_alloc::create_chunk(&mut trans, DATA | DUP).unwrap();
        trans.commit().unwrap();
    }
    let start = MemDevice::from_file(&image).unwrap();
    let work = |fs: &Fs| -> Result {
        let mut trans = fs.begin(Reserve::default())?;
        chunk_alloc::create_chunk(&mut trans, METADATA | DUP)?;
        let empty = trans.space().block_groups().iter();
        let empty = empty.filter(|g| g.kind() == Kind::Data && g.profile() == DUP);
        let start = empty.map(|g| g.start).next().ok_or(ENOENT)?;
        let (space, vol) = trans.allocator();
        space.set_read_only(vol, start)?;
        chunk_alloc::remove_chunk(&mut trans, start)?;
        edit::insert(&mut trans, tree_id::ROOT, &key(0), &[7; 500])?;
        trans.commit()?;
        Ok(())
    };
    let fs = open(&share(start.clone())).unwrap();
    fault::clear();
    work(&fs).unwrap();
    let count = fault::count();
    assert!(count > 100);
    let mut failed = 0;
    for n in (0..count).step_by(3) {
        let device = share(RecordingDevice::new(start.clone()));
        let fs = open(&device).unwrap();
        fault::fail_alloc_after(n);
        let result = work(&fs);
        fault::clear();
        if result.is_err() {
            failed += 1;
            assert_eq!(result, Err(ENOMEM));
            let is_superblock = |event: &Event| matches!(event, Event::Write { offset, .. } if COPIES.contains(offset));
            let written = device.events().iter().any(is_superblock);
            assert!(
                !written,
                "a superblock was written before allocation {n} failed"
            );
        } else if n % 10 == 0 {
            scratch.assert_clean(&device.image());
        }
    }
    assert!(failed > 20, "only {failed} of {count} allocations matter");
}
