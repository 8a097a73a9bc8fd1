// SPDX-License-Identifier: GPL-2.0
//! Damage, one kind at a time: what one good copy makes up for, and the error where none is left.

mod images;

use images::{device, make, make_in_memory, Scratch};
use kernel::prelude::*;
use kernel::sync::Arc;
use rbtrfs_engine::device::superblock::{read_newest, write_copies};
use rbtrfs_engine::device::SuperBuf;
use rbtrfs_engine::format::crc::checksum;
use rbtrfs_engine::format::header::{Header, Item, HEADER_SIZE, ITEM_SIZE, KEY_PTR_SIZE};
use rbtrfs_engine::format::inode::InodeItem;
use rbtrfs_engine::format::root::RootItem;
use rbtrfs_engine::format::superblock::{compat_ro, incompat, super_flags, COPIES};
use rbtrfs_engine::format::{item_type, tree_id, DiskKey, Key};
use rbtrfs_engine::mount::Rescue;
use rbtrfs_engine::subvol::subvolume::set_read_only;
use rbtrfs_engine::trans::transaction::Reserve;
use rbtrfs_engine::trans::Reader;
use rbtrfs_engine::tree::{NodePtr, Nodes, TreeRoot};
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::MemDevice;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;
use std::string::String;
use std::vec::Vec;
use zerocopy::IntoBytes;

fn options() -> OpenOptions {
    OpenOptions {
        read_only: true,
        ..OpenOptions::default()
    }
}

fn open(image: &MemDevice) -> Result<Arc<Fs>> {
    Fs::open(device(image.clone()), &options())
}

/// Opens, and returns what was printed as well.
fn open_logged(image: &MemDevice, options: &OpenOptions) -> (Result<Arc<Fs>>, String) {
    let (result, log) = kernel::log::capture(|| Fs::open(device(image.clone()), options));
    (result, log.join("\n"))
}

fn walk(reader: &Reader, root: TreeRoot) -> Result<Vec<(Key, Vec<u8>)>> {
    let mut items = Vec::new();
    let mut cursor = reader.cursor(root).with_readahead();
    cursor.seek(&Key::MIN)?;
    while let Some((key, bytes)) = cursor.item() {
        items.push((key, bytes.to_vec()));
        cursor.next()?;
    }
    Ok(items)
}

/// A node of the tree of files to damage: its address, its copies on the device, and its bytes.
struct Victim {
    bytenr: u64,
    copies: Vec<u64>,
    bytes: Vec<u8>,
}

impl Victim {
    /// The second child of the root's first child, so that it has neighbours, or that child's
    /// parent.
    fn find(image: &MemDevice, leaf: bool) -> Self {
        let fs = open(image).unwrap();
        let reader = fs.reader().unwrap();
        let root = reader.root(tree_id::FS).unwrap();
        let mut node = reader.node(&root.into()).unwrap();
        while node.level() > u8::from(!leaf) {
            let ptr = node.child_ptr(1, tree_id::FS).unwrap();
            node = reader.node(&ptr).unwrap();
        }
        let len = node.bytes().len() as u64;
        let mirrors = fs.chunk_map().mirrors(node.bytenr(), len).unwrap();
        Self {
            bytenr: node.bytenr(),
            copies: mirrors.iter().collect(),
            bytes: node.bytes().to_vec(),
        }
    }

