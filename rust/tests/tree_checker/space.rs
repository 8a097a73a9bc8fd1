// SPDX-License-Identifier: GPL-2.0
//! Chunks, devices, block groups and free space.

use crate::leaf::{case, passes, run, Case, Leaf};
use core::mem::offset_of;
use rbtrfs_engine::format::chunk::{
    block_group_flags as flags, BlockGroupItem, Chunk, DevExtent, DevItem, Stripe, STRIPE_LEN,
};
use rbtrfs_engine::format::free_space::{FreeSpaceInfo, USING_BITMAPS};
use rbtrfs_engine::format::superblock::incompat;
use rbtrfs_engine::format::{item_type, objectid, tree_id};
use std::vec::Vec;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

const MIB: u64 = 1 << 20;

fn chunk(typ: u64, stripes: u16, sub_stripes: u16) -> Vec<u8> {
    let chunk = Chunk {
        length: (8 * MIB).into(),
        owner: tree_id::EXTENT.into(),
        stripe_len: STRIPE_LEN.into(),
        typ: typ.into(),
        io_align: 65536.into(),
        io_width: 65536.into(),
        sector_size: 4096.into(),
        num_stripes: stripes.into(),
        sub_stripes: sub_stripes.into(),
    };
    let stripes = std::vec![0; usize::from(stripes) * size_of::<Stripe>()];
    [chunk.as_bytes(), &stripes].concat()
}

fn device() -> Vec<u8> {
    let mut device = DevItem::new_zeroed();
    device.devid = 1.into();
    device.total_bytes = (100 * MIB).into();
    device.bytes_used = (16 * MIB).into();
    device.as_bytes().to_vec()
}

const DEVICE: usize = 0;
const CHUNK: usize = 1;

fn good() -> Leaf {
    Leaf::new(tree_id::CHUNK)
        .with(objectid::DEV_ITEMS, item_type::DEV_ITEM, 1, &device())
        .with(
            256,
            item_type::CHUNK_ITEM,
            MIB,
            &chunk(flags::METADATA | flags::DUP, 2, 1),
        )
}

/// A chunk of this type with so many stripes in place of the good one.
fn replace(l: &mut Leaf, typ: u64, stripes: u16, sub_stripes: u16) {
    *l.data(CHUNK) = chunk(typ, stripes, sub_stripes);
}

