// SPDX-License-Identifier: GPL-2.0
//! Extent items, the references in and beside them, and checksums.

use crate::leaf::{case, passes, run, Case, Leaf};
use core::mem::offset_of;
use rbtrfs_engine::format::crc::data_ref_hash;
use rbtrfs_engine::format::extent::{
    ExtentDataRef, ExtentItem, FLAG_DATA, FLAG_FULL_BACKREF, FLAG_TREE_BLOCK,
};
use rbtrfs_engine::format::{item_type, objectid, tree_id, Key};
use std::vec::Vec;
use zerocopy::little_endian::{U32, U64};
use zerocopy::IntoBytes;

const MIB: u64 = 1 << 20;

fn extent(refs: u64, flags: u64) -> Vec<u8> {
    let item = ExtentItem {
        refs: refs.into(),
        generation: 8.into(),
        flags: flags.into(),
    };
    item.as_bytes().to_vec()
}

fn data_ref(ino: u64, offset: u64) -> Vec<u8> {
    let data = ExtentDataRef {
        root: tree_id::FS.into(),
        objectid: ino.into(),
        offset: offset.into(),
        count: 1.into(),
    };
    data.as_bytes().to_vec()
}

/// A data extent with two references by inode and one by leaf, inline.
fn data() -> Vec<u8> {
    let mut refs = [(257, 0), (258, 4096)];
    refs.sort_by_key(|(ino, offset)| u64::MAX - data_ref_hash(tree_id::FS, *ino, *offset));
    let mut item = extent(9, FLAG_DATA);
    for (ino, offset) in refs {
        item.push(item_type::EXTENT_DATA_REF);
        item.extend_from_slice(&data_ref(ino, offset));
    }
    item.push(item_type::SHARED_DATA_REF);
    item.extend_from_slice(&(40 * MIB).to_le_bytes());
    item.extend_from_slice(&2u32.to_le_bytes());
    item
}

fn block_ref(typ: u8, number: u64) -> Vec<u8> {
    [&[typ][..], &number.to_le_bytes()].concat()
}

/// A tree block with a reference by tree and one by parent, inline.
fn tree_block() -> Vec<u8> {
    let mut item = extent(2, FLAG_TREE_BLOCK);
    item.extend_from_slice(&block_ref(item_type::TREE_BLOCK_REF, 5));
    item.extend_from_slice(&block_ref(item_type::SHARED_BLOCK_REF, 41 * MIB));
    item
}

/// As before volumes were skinny: key and level come first.
fn old_tree_block() -> Vec<u8> {
    let mut item = extent(1, FLAG_TREE_BLOCK);
    item.extend_from_slice(&[0; 17]);
    item.push(1);
    item.extend_from_slice(&block_ref(item_type::TREE_BLOCK_REF, 5));
    item
}

const DATA: usize = 0;
const DATA_REF: usize = 1;
const SHARED_DATA: usize = 2;
const BLOCK: usize = 3;
const TREE_REF: usize = 4;
const SHARED_BLOCK: usize = 5;
const OLD_BLOCK: usize = 6;

/// Where the inline references of `data` are.
const FIRST: usize = size_of::<ExtentItem>();
const SECOND: usize = FIRST + 29;
const THIRD: usize = SECOND + 29;
/// Where the level in an old tree block's item is.
const LEVEL: usize = FIRST + 17;

fn good() -> Leaf {
    Leaf::new(tree_id::EXTENT)
        .with(MIB, item_type::EXTENT_ITEM, 8192, &data())
        .with(MIB, item_type::EXTENT_DATA_REF, 77, &data_ref(259, 0))
        .with(
            MIB,
            item_type::SHARED_DATA_REF,
            42 * MIB,
            &3u32.to_le_bytes(),
        )
        .with(2 * MIB, item_type::METADATA_ITEM, 0, &tree_block())
        .with(2 * MIB, item_type::TREE_BLOCK_REF, 7, &[])
        .with(2 * MIB, item_type::SHARED_BLOCK_REF, 43 * MIB, &[])
        .with(3 * MIB, item_type::EXTENT_ITEM, 16384, &old_tree_block())
}

