// SPDX-License-Identifier: GPL-2.0
//! New subvolumes, empty or as snapshots.

use super::uuid_tree;
use crate::format::dir::file_type;
use crate::format::inode::{inode_flags, InodeItem, InodeRef, Timespec};
use crate::format::root::{RootItem, ROOT_SUBVOL_RDONLY};
use crate::format::{item_type, objectid, tree_id, Key};
use crate::subvol::root_ref::{self, RootRefName};
use crate::subvol::write::{
    add_dir_entry, apply_property, check_new_entry, check_subvol, inherited_property, inode_key,
    insert_property, mode, next_index, read_dir, reserve, touch_dir, write_inode, InodeId,
};
use crate::trans::Transaction;
use crate::tree::{edit, EditContext};
use crate::volume::Fs;
use kernel::prelude::*;
use zerocopy::{FromZeros, IntoBytes};

const ROOT_DIR: u64 = objectid::FIRST_FREE;

/// What a new subvolume is to be.
#[derive(Clone, Copy, Debug)]
pub struct NewSubvolume {
    /// A random UUID.
    pub uuid: [u8; 16],
    /// The owner of its root directory.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The permissions.
    pub mode: u32,
    /// The time.
    pub now: Timespec,
}

/// What a snapshot is to be.
#[derive(Clone, Copy, Debug)]
pub struct NewSnapshot {
    /// A random UUID.
    pub uuid: [u8; 16],
    /// Nothing in it can be changed.
    pub read_only: bool,
    /// The time.
    pub now: Timespec,
}

/// A subvolume that was made.
#[derive(Clone, Copy)]
pub struct Made {
    /// The id of its tree.
    pub tree: u64,
    /// The `DIR_INDEX` of its entry.
    pub index: u64,
    /// The item of the directory that holds it.
    pub dir: InodeItem,
}

/// Makes an empty subvolume with the name `name` in directory `dir`.
///
/// # Errors
///
/// As for [`crate::subvol::write::create`].
pub fn create_subvolume(fs: &Fs, dir: InodeId, name: &[u8], new: &NewSubvolume) -> Result<Made> {
    fs.operate(reserve(15), |trans| {
        let place = NewEntry::check(trans, dir, name)?;
        let tree = trans.next_objectid(tree_id::ROOT)?;
        let mut item = RootItem::zeroed_boxed()?;
        item.inode.generation = 1.into();
        item.inode.size = 3.into();
        item.inode.nlink = 1.into();
        item.inode.nbytes = u64::from(trans.geometry().nodesize).into();
        item.inode.mode = (mode::DIR | 0o755).into();
        item.inode.flags = inode_flags::ROOT_ITEM_INIT.into();
        item.root_dirid = ROOT_DIR.into();
        item.refs = 1.into();
        item.uuid = new.uuid;
        item.ctransid = trans.transid().into();
        item.otransid = item.ctransid;
        item.ctime = new.now;
        item.otime = new.now;
        trans.new_tree(&Key::new(tree, item_type::ROOT_ITEM, 0), item)?;
        insert_root_dir(trans, tree, dir.tree, new)?;
        uuid_tree::add(trans, &new.uuid, item_type::UUID_SUBVOL, tree)?;
        place.enter(trans, tree, new.now)
    })
}

/// The root directory of a new subvolume. It is its own parent, but gets properties from the root
/// directory of the subvolume that it is made in.
fn insert_root_dir(
    trans: &mut Transaction<'_>,
    tree: u64,
    parent: u64,
    new: &NewSubvolume,
) -> Result {
    let above = InodeId {
        tree: parent,
        ino: ROOT_DIR,
    };
    let above_item = read_dir(trans, above)?;
    let value = inherited_property(trans, (above, &above_item), mode::DIR, 0)?;
    let mut item = InodeItem::new_zeroed();
    item.generation = trans.transid().into();
    item.transid = item.generation;
    item.nlink = 1.into();
    item.uid = new.uid.into();
    item.gid = new.gid.into();
    item.mode = (mode::DIR | (new.mode & 0o7777)).into();
    item.atime = new.now;
    item.mtime = new.now;
    item.ctime = new.now;
    item.otime = new.now;
    item.flags = value.map_or(0, |value| apply_property(0, value)).into();
    edit::insert(trans, tree, &inode_key(ROOT_DIR), item.as_bytes())?;
    let root = InodeId {
        tree,
        ino: ROOT_DIR,
    };
    insert_property(trans, root, value)?;
    let head = InodeRef {
        index: 0.into(),
        name_len: 2.into(),
    };
    let mut name = KVec::new();
    name.extend_from_slice(head.as_bytes(), GFP_KERNEL)?;
    name.extend_from_slice(b"..", GFP_KERNEL)?;
    let key = Key::new(ROOT_DIR, item_type::INODE_REF, ROOT_DIR);
    edit::insert(trans, tree, &key, &name)
}