    /// Writes the bytes after `change`, with a checksum that fits, over the given copies.
    fn write(&self, image: &MemDevice, copies: &[u64], change: impl Fn(&mut [u8])) {
        let mut bytes = self.bytes.clone();
        change(&mut bytes);
        let sum = checksum(&bytes[32..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        for copy in copies {
            image.copy_in(*copy, &bytes);
        }
    }
}

fn files(image: &MemDevice) -> Result<Vec<(Key, Vec<u8>)>> {
    let fs = open(image)?;
    let reader = fs.reader()?;
    walk(&reader, reader.root(tree_id::FS)?)
}

#[test]
fn flipped_bytes_are_found_and_the_other_copy_serves() {
    let good = make_in_memory(&["-n", "4096", "-m", "dup"]);
    let expected = files(&good).unwrap();
    for leaf in [true, false] {
        let victim = Victim::find(&good, leaf);
        assert_eq!(victim.copies.len(), 2);
        for offset in (0..victim.bytes.len() as u64).step_by(97) {
            // All of the checksum field but its first four bytes is unused.
            if (4..32).contains(&offset) {
                continue;
            }
            let image = good.clone();
            image.flip(victim.copies[0] + offset);
            let (found, log) = kernel::log::capture(|| files(&image));
            assert!(found.unwrap() == expected, "byte {offset}");
            let line = format!("on logical {} mirror 1", victim.bytenr);
            let start = format!("bad tree block start, mirror 1 want {}", victim.bytenr);
            assert!(
                log.iter().any(|l| l.contains(&line) || l.contains(&start)),
                "byte {offset}: {log:?}"
            );
            image.flip(victim.copies[1] + offset);
            let (found, _) = kernel::log::capture(|| files(&image));
            assert_eq!(found.map(|_| ()), Err(EIO), "byte {offset}");
        }
    }
}

#[test]
fn the_form_of_checksum_warnings() {
    let image = make_in_memory(&["-n", "4096", "-m", "single"]);
    let victim = Victim::find(&image, true);
    image.flip(victim.copies[0] + 2000);
    let mut bytes = victim.bytes.clone();
    bytes[2000] = !bytes[2000];
    // The bytes as they are on disk.
    let wanted = u32::from_be_bytes(bytes[..4].try_into().unwrap());
    let line = format!(
        "BTRFS warning (device mem): checksum verify failed on logical {} mirror 1 \
         wanted {wanted:#010x} found {:#010x} level 0",
        victim.bytenr,
        checksum(&bytes[32..]).swap_bytes()
    );
    let (_, log) = kernel::log::capture(|| files(&image).is_ok());
    assert!(log.contains(&line), "{log:?}");
}

/// Damage with a checksum that fits, the error it must give, and what the message says.
type Case = (bool, &'static str, fn(&mut [u8]), Error, &'static str);

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// The place of a field of the item in `slot`.
fn item_field(slot: usize, field: usize) -> usize {
    HEADER_SIZE + slot * ITEM_SIZE + field
}

const CASES: &[Case] = &[
    (
        true,
        "address",
        |b| put(b, offset_of!(Header, bytenr), &4096u64.to_le_bytes()),
        EIO,
        "bad tree block start",
    ),
    (true, "fsid", |b| b[33] ^= 1, EIO, "bad fsid on logical"),
    (
        true,
        "generation",
        |b| put(b, offset_of!(Header, generation), &999u64.to_le_bytes()),
        EIO,
        "parent transid verify failed on logical",
    ),
    (
        true,
        "level",
        |b| b[offset_of!(Header, level)] = 1,
        EUCLEAN,
        "level verify failed on logical",
    ),
    (
        true,
        "level beyond all",
        |b| b[offset_of!(Header, level)] = 200,
        EUCLEAN,
        "level verify failed on logical",
    ),
    (
        true,
        "owner",
        |b| put(b, offset_of!(Header, owner), &2u64.to_le_bytes()),
        EUCLEAN,
        "owner mismatch",
    ),
    (
        true,
        "first key",
        |b| b[HEADER_SIZE + 9] ^= 1,
        EUCLEAN,
        "tree first key mismatch detected",
    ),
    (
        true,
        "not written",
        |b| b[offset_of!(Header, flags)] &= !1,
        EUCLEAN,
        "invalid flags",
    ),
    (
        true,
        "more items than fit",
        |b| put(b, offset_of!(Header, nritems), &5000u32.to_le_bytes()),
        EUCLEAN,
        "invalid nritems",
    ),
    (
        true,
        "all items that a number can count",
        |b| put(b, offset_of!(Header, nritems), &u32::MAX.to_le_bytes()),
        EUCLEAN,
        "invalid nritems",
    ),
    (
        true,
        "key order",
        |b| {
            let (from, to) = (item_field(1, 0), item_field(3, 0));
            b.copy_within(from..from + 17, to);
        },
        EUCLEAN,
        "bad key order",
    ),
    (
        true,
        "item beyond the leaf",
        |b| {
            let at = item_field(0, offset_of!(Item, offset));
            put(b, at, &u32::MAX.to_le_bytes());
        },
        EUCLEAN,
        "unexpected item end",
    ),
    (
        true,
        "items that overlap",
        |b| b[item_field(2, offset_of!(Item, size))] ^= 3,
        EUCLEAN,
        "unexpected item end",
    ),
    (
        false,
        "no children",
        |b| put(b, offset_of!(Header, nritems), &0u32.to_le_bytes()),
        EUCLEAN,
        "first key mismatch",
    ),
    (
        false,
        "order of pointers",
        |b| {
            let (from, to) = (HEADER_SIZE + KEY_PTR_SIZE, HEADER_SIZE + 3 * KEY_PTR_SIZE);
            b.copy_within(from..from + 17, to);
        },
        EUCLEAN,
        "bad key order",
    ),
    (
        false,
        "a pointer to nothing",
        |b| put(b, HEADER_SIZE + KEY_PTR_SIZE + 17, &0u64.to_le_bytes()),
        EUCLEAN,
        "invalid block pointer",
    ),
    (
        false,
        "a pointer into a block",
        |b| b[HEADER_SIZE + KEY_PTR_SIZE + 17] ^= 1,
        EUCLEAN,
        "invalid block pointer",
    ),
    (
        false,
        "a pointer to where no chunk is",
        |b| {
            put(
                b,
                HEADER_SIZE + KEY_PTR_SIZE + 17,
                &(1u64 << 60).to_le_bytes(),
            )
        },
        EUCLEAN,
        "unable to find chunk map for logical",
    ),
];

#[test]
fn each_kind_of_damage_has_its_error() {
    let good = make_in_memory(&["-n", "4096", "-m", "dup"]);
    let expected = files(&good).unwrap();
    let victims = [Victim::find(&good, false), Victim::find(&good, true)];
    for (leaf, name, change, errno, text) in CASES {
        let victim = &victims[usize::from(*leaf)];
        let image = good.clone();
        victim.write(&image, &victim.copies[..1], change);
        let (found, log) = kernel::log::capture(|| files(&image));
        let log = log.join("\n");
        // A pointer that is good in itself cannot be told from a right one by the block it is in.
        if *name != "a pointer to where no chunk is" {
            assert!(found.expect(name) == expected, "{name}");
        }
        assert!(log.contains(text), "{name}: {log}");

        victim.write(&image, &victim.copies, change);
        let (found, log) = kernel::log::capture(|| files(&image));
        assert_eq!(found.map(|_| ()), Err(*errno), "{name}");
        let lines = log.iter().filter(|line| line.contains(text)).count();
        assert!(lines >= 1, "{name}: {log:?}");
        assert!(log.iter().all(|line| line.starts_with("BTRFS ")), "{log:?}");
    }
}

/// A leaf whose last key lies beyond the next leaf's first one is right in itself; the walk must
/// not go back.
#[test]
fn leaves_that_overlap_end_a_walk() {
    let image = make_in_memory(&["-n", "4096", "-m", "single"]);
    let victim = Victim::find(&image, true);
    victim.write(&image, &victim.copies, |b| {
        let nritems =
            u32::from_le_bytes(b[offset_of!(Header, nritems)..][..4].try_into().unwrap()) as usize;
        // Of a type of which no rule asks anything.
        let key = DiskKey::from(Key::new(u64::MAX, item_type::STRING_ITEM, 0));
        put(b, item_field(nritems - 1, 0), key.as_bytes());
    });
    let (found, log) = kernel::log::capture(|| files(&image));
    assert_eq!(found.map(|_| ()), Err(EUCLEAN));
    assert!(log.iter().any(|l| l.contains("bad key order in tree 5")));
}

/// Every node of every tree: its copies on the device, and its bytes.
fn all_nodes(image: &MemDevice) -> Vec<Victim> {
    let fs = open(image).unwrap();
    let reader = fs.reader().unwrap();
    let mut ids = vec![tree_id::ROOT, tree_id::CHUNK];
    for (key, _) in walk(&reader, reader.root(tree_id::ROOT).unwrap()).unwrap() {
        if key.typ == item_type::ROOT_ITEM {
            ids.push(key.objectid);
        }
    }
    let mut victims = Vec::new();
    for id in ids {
        let mut ptrs = vec![NodePtr::from(reader.root(id).unwrap())];
        while let Some(ptr) = ptrs.pop() {
            let node = reader.node(&ptr).unwrap();
            let len = node.bytes().len() as u64;
            let mirrors = fs.chunk_map().mirrors(ptr.bytenr, len).unwrap();
            victims.push(Victim {
                bytenr: ptr.bytenr,
                copies: mirrors.iter().collect(),
                bytes: node.bytes().to_vec(),
            });
            ptrs.extend((0..).map_while(|slot| node.child_ptr(slot, id)));
        }
    }
    victims
}

/// Opens the volume and walks every tree both ways, as far as that goes.
fn walk_what_there_is(image: &MemDevice) -> Result {
    let fs = open(image)?;
    let reader = fs.reader()?;
    let mut ids = vec![tree_id::CHUNK];
    for (key, _) in walk(&reader, reader.root(tree_id::ROOT)?)? {
        if key.typ == item_type::ROOT_ITEM {
            ids.push(key.objectid);
        }
    }
    let mut all = Ok(());
    for id in ids {
        let forwards = reader.root(id).and_then(|root| walk(&reader, root));
        all = all.and(forwards.map(|_| ()));
        let Ok(root) = reader.root(id) else {
            continue;
        };
        let mut cursor = reader.cursor(root);
        let mut step = cursor.seek_before(&Key::MAX);
        while matches!(step, Ok(true)) {
            step = cursor.prev();
        }
        all = all.and(step.map(|_| ()));
    }
    all
}

/// Damage that nobody thought of, with checksums that fit: an error or an answer, and never
/// anything else.
#[test]
fn random_damage_ends_in_an_error_or_an_answer() {
    let good = make_in_memory(&["-n", "4096", "-m", "dup"]);
    let victims = all_nodes(&good);
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut errors = 0;
    for _ in 0..400 {
        let victim = &victims[random(victims.len())];
        let mut changes = Vec::new();
        for _ in 0..=random(3) {
            // Most of a node's structure is near its start.
            let end = [HEADER_SIZE + 60, 600, victim.bytes.len()][random(3)];
            changes.push((32 + random(end - 32), random(255) as u8 + 1));
        }
        let image = good.clone();
        victim.write(&image, &victim.copies, |bytes| {
            for (at, xor) in &changes {
                bytes[*at] ^= xor;
            }
        });
        let (result, log) = kernel::log::capture(|| walk_what_there_is(&image));
        if let Err(e) = result {
            errors += 1;
            assert!(
                [EIO, EUCLEAN, EINVAL, ENOENT].contains(&e),
                "{e:?} at {} {changes:?}: {log:?}",
                victim.bytenr
            );
        }
    }
    assert!((50..400).contains(&errors), "{errors} errors");
}

/// The image with a superblock changed by `change`, in all copies, with checksums that fit.
fn with_superblock(good: &MemDevice, change: impl Fn(&mut SuperBuf)) -> MemDevice {
    let image = good.clone();
    let mut sb = read_newest(&image, false).unwrap();
    change(&mut sb);
    write_copies(&image, &mut sb).unwrap();
    image
}

#[test]
fn a_damaged_superblock_has_copies() {
    let good = make_in_memory(&[]);
    let image = good.clone();
    image.flip(COPIES[0] + 300);
    let (fs, log) = open_logged(&image, &options());
    assert!(fs.is_ok());
    assert!(log.contains("superblock checksum mismatch"), "{log}");
    assert!(log.contains("using the superblock at 67108864"), "{log}");
    image.flip(COPIES[1] + 300);
    assert_eq!(open_logged(&image, &options()).0.map(|_| ()), Err(EINVAL));

    // A first copy that is not of btrfs at all was wiped: the others do not count.
    let image = good.clone();
    image.copy_in(COPIES[0], &[0; 4096]);
    assert_eq!(open_logged(&image, &options()).0.map(|_| ()), Err(EINVAL));

    // The newer copy wins, but not one of another volume.
    let newer = |change: fn(&mut SuperBuf)| {
        let other = with_superblock(&good, change);
        let image = good.clone();
        let mut copy = [0; 4096];
        other.copy_out(COPIES[1], &mut copy);
        image.copy_in(COPIES[1], &copy);
        read_newest(&image, false).unwrap().generation.get()
    };
    let generation = read_newest(&good, false).unwrap().generation.get();
    assert_eq!(
        newer(|sb| sb.generation = (sb.generation.get() + 1).into()),
        generation + 1
    );
    let foreign = newer(|sb| {
        sb.generation = (sb.generation.get() + 1).into();
        sb.fsid = [9; 16];
        sb.dev_item.fsid = [9; 16];
    });
    assert_eq!(foreign, generation);
}

#[test]
fn what_cannot_be_mounted_is_named() {
    let good = make_in_memory(&[]);
    type Change = fn(&mut SuperBuf);
    let cases: &[(Change, Error, &str)] = &[
        (
            |sb| sb.incompat_flags = (sb.incompat_flags.get() | incompat::ZONED).into(),
            EINVAL,
            "ZONED",
        ),
        (
            |sb| sb.incompat_flags = (sb.incompat_flags.get() | incompat::RAID56).into(),
            EINVAL,
            "RAID56",
        ),
        (
            |sb| sb.incompat_flags = (sb.incompat_flags.get() | incompat::MIXED_GROUPS).into(),
            EINVAL,
            "MIXED_GROUPS",
        ),
        (
            |sb| sb.incompat_flags = (sb.incompat_flags.get() | (1 << 50)).into(),
            EINVAL,
            "unknown 0x4000000000000",
        ),
        (
            |sb| sb.flags = (sb.flags.get() | super_flags::SEEDING).into(),
            EINVAL,
            "SEEDING",
        ),
        (
            |sb| sb.num_devices = 0.into(),
            EINVAL,
            "number of devices is 0",
        ),
        (
            |sb| sb.sectorsize = 8192.into(),
            EINVAL,
            "sectorsize 8192 not supported",
        ),
        (
            |sb| sb.nodesize = 12345.into(),
            EINVAL,
            "invalid nodesize 12345",
        ),
        (|sb| sb.nodesize = 0.into(), EINVAL, "invalid nodesize 0"),
        (
            |sb| sb.root_level = 8,
            EINVAL,
            "tree_root level too big: 8 >= 8",
        ),
        (
            |sb| sb.root = 4097.into(),
            EINVAL,
            "tree_root block unaligned: 4097",
        ),
        (
            |sb| sb.root = 0.into(),
            EINVAL,
            "invalid superblock tree root bytenr",
        ),
        (
            |sb| sb.sys_chunk_array_size = 3000.into(),
            EUCLEAN,
            "system chunk array too big 3000 > 2048",
        ),
        (
            |sb| sb.sys_chunk_array_size = 20.into(),
            EUCLEAN,
            "sys chunk array short read",
        ),
        (
            |sb| sb.dev_item.total_bytes = (1 << 50).into(),
            EINVAL,
            "device total_bytes should be at most",
        ),
        (
            |sb| sb.total_bytes = 0.into(),
            EINVAL,
            "super_total_bytes 0 mismatch",
        ),
        // The stripe length of the first system chunk: 17 bytes of key, 16 bytes of chunk before
        // it.
        (
            |sb| sb.sys_chunk_array[33] = 1,
            EUCLEAN,
            "invalid chunk stripe length: 65537",
        ),
        // Its type becomes RAID0, in place of any profile.
        (
            |sb| sb.sys_chunk_array[41] = 0x0a,
            EINVAL,
            "profile raid0 (0xa) is not supported",
        ),
    ];
    for (change, errno, text) in cases {
        let image = with_superblock(&good, change);
        let (result, log) = open_logged(&image, &options());
        assert_eq!(result.map(|_| ()), Err(*errno), "{text}: {log}");
        assert!(log.contains(text), "{text}: {log}");
    }
}

/// What a feature changes is not taken for damage: one line says what the matter is.
#[test]
fn a_feature_that_is_refused_is_one_line() {
    let good = make_in_memory(&[]);
    let image = with_superblock(&good, |sb| {
        sb.incompat_flags = (sb.incompat_flags.get() | incompat::METADATA_UUID).into();
        sb.metadata_uuid = sb.fsid;
        sb.fsid = [9; 16];
    });
    let (result, log) = kernel::log::capture(|| open(&image).map(|_| ()));
    assert_eq!(result, Err(EINVAL));
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].contains("METADATA_UUID"), "{log:?}");
}