pub const CASES: &[Case] = &[
    case(DATA, "unaligned extent address, have 1 expect aligned to 4096", |l| {
        l.key(DATA).objectid = 1;
    }),
    case(
        BLOCK,
        "invalid type of a tree block's item, have 169 expect an EXTENT_ITEM, as the volume is without \
         SKINNY_METADATA",
        |l| l.limits.incompat = 0,
    ),
    case(BLOCK, "invalid level of a tree block, have 8 expect [0, 7]", |l| {
        l.key(BLOCK).offset = 8;
    }),
    case(OLD_BLOCK, "invalid level of a tree block, have 8 expect [0, 7]", |l| {
        l.put(OLD_BLOCK, LEVEL, 8u8);
    }),
    case(DATA, "invalid item size of an extent, have 23 expect at least 24", |l| {
        l.data(DATA).truncate(23);
    }),
    case(OLD_BLOCK, "invalid item size of an extent, have 41 expect at least 42", |l| {
        l.data(OLD_BLOCK).truncate(41);
    }),
    case(DATA, "invalid extent generation, have 10 expect [0, 9]", |l| {
        l.put(DATA, offset_of!(ExtentItem, generation), U64::new(10));
    }),
    case(
        DATA,
        "invalid extent flags, have 3 expect one of data (1) and tree block (2)",
        |l| l.put(DATA, offset_of!(ExtentItem, flags), U64::new(3)),
    ),
    case(
        BLOCK,
        "invalid extent flags, have 256 expect one of data (1) and tree block (2)",
        |l| l.put(BLOCK, offset_of!(ExtentItem, flags), U64::new(FLAG_FULL_BACKREF)),
    ),
    case(BLOCK, "invalid key type of a data extent, have 169 expect 168", |l| {
        l.put(BLOCK, offset_of!(ExtentItem, flags), U64::new(FLAG_DATA));
    }),
    case(DATA, "unaligned length of a data extent, have 8193 expect aligned to 4096", |l| {
        l.key(DATA).offset = 8193;
    }),
    case(DATA, "data extent with full back references, have 256 expect 0", |l| {
        l.put(
            DATA,
            offset_of!(ExtentItem, flags),
            U64::new(FLAG_DATA | FLAG_FULL_BACKREF),
        );
    }),
    case(OLD_BLOCK, "invalid length of a tree block, have 4096 expect 16384", |l| {
        l.key(OLD_BLOCK).offset = 4096;
    }),
    case(
        DATA,
        "unknown type of an inline reference, have 1 expect the type of a reference",
        |l| l.put(DATA, FIRST, 1u8),
    ),
    case(DATA, "inline reference beyond its item, have 85 expect at least 95", |l| {
        let end = l.data(DATA).len() - 10;
        l.data(DATA).truncate(end);
    }),
    case(
        BLOCK,
        "inline references out of order by type, have 176 expect at least 182",
        |l| {
            l.put(BLOCK, FIRST, item_type::SHARED_BLOCK_REF);
            l.put(BLOCK, FIRST + 1, U64::new(44 * MIB));
            l.put(BLOCK, FIRST + 9, item_type::TREE_BLOCK_REF);
        },
    ),
    case(
        BLOCK,
        "inline references out of order within a type, have 42991616 expect [0, 4096]",
        |l| {
            l.put(BLOCK, FIRST, item_type::SHARED_BLOCK_REF);
            l.put(BLOCK, FIRST + 1, U64::new(4096));
        },
    ),
    case(
        DATA,
        "inline references out of order within a type, have 1007496934145758698 expect [0, 1007496931992014783]",
        |l| {
            let (first, second) = l.data(DATA)[FIRST..].split_at_mut(29);
            first.swap_with_slice(&mut second[..29]);
        },
    ),
    case(
        BLOCK,
        "unaligned parent of a shared reference, have 1 expect aligned to 4096",
        |l| l.put(BLOCK, FIRST + 10, U64::new(1)),
    ),
    case(
        DATA,
        "unaligned parent of a shared reference, have 1 expect aligned to 4096",
        |l| l.put(DATA, THIRD + 1, U64::new(1)),
    ),
    case(DATA, "invalid count of a data reference, have 0 expect at least 1", |l| {
        l.put(DATA, THIRD + 9, U32::new(0));
    }),
    case(DATA, "invalid count of a data reference, have 0 expect at least 1", |l| {
        l.put(DATA, FIRST + 25, U32::new(0));
    }),
    case(
        DATA,
        "invalid root of a data reference, have 2 expect a tree with files",
        |l| l.put(DATA, SECOND + 1, U64::new(tree_id::EXTENT)),
    ),
    case(
        DATA,
        "invalid inode of a data reference, have 255 expect [256, 18446744073709551360]",
        |l| l.put(DATA, FIRST + 9, U64::new(255)),
    ),
    case(DATA, "unaligned offset of a data reference, have 1 expect aligned to 4096", |l| {
        l.put(DATA, FIRST + 17, U64::new(1));
    }),
    case(DATA, "fewer extent references than inline ones, have 3 expect at least 4", |l| {
        l.put(DATA, offset_of!(ExtentItem, refs), U64::new(3));
    }),
    case(OLD_BLOCK, "previous extent overlaps this one, have 3149824 expect [0, 3145728]", |l| {
        let (key, bytes) = l.items[BLOCK].clone();
        l.items.drain(TREE_REF..OLD_BLOCK);
        l.items[BLOCK] = (key, bytes);
        l.key(BLOCK).objectid = 3 * MIB - 12288;
        // The slots stay.
        let none = (Key::new(1, item_type::STRING_ITEM, 0), Vec::new());
        l.items.insert(0, none.clone());
        l.items.insert(1, none);
        l.key(1).offset = 1;
    }),
    case(TREE_REF, "invalid item size, have 1 expect 0", |l| l.data(TREE_REF).push(0)),
    case(SHARED_DATA, "invalid item size, have 3 expect 4", |l| {
        l.data(SHARED_DATA).pop();
    }),
    case(SHARED_DATA, "invalid count of a data reference, have 0 expect at least 1", |l| {
        l.put(SHARED_DATA, 0, U32::new(0));
    }),
    case(
        SHARED_DATA,
        "unaligned extent address of a reference, have 1048577 expect aligned to 4096",
        |l| l.key(SHARED_DATA).objectid += 1,
    ),
    case(
        TREE_REF,
        "unaligned extent address of a reference, have 2097153 expect aligned to 4096",
        |l| {
            l.key(TREE_REF).objectid += 1;
            l.key(SHARED_BLOCK).objectid += 1;
        },
    ),
    case(
        SHARED_BLOCK,
        "unaligned parent of a shared reference, have 45088769 expect aligned to 4096",
        |l| l.key(SHARED_BLOCK).offset += 1,
    ),
    case(
        SHARED_DATA,
        "unaligned parent of a shared reference, have 44040193 expect aligned to 4096",
        |l| l.key(SHARED_DATA).offset += 1,
    ),
    case(
        DATA_REF,
        "invalid item size of a data reference, have 27 expect aligned to 28",
        |l| {
            l.data(DATA_REF).pop();
        },
    ),
    case(
        DATA_REF,
        "unaligned extent address of a reference, have 1048577 expect aligned to 4096",
        |l| {
            l.key(DATA_REF).objectid += 1;
            l.key(SHARED_DATA).objectid += 1;
        },
    ),
    case(
        DATA_REF,
        "invalid root of a data reference, have 7 expect a tree with files",
        |l| l.put(DATA_REF, 0, U64::new(tree_id::CSUM)),
    ),
    case(
        DATA_REF,
        "invalid inode of a data reference, have 255 expect [256, 18446744073709551360]",
        |l| l.put(DATA_REF, 8, U64::new(255)),
    ),
    case(DATA_REF, "unaligned offset of a data reference, have 1 expect aligned to 4096", |l| {
        l.put(DATA_REF, 16, U64::new(1));
    }),
    case(DATA_REF, "invalid count of a data reference, have 0 expect at least 1", |l| {
        l.put(DATA_REF, 24, U32::new(0));
    }),
];

