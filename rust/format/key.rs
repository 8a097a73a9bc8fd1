// SPDX-License-Identifier: GPL-2.0
//! Keys: the order of every btrfs tree.

use zerocopy::little_endian::U64;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A key in native byte order. Keys compare by object id, then type, then offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The object that the item belongs to: an inode, a tree, an address; what it means depends on
    /// the type.
    pub objectid: u64,
    /// The item type, one of [`crate::format::item_type`].
    pub typ: u8,
    /// A number whose meaning depends on the type: an offset in a file, a hash, a length.
    pub offset: u64,
}

impl Key {
    /// The smallest key.
    pub const MIN: Key = Key::new(0, 0, 0);
    /// The largest key.
    pub const MAX: Key = Key::new(u64::MAX, u8::MAX, u64::MAX);

    /// Makes a key.
    pub const fn new(objectid: u64, typ: u8, offset: u64) -> Self {
        Key {
            objectid,
            typ,
            offset,
        }
    }

    /// The smallest key above this one, or `None` for [`Key::MAX`].
    pub const fn successor(&self) -> Option<Key> {
        if let Some(offset) = self.offset.checked_add(1) {
            return Some(Key::new(self.objectid, self.typ, offset));
        }
        if let Some(typ) = self.typ.checked_add(1) {
            return Some(Key::new(self.objectid, typ, 0));
        }
        match self.objectid.checked_add(1) {
            Some(objectid) => Some(Key::new(objectid, 0, 0)),
            None => None,
        }
    }

    /// The largest key below this one, or `None` for [`Key::MIN`].
    pub const fn predecessor(&self) -> Option<Key> {
        if let Some(offset) = self.offset.checked_sub(1) {
            return Some(Key::new(self.objectid, self.typ, offset));
        }
        if let Some(typ) = self.typ.checked_sub(1) {
            return Some(Key::new(self.objectid, typ, u64::MAX));
        }
        match self.objectid.checked_sub(1) {
            Some(objectid) => Some(Key::new(objectid, u8::MAX, u64::MAX)),
            None => None,
        }
    }

    /// Whether the key has this object id and type.
    pub const fn is(&self, objectid: u64, typ: u8) -> bool {
        self.objectid == objectid && self.typ == typ
    }
}

impl core::fmt::Display for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "({} {} {})", self.objectid, self.typ, self.offset)
    }
}

/// A key as it is stored, 17 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DiskKey {
    /// See [`Key::objectid`].
    pub objectid: U64,
    /// See [`Key::typ`].
    pub typ: u8,
    /// See [`Key::offset`].
    pub offset: U64,
}

impl From<DiskKey> for Key {
    fn from(key: DiskKey) -> Key {
        Key::new(key.objectid.get(), key.typ, key.offset.get())
    }
}

impl From<Key> for DiskKey {
    fn from(key: Key) -> DiskKey {
        DiskKey {
            objectid: key.objectid.into(),
            typ: key.typ,
            offset: key.offset.into(),
        }
    }
}
