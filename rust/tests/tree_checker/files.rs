// SPDX-License-Identifier: GPL-2.0
//! Inodes, names, attributes and file extents.

use crate::leaf::{case, passes, run, Case, Leaf};
use core::mem::offset_of;
use rbtrfs_engine::format::crc::{extref_hash, name_hash};
use rbtrfs_engine::format::dir::{file_type, DirItem};
use rbtrfs_engine::format::file_extent::{
    FileExtentHead, FileExtentItem, TYPE_INLINE, TYPE_PREALLOC, TYPE_REG,
};
use rbtrfs_engine::format::inode::{InodeExtref, InodeItem, InodeRef};
use rbtrfs_engine::format::{item_type, tree_id, DiskKey, Key};
use std::vec::Vec;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

fn inode(mode: u32) -> Vec<u8> {
    let mut inode = InodeItem::new_zeroed();
    inode.generation = 8.into();
    inode.transid = 9.into();
    inode.nlink = 1.into();
    inode.mode = mode.into();
    inode.as_bytes().to_vec()
}

fn inode_ref(name: &[u8]) -> Vec<u8> {
    let head = InodeRef {
        index: 2.into(),
        name_len: (name.len() as u16).into(),
    };
    [head.as_bytes(), name].concat()
}

fn extref(name: &[u8]) -> Vec<u8> {
    let head = InodeExtref {
        parent_objectid: 256.into(),
        index: 3.into(),
        name_len: (name.len() as u16).into(),
    };
    [head.as_bytes(), name].concat()
}

fn entry(location: Key, typ: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let head = DirItem {
        location: location.into(),
        transid: 8.into(),
        data_len: (value.len() as u16).into(),
        name_len: (name.len() as u16).into(),
        typ,
    };
    [head.as_bytes(), name, value].concat()
}

fn head(typ: u8, ram_bytes: u64) -> FileExtentHead {
    FileExtentHead {
        generation: 8.into(),
        ram_bytes: ram_bytes.into(),
        compression: 0,
        encryption: 0,
        other_encoding: 0.into(),
        typ,
    }
}

fn extent(typ: u8) -> Vec<u8> {
    let extent = FileExtentItem {
        head: head(typ, 4096),
        disk_bytenr: (1u64 << 30).into(),
        disk_num_bytes: 4096.into(),
        offset: 0.into(),
        num_bytes: 4096.into(),
    };
    extent.as_bytes().to_vec()
}

fn inline(data: &[u8]) -> Vec<u8> {
    [head(TYPE_INLINE, data.len() as u64).as_bytes(), data].concat()
}

const ROOT: usize = 0;
const ROOT_REF: usize = 1;
const DIR_ITEM: usize = 2;
const DIR_INDEX: usize = 3;
const FILE: usize = 4;
const REF: usize = 5;
const EXTREF: usize = 6;
const XATTR: usize = 7;
const INLINE: usize = 8;
const REGULAR: usize = 10;
const PREALLOC: usize = 11;

fn good() -> Leaf {
    let file = Key::new(257, item_type::INODE_ITEM, 0);
    let by_name = entry(file, file_type::REG_FILE, b"file", b"");
    let attribute = entry(Key::MIN, file_type::XATTR, b"user.a", b"value");
    Leaf::new(tree_id::FS)
        .with(256, item_type::INODE_ITEM, 0, &inode(0o040_755))
        .with(256, item_type::INODE_REF, 256, &inode_ref(b".."))
        .with(256, item_type::DIR_ITEM, name_hash(b"file"), &by_name)
        .with(256, item_type::DIR_INDEX, 2, &by_name)
        .with(257, item_type::INODE_ITEM, 0, &inode(0o100_644))
        .with(257, item_type::INODE_REF, 256, &inode_ref(b"file"))
        .with(
            257,
            item_type::INODE_EXTREF,
            extref_hash(256, b"again"),
            &extref(b"again"),
        )
        .with(257, item_type::XATTR_ITEM, name_hash(b"user.a"), &attribute)
        .with(257, item_type::EXTENT_DATA, 0, &inline(b"ten bytes."))
        .with(258, item_type::INODE_ITEM, 0, &inode(0o100_644))
        .with(258, item_type::EXTENT_DATA, 0, &extent(TYPE_REG))
        .with(258, item_type::EXTENT_DATA, 4096, &extent(TYPE_PREALLOC))
}