#[test]
fn what_forbids_writing() {
    let good = make_in_memory(&[]);
    let writing = OpenOptions::default();
    assert!(!open_logged(&good, &writing).0.unwrap().is_read_only());
    assert!(open(&good).unwrap().is_read_only());

    let verity = with_superblock(&good, |sb| {
        sb.compat_ro_flags = (sb.compat_ro_flags.get() | compat_ro::VERITY).into();
    });
    let (result, log) = open_logged(&verity, &writing);
    assert_eq!(result.map(|_| ()), Err(EINVAL));
    assert!(
        log.contains("cannot mount read-write") && log.contains("VERITY"),
        "{log}"
    );
    let fs = open(&verity).unwrap();
    assert_eq!(
        kernel::log::capture(|| fs.set_read_only(false)).0,
        Err(EINVAL)
    );

    let logged = with_superblock(&good, |sb| sb.log_root = sb.root);
    let (result, log) = open_logged(&logged, &writing);
    let fs = result.unwrap();
    assert!(fs.is_read_only() && fs.has_log(), "{log}");
    assert_eq!(fs.check_writable(), Err(EROFS));
    let (result, log) = kernel::log::capture(|| fs.set_read_only(false));
    let log = log.join("\n");
    assert!(
        result == Err(EINVAL) && log.contains("cannot remount read-write"),
        "{log}"
    );
    assert!(fs.is_read_only());

    let fs = open(&good).unwrap();
    assert_eq!(fs.set_read_only(false), Ok(()));
    assert_eq!(fs.check_writable(), Ok(()));
    fs.force_read_only(EIO);
    assert_eq!(fs.check_writable(), Err(EROFS));
    assert_eq!(fs.set_read_only(false), Err(EROFS));
}