/// Makes a snapshot of the subvolume `source` with the name `name` in directory `dir`: the source
/// as it is in the running transaction. Data that is not written back is not part of it.
///
/// # Errors
///
/// As for [`crate::subvol::write::create`]; `ENOENT` if the source is gone.
pub fn snapshot(
    fs: &Fs,
    source: u64,
    dir: InodeId,
    name: &[u8],
    new: &NewSnapshot,
) -> Result<Made> {
    fs.operate(reserve(14), |trans| {
        let mut item = trans.root_item(source)?;
        if item.is_dead() || !tree_id::is_fs_tree(source) {
            return Err(ENOENT);
        }
        let place = NewEntry::check(trans, dir, name)?;
        let tree = trans.next_objectid(tree_id::ROOT)?;
        item.parent_uuid = item.uuid;
        item.uuid = new.uuid;
        item.otime = new.now;
        item.otransid = trans.transid().into();
        item.refs = 1.into();
        item.drop_progress = Key::MIN.into();
        item.drop_level = 0;
        let flags = item.flags.get() & !ROOT_SUBVOL_RDONLY;
        if new.read_only {
            item.set_flags(flags | ROOT_SUBVOL_RDONLY);
        } else {
            item.set_flags(flags);
            // What can change is not what was received any more.
            item.received_uuid = [0; 16];
            item.stransid = 0.into();
            item.rtransid = 0.into();
            item.stime = Timespec::default();
            item.rtime = Timespec::default();
        }
        let received = item.received_uuid;
        // Whoever deletes a snapshot takes blocks that are not younger than this offset for the
        // source's. This transaction may go on to change the snapshot, so it has to be the one
        // before.
        let offset = trans.transid().saturating_sub(1);
        let key = Key::new(tree, item_type::ROOT_ITEM, offset);
        trans.snapshot_root(source, &key, item)?;
        uuid_tree::add(trans, &new.uuid, item_type::UUID_SUBVOL, tree)?;
        let typ = item_type::UUID_RECEIVED_SUBVOL;
        // A UUID that leads to very many snapshots already is good enough for whoever follows it.
        if received != [0; 16] && uuid_tree::can_lead(trans, &received, typ, tree)? {
            uuid_tree::add(trans, &received, typ, tree)?;
        }
        place.enter(trans, tree, new.now)
    })
}

/// Where a subvolume can be entered.
struct NewEntry<'a> {
    dir: InodeId,
    dir_item: InodeItem,
    name: &'a [u8],
    index: u64,
}

impl<'a> NewEntry<'a> {
    fn check(trans: &Transaction<'_>, dir: InodeId, name: &'a [u8]) -> Result<Self> {
        check_subvol(trans, dir.tree)?;
        let dir_item = read_dir(trans, dir)?;
        check_new_entry(trans, dir, name)?;
        Ok(NewEntry {
            dir,
            dir_item,
            name,
            index: next_index(trans, dir)?,
        })
    }

    fn enter(mut self, trans: &mut Transaction<'_>, tree: u64, now: Timespec) -> Result<Made> {
        let (dir, name, index) = (self.dir, self.name, self.index);
        let place = RootRefName {
            parent: dir.tree,
            dir: dir.ino,
            index,
            name,
        };
        root_ref::add(trans, tree, &place)?;
        let location = Key::new(tree, item_type::ROOT_ITEM, u64::MAX);
        add_dir_entry(trans, dir, name, location, file_type::DIR, index)?;
        touch_dir(&mut self.dir_item, 2 * name.len() as i64, now);
        write_inode(trans, dir, &mut self.dir_item)?;
        Ok(Made {
            tree,
            index,
            dir: self.dir_item,
        })
    }
}
