// SPDX-License-Identifier: GPL-2.0
//! The compression property: it goes with flags of the inode, and new files get it from their
//! directory.

use crate::files::*;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::format::inode::inode_flags::{COMPRESS, NOCOMPRESS, NODATACOW, PREALLOC};
use rbtrfs_engine::format::{tree_id, CompressionMethod};
use rbtrfs_engine::subvol::subvolume::{create_subvolume, NewSubvolume};
use rbtrfs_engine::subvol::write::*;
use rbtrfs_engine::subvol::xattr;
use rbtrfs_engine::trans::View;
use rbtrfs_engine::volume::Fs;
use std::vec::Vec;

const NAME: &[u8] = b"btrfs.compression";

fn get(fs: &Fs, id: InodeId) -> Option<Vec<u8>> {
    let view = fs.running_view(id.tree).unwrap();
    let root = view.tree_root(id.tree).unwrap();
    match xattr::get(&view, root, id.ino, NAME, |v| Ok(v.to_vec())) {
        Err(e) if e == ENODATA => None,
        found => Some(found.unwrap()),
    }
}

fn set(fs: &Fs, id: InodeId, value: Option<&[u8]>, mode: XattrMode) -> Result<u64> {
    let item = set_xattr(fs, id, NAME, value, mode, now())?;
    Ok(item.flags.get() & (COMPRESS | NOCOMPRESS))
}

#[test]
fn it_goes_with_the_flags() {
    let scratch = Scratch::new("write-property");
    let device = share(make_mem(&scratch, &[]));
    let fs = open(&device).unwrap();
    let id = file(&fs, ROOT, "file").unwrap();
    for (value, flags) in [
        (&b"zstd:3"[..], COMPRESS),
        (b"none", NOCOMPRESS),
        (b"lzo", COMPRESS),
        (b"no", NOCOMPRESS),
        (b"zlib", COMPRESS),
    ] {
        assert_eq!(set(&fs, id, Some(value), XattrMode::Set), Ok(flags));
        assert_eq!(get(&fs, id).unwrap(), value);
    }
    // An empty value is none, and there may have been none before.
    assert_eq!(set(&fs, id, Some(b""), XattrMode::Set), Ok(0));
    assert_eq!(get(&fs, id), None);
    assert_eq!(set(&fs, id, Some(b""), XattrMode::Set), Ok(0));
    assert_eq!(set(&fs, id, None, XattrMode::Replace), Err(ENODATA));
    assert_eq!(set(&fs, id, Some(b"lzo"), XattrMode::Create), Ok(COMPRESS));
    assert_eq!(set(&fs, id, Some(b"lzo"), XattrMode::Create), Err(EEXIST));
    assert_eq!(set(&fs, id, None, XattrMode::Replace), Ok(0));
    fs.commit().unwrap();
    scratch.assert_clean(&device);
}

#[test]
fn what_can_be_set() {
    for good in ["zlib", "lzo", "zstd", "zlib:9", "zstd:-3", "no", "none", ""] {
        assert_eq!(check_property(NAME, good.as_bytes(), 0), Ok(()), "{good}");
    }
    for bad in ["gzip", "zstd3", "on", "non"] {
        assert_eq!(
            check_property(NAME, bad.as_bytes(), 0),
            Err(EINVAL),
            "{bad}"
        );
    }
    assert_eq!(check_property(b"btrfs.other", b"", 0), Err(EINVAL));
    assert_eq!(check_property(NAME, b"zlib", NODATACOW), Err(EINVAL));
    assert_eq!(check_property(NAME, b"", NODATACOW), Ok(()));
    assert!(has_properties(mode::REG) && has_properties(mode::DIR | 0o755));
    assert!(!has_properties(mode::LNK) && !has_properties(mode::FIFO));
}

#[test]
fn chattr_sets_it_too() {
    let scratch = Scratch::new("write-property-flags");
    let device = share(make_mem(&scratch, &[]));
    let fs = open(&device).unwrap();
    let id = file(&fs, ROOT, "file").unwrap();
    let flags = |flags| {
        set_flags(&fs, id, flags, CompressionMethod::Zlib, now())
            .unwrap()
            .flags
            .get()
    };
    assert_eq!(flags(COMPRESS), COMPRESS);
    assert_eq!(get(&fs, id).unwrap(), b"zlib");
    // Another attribute leaves the method as it is.
    set(&fs, id, Some(b"zstd"), XattrMode::Set).unwrap();
    assert_eq!(flags(COMPRESS), COMPRESS);
    assert_eq!(get(&fs, id).unwrap(), b"zstd");
    assert_eq!(flags(NOCOMPRESS), NOCOMPRESS);
    assert_eq!(get(&fs, id), None);
    preallocate(&fs, id, 0, 4096, 4096, now()).unwrap();
    assert_eq!(flags(0), PREALLOC);
    fs.commit().unwrap();
    scratch.assert_clean(&device);
}

#[test]
fn new_files_get_it_from_their_directory() {
    let scratch = Scratch::new("write-property-inherit");
    let device = share(make_mem(&scratch, &[]));
    let fs = open(&device).unwrap();
    let dir = mkdir(&fs, ROOT, "dir").unwrap();
    let before = file(&fs, dir, "before").unwrap();
    set(&fs, dir, Some(b"zstd:9"), XattrMode::Set).unwrap();
    let flags = |id| item(&fs, id).unwrap().flags.get();
    // The method, without the level.
    let inside = mkdir(&fs, dir, "inside").unwrap();
    for id in [
        file(&fs, dir, "file").unwrap(),
        inside,
        file(&fs, inside, "deeper").unwrap(),
    ] {
        assert_eq!(get(&fs, id).unwrap(), b"zstd");
        assert_eq!(flags(id), COMPRESS);
    }
    assert_eq!(get(&fs, before), None);
    let link = NewInode {
        target: b"file",
        ..new(mode::LNK | 0o777)
    };
    let link = create(&fs, dir, b"link", &link).unwrap();
    let link = InodeId {
        ino: link.ino,
        ..dir
    };
    assert_eq!(get(&fs, link), None);
    // One that says not to compress says so by a flag alone.
    set(&fs, dir, Some(b"none"), XattrMode::Set).unwrap();
    let plain = file(&fs, dir, "plain").unwrap();
    assert_eq!(get(&fs, plain), None);
    assert_eq!(flags(plain), NOCOMPRESS);

    // A subvolume takes it from the root of the one that it is made in.
    let new = NewSubvolume {
        uuid: [7; 16],
        uid: 0,
        gid: 0,
        mode: 0o755,
        now: now(),
    };
    set(&fs, dir, Some(b"lzo"), XattrMode::Set).unwrap();
    let root_of = |tree| InodeId {
        tree,
        ino: ROOT.ino,
    };
    let plain = root_of(create_subvolume(&fs, dir, b"subvol", &new).unwrap().tree);
    assert_eq!((get(&fs, plain), flags(plain)), (None, 0));
    set(&fs, ROOT, Some(b"zlib"), XattrMode::Set).unwrap();
    let new = NewSubvolume {
        uuid: [8; 16],
        ..new
    };
    let made = root_of(create_subvolume(&fs, dir, b"another", &new).unwrap().tree);
    assert_eq!(
        (get(&fs, made).unwrap(), flags(made)),
        (b"zlib".to_vec(), COMPRESS)
    );
    assert_eq!(ROOT.tree, tree_id::FS);
    fs.commit().unwrap();
    scratch.assert_clean(&device);
}
