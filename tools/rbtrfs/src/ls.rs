// SPDX-License-Identifier: GPL-2.0
//! `rbtrfs ls`.

use crate::errno::What;
use crate::{open, path};
use anyhow::Result;
use rbtrfs_engine::format::dir::file_type;
use rbtrfs_engine::format::{item_type, objectid};
use rbtrfs_engine::subvol::{dir, inode};
use std::io::Write;
use std::path::Path;

pub fn run(image: &Path, name: &str, long: bool) -> Result<()> {
    let fs = open::open(image, false)?;
    let reader = fs.reader().what("last commit")?;
    let place = path::walk(&reader, name)?;
    let mut entries = Vec::new();
    dir::iterate(&reader, place.root, place.ino, 0, &mut |_, entry| {
        entries.push((entry.name.to_vec(), entry.location, entry.typ));
        Ok(true)
    })
    .what(name)?;
    let mut out = std::io::stdout().lock();
    for (entry, location, typ) in entries {
        let suffix = match (typ & !file_type::ENCRYPTED, location.typ) {
            (_, item_type::ROOT_ITEM) => "/ (subvolume)",
            (file_type::DIR, _) => "/",
            (file_type::SYMLINK, _) => "@",
            (file_type::FIFO, _) => "|",
            (file_type::SOCK, _) => "=",
            _ => "",
        };
        if long {
            let (root, ino) = if location.typ == item_type::ROOT_ITEM {
                let root = reader.root(location.objectid).what(name)?;
                (root, objectid::FIRST_FREE)
            } else {
                (place.root, location.objectid)
            };
            let item = inode::read(&reader, root, ino).what(name)?;
            write!(
                out,
                "{:>8} {:06o} {:>3} {:>6} {:>6} {:>12} {:>11} ",
                ino,
                item.mode.get(),
                item.nlink.get(),
                item.uid.get(),
                item.gid.get(),
                item.size.get(),
                item.mtime.sec.get() as i64,
            )?;
        }
        out.write_all(&entry)?;
        writeln!(out, "{}", if long { "" } else { suffix })?;
    }
    Ok(())
}