/// A dump with other names in the place of the true ones, whose hashes stayed: `btrfs-image -s`.
/// The C driver refuses such a volume as well.
#[test]
fn names_under_hashes_that_are_not_theirs_are_not_listed() {
    let scratch = Scratch::new();
    let image = make(&scratch, &[]);
    let (dump, restored) = (scratch.path("dump"), scratch.path("restored"));
    for args in [
        [Path::new("-s"), &image, &dump],
        [Path::new("-r"), &dump, &restored],
    ] {
        let done = Command::new("btrfs-image").args(args).output();
        assert!(done.unwrap().status.success());
    }
    let image = MemDevice::from_file(&restored).unwrap();
    let (found, log) = kernel::log::capture(|| files(&image).map(|_| ()));
    assert_eq!(found, Err(EUCLEAN));
    let says = |line: &String| {
        line.contains("BTRFS error (device mem): corrupt leaf: root=")
            && line.contains("name hash mismatch with key, have 0x")
    };
    assert!(log.iter().any(says), "{log:?}");
}

/// Opens a volume for writing, which must end read-only, in these words; and does so again when a
/// remount asks.
fn assert_read_only(image: &MemDevice, says: &str) {
    let (result, log) = open_logged(image, &OpenOptions::default());
    let fs = result.unwrap();
    assert!(fs.is_read_only(), "{log}");
    assert!(log.contains(says), "{log}");
    assert!(log.contains("mounting read-only"), "{log}");
    let (again, log) = kernel::log::capture(|| fs.set_read_only(false));
    assert_eq!(again, Err(EROFS));
    assert!(log.join("\n").contains(says), "{log:?}");
    assert!(fs.is_read_only());
    assert_eq!(fs.begin(Reserve::default()).map(|_| ()), Err(EROFS));
    assert!(!files(image).unwrap().is_empty());
}

