// SPDX-License-Identifier: GPL-2.0
//! Roots, references between subvolumes, and items of features.

use crate::leaf::{case, passes, run, Case, Leaf};
use core::mem::offset_of;
use rbtrfs_engine::format::inode::inode_flags;
use rbtrfs_engine::format::root::{
    RootItem, RootRef, OLD_ROOT_ITEM_SIZE, ROOT_SUBVOL_DEAD, ROOT_SUBVOL_RDONLY,
};
use rbtrfs_engine::format::superblock::incompat;
use rbtrfs_engine::format::{item_type, tree_id, DiskKey, Key};
use std::vec::Vec;
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromZeros, IntoBytes};

fn root() -> Vec<u8> {
    let mut root = RootItem::new_zeroed();
    root.inode.flags = inode_flags::ROOT_ITEM_INIT.into();
    root.generation = 8.into();
    root.generation_v2 = 8.into();
    root.root_dirid = 256.into();
    root.bytenr = (30u64 << 20).into();
    root.refs = 1.into();
    root.as_bytes().to_vec()
}

fn root_ref(name: &[u8]) -> Vec<u8> {
    let head = RootRef {
        dirid: 256.into(),
        sequence: 2.into(),
        name_len: (name.len() as u16).into(),
    };
    [head.as_bytes(), name].concat()
}

const TOP: usize = 0;
const REF: usize = 1;
const SNAPSHOT: usize = 2;
const BACKREF: usize = 3;
const RELOC: usize = 4;

fn good() -> Leaf {
    Leaf::new(tree_id::ROOT)
        .with(tree_id::FS, item_type::ROOT_ITEM, 0, &root())
        .with(
            tree_id::FS,
            item_type::ROOT_REF,
            257,
            &root_ref(b"snapshot"),
        )
        .with(257, item_type::ROOT_ITEM, 7, &root())
        .with(
            257,
            item_type::ROOT_BACKREF,
            tree_id::FS,
            &root_ref(b"snapshot"),
        )
        .with(
            tree_id::TREE_RELOC,
            item_type::ROOT_ITEM,
            tree_id::FS,
            &root(),
        )
}

pub const CASES: &[Case] = &[
    case(TOP, "invalid root id, have 0 expect at least 1", |l| {
        l.key(TOP).objectid = 0
    }),
    case(
        RELOC,
        "relocation tree of no subvolume, have 2 expect the id of a subvolume",
        |l| l.key(RELOC).offset = tree_id::EXTENT,
    ),
    case(
        RELOC,
        "relocation tree of no subvolume, have 0 expect the id of a subvolume",
        |l| l.key(RELOC).offset = 0,
    ),
    case(TOP, "invalid item size, have 438 expect 439", |l| {
        l.data(TOP).pop();
    }),
    case(TOP, "invalid root generation, have 10 expect [0, 9]", |l| {
        l.put(TOP, offset_of!(RootItem, generation), U64::new(10));
    }),
    case(
        TOP,
        "invalid root generation_v2, have 10 expect [0, 9]",
        |l| {
            l.put(TOP, offset_of!(RootItem, generation_v2), U64::new(10));
        },
    ),
    case(
        TOP,
        "invalid root last_snapshot, have 10 expect [0, 9]",
        |l| {
            l.put(TOP, offset_of!(RootItem, last_snapshot), U64::new(10));
        },
    ),
    case(
        TOP,
        "unaligned root bytenr, have 1 expect aligned to 4096",
        |l| {
            l.put(TOP, offset_of!(RootItem, bytenr), U64::new(1));
        },
    ),
    case(TOP, "invalid root level, have 8 expect [0, 7]", |l| {
        l.put(TOP, offset_of!(RootItem, level), 8u8);
    }),
    case(TOP, "invalid root drop_level, have 8 expect [0, 7]", |l| {
        l.put(TOP, offset_of!(RootItem, drop_level), 8u8);
    }),
    case(
        SNAPSHOT,
        "invalid root drop_level with drop_progress, have 0 expect at least 1",
        |l| {
            let progress = DiskKey::from(Key::new(257, item_type::INODE_ITEM, 0));
            l.put(SNAPSHOT, offset_of!(RootItem, drop_progress), progress);
        },
    ),
    case(
        TOP,
        "unknown root flags, have 0x2 expect mask 0x1000000000001",
        |l| {
            l.put(TOP, offset_of!(RootItem, flags), U64::new(2));
        },
    ),
    case(
        REF,
        "invalid item size of a root reference, have 18 expect at least 19",
        |l| {
            l.data(REF).truncate(18);
        },
    ),
    case(
        BACKREF,
        "name of a root reference is too long, have 256 expect [0, 255]",
        |l| {
            l.put(BACKREF, offset_of!(RootRef, name_len), U16::new(256));
        },
    ),
    case(
        BACKREF,
        "invalid item size of a root reference, have 26 expect 25",
        |l| {
            l.put(BACKREF, offset_of!(RootRef, name_len), U16::new(7));
        },
    ),
];