#[test]
fn each_rule_finds_what_breaks_it() {
    run(&good(), CASES);
}

#[test]
fn what_is_odd_but_right() {
    let good = good();
    // Without skinny metadata.
    passes(&good, |l| {
        l.limits.incompat = 0;
        l.items.drain(BLOCK..OLD_BLOCK);
    });
    // All references are keyed ones, and more of them than items here.
    passes(&good, |l| l.data(DATA).truncate(FIRST));
    // A file that was cloned to before the extent's start: the offset is negative.
    passes(&good, |l| {
        l.put(DATA_REF, 16, U64::new(4096u64.wrapping_neg()))
    });
    // Free space caches of the first version, and what a relocation moves.
    passes(&good, |l| l.put(DATA_REF, 0, U64::new(tree_id::ROOT)));
    passes(&good, |l| l.put(DATA_REF, 0, U64::new(tree_id::DATA_RELOC)));
    // Relocation trees refer to blocks as well, in any order of trees.
    passes(&good, |l| {
        l.put(BLOCK, FIRST + 1, U64::new(tree_id::TREE_RELOC))
    });
    // Simple quotas note who paid for an extent. It is no reference.
    passes(&good, |l| {
        let mut item = extent(0, FLAG_DATA);
        item.extend_from_slice(&block_ref(item_type::EXTENT_OWNER_REF, 5));
        *l.data(DATA) = item;
    });
    // References whose hash is the same.
    passes(&good, |l| {
        let again = l.data(DATA)[FIRST..SECOND].to_vec();
        l.data(DATA)[SECOND..THIRD].copy_from_slice(&again);
    });
}

fn sums() -> Leaf {
    Leaf::new(tree_id::CSUM)
        .with(objectid::EXTENT_CSUM, item_type::EXTENT_CSUM, MIB, &[1; 16])
        .with(
            objectid::EXTENT_CSUM,
            item_type::EXTENT_CSUM,
            MIB + 16384,
            &[2; 8],
        )
}

pub const SUMS: &[Case] = &[
    case(
        0,
        "invalid objectid of a checksum item, have 1 expect 18446744073709551606",
        |l| {
            l.key(0).objectid = 1;
        },
    ),
    case(
        1,
        "unaligned address of a checksum item, have 1064961 expect aligned to 4096",
        |l| {
            l.key(1).offset += 1;
        },
    ),
    case(
        1,
        "unaligned size of a checksum item, have 7 expect aligned to 4",
        |l| {
            l.data(1).pop();
        },
    ),
    case(
        1,
        "previous checksum item overlaps this one, have 1069056 expect [0, 1064960]",
        |l| {
            l.data(0).extend_from_slice(&[1; 4]);
        },
    ),
];

#[test]
fn each_rule_of_checksums_finds_what_breaks_it() {
    run(&sums(), SUMS);
}
