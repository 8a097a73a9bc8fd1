// SPDX-License-Identifier: GPL-2.0
//! What sizes a volume can be given, and what is in it then.

use crate::support::contents::contents_now;
use crate::support::*;
use kernel::prelude::*;
use kernel::sync::Arc;
use rbtrfs_engine::extent::refs::RefKind;
use rbtrfs_engine::format::tree_id;
use rbtrfs_engine::resize::resize;
use rbtrfs_engine::space::space_info::SpaceContext;
use rbtrfs_engine::state::{ExclusiveOperation, Operation, Refusal};
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::MemDevice;

const MIB: u64 = 1 << 20;

/// A volume of 512 MiB at the start of a device of a gigabyte.
pub fn volume(name: &str, options: &[&str]) -> (Scratch, Arc<MemDevice>) {
    let scratch = Scratch::new(name);
    let path = make_image(&scratch, options);
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1024 * MIB)
        .unwrap();
    let image = share(MemDevice::from_file(&path).unwrap());
    let fs = open(&image).unwrap();
    assert_eq!(size(&fs), 256 * MIB);
    ask(&fs, "512m").unwrap();
    (scratch, image)
}

pub fn ask(fs: &Fs, text: &str) -> Result {
    resize(fs, text.as_bytes()).map_err(|refusal| match refusal {
        Refusal::Error(error) => error,
        Refusal::Exclusive => panic!("nothing else runs"),
    })
}

/// The size that the last commit has, the same in all places.
pub fn size(fs: &Fs) -> u64 {
    let reader = fs.reader().unwrap();
    let superblock = reader.superblock();
    let size = superblock.dev_item.total_bytes.get();
    assert_eq!(superblock.total_bytes.get(), size);
    size
}

/// Puts chunks of data at the end of the volume, and something into the last one.
fn fill_the_end(fs: &Fs) {
    let mut trans = begin(fs);
    for _ in 0..3 {
        rbtrfs_engine::space::chunk_alloc::create_chunk(&mut trans, 1).unwrap();
        rbtrfs_engine::space::chunk_alloc::create_chunk(&mut trans, 4).unwrap();
    }
    trans.settle().unwrap();
    trans.commit().unwrap();
    // What is copied goes to the new chunks.
    let first = fs.chunk_map().iter().next().unwrap().logical;
    for _ in 0..2 {
        cow_everything(fs);
    }
    let _ = rbtrfs_engine::balance::relocate::relocate_block_group(fs, first, &|| Ok(()));
}

/// Where the last chunk ends on the device.
fn used_end(fs: &Fs) -> u64 {
    let chunks = fs.chunk_map();
    let ends = chunks
        .iter()
        .flat_map(|chunk| chunk.stripes().map(|start| start + chunk.length));
    ends.max().unwrap()
}

#[test]
fn it_grows_and_shrinks_and_holds_the_same() {
    for (number, options) in KINDS.iter().enumerate() {
        let (scratch, image) = volume(&format!("resize-{number}"), options);
        let fs = open(&image).unwrap();
        let before = contents_now(&fs);
        ask(&fs, "+100m").unwrap();
        assert_eq!(size(&fs), 612 * MIB);
        ask(&fs, "1:max").unwrap();
        assert_eq!(size(&fs), 1024 * MIB);
        fill_the_end(&fs);
        assert!(used_end(&fs) > 300 * MIB, "{}", used_end(&fs));
        ask(&fs, "-724m").unwrap();
        assert_eq!(size(&fs), 300 * MIB);
        assert_eq!(contents_now(&fs), before);
        // Readers of an older commit have all left, and so has what they could look at.
        begin(&fs).cancel();
        assert!(used_end(&fs) <= 300 * MIB);
        drop(fs);
        scratch.assert_clean(&image);
        let fs = open(&image).unwrap();
        assert_eq!((size(&fs), contents_now(&fs)), (300 * MIB, before));
        // New chunks find the end.
        let mut trans = begin(&fs);
        while rbtrfs_engine::space::chunk_alloc::create_chunk(&mut trans, 1).is_ok() {}
        assert!(trans.space().devices().bytes_used() <= 300 * MIB);
        trans.cancel();
        assert_eq!(fs.state.exclusive_operation(), ExclusiveOperation::None);
    }
}

#[test]
fn the_first_thing_after_a_mount() {
    let (scratch, image) = volume("resize-cold", KINDS[0]);
    let fs = open(&image).unwrap();
    fill_the_end(&fs);
    drop(fs);
    let fs = open(&image).unwrap();
    ask(&fs, "300m").unwrap();
    drop(fs);
    let fs = open(&image).unwrap();
    ask(&fs, "max").unwrap();
    drop(fs);
    scratch.assert_clean(&image);
}

