// SPDX-License-Identifier: GPL-2.0
//! Extended attributes.

use super::full::Send;
use super::proto::{Attr, Command};
use crate::format::dir::{file_type, DirItem};
use crate::format::header::{Header, Item};
use crate::subvol::dir::Entries;
use kernel::prelude::*;

/// Sent when everything else of the inode is done: writing to a file and changing its owner drop it.
const CAPABILITY: &[u8] = b"security.capability";

const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// An access control list without entries: the version alone.
const EMPTY_ACL: [u8; 4] = 2u32.to_le_bytes();

/// Bytes of name and data that are not an attribute, at most.
const MAX_OTHER: usize = 4096;

impl Send<'_> {
    /// Sends the attributes in one item of the current inode.
    pub(super) fn xattrs_of(&mut self, data: &[u8]) -> Result {
        let nodesize = self.reader.fs().geometry.nodesize as usize;
        let overhead = size_of::<Header>() + size_of::<Item>() + size_of::<DirItem>();
        let max = nodesize.saturating_sub(overhead);
        for entry in Entries::new(data) {
            let entry = entry?;
            let size = entry.name.len().saturating_add(entry.value.len());
            if entry.typ == file_type::XATTR && size > max {
                return Err(E2BIG);
            }
            if entry.typ != file_type::XATTR && size > MAX_OTHER {
                return Err(ENAMETOOLONG);
            }
            if entry.name == CAPABILITY {
                let mut value = KVec::new();
                value.extend_from_slice(entry.value, GFP_KERNEL)?;
                self.capability = Some(value);
            }
            // The C driver compares only as many bytes as the name has, so that a name which these begin with
            // is taken for them; streams are to be the same in this, too.
            if CAPABILITY.starts_with(entry.name) {
                continue;
            }
            let is_acl = ACLS.iter().any(|acl| acl.starts_with(entry.name));
            // An empty list is stored as nothing, which a receiver could not set.
            let value = if is_acl && entry.value.is_empty() {
                &EMPTY_ACL
            } else {
                entry.value
            };
            self.set_xattr(entry.name, value)?;
        }
        Ok(())
    }

    /// Sends the current inode's capability, if it has one.
    pub(super) fn send_capability(&mut self) -> Result {
        let Some(value) = self.capability.take() else {
            return Ok(());
        };
        let result = self.set_xattr(CAPABILITY, &value);
        self.capability = Some(value);
        result
    }

    fn set_xattr(&mut self, name: &[u8], value: &[u8]) -> Result {
        self.know_path()?;
        self.stream
            .command(Command::SetXattr)?
            .bytes(Attr::Path, self.path.as_bytes())?
            .bytes(Attr::XattrName, name)?
            .bytes(Attr::XattrData, value)?
            .end()
    }
}
