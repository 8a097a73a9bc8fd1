// SPDX-License-Identifier: GPL-2.0
//! Extended attributes.

use super::context::Send;
use super::proto::{Attr, Command};
use crate::format::crc::name_hash;
use crate::format::dir::{file_type, DirItem};
use crate::format::header::{Header, Item};
use crate::format::{item_type, Key};
use crate::subvol::dir::{Entries, Entry};
use kernel::prelude::*;

/// Sent when everything else of the inode is done: writing to a file and changing its owner drop
/// it.
const CAPABILITY: &[u8] = b"security.capability";

const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// An access control list without entries: the version alone.
const EMPTY_ACL: [u8; 4] = 2u32.to_le_bytes();

/// Bytes of name and data that are not an attribute, at most.
const MAX_OTHER: usize = 4096;

impl Send<'_> {
    /// Sends the attributes in one item of the current inode.
    pub(super) fn xattrs_of(&mut self, data: &[u8]) -> Result {
        let max = self.max_xattr();
        for entry in Entries::new(data) {
            let entry = entry?;
            check_size(&entry, max)?;
            self.new_xattr(&entry)?;
        }
        Ok(())
    }

    fn new_xattr(&mut self, entry: &Entry<'_>) -> Result {
        if entry.name == CAPABILITY {
            let mut value = KVec::new();
            value.extend_from_slice(entry.value, GFP_KERNEL)?;
            self.position.capability = Some(value);
        }
        // The C driver compares only as many bytes as the name has, so that a name which these
        // begin with is taken for them; streams are to be the same in this, too.
        if CAPABILITY.starts_with(entry.name) {
            return Ok(());
        }
        let is_acl = ACLS.iter().any(|acl| acl.starts_with(entry.name));
        // An empty list is stored as nothing, which a receiver could not set.
        let value = if is_acl && entry.value.is_empty() {
            &EMPTY_ACL
        } else {
            entry.value
        };
        self.set_xattr(entry.name, value)
    }

    /// Sends the attributes in an item of the current inode that are not the same in the parent's.
    pub(super) fn change_xattrs(&mut self, data: &[u8], before: &[u8]) -> Result {
        let max = self.max_xattr();
        for entry in Entries::new(data) {
            let entry = entry?;
            check_size(&entry, max)?;
            if find(before, entry.name)?.is_none_or(|old| old.value != entry.value) {
                self.new_xattr(&entry)?;
            }
        }
        for old in Entries::new(before) {
            let old = old?;
            if find(data, old.name)?.is_none() {
                self.remove_xattr(old.name)?;
            }
        }
        Ok(())
    }

    /// Removes the attributes in an item that only the parent has.
    pub(super) fn remove_xattrs_of(&mut self, before: &[u8]) -> Result {
        for old in Entries::new(before) {
            self.remove_xattr(old?.name)?;
        }
        Ok(())
    }

    fn remove_xattr(&mut self, name: &[u8]) -> Result {
        self.know_path()?;
        self.output
            .stream
            .command(Command::RemoveXattr)?
            .bytes(Attr::Path, self.position.path.as_bytes())?
            .bytes(Attr::XattrName, name)?
            .end()
    }

    /// Sends the current inode's capability, if it has one.
    pub(super) fn send_capability(&mut self) -> Result {
        if self.snapshots.parent.is_some() {
            self.position.capability = self.look_up_capability()?;
        }
        let Some(value) = self.position.capability.take() else {
            return Ok(());
        };
        let result = self.set_xattr(CAPABILITY, &value);
        self.position.capability = Some(value);
        result
    }

    /// Writing to a file and changing its owner drop its capability, whether that changed or not.
    fn look_up_capability(&mut self) -> Result<Option<KVec<u8>>> {
        let ino = self.position.inode.as_ref().ok_or(EINVAL)?.ino;
        let key = Key::new(ino, item_type::XATTR_ITEM, name_hash(CAPABILITY));
        let Some(data) = self.snapshots.sent_inodes.exact(&key)? else {
            return Ok(None);
        };
        let Some(entry) = find(data, CAPABILITY)? else {
            return Ok(None);
        };
        let mut value = KVec::new();
        value.extend_from_slice(entry.value, GFP_KERNEL)?;
        Ok(Some(value))
    }

    /// The bytes of name and value of an attribute, at most.
    fn max_xattr(&self) -> usize {
        let nodesize = usize::from(self.snapshots.session.fs().geometry.nodesize);
        let overhead = size_of::<Header>() + size_of::<Item>() + size_of::<DirItem>();
        nodesize.saturating_sub(overhead)
    }

    fn set_xattr(&mut self, name: &[u8], value: &[u8]) -> Result {
        self.know_path()?;
        self.output
            .stream
            .command(Command::SetXattr)?
            .bytes(Attr::Path, self.position.path.as_bytes())?
            .bytes(Attr::XattrName, name)?
            .bytes(Attr::XattrData, value)?
            .end()
    }
}

fn check_size(entry: &Entry<'_>, max: usize) -> Result {
    let size = entry.name.len().saturating_add(entry.value.len());
    match entry.typ {
        file_type::XATTR if size > max => Err(E2BIG),
        file_type::XATTR => Ok(()),
        _ if size > MAX_OTHER => Err(ENAMETOOLONG),
        _ => Ok(()),
    }
}

/// The attribute `name` in an item.
fn find<'d>(item: &'d [u8], name: &[u8]) -> Result<Option<Entry<'d>>> {
    for entry in Entries::new(item) {
        let entry = entry?;
        if entry.name == name {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}
