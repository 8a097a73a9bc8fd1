// SPDX-License-Identifier: GPL-2.0
//! A leaf of items in memory, and what a reader says of it.

use kernel::prelude::*;
use rbtrfs_engine::format::crc::checksum;
use rbtrfs_engine::format::header::{Header, Item, HEADER_FLAG_WRITTEN, HEADER_SIZE};
use rbtrfs_engine::format::superblock::incompat;
use rbtrfs_engine::format::ChecksumType;
use rbtrfs_engine::format::{BlockSize, Key};
use rbtrfs_engine::tree::check::Limits;
use rbtrfs_engine::tree::verify::{verify, Check, Report};
use rbtrfs_engine::tree::{Geometry, NodePtr};
use std::string::{String, ToString};
use std::vec::Vec;
use zerocopy::{Immutable, IntoBytes};

pub const NODESIZE: usize = 16384;
pub const BYTENR: u64 = 30 << 20;
/// The newest generation that an item may name.
pub const NEWEST: u64 = 9;

/// Items, sorted by their keys.
#[derive(Clone)]
pub struct Leaf {
    pub owner: u64,
    pub items: Vec<(Key, Vec<u8>)>,
    pub limits: Limits,
}

impl Leaf {
    pub fn new(owner: u64) -> Self {
        let geometry = Geometry {
            nodesize: BlockSize::new(NODESIZE as u32).unwrap(),
            sectorsize: BlockSize::new(4096).unwrap(),
            checksum: ChecksumType::Crc32c,
            fsid: [7; 16],
            chunk_tree_uuid: [8; 16],
        };
        let limits = Limits {
            geometry,
            incompat: incompat::SKINNY_METADATA,
            newest: NEWEST,
            writable: true,
        };
        let items = Vec::new();
        Leaf {
            owner,
            items,
            limits,
        }
    }

    /// Adds an item after all others.
    pub fn with(mut self, objectid: u64, typ: u8, offset: u64, bytes: &[u8]) -> Self {
        self.items
            .push((Key::new(objectid, typ, offset), bytes.to_vec()));
        self
    }

    /// The key of an item.
    pub fn key(&mut self, slot: usize) -> &mut Key {
        &mut self.items[slot].0
    }

    /// The bytes of an item.
    pub fn data(&mut self, slot: usize) -> &mut Vec<u8> {
        &mut self.items[slot].1
    }

    /// Puts a value into an item.
    pub fn put<T: IntoBytes + Immutable>(&mut self, slot: usize, at: usize, value: T) {
        let bytes = value.as_bytes();
        self.data(slot)[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The block.
    fn bytes(&self) -> KVVec<u8> {
        let header = Header {
            csum: [0; 32],
            fsid: self.limits.geometry.fsid,
            bytenr: BYTENR.into(),
            flags: (HEADER_FLAG_WRITTEN | (1 << 56)).into(),
            chunk_tree_uuid: self.limits.geometry.chunk_tree_uuid,
            generation: 8.into(),
            owner: self.owner.into(),
            nritems: (self.items.len() as u32).into(),
            level: 0,
        };
        let mut block = std::vec![0; NODESIZE];
        let mut head = header.as_bytes().to_vec();
        let mut start = NODESIZE - HEADER_SIZE;
        for (key, data) in &self.items {
            start -= data.len();
            let item = Item {
                key: (*key).into(),
                offset: (start as u32).into(),
                size: (data.len() as u32).into(),
            };
            head.extend_from_slice(item.as_bytes());
            block[HEADER_SIZE + start..][..data.len()].copy_from_slice(data);
        }
        block[..head.len()].copy_from_slice(&head);
        let sum = checksum(&block[32..]);
        block[..4].copy_from_slice(&sum.to_le_bytes());
        let mut bytes = KVVec::new();
        bytes.extend_from_slice(&block, GFP_KERNEL).unwrap();
        bytes
    }

    /// What a reader says of the leaf: nothing, or the line for the log.
    pub fn complaint(&self) -> Option<String> {
        let ptr = NodePtr {
            bytenr: BYTENR,
            generation: 8,
            level: 0,
            tree: self.owner,
            first_key: None,
        };
        let fault = verify(self.bytes(), &ptr, &self.limits, Check::All).err()?;
        assert_eq!(fault.errno(), EUCLEAN);
        let report = Report {
            fault,
            ptr: &ptr,
            mirror: 1,
        };
        Some(report.to_string())
    }
}

/// One thing that is wrong with a leaf.
pub struct Case {
    /// What makes it so.
    pub damage: fn(&mut Leaf),
    /// The item that is at fault.
    pub slot: usize,
    /// What the message says of it.
    pub says: &'static str,
}

pub const fn case(slot: usize, says: &'static str, damage: fn(&mut Leaf)) -> Case {
    Case { damage, slot, says }
}

/// The leaf as it is passes, and with each damage has the message for that.
pub fn run(good: &Leaf, cases: &[Case]) {
    assert_eq!(good.complaint(), None);
    for case in cases {
        let mut bad = good.clone();
        (case.damage)(&mut bad);
        let key = bad.items[case.slot].0;
        let expected = std::format!(
            "corrupt leaf: root={} block={BYTENR} mirror=1 slot={} key={key}, {}",
            bad.owner,
            case.slot,
            case.says
        );
        assert_eq!(bad.complaint(), Some(expected));
    }
}

/// The leaf passes after the change, too.
pub fn passes(good: &Leaf, change: fn(&mut Leaf)) {
    let mut other = good.clone();
    change(&mut other);
    assert_eq!(other.complaint(), None);
}