pub const CASES: &[Case] = &[
    case(
        DEVICE,
        "invalid objectid of a device item, have 2 expect 1",
        |l| {
            l.key(DEVICE).objectid = 2;
        },
    ),
    case(DEVICE, "invalid item size, have 97 expect 98", |l| {
        l.data(DEVICE).pop();
    }),
    case(DEVICE, "devid mismatch with key, have 1 expect 2", |l| {
        l.key(DEVICE).offset = 2
    }),
    case(
        DEVICE,
        "invalid used bytes of a device, have 16777216 expect [0, 16777215]",
        |l| {
            l.put(
                DEVICE,
                offset_of!(DevItem, total_bytes),
                U64::new(16 * MIB - 1),
            );
        },
    ),
    case(
        CHUNK,
        "invalid item size of a chunk, have 47 expect at least 48",
        |l| {
            l.data(CHUNK).truncate(47);
        },
    ),
    case(
        CHUNK,
        "invalid item size of a chunk, have 80 expect 112",
        |l| {
            l.data(CHUNK).truncate(80);
        },
    ),
    case(
        CHUNK,
        "unknown chunk type, have 0x2024 expect mask 0x1fff",
        |l| {
            l.put(CHUNK, offset_of!(Chunk, typ), U64::new(0x2024));
        },
    ),
    case(
        CHUNK,
        "several profiles of a chunk, have 2 expect [0, 1]",
        |l| {
            l.put(CHUNK, offset_of!(Chunk, typ), U64::new(0x34));
        },
    ),
    case(CHUNK, "missing chunk type, have 0 expect at least 1", |l| {
        l.put(CHUNK, offset_of!(Chunk, typ), U64::new(flags::DUP));
    }),
    case(
        CHUNK,
        "system chunk with data or metadata, have 4 expect 0",
        |l| {
            l.put(CHUNK, offset_of!(Chunk, typ), U64::new(flags::DUP | 6));
        },
    ),
    case(
        CHUNK,
        "mixed chunk type, have 37 expect one type, as the volume is without MIXED_GROUPS",
        |l| l.put(CHUNK, offset_of!(Chunk, typ), U64::new(flags::DUP | 5)),
    ),
    case(
        CHUNK,
        "type of the remap tree, which the volume is without, have 2048 expect 0",
        |l| {
            l.put(
                CHUNK,
                offset_of!(Chunk, typ),
                U64::new(flags::REMAPPED | 0x24),
            )
        },
    ),
    case(
        CHUNK,
        "unaligned chunk logical, have 1048577 expect aligned to 4096",
        |l| {
            l.key(CHUNK).offset += 1;
        },
    ),
    case(
        CHUNK,
        "invalid chunk sector size, have 512 expect 4096",
        |l| {
            l.put(CHUNK, offset_of!(Chunk, sector_size), U32::new(512));
        },
    ),
    case(
        CHUNK,
        "invalid chunk length, have 0 expect at least 1",
        |l| {
            l.put(CHUNK, offset_of!(Chunk, length), U64::new(0));
        },
    ),
    case(
        CHUNK,
        "unaligned chunk length, have 4097 expect aligned to 4096",
        |l| {
            l.put(CHUNK, offset_of!(Chunk, length), U64::new(4097));
        },
    ),
    case(
        CHUNK,
        "chunk ends beyond all addresses, have 8388608 expect [0, 8388607]",
        |l| l.key(CHUNK).offset = u64::MAX - 8 * MIB + 1,
    ),
    case(
        CHUNK,
        "invalid chunk stripe length, have 4096 expect 65536",
        |l| {
            l.put(CHUNK, offset_of!(Chunk, stripe_len), U64::new(4096));
        },
    ),
    case(
        CHUNK,
        "chunk is too long, have 281474976645120 expect [0, 281474976645119]",
        |l| {
            l.put(
                CHUNK,
                offset_of!(Chunk, length),
                U64::new(u64::from(u32::MAX) << 16),
            )
        },
    ),
    case(
        CHUNK,
        "invalid sub_stripes of a chunk, have 1 expect 2",
        |l| {
            replace(l, flags::METADATA | flags::RAID10, 4, 1);
        },
    ),
    case(
        CHUNK,
        "invalid number of stripes for the chunk's profile, have 0 expect 1",
        |l| {
            replace(l, flags::METADATA, 0, 0);
        },
    ),
    case(
        CHUNK,
        "invalid number of stripes for the chunk's profile, have 2 expect 1",
        |l| {
            replace(l, flags::METADATA, 2, 0);
        },
    ),
    case(
        CHUNK,
        "invalid number of stripes for the chunk's profile, have 1 expect 2",
        |l| {
            replace(l, flags::METADATA | flags::DUP, 1, 1);
        },
    ),
    case(
        CHUNK,
        "invalid number of stripes for the chunk's profile, have 3 expect 2",
        |l| {
            replace(l, flags::METADATA | flags::RAID1, 3, 1);
        },
    ),
    case(
        CHUNK,
        "invalid number of stripes for the chunk's profile, have 1 expect at least 2",
        |l| replace(l, flags::METADATA | flags::RAID5, 1, 1),
    ),
    case(
        CHUNK,
        "invalid number of stripes for the chunk's profile, have 2 expect at least 3",
        |l| replace(l, flags::METADATA | flags::RAID6, 2, 1),
    ),
    case(
        CHUNK,
        "invalid number of stripes for the chunk's profile, have 1 expect at least 2",
        |l| replace(l, flags::METADATA | flags::RAID10, 1, 2),
    ),
    case(
        CHUNK,
        "invalid number of stripes for the chunk's profile, have 0 expect at least 1",
        |l| replace(l, flags::METADATA | flags::RAID0, 0, 1),
    ),
    case(
        CHUNK,
        "invalid number of stripes for the chunk's profile, have 2 expect 3",
        |l| {
            replace(l, flags::METADATA | flags::RAID1C3, 2, 1);
        },
    ),
    case(
        CHUNK,
        "invalid number of stripes for the chunk's profile, have 3 expect 4",
        |l| {
            replace(l, flags::METADATA | flags::RAID1C4, 3, 1);
        },
    ),
];

#[test]
fn each_rule_of_chunks_finds_what_breaks_it() {
    run(&good(), CASES);
}

/// What this driver cannot mount is no damage: the chunk tree of such a volume is refused in words,
/// elsewhere.
#[test]
fn chunks_of_other_profiles_are_right() {
    let good = good();
    for (profile, stripes, sub_stripes) in [
        (0, 1, 1),
        (flags::RAID0, 7, 1),
        (flags::RAID1, 2, 1),
        (flags::RAID10, 4, 2),
        (flags::RAID5, 3, 1),
        (flags::RAID6, 3, 1),
        (flags::RAID1C3, 3, 1),
        (flags::RAID1C4, 4, 1),
    ] {
        let mut other = good.clone();
        replace(&mut other, flags::DATA | profile, stripes, sub_stripes);
        assert_eq!(other.complaint(), None, "{profile:#x}");
    }
    passes(&good, |l| {
        l.limits.incompat |= incompat::MIXED_GROUPS;
        l.put(CHUNK, offset_of!(Chunk, typ), U64::new(flags::DUP | 5));
    });
    passes(&good, |l| {
        l.limits.incompat |= incompat::REMAP_TREE;
        replace(l, flags::DATA | flags::REMAPPED, 0, 0);
    });
    // A device that is being removed.
    passes(&good, |l| {
        l.put(DEVICE, offset_of!(DevItem, total_bytes), U64::new(0));
        l.put(DEVICE, offset_of!(DevItem, bytes_used), U64::new(0));
    });
    // Of what is not used nothing is asked.
    passes(&good, |l| {
        l.put(CHUNK, offset_of!(Chunk, io_align), U32::new(7));
        l.put(CHUNK, offset_of!(Chunk, sub_stripes), U16::new(9));
    });
}

