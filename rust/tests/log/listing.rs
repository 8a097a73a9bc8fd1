// SPDX-License-Identifier: GPL-2.0
//! What is in a volume, as text: one line for each path of the top-level subvolume, as
//! `tools/test-images/list.py` writes it of a mounted volume. Times are left out: a replay by the C
//! driver sets some of them to its own.

use rbtrfs_engine::format::inode::InodeItem;
use rbtrfs_engine::format::{item_type, tree_id};
use rbtrfs_engine::subvol::data::read_file;
use rbtrfs_engine::subvol::{dir, inode, xattr};
use rbtrfs_engine::trans::Reader;
use rbtrfs_engine::volume::Fs;
use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

/// FNV-1a of 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn line(reader: &Reader, path: &str, ino: u64) -> (String, bool) {
    let root = reader.root(tree_id::FS).unwrap();
    let item: InodeItem = inode::read(reader, root, ino).unwrap();
    let typ = item.mode.get() & 0o170_000;
    let mut buf = vec![0; 2 << 20];
    let content = match typ {
        0o100_000 | 0o120_000 => {
            let len = read_file(reader, root, ino, 0, &mut buf).unwrap();
            assert!(len < buf.len());
            hash(&buf[..len])
        }
        _ => 0,
    };
    let mut xattrs = BTreeMap::new();
    xattr::for_each(reader, root, ino, &mut |entry| {
        let name = String::from_utf8_lossy(entry.name).into_owned();
        xattrs.insert(name, hash(entry.value));
        Ok(true)
    })
    .unwrap();
    let xattrs = xattrs.iter().fold(String::new(), |all, (name, value)| {
        format!("{all} {name}={value:016x}")
    });
    let line = format!(
        "{path} {ino} {:o} {} {} {} {} {content:016x}{xattrs}\n",
        item.mode.get(),
        item.nlink.get(),
        item.uid.get(),
        item.gid.get(),
        item.size.get()
    );
    (line, typ == 0o040_000)
}

/// The listing of a volume, in the order of its lines.
pub fn listing(fs: &Fs) -> String {
    let reader = fs.reader().unwrap();
    let root = reader.root(tree_id::FS).unwrap();
    let mut lines = vec![];
    let mut stack = vec![(String::from("."), 256u64)];
    while let Some((path, ino)) = stack.pop() {
        let (text, is_dir) = line(&reader, &path, ino);
        lines.push(text);
        if !is_dir {
            continue;
        }
        let mut by_index: Vec<(String, u64)> = vec![];
        dir::iterate(&reader, root, ino, 0, &mut |_, entry| {
            assert_eq!(entry.location.typ, item_type::INODE_ITEM);
            let name = String::from_utf8_lossy(entry.name).into_owned();
            let target = dir::lookup(&reader, root, ino, entry.name)?.unwrap();
            assert_eq!((target.location, target.typ), (entry.location, entry.typ));
            by_index.push((format!("{path}/{name}"), entry.location.objectid));
            Ok(true)
        })
        .unwrap();
        stack.extend(by_index);
    }
    lines.sort();
    lines.concat()
}