#[test]
fn bad_sizes_change_nothing() {
    let (_scratch, image) = volume("resize-bad", KINDS[0]);
    let fs = open(&image).unwrap();
    let generation = fs.generation();
    for (text, error) in [
        ("", EINVAL),
        ("0", EINVAL),
        ("x", EINVAL),
        ("255m", EINVAL),
        ("-1t", EINVAL),
        ("-300m", EINVAL),
        ("1025m", EFBIG),
        ("+1g", EFBIG),
        ("+16383P", EFBIG),
        ("2:max", ENODEV),
        ("0:max", EINVAL),
        ("cancel", ENOTCONN),
    ] {
        assert_eq!(ask(&fs, text), Err(error), "{text}");
    }
    // Sizes are rounded down to whole sectors.
    assert_eq!(ask(&fs, "536870912"), Ok(()));
    assert_eq!(ask(&fs, "536871000"), Ok(()));
    assert_eq!((fs.generation(), size(&fs)), (generation, 512 * MIB));
    fs.set_read_only(true).unwrap();
    assert_eq!(ask(&fs, "max"), Err(EROFS));
}

#[test]
fn what_else_runs_excludes_it() {
    let (_scratch, image) = volume("resize-excluded", KINDS[0]);
    let fs = open(&image).unwrap();
    let other = fs.state.begin_exclusive(Operation::DeviceAdd).unwrap();
    assert_eq!(resize(&fs, b"max"), Err(Refusal::Exclusive));
    assert_eq!(ask(&fs, "cancel"), Err(ENOTCONN));
    drop(other);
    // Sends are in the way of what moves extents, and of nothing else.
    let send = fs.state.begin_send(&fs.device, 256).unwrap();
    assert_eq!(ask(&fs, "300m"), Err(EAGAIN));
    assert_eq!(ask(&fs, "+1m"), Ok(()));
    drop(send);
    assert_eq!(ask(&fs, "300m"), Ok(()));
    assert!(!fs.state.relocation_running());
}

#[test]
fn what_does_not_fit_stays_where_it_is() {
    let (_scratch, image) = volume("resize-full", KINDS[0]);
    let fs = open(&image).unwrap();
    let before = contents_now(&fs);
    // Extents of files that are not there: nobody gets to look at them.
    let mut trans = begin(&fs);
    let (mut filled, mut ino) = (0, 1000);
    while filled < 320 * MIB {
        let (bytenr, len) = trans.alloc_extent(4096, 16 * MIB).unwrap();
        let root = tree_id::FS;
        let kind = RefKind::Data {
            root,
            ino,
            offset: 0,
        };
        trans.add_ref(bytenr, len, kind, 1).unwrap();
        (filled, ino) = (filled + len, ino + 1);
    }
    trans.commit().unwrap();
    assert_eq!(ask(&fs, "300m"), Err(ENOSPC));
    assert_eq!((size(&fs), contents_now(&fs)), (512 * MIB, before));
    // Nothing of the attempt is left: the space beyond is in use again.
    let mut trans = begin(&fs);
    while let Ok((_, len)) = trans.alloc_extent(4096, 16 * MIB) {
        filled += len;
    }
    trans.cancel();
    assert!(filled > 360 * MIB, "{filled}");
    assert!(!fs.state.relocation_running());
}

#[test]
fn it_can_be_cancelled() {
    let (scratch, image) = volume("resize-cancel", KINDS[0]);
    let fs = open(&image).unwrap();
    ask(&fs, "max").unwrap();
    fill_the_end(&fs);
    let before = contents_now(&fs);
    let (first, second) = std::thread::scope(|scope| {
        let resizing = scope.spawn(|| ask(&fs, "300m"));
        let canceled = loop {
            match ask(&fs, "cancel") {
                Err(ENOTCONN) if !resizing.is_finished() => std::thread::yield_now(),
                other => break other,
            }
        };
        (resizing.join().unwrap(), canceled)
    });
    match first {
        Err(ECANCELED) => assert_eq!(size(&fs), 1024 * MIB),
        // It had come to its end.
        other => assert_eq!((other, size(&fs)), (Ok(()), 300 * MIB)),
    }
    assert!(matches!(second, Err(ECANCELED | ENOTCONN)));
    assert_eq!(contents_now(&fs), before);
    ask(&fs, "300m").unwrap();
    drop(fs);
    scratch.assert_clean(&image);
}