pub const CASES: &[Case] = &[
    case(ROOT, "invalid inode number, have 7 expect [256, 18446744073709551360]", |l| {
        l.key(ROOT).objectid = 7;
    }),
    case(FILE, "invalid inode key offset, have 1 expect 0", |l| l.key(FILE).offset = 1),
    case(FILE, "invalid item size, have 159 expect 160", |l| l.data(FILE).truncate(159)),
    case(FILE, "invalid inode generation, have 10 expect [0, 9]", |l| {
        l.put(FILE, offset_of!(InodeItem, generation), U64::new(10));
    }),
    case(FILE, "invalid inode transid, have 10 expect [0, 9]", |l| {
        l.put(FILE, offset_of!(InodeItem, transid), U64::new(10));
    }),
    case(FILE, "unknown mode bits, have 0x181a4 expect mask 0xffff", |l| {
        l.put(FILE, offset_of!(InodeItem, mode), U32::new(0o300_644));
    }),
    case(
        FILE,
        "invalid file type in mode, have 420 expect the mode of one of seven file types",
        |l| l.put(FILE, offset_of!(InodeItem, mode), U32::new(0o644)),
    ),
    case(ROOT, "invalid nlink of a directory, have 2 expect [0, 1]", |l| {
        l.put(ROOT, offset_of!(InodeItem, nlink), U32::new(2));
    }),
    case(
        FILE,
        "unknown incompat inode flags, have 0x1000 expect mask 0x80000fff",
        |l| l.put(FILE, offset_of!(InodeItem, flags), U64::new(1 << 12)),
    ),
    case(
        FILE,
        "unknown ro-compat inode flags on a writable mount, have 0x200000000 expect mask 0x100000000",
        |l| l.put(FILE, offset_of!(InodeItem, flags), U64::new(1 << 33)),
    ),
    case(REF, "invalid item size of an inode reference, have 10 expect at least 11", |l| {
        l.data(REF).truncate(10);
    }),
    case(
        REF,
        "invalid parent of an inode reference, have 255 expect [256, 18446744073709551360]",
        |l| l.key(REF).offset = 255,
    ),
    case(
        EXTREF,
        "invalid parent of an inode reference, have 255 expect [256, 18446744073709551360]",
        |l| l.put(EXTREF, 0, U64::new(255)),
    ),
    case(REF, "invalid name length of an inode reference, have 0 expect [1, 255]", |l| {
        l.put(REF, 8, U16::new(0));
    }),
    case(EXTREF, "invalid name length of an inode reference, have 256 expect [1, 255]", |l| {
        l.put(EXTREF, 16, U16::new(256));
    }),
    case(REF, "inode reference beyond its item, have 14 expect at least 15", |l| {
        l.put(REF, 8, U16::new(5));
    }),
    case(REF, "inode reference beyond its item, have 15 expect at least 24", |l| {
        l.data(REF).push(0);
    }),
    case(EXTREF, "inode reference beyond its item, have 23 expect at least 24", |l| {
        l.put(EXTREF, 16, U16::new(6));
    }),
    case(EXTREF, "inode reference beyond its item, have 24 expect at least 41", |l| {
        l.data(EXTREF).push(0);
    }),
    // What belongs to an inode stands after its item, each type of it.
    case(ROOT_REF, "invalid previous key objectid, have 5 expect 256", |l| {
        *l.key(ROOT) = Key::new(5, item_type::STRING_ITEM, 0);
    }),
    case(DIR_ITEM, "invalid previous key objectid, have 5 expect 256", |l| {
        *l.key(ROOT) = Key::new(4, item_type::STRING_ITEM, 0);
        *l.key(ROOT_REF) = Key::new(5, item_type::STRING_ITEM, 0);
    }),
    case(INLINE, "invalid previous key objectid, have 256 expect 257", |l| {
        for slot in FILE..INLINE {
            *l.key(slot) = Key::new(256, item_type::STRING_ITEM, slot as u64);
        }
    }),
    case(XATTR, "invalid previous key objectid, have 256 expect 257", |l| {
        for slot in FILE..XATTR {
            *l.key(slot) = Key::new(256, item_type::STRING_ITEM, slot as u64);
        }
    }),
    case(EXTREF, "invalid previous key objectid, have 256 expect 257", |l| {
        for slot in FILE..EXTREF {
            *l.key(slot) = Key::new(256, item_type::STRING_ITEM, slot as u64);
        }
    }),
    case(DIR_INDEX, "invalid previous key objectid, have 255 expect 256", |l| {
        for slot in ROOT..DIR_INDEX {
            *l.key(slot) = Key::new(255, item_type::STRING_ITEM, slot as u64);
        }
    }),
    case(DIR_INDEX, "directory entry beyond its item, have 3 expect at least 30", |l| {
        l.data(DIR_INDEX).extend_from_slice(b"odd");
    }),
    case(DIR_INDEX, "directory entry beyond its item, have 34 expect at least 35", |l| {
        l.put(DIR_INDEX, offset_of!(DirItem, name_len), U16::new(5));
    }),
    case(
        XATTR,
        "location of an extended attribute is not empty, have 1 expect 0",
        |l| l.put(XATTR, 0, DiskKey::from(Key::new(1, 0, 0))),
    ),
    case(
        DIR_INDEX,
        "location is not a subvolume, have 7 expect the id of a subvolume",
        |l| l.put(DIR_INDEX, 0, DiskKey::from(Key::new(7, item_type::ROOT_ITEM, u64::MAX))),
    ),
    case(
        DIR_INDEX,
        "location is not a subvolume, have 281474976710913 expect the id of a subvolume",
        |l| {
            // The level of a quota group is in the highest 16 bits.
            let location = Key::new((1 << 48) + 257, item_type::ROOT_ITEM, u64::MAX);
            l.put(DIR_INDEX, 0, DiskKey::from(location));
        },
    ),
    case(
        DIR_INDEX,
        "invalid inode number in a location, have 255 expect [256, 18446744073709551360]",
        |l| l.put(DIR_INDEX, 0, DiskKey::from(Key::new(255, item_type::INODE_ITEM, 0))),
    ),
    case(DIR_INDEX, "invalid offset in a location, have 1 expect 0", |l| {
        l.put(DIR_INDEX, 0, DiskKey::from(Key::new(257, item_type::INODE_ITEM, 1)));
    }),
    case(
        DIR_INDEX,
        "invalid key type in a location, have 84 expect INODE_ITEM (1) or ROOT_ITEM (132)",
        |l| l.put(DIR_INDEX, 0, DiskKey::from(Key::new(257, item_type::DIR_ITEM, 0))),
    ),
    case(DIR_INDEX, "invalid type of a directory entry, have 0 expect [1, 8]", |l| {
        l.put(DIR_INDEX, offset_of!(DirItem, typ), 0u8);
    }),
    case(DIR_INDEX, "invalid type of a directory entry, have 9 expect [1, 8]", |l| {
        l.put(DIR_INDEX, offset_of!(DirItem, typ), 9u8);
    }),
    case(
        XATTR,
        "type of a directory entry does not match its key, have 1 expect that of an extended attribute (8)",
        |l| l.put(XATTR, offset_of!(DirItem, typ), file_type::REG_FILE),
    ),
    case(
        DIR_INDEX,
        "type of a directory entry does not match its key, have 8 expect that of a file",
        |l| l.put(DIR_INDEX, offset_of!(DirItem, typ), file_type::XATTR),
    ),
    case(DIR_INDEX, "name of a directory entry is too long, have 256 expect [0, 255]", |l| {
        l.put(DIR_INDEX, offset_of!(DirItem, name_len), U16::new(256));
    }),
    case(
        XATTR,
        "name and value of a directory entry are too long, have 16229 expect [0, 16228]",
        |l| l.put(XATTR, offset_of!(DirItem, data_len), U16::new(16223)),
    ),
    case(DIR_INDEX, "directory entry with a value, have 1 expect 0", |l| {
        l.put(DIR_INDEX, offset_of!(DirItem, data_len), U16::new(1));
    }),
    case(
        DIR_ITEM,
        "name hash mismatch with key, have 0x6e1f90f5 expect 0x6e1f90f4",
        |l| l.key(DIR_ITEM).offset += 1,
    ),
    case(
        XATTR,
        "name hash mismatch with key, have 0x61c121ff expect 0x61c12200",
        |l| l.key(XATTR).offset -= 1,
    ),
    case(PREALLOC, "unaligned file offset, have 4097 expect aligned to 4096", |l| {
        l.key(PREALLOC).offset = 4097;
    }),
    case(INLINE, "invalid item size of a file extent, have 20 expect at least 21", |l| {
        l.data(INLINE).truncate(20);
    }),
    case(REGULAR, "invalid type of a file extent, have 3 expect [0, 2]", |l| {
        l.put(REGULAR, offset_of!(FileExtentHead, typ), 3u8);
    }),
    case(REGULAR, "invalid compression of a file extent, have 4 expect [0, 3]", |l| {
        l.put(REGULAR, offset_of!(FileExtentHead, compression), 4u8);
    }),
    case(REGULAR, "invalid encryption of a file extent, have 1 expect 0", |l| {
        l.put(REGULAR, offset_of!(FileExtentHead, encryption), 1u8);
    }),
    case(INLINE, "invalid file offset of an inline extent, have 4096 expect 0", |l| {
        l.key(INLINE).offset = 4096;
    }),
    case(
        INLINE,
        "invalid ram_bytes of an uncompressed inline extent, have 11 expect 10",
        |l| l.put(INLINE, offset_of!(FileExtentHead, ram_bytes), U64::new(11)),
    ),
    case(REGULAR, "invalid item size, have 54 expect 53", |l| l.data(REGULAR).push(0)),
    case(
        REGULAR,
        "encoded file extent in the data relocation tree, have 3 expect 0",
        |l| {
            l.owner = tree_id::DATA_RELOC;
            l.put(REGULAR, offset_of!(FileExtentHead, compression), 3u8);
        },
    ),
    case(REGULAR, "unaligned ram_bytes of a file extent, have 1 expect aligned to 4096", |l| {
        l.put(REGULAR, offset_of!(FileExtentHead, ram_bytes), U64::new(1));
    }),
    case(REGULAR, "unaligned disk_bytenr of a file extent, have 1 expect aligned to 4096", |l| {
        l.put(REGULAR, offset_of!(FileExtentItem, disk_bytenr), U64::new(1));
    }),
    case(
        REGULAR,
        "unaligned disk_num_bytes of a file extent, have 1 expect aligned to 4096",
        |l| l.put(REGULAR, offset_of!(FileExtentItem, disk_num_bytes), U64::new(1)),
    ),
    case(REGULAR, "unaligned offset of a file extent, have 1 expect aligned to 4096", |l| {
        l.put(REGULAR, offset_of!(FileExtentItem, offset), U64::new(1));
    }),
    case(REGULAR, "unaligned num_bytes of a file extent, have 1 expect aligned to 4096", |l| {
        l.put(REGULAR, offset_of!(FileExtentItem, num_bytes), U64::new(1));
    }),
    case(
        PREALLOC,
        "end of a file extent is beyond all offsets, have 4096 expect [0, 4095]",
        |l| l.key(PREALLOC).offset = u64::MAX - 4095,
    ),
    case(PREALLOC, "previous file extent overlaps this one, have 8192 expect [0, 4096]", |l| {
        l.put(REGULAR, offset_of!(FileExtentItem, num_bytes), U64::new(8192));
    }),
    case(PREALLOC, "previous file extent overlaps this one, have 8192 expect [0, 4096]", |l| {
        *l.data(REGULAR) = inline(&[1; 4097]);
    }),
];

