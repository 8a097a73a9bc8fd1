// SPDX-License-Identifier: GPL-2.0
//! Whom an error concerns that could not be repaired: files by their paths, tree blocks by their
//! trees.

use super::window::{Unit, UnitKind};
use crate::backref::owners::{for_each_owner, Owner};
use crate::extent::backref::{all_refs, find_extent};
use crate::extent::refs::RefKind;
use crate::format::inode::InodeItem;
use crate::format::{self, item_type, tree_id, Key};
use crate::fs_warn;
use crate::subvol::resolve::for_each_path;
use crate::trans::Reader;
use crate::tree::NodePtr;
use kernel::prelude::*;

/// The message's subject: what is wrong, and where.
struct Subject<'a> {
    what: &'a str,
    logical: u64,
    physical: u64,
    device: &'a str,
}

impl core::fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "scrub: {} at logical {} on dev /dev/{}, physical {}",
            self.what, self.logical, self.device, self.physical
        )
    }
}

/// Prints a line for each file, or tree, that has `unit`. What cannot be found out is left out: the
/// error itself has a line already.
pub(super) fn name_users(reader: &Reader, unit: &Unit, physical: u64, what: &str) {
    let subject = Subject {
        what,
        logical: unit.logical,
        physical,
        device: reader.fs().name(),
    };
    let _ = match &unit.kind {
        UnitKind::Block(ptr) => name_trees(reader, ptr, &subject),
        UnitKind::Sector(_) => for_each_owner(reader, unit.logical, false, &mut |owner| {
            if let Err(error) = name_files(reader, &owner, &subject) {
                fs_warn!(
                    reader.fs(),
                    "{} root {} inode {} offset {}: path resolving failed with ret={}",
                    subject,
                    owner.root,
                    owner.ino,
                    owner.offset,
                    error.to_errno()
                );
            }
            Ok(())
        }),
    };
}

/// A line for each path of a file.
fn name_files(reader: &Reader, owner: &Owner, subject: &Subject<'_>) -> Result {
    let root = reader.root(owner.root)?;
    let mut cursor = reader.cursor(root);
    if !cursor.seek(&Key::new(owner.ino, item_type::INODE_ITEM, 0))? {
        return Err(ENOENT);
    }
    let (_, item) = cursor.item().ok_or(ENOENT)?;
    let links = format::read::<InodeItem>(item)?.nlink.get();
    for_each_path(reader, root, owner.ino, &mut |path| {
        fs_warn!(
            reader.fs(),
            "{} root {} inode {} offset {} length {} links {} (path: {})",
            subject,
            owner.root,
            owner.ino,
            owner.offset,
            u32::from(reader.fs().geometry.sectorsize),
            links,
            Path(path)
        );
        Ok(())
    })
}

/// A path, which may be of any bytes.
struct Path<'a>(&'a [u8]);

impl core::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// A line for each tree, or block above, that refers to a tree block.
fn name_trees(reader: &Reader, ptr: &NodePtr, subject: &Subject<'_>) -> Result {
    let (fs, root) = (reader.fs(), reader.root(tree_id::EXTENT)?);
    let extent = find_extent(fs, reader, root, ptr.bytenr)?.ok_or(ENOENT)?;
    let kind = if ptr.level == 0 { "leaf" } else { "node" };
    for r in all_refs(fs, reader, root, &extent)?.iter() {
        match r.kind {
            RefKind::TreeBlock { root } => fs_warn!(
                fs,
                "{}: metadata {} (level {}) in tree {}",
                subject,
                kind,
                ptr.level,
                root
            ),
            RefKind::SharedBlock { parent } => fs_warn!(
                fs,
                "{}: metadata {} (level {}) below block {}",
                subject,
                kind,
                ptr.level,
                parent
            ),
            _ => {}
        }
    }
    Ok(())
}
