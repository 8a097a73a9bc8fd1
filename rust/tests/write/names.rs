// SPDX-License-Identifier: GPL-2.0
//! Names that share items: those with the same hash, and the many names of one inode.

use crate::files::*;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::format::crc::{extref_hash, name_hash};
use rbtrfs_engine::subvol::write::*;
use rbtrfs_engine::subvol::{inode, xattr};
use rbtrfs_engine::trans::View;
use rbtrfs_engine::volume::Fs;
use std::collections::HashMap;
use std::string::String;
use std::vec::Vec;

/// Two names with the same hash, each `len` bytes long.
fn twins(prefix: &str, len: usize, hash: impl Fn(&[u8]) -> u64) -> (String, String) {
    let mut seen = HashMap::new();
    for n in 0u64.. {
        let digits = pattern(16, n + 1);
        let text: String = digits.iter().map(|b| char::from(b'a' + b % 26)).collect();
        let name = format!("{prefix}{text}{}", "x".repeat(len - 16 - prefix.len()));
        if let Some(other) = seen.insert(hash(name.as_bytes()), name.clone()) {
            if other != name {
                return (other, name);
            }
        }
    }
    unreachable!()
}

fn get_xattr(fs: &Fs, id: InodeId, name: &str) -> Result<Vec<u8>> {
    let view = fs.running_view(id.tree)?;
    let root = view.tree_root(id.tree)?;
    xattr::get(&view, root, id.ino, name.as_bytes(), |v| Ok(v.to_vec()))
}

#[test]
fn names_with_the_same_hash() {
    let scratch = Scratch::new("write-twins");
    let device = share(make_mem(&scratch, &["-n", "4096", "-m", "single"]));
    let fs = open(&device).unwrap();
    let (a, b) = twins("", 30, name_hash);
    assert_eq!(name_hash(a.as_bytes()), name_hash(b.as_bytes()));
    let dir = mkdir(&fs, ROOT, "dir").unwrap();
    let first = file(&fs, dir, &a).unwrap();
    let second = file(&fs, dir, &b).unwrap();
    assert_eq!(file(&fs, dir, &b).err(), Some(EEXIST));
    assert_eq!(lookup(&fs, dir, &a).unwrap(), Some(first));
    assert_eq!(lookup(&fs, dir, &b).unwrap(), Some(second));
    let end = |name| RenameEnd { dir, name };
    let (from, to) = (end(a.as_bytes()), end(b.as_bytes()));
    rename(&fs, from, to, RenameMode::Exchange, now()).unwrap();
    assert_eq!(lookup(&fs, dir, &a).unwrap(), Some(second));
    rename(&fs, from, to, RenameMode::Replace, now()).unwrap();
    assert_eq!(lookup(&fs, dir, &a).unwrap(), None);
    assert_eq!(lookup(&fs, dir, &b).unwrap(), Some(second));
    assert_eq!(item(&fs, dir).unwrap().size.get(), 60);
    evict(&fs, first).unwrap();

    let (a, b) = twins("user.", 40, name_hash);
    let set = |name: &str, value: Option<&[u8]>, mode| {
        set_xattr(&fs, second, name.as_bytes(), value, mode, now()).map(|_| ())
    };
    set(&a, Some(b"one"), XattrMode::Create).unwrap();
    set(&b, Some(b"two"), XattrMode::Create).unwrap();
    assert_eq!(set(&b, Some(b""), XattrMode::Create), Err(EEXIST));
    set(&a, Some(&[1; 2000]), XattrMode::Replace).unwrap();
    // Both have to fit into one item.
    let too_long = Some(&[2; 2000][..]);
    assert_eq!(set(&b, too_long, XattrMode::Set), Err(ENOSPC));
    assert_eq!(get_xattr(&fs, second, &a).unwrap(), [1; 2000]);
    assert_eq!(get_xattr(&fs, second, &b).unwrap(), b"two");
    set(&a, None, XattrMode::Set).unwrap();
    assert_eq!(set(&a, None, XattrMode::Set), Err(ENODATA));
    assert_eq!(get_xattr(&fs, second, &b).unwrap(), b"two");
    fs.commit().unwrap();
    scratch.assert_clean(&device);
}

#[test]
fn an_inode_with_many_names() {
    let scratch = Scratch::new("write-links");
    let device = share(make_mem(&scratch, &["-n", "4096", "-m", "single"]));
    let fs = open(&device).unwrap();
    let id = file(&fs, ROOT, "file").unwrap();
    let mut names = vec![String::from("file")];
    for n in 0..300 {
        let name = format!("{n}-{}", "y".repeat(150));
        link(&fs, id.ino, ROOT, name.as_bytes(), now()).unwrap();
        names.push(name);
    }
    // Two more that share an item of the second kind.
    let (a, b) = twins("", 100, |name| extref_hash(ROOT.ino, name));
    for name in [a, b] {
        link(&fs, id.ino, ROOT, name.as_bytes(), now()).unwrap();
        names.push(name);
    }
    fs.commit().unwrap();
    scratch.assert_clean(&device);
    let wanted = |names: &[String]| {
        let view = fs.running_view(id.tree).unwrap();
        let root = view.tree_root(id.tree).unwrap();
        let mut found = vec![];
        inode::for_each_name(&view, root, id.ino, &mut |name| {
            found.push(String::from_utf8(name.name.to_vec()).unwrap());
            Ok(true)
        })
        .unwrap();
        drop(view);
        found.sort();
        let mut names = names.to_vec();
        names.sort();
        assert!(found == names);
        assert_eq!(item(&fs, id).unwrap().nlink.get() as usize, names.len());
    };
    wanted(&names);
    // Every second name goes, from items of both kinds, and others are renamed.
    for n in (0..names.len()).rev().step_by(2) {
        let name = names.remove(n);
        unlink(&fs, ROOT, name.as_bytes(), now()).unwrap();
    }
    for (n, name) in names.iter_mut().enumerate() {
        let new = format!("new-{n}");
        let end = |name| RenameEnd { dir: ROOT, name };
        let (from, to) = (end(name.as_bytes()), end(new.as_bytes()));
        rename(&fs, from, to, RenameMode::NoReplace, now()).unwrap();
        *name = new;
    }
    wanted(&names);
    fs.commit().unwrap();
    scratch.assert_clean(&device);
    for name in &names {
        unlink(&fs, ROOT, name.as_bytes(), now()).unwrap();
    }
    evict(&fs, id).unwrap();
    fs.commit().unwrap();
    scratch.assert_clean(&device);
}