fn dev_extent(chunk: u64) -> Vec<u8> {
    let extent = DevExtent {
        chunk_tree: tree_id::CHUNK.into(),
        chunk_objectid: 256.into(),
        chunk_offset: chunk.into(),
        length: (8 * MIB).into(),
        chunk_tree_uuid: [8; 16],
    };
    extent.as_bytes().to_vec()
}

fn extents() -> Leaf {
    Leaf::new(tree_id::DEV)
        .with(1, item_type::DEV_EXTENT, MIB, &dev_extent(MIB))
        .with(1, item_type::DEV_EXTENT, 9 * MIB, &dev_extent(16 * MIB))
}

pub const EXTENTS: &[Case] = &[
    case(0, "invalid item size, have 47 expect 48", |l| {
        l.data(0).pop();
    }),
    case(
        0,
        "invalid chunk tree of a device extent, have 2 expect 3",
        |l| {
            l.put(0, offset_of!(DevExtent, chunk_tree), U64::new(2));
        },
    ),
    case(
        0,
        "invalid chunk objectid of a device extent, have 255 expect 256",
        |l| {
            l.put(0, offset_of!(DevExtent, chunk_objectid), U64::new(255));
        },
    ),
    case(
        0,
        "unaligned device extent, have 1048577 expect aligned to 4096",
        |l| {
            l.key(0).offset += 1;
        },
    ),
    case(
        0,
        "unaligned chunk of a device extent, have 1 expect aligned to 4096",
        |l| {
            l.put(0, offset_of!(DevExtent, chunk_offset), U64::new(1));
        },
    ),
    case(
        0,
        "unaligned length of a device extent, have 1 expect aligned to 4096",
        |l| {
            l.put(0, offset_of!(DevExtent, length), U64::new(1));
        },
    ),
    case(
        1,
        "previous device extent overlaps this one, have 9441280 expect [0, 9437184]",
        |l| {
            l.put(0, offset_of!(DevExtent, length), U64::new(8 * MIB + 4096));
        },
    ),
];

#[test]
fn each_rule_of_device_extents_finds_what_breaks_it() {
    run(&extents(), EXTENTS);
}

fn group(used: u64, flags: u64) -> Vec<u8> {
    let group = BlockGroupItem {
        used: used.into(),
        chunk_objectid: 256.into(),
        flags: flags.into(),
    };
    group.as_bytes().to_vec()
}

fn groups() -> Leaf {
    let typ = item_type::BLOCK_GROUP_ITEM;
    Leaf::new(tree_id::BLOCK_GROUP).with(MIB, typ, 8 * MIB, &group(4096, flags::DATA))
}

pub const GROUPS: &[Case] = &[
    case(
        0,
        "invalid block group length, have 0 expect at least 1",
        |l| l.key(0).offset = 0,
    ),
    case(0, "invalid item size, have 36 expect 24", |l| {
        l.data(0).extend_from_slice(&[0; 12])
    }),
    case(0, "invalid item size, have 24 expect 36", |l| {
        l.limits.incompat |= incompat::REMAP_TREE;
    }),
    case(
        0,
        "invalid chunk objectid of a block group, have 255 expect 256",
        |l| {
            l.put(0, offset_of!(BlockGroupItem, chunk_objectid), U64::new(255));
        },
    ),
    case(
        0,
        "invalid used bytes of a block group, have 8388609 expect [0, 8388608]",
        |l| {
            l.put(0, offset_of!(BlockGroupItem, used), U64::new(8 * MIB + 1));
        },
    ),
    case(
        0,
        "several profiles of a block group, have 2 expect [0, 1]",
        |l| {
            l.put(
                0,
                offset_of!(BlockGroupItem, flags),
                U64::new(flags::DATA | 0x30),
            );
        },
    ),
    case(
        0,
        "type of the remap tree, which the volume is without, have 4096 expect 0",
        |l| {
            l.put(
                0,
                offset_of!(BlockGroupItem, flags),
                U64::new(flags::METADATA_REMAP),
            );
        },
    ),
    case(
        0,
        "invalid type of a block group, have 6 expect one type, or data with metadata",
        |l| l.put(0, offset_of!(BlockGroupItem, flags), U64::new(6)),
    ),
];

