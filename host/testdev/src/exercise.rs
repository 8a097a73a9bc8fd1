// SPDX-License-Identifier: GPL-2.0
//! Everything that can be done with a volume, whatever is wrong with it. What comes of it does not
//! matter, but that it comes to an end, and without a panic.

use crate::MemDevice;
use kernel::error::Result;
use kernel::prelude::*;
use kernel::sync::Arc;
use rbtrfs_engine::backref::owners::for_each_owner;
use rbtrfs_engine::balance::control;
use rbtrfs_engine::device::{BlockDevice, ReadIo};
use rbtrfs_engine::format::balance::BalanceItem;
use rbtrfs_engine::format::chunk::block_group_flags as bg;
use rbtrfs_engine::format::root::RootItem;
use rbtrfs_engine::format::{item_type, tree_id, Key};
use rbtrfs_engine::mount::Rescue;
use rbtrfs_engine::send::{self, flags, SendArgs, Sink};
use rbtrfs_engine::state::BalanceControl;
use rbtrfs_engine::subvol::{data, dir, inode, resolve, xattr};
use rbtrfs_engine::trans::Reader;
use rbtrfs_engine::tree::check::check_tree;
use rbtrfs_engine::tree::TreeRoot;
use rbtrfs_engine::volume::{Fs, OpenOptions};
use std::sync::atomic::{AtomicU64, Ordering};
use std::vec::Vec;
use zerocopy::FromZeros;

/// How far something went, for who wants to know that it goes far at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// The volume could be opened.
    pub opened: bool,
    /// Items of all trees.
    pub items: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Subvolumes that were sent to the end.
    pub sent: u64,
    /// The balance ended well.
    pub balanced: bool,
}

/// More requests than this are a loop.
const MAX_REQUESTS: u64 = 1_000_000;
/// More bytes of a stream are not waited for: a damaged size can make a stream of zeros that has no
/// end to speak of.
const MAX_STREAM: usize = 16 << 20;
/// The largest piece of a file that is read at once, and how many of them.
const PIECE: usize = 256 << 10;
const PIECES: u64 = 8;
/// More places than these, of a name or of an extent, are not waited for.
const MAX_PLACES: u64 = 10_000;

/// Works as an image, until there were too many requests.
struct Patient {
    image: MemDevice,
    left: AtomicU64,
}

impl Patient {
    fn count(&self) {
        let left = self.left.fetch_sub(1, Ordering::Relaxed);
        assert!(left > 0, "no end of requests");
    }
}

impl BlockDevice for Patient {
    fn name(&self) -> &str {
        self.image.name()
    }

    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result {
        self.count();
        self.image.read(offset, buf)
    }