#[test]
fn each_rule_finds_what_breaks_it() {
    run(&good(), CASES);
}

/// What the C driver takes, and somebody wrote.
#[test]
fn what_is_odd_but_right() {
    let good = good();
    // A leaf that starts in the middle of an inode's items.
    for slot in 1..PREALLOC {
        let mut part = good.clone();
        part.items.drain(..slot);
        assert_eq!(part.complaint(), None, "from {slot}");
    }
    // A log has parts of inodes.
    passes(&good, |l| {
        l.owner = tree_id::TREE_LOG;
        l.items.remove(FILE);
    });
    // On a volume that nobody writes to.
    passes(&good, |l| {
        l.limits.writable = false;
        l.put(FILE, offset_of!(InodeItem, flags), U64::new(1 << 33));
    });
    // With fs-verity, and as a root item has it.
    passes(&good, |l| {
        l.put(
            FILE,
            offset_of!(InodeItem, flags),
            U64::new((1 << 32) | (1 << 31) | 0xfff),
        );
    });
    // The running transaction, and none: mkfs wrote 0.
    passes(&good, |l| {
        l.put(FILE, offset_of!(InodeItem, generation), U64::new(9));
        l.put(FILE, offset_of!(InodeItem, transid), U64::new(0));
    });
    // Names whose hash is the same share an item.
    passes(&good, |l| {
        let again = l.data(DIR_ITEM).clone();
        l.data(DIR_ITEM).extend_from_slice(&again);
    });
    // An encrypted name.
    passes(&good, |l| {
        l.put(
            DIR_INDEX,
            offset_of!(DirItem, typ),
            file_type::ENCRYPTED | file_type::DIR,
        );
    });
    // Sizes of directories were wrong for years; nothing depends on them.
    passes(&good, |l| {
        l.put(ROOT, offset_of!(InodeItem, size), U64::new(u64::MAX));
        l.put(FILE, offset_of!(InodeItem, nbytes), U64::new(u64::MAX));
    });
    // A file without names, which is to be deleted, and one with more than a directory can have.
    passes(&good, |l| {
        l.put(FILE, offset_of!(InodeItem, nlink), U32::new(0))
    });
    passes(&good, |l| {
        l.put(FILE, offset_of!(InodeItem, nlink), U32::new(65535))
    });
    // Compressed inline data is shorter than what it stands for.
    passes(&good, |l| {
        l.put(INLINE, offset_of!(FileExtentHead, compression), 1u8);
        l.put(
            INLINE,
            offset_of!(FileExtentHead, ram_bytes),
            U64::new(4096),
        );
    });
    // A hole, and an extent whose ram_bytes is not what is on disk.
    passes(&good, |l| {
        l.put(
            REGULAR,
            offset_of!(FileExtentItem, disk_bytenr),
            U64::new(0),
        );
        l.put(
            REGULAR,
            offset_of!(FileExtentItem, disk_num_bytes),
            U64::new(0),
        );
        l.put(
            PREALLOC,
            offset_of!(FileExtentHead, ram_bytes),
            U64::new(8192),
        );
    });
}