#[test]
fn each_rule_of_block_groups_finds_what_breaks_it() {
    run(&groups(), GROUPS);
    passes(&groups(), |l| {
        l.put(0, offset_of!(BlockGroupItem, flags), U64::new(5))
    });
    passes(&groups(), |l| l.put(0, 0, U64::new(8 * MIB)));
}

fn info(extent_count: u32, flags: u32) -> Vec<u8> {
    let info = FreeSpaceInfo {
        extent_count: extent_count.into(),
        flags: flags.into(),
    };
    info.as_bytes().to_vec()
}

const INFO: usize = 0;
const FREE: usize = 1;
const NEXT: usize = 2;
const MAPPED: usize = 3;
const BITMAP: usize = 4;

fn free() -> Leaf {
    let bits = std::vec![0xff; 256];
    Leaf::new(tree_id::FREE_SPACE)
        .with(MIB, item_type::FREE_SPACE_INFO, 8 * MIB, &info(2, 0))
        .with(MIB, item_type::FREE_SPACE_EXTENT, 8192, &[])
        .with(MIB + 16384, item_type::FREE_SPACE_EXTENT, 4096, &[])
        .with(
            16 * MIB,
            item_type::FREE_SPACE_INFO,
            8 * MIB,
            &info(1, USING_BITMAPS),
        )
        .with(16 * MIB, item_type::FREE_SPACE_BITMAP, 8 * MIB, &bits)
}

pub const FREES: &[Case] = &[
    case(INFO, "unaligned address of free space, have 1048577 expect aligned to 4096", |l| {
        l.key(INFO).objectid += 1;
        l.items.remove(FREE);
    }),
    case(FREE, "unaligned address of free space, have 1048577 expect aligned to 4096", |l| {
        l.key(FREE).objectid += 1;
    }),
    case(INFO, "unaligned length of free space, have 1 expect aligned to 4096", |l| {
        l.key(INFO).offset = 1;
    }),
    case(FREE, "unaligned length of free space, have 1 expect aligned to 4096", |l| {
        l.key(FREE).offset = 1;
    }),
    case(
        BITMAP,
        "free space ends beyond all addresses, have 8388608 expect [0, 8388607]",
        |l| l.key(BITMAP).objectid = u64::MAX - 8 * MIB + 1,
    ),
    case(
        MAPPED,
        "free space ends beyond all addresses, have 18446744073709547520 expect [0, 18446744073692774399]",
        |l| l.key(MAPPED).offset = 4096u64.wrapping_neg(),
    ),
    case(INFO, "invalid item size, have 7 expect 8", |l| {
        l.data(INFO).pop();
    }),
    case(INFO, "unknown free space flags, have 0x2 expect mask 0x1", |l| {
        l.put(INFO, offset_of!(FreeSpaceInfo, flags), U32::new(2));
    }),
    case(INFO, "more free extents than sectors, have 2049 expect [0, 2048]", |l| {
        l.put(INFO, offset_of!(FreeSpaceInfo, extent_count), U32::new(2049));
    }),
    case(FREE, "invalid item size, have 1 expect 0", |l| l.data(FREE).push(0)),
    case(BITMAP, "invalid size of a free space bitmap, have 255 expect 256", |l| {
        l.data(BITMAP).pop();
    }),
    case(FREE, "invalid length of free space, have 0 expect at least 1", |l| {
        l.key(FREE).offset = 0;
    }),
    case(FREE, "free space outside of its block group, have 9441280 expect [0, 9437184]", |l| {
        l.key(FREE).offset = 8 * MIB + 4096;
    }),
    case(
        NEXT,
        "free space does not follow its own form, have 199 expect 200",
        |l| l.key(NEXT).typ = item_type::FREE_SPACE_BITMAP,
    ),
    case(NEXT, "previous free space overlaps this one, have 1069056 expect [0, 1064960]", |l| {
        l.key(FREE).offset = 20480;
    }),
    case(
        BITMAP,
        "free space does not have its block group's form, have 200 expect extents, as the block group is without \
         bitmaps",
        |l| l.put(MAPPED, offset_of!(FreeSpaceInfo, flags), U32::new(0)),
    ),
    case(
        FREE,
        "free space does not have its block group's form, have 199 expect bitmaps, as the block group uses them",
        |l| l.put(INFO, offset_of!(FreeSpaceInfo, flags), U32::new(USING_BITMAPS)),
    ),
];

#[test]
fn each_rule_of_free_space_finds_what_breaks_it() {
    run(&free(), FREES);
    // A full block group, and one whose free space starts in the leaf before.
    passes(&free(), |l| {
        l.items.drain(FREE..MAPPED);
        l.put(INFO, 0, U32::new(0));
    });
    passes(&free(), |l| {
        l.items.remove(INFO);
    });
}