    fn read_many(&self, ios: &mut [ReadIo<'_>]) -> Result {
        self.count();
        self.image.read_many(ios)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result {
        self.count();
        self.image.write(offset, buf)
    }

    fn write_fua(&self, offset: u64, buf: &[u8]) -> Result {
        self.count();
        self.image.write_fua(offset, buf)
    }

    fn flush(&self) -> Result {
        self.count();
        self.image.flush()
    }

    fn discard(&self, offset: u64, len: u64) -> Result {
        self.count();
        self.image.discard(offset, len)
    }
}

/// Counts the stream, and breaks off one without end.
struct Counter(usize);

impl Sink for Counter {
    fn write(&mut self, bytes: &[u8]) -> Result {
        self.0 = self.0.saturating_add(bytes.len());
        if self.0 > MAX_STREAM {
            return Err(EPIPE);
        }
        Ok(())
    }
}

/// Counts places, and breaks off when there are too many.
fn few(count: &mut u64) -> Result {
    *count += 1;
    if *count > MAX_PLACES {
        return Err(E2BIG);
    }
    Ok(())
}

/// Opens the volume, reads all that is in it, sends every subvolume, and balances it.
///
/// # Panics
///
/// Where the engine does, and if there is no end of requests to the device.
pub fn exercise(image: &MemDevice) -> Done {
    let (done, _log) = kernel::log::capture(|| {
        let mut done = Done::default();
        let device = Patient {
            image: image.clone(),
            left: AtomicU64::new(MAX_REQUESTS),
        };
        let device: Arc<dyn BlockDevice> = Arc::new(device, GFP_KERNEL).unwrap();
        // What cannot be opened may have older roots.
        for (read_only, use_backup_root) in [(false, false), (true, true)] {
            let options = OpenOptions {
                read_only,
                rescue: Rescue {
                    use_backup_root,
                    ..Rescue::default()
                },
                ..OpenOptions::default()
            };
            if let Ok(fs) = Fs::open(device.clone(), &options) {
                done.opened = true;
                let _ = use_all(&fs, &mut done);
                break;
            }
        }
        done
    });
    done
}

fn use_all(fs: &Fs, done: &mut Done) -> Result {
    let _ = control::recover(fs);
    let reader = fs.reader()?;
    let ids = trees(&reader)?;
    for id in &ids {
        let _ = read_tree(&reader, *id, done);
    }
    let subvolumes: Vec<u64> = ids
        .into_iter()
        .filter(|id| tree_id::is_fs_tree(*id))
        .collect();
    for id in &subvolumes {
        let mut sink = Counter(0);
        for (version, flags) in [(1, 0), (2, flags::VERSION | flags::COMPRESSED)] {
            let args = SendArgs {
                root: *id,
                parent: None,
                clones: &subvolumes,
                flags,
                version,
            };
            let own = SendArgs {
                clones: &[],
                ..args
            };
            for args in [own, args] {
                done.sent += u64::from(send::run(fs.reader()?, &args, &mut sink).is_ok());
            }
        }
    }
    drop(reader);
    done.balanced = balance(fs, 0).is_ok();
    let _ = balance(fs, 2);
    Ok(())
}

/// Balances everything, with a limit if that is not 0.
fn balance(fs: &Fs, limit: u64) -> Result {
    let mut item = BalanceItem {
        flags: (bg::DATA | bg::METADATA | bg::SYSTEM).into(),
        ..BalanceItem::new_zeroed()
    };
    if limit > 0 {
        // BTRFS_BALANCE_ARGS_LIMIT.
        item.meta.flags = (1 << 5).into();
        item.meta.limit = limit.into();
    }
    let _ = control::cancel(fs);
    match control::start(fs, BalanceControl::new(&item)?) {
        Ok(outcome) => outcome.result,
        Err(_) => Err(EBUSY),
    }
}

/// All trees that have a root item, as far as they are found.
fn trees(reader: &Reader) -> Result<Vec<u64>> {
    let mut ids = vec![tree_id::ROOT, tree_id::CHUNK];
    let mut cursor = reader.cursor(reader.root(tree_id::ROOT)?);
    let mut step = cursor.seek(&Key::MIN);
    while let (Ok(_), Some((key, item))) = (step, cursor.item()) {
        if key.typ == item_type::ROOT_ITEM {
            let _ = RootItem::parse(item);
            ids.push(key.objectid);
        }
        step = cursor.next();
    }
    ids.dedup();
    Ok(ids)
}

fn read_tree(reader: &Reader, id: u64, done: &mut Done) -> Result {
    let root = reader.root(id)?;
    if let Ok(summary) = check_tree(reader, root, reader.generation(), &mut |_| ()) {
        done.items += summary.items;
    }
    let mut cursor = reader.cursor(root);
    let mut step = cursor.seek_before(&Key::MAX);
    while matches!(step, Ok(true)) {
        step = cursor.prev();
    }
    let mut cursor = reader.cursor(root).with_readahead();
    let mut step = cursor.seek(&Key::MIN);
    while let (Ok(_), Some((key, item))) = (step, cursor.item()) {
        match key.typ {
            item_type::INODE_ITEM => {
                let _ = read_inode(reader, root, key.objectid, done);
            }
            item_type::EXTENT_ITEM | item_type::METADATA_ITEM => {
                let mut places = 0;
                for whole in [false, true] {
                    let each = &mut |_| few(&mut places);
                    let _ = for_each_owner(reader, key.objectid, whole, each);
                }
            }
            item_type::ROOT_ITEM => {
                let _ = resolve::with_root_backref(reader, key.objectid, |_| Ok(()));
            }
            item_type::DIR_ITEM | item_type::DIR_INDEX => {
                for entry in dir::Entries::new(item).map_while(Result::ok) {
                    let _ = dir::lookup(reader, root, key.objectid, entry.name);
                }
            }
            _ => {}
        }
        step = cursor.next();
    }
    Ok(())
}

/// Reads all that an inode has: names, attributes, entries, and data from its start and its end.
fn read_inode(reader: &Reader, root: TreeRoot, ino: u64, done: &mut Done) -> Result {
    let mut places = 0;
    let _ = inode::for_each_name(reader, root, ino, &mut |_| few(&mut places).map(|()| true));
    let _ = resolve::for_each_path(reader, root, ino, &mut |_| few(&mut places));
    let _ = resolve::last_parent(reader, root, ino, &mut |_| Ok(()));
    let mut path = vec![0; 4096];
    let _ = resolve::prepend_dir(reader, root, ino, &mut resolve::PathBuf::new(&mut path));
    let _ = xattr::for_each(reader, root, ino, &mut |entry| {
        let _ = xattr::get(reader, root, ino, entry.name, |_| Ok(()));
        few(&mut places).map(|()| true)
    });
    let _ = dir::iterate(reader, root, ino, 0, &mut |_, _| {
        few(&mut places).map(|()| true)
    });
    let size = inode::read(reader, root, ino)?.size.get();
    let mut buf = vec![0; PIECE];
    for piece in 0..PIECES {
        let from_start = piece * PIECE as u64;
        let from_end = size.saturating_sub(from_start);
        for offset in [from_start, from_end] {
            if let Ok(len) = data::read_file(reader, root, ino, offset, &mut buf) {
                done.bytes += len as u64;
            }
        }
        if from_start >= size {
            break;
        }
    }
    Ok(())
}