#[test]
fn quotas_make_a_volume_read_only_at_once() {
    let image = make_in_memory(&["-O", "quota"]);
    assert_read_only(&image, "quotas are enabled");
}

/// Block groups are looked at before the mount says that it is writable, not by the first change.
#[test]
fn damaged_block_groups_make_a_volume_read_only_at_once() {
    let image = make_in_memory(&[]);
    let is_group = |slot: &usize, bytes: &[u8]| {
        bytes[item_field(*slot, offset_of!(DiskKey, typ))] == item_type::BLOCK_GROUP_ITEM
    };
    let nritems =
        |b: &[u8]| u32::from_le_bytes(b[offset_of!(Header, nritems)..][..4].try_into().unwrap());
    let mut damaged = 0;
    for victim in all_nodes(&image) {
        let leaf = victim.bytes[offset_of!(Header, level)] == 0;
        let slots = 0..nritems(&victim.bytes) as usize;
        let Some(slot) = slots
            .into_iter()
            .find(|slot| leaf && is_group(slot, &victim.bytes))
        else {
            continue;
        };
        // A length that no chunk has.
        victim.write(&image, &victim.copies, |b| {
            b[item_field(slot, offset_of!(DiskKey, offset)) + 1] ^= 0x10;
        });
        damaged += 1;
    }
    assert!(damaged > 0);
    assert_read_only(&image, "block groups or free space are damaged");
}