#[test]
fn each_rule_finds_what_breaks_it() {
    run(&good(), CASES);
}

#[test]
fn what_is_odd_but_right() {
    let good = good();
    // Before there were UUIDs.
    passes(&good, |l| l.data(TOP).truncate(OLD_ROOT_ITEM_SIZE));
    // Written by an old kernel over an item with UUIDs.
    passes(&good, |l| {
        l.put(TOP, offset_of!(RootItem, generation_v2), U64::new(3))
    });
    passes(&good, |l| {
        let flags = ROOT_SUBVOL_DEAD | ROOT_SUBVOL_RDONLY;
        l.put(SNAPSHOT, offset_of!(RootItem, flags), U64::new(flags));
    });
    // A deletion that was interrupted.
    passes(&good, |l| {
        let progress = DiskKey::from(Key::new(257, item_type::INODE_ITEM, 0));
        l.put(SNAPSHOT, offset_of!(RootItem, drop_progress), progress);
        l.put(SNAPSHOT, offset_of!(RootItem, drop_level), 1u8);
    });
}

fn features() -> Leaf {
    let mut leaf = Leaf::new(tree_id::RAID_STRIPE)
        .with(1 << 20, item_type::RAID_STRIPE, 4096, &[0; 16])
        .with(2 << 20, item_type::IDENTITY_REMAP, 4096, &[])
        .with(3 << 20, item_type::REMAP, 4096, &[0; 8])
        .with(4 << 20, item_type::REMAP_BACKREF, 4096, &[0; 8]);
    leaf.limits.incompat = incompat::RAID_STRIPE_TREE | incompat::REMAP_TREE;
    leaf
}

pub const FEATURES: &[Case] = &[
    case(0, "unaligned address of a stripe, have 1048577 expect aligned to 4096", |l| {
        l.key(0).objectid += 1;
    }),
    case(
        0,
        "item of a RAID stripe tree, have 230 expect none, as the volume is without RAID_STRIPE_TREE",
        |l| l.limits.incompat = incompat::REMAP_TREE,
    ),
    case(
        1,
        "item of a remap tree, have 234 expect none, as the volume is without REMAP_TREE",
        |l| l.limits.incompat = incompat::RAID_STRIPE_TREE,
    ),
    case(1, "invalid item size, have 1 expect 0", |l| l.data(1).push(0)),
    case(2, "invalid item size, have 7 expect 8", |l| {
        l.data(2).pop();
    }),
    case(3, "invalid item size, have 9 expect 8", |l| l.data(3).push(0)),
    case(2, "invalid length of a remapped range, have 0 expect at least 1", |l| {
        l.key(2).offset = 0;
    }),
    case(2, "unaligned address of a remapped range, have 3145729 expect aligned to 4096", |l| {
        l.key(2).objectid += 1;
    }),
    case(2, "unaligned length of a remapped range, have 1 expect aligned to 4096", |l| {
        l.key(2).offset = 1;
    }),
    case(
        3,
        "remapped range ends beyond all addresses, have 4096 expect [0, 4095]",
        |l| l.key(3).objectid = u64::MAX - 4095,
    ),
];

#[test]
fn each_rule_of_features_finds_what_breaks_it() {
    run(&features(), FEATURES);
}