/// Converters of other filesystems leave anything in a root item's flags, and do not say that they
/// are valid.
#[test]
fn flags_of_a_root_item_count_if_it_says_so() {
    for (initialised, read_only) in [(true, true), (false, false)] {
        let image = make_in_memory(&[]);
        for victim in all_nodes(&image) {
            let node: &[u8] = &victim.bytes;
            let owner =
                u64::from_le_bytes(node[offset_of!(Header, owner)..][..8].try_into().unwrap());
            if owner != tree_id::ROOT || node[offset_of!(Header, level)] != 0 {
                continue;
            }
            let fs = open(&image).unwrap();
            let reader = fs.reader().unwrap();
            let leaf = reader
                .node(&reader.root(tree_id::ROOT).unwrap().into())
                .unwrap();
            let key = Key::new(tree_id::FS, item_type::ROOT_ITEM, 0);
            let Ok(slot) = leaf.search(&key) else {
                continue;
            };
            let place = item_field(slot, offset_of!(Item, offset));
            let start = u32::from_le_bytes(node[place..place + 4].try_into().unwrap());
            let item = HEADER_SIZE + start as usize;
            victim.write(&image, &victim.copies, |b| {
                let flags = u64::from(initialised) << 31;
                put(b, item + offset_of!(InodeItem, flags), &flags.to_le_bytes());
                put(b, item + offset_of!(RootItem, flags), &1u64.to_le_bytes());
                put(
                    b,
                    item + offset_of!(RootItem, byte_limit),
                    &7u64.to_le_bytes(),
                );
            });
        }
        let shared = device(image);
        let fs = Fs::open(shared.clone(), &OpenOptions::default()).unwrap();
        let found = |fs: &Fs| {
            let trans = fs.begin(Reserve::default()).unwrap();
            let item = trans.root_item(tree_id::FS).unwrap();
            trans.cancel();
            (item.is_read_only(), item.byte_limit.get())
        };
        assert_eq!(found(&fs), (read_only, if initialised { 7 } else { 0 }));
        // Once they are set they are valid.
        set_read_only(&fs, tree_id::FS, true).unwrap();
        fs.commit().unwrap();
        drop(fs);
        let fs = Fs::open(shared, &OpenOptions::default()).unwrap();
        assert!(found(&fs).0);
    }
}

#[test]
fn a_backup_root_serves_if_asked_for() {
    let good = make_in_memory(&["-m", "single"]);
    // mkfs leaves backups; here the first one is made to be the present root, and the root to be
    // nowhere.
    let image = with_superblock(&good, |sb| {
        let mut backup = sb.super_roots[0];
        backup.tree_root = sb.root;
        backup.tree_root_gen = sb.generation;
        backup.tree_root_level = sb.root_level;
        backup.chunk_root = sb.chunk_root;
        backup.chunk_root_gen = sb.chunk_root_generation;
        backup.chunk_root_level = sb.chunk_root_level;
        sb.set_backup(&backup);
        sb.root = sb.chunk_root;
    });
    let (result, log) = open_logged(&image, &options());
    assert!(
        result.is_err() && log.contains("couldn't read tree root"),
        "{log}"
    );
    let rescue = OpenOptions {
        rescue: Rescue {
            use_backup_root: true,
            ..Rescue::default()
        },
        ..options()
    };
    let (result, log) = open_logged(&image, &rescue);
    assert!(log.contains("try to load backup roots slot"), "{log}");
    let fs = result.unwrap();
    assert!(fs.is_read_only());
    let reader = fs.reader().unwrap();
    let root = reader.root(tree_id::FS).unwrap();
    assert!(walk(&reader, root).unwrap() == files(&good).unwrap());
}

#[test]
fn backups_take_turns() {
    let mut sb = SuperBuf::zeroed().unwrap();
    for generation in 1..=6u64 {
        let mut backup = sb.super_roots[0];
        backup.tree_root_gen = generation.into();
        sb.set_backup(&backup);
        sb.set_backup(&backup);
    }
    let kept: Vec<_> = sb
        .super_roots
        .iter()
        .map(|r| r.tree_root_gen.get())
        .collect();
    assert_eq!(kept, [5, 6, 3, 4]);
}
