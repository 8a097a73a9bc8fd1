// SPDX-License-Identifier: GPL-2.0
//! Opening a volume: superblock, system chunks, chunk tree, tree of roots, and the roots that
//! nothing works without.

use super::dev_stats;
use super::fs::{Fs, Shared};
use super::open_options::OpenOptions;
use crate::device::barrier::Barrier;
use crate::device::chunk::{ChunkLimits, Origin};
use crate::device::stats::{CountedDevice, DeviceStats};
use crate::device::superblock::{read_newest, writing_forbidden};
use crate::device::{BlockDevice, ChunkMap, SuperBuf};
use crate::format::chunk::DevItem;
use crate::format::superblock::{compat_ro, super_flags, BACKUP_ROOTS};
use crate::format::{item_type, objectid, read, tree_id, BlockSize, ChecksumType, Key};
use crate::space::reservation::SpaceReservations;
use crate::state::State;
use crate::trans::commit_roots::CommitRoots;
use crate::trans::commit_stats::CommitStats;
use crate::trans::epoch::Epochs;
use crate::trans::pressure::Pressure;
use crate::trans::running::RunningTrees;
use crate::trans::transaction::WriterState;
use crate::trans::tree_log::LogSync;
use crate::tree::check::Limits;
use crate::tree::{Cursor, Geometry, NodeCache, Nodes};
use crate::{fs_err, fs_info, fs_warn};
use kernel::prelude::*;
use kernel::sync::atomic::Atomic;
use kernel::sync::{new_condvar, new_mutex, Arc, Mutex};

impl Fs {
    /// Opens the volume on a device. One that has a log is read-only until that is replayed: see
    /// [`crate::log`].
    ///
    /// # Errors
    ///
    /// Each with a message: `EINVAL` for what is not a btrfs volume, or has features that are not
    /// supported; `EUCLEAN` and `EIO` for damage that no copy makes good; `ENOMEM`.
    pub fn open(device: Arc<dyn BlockDevice>, options: &OpenOptions) -> Result<Arc<Fs>> {
        let stats = Arc::new(DeviceStats::new(), GFP_KERNEL)?;
        let barrier = Arc::new(Barrier::new(options.barrier), GFP_KERNEL)?;
        let counted = CountedDevice::new(device, stats.clone(), barrier.clone());
        let device: Arc<dyn BlockDevice> = Arc::new(counted, GFP_KERNEL)?;
        let watched = Watched {
            device: device.clone(),
            stats,
            barrier,
        };
        let superblock = read_newest(&*device, options.rescue.ignore_super_flags)?;
        // Whatever a commit wrote before the log is replayed could be where the log is.
        let mut read_only = options.read_only || superblock.log_root.get() != 0;
        if !options.read_only {
            match check_writing(&*device, &superblock) {
                Err(EROFS) => {
                    fs_warn!(device, "mounting read-only");
                    read_only = true;
                }
                checked => checked?,
            }
        }
        let first = superblock.try_clone()?;
        let error = match Opening::run(&watched, first, options, read_only) {
            Ok(fs) => {
                if !read_only {
                    fs.settle_writing()?;
                }
                return Ok(fs);
            }
            Err(e) => e,
        };
        if !options.rescue.use_backup_root
            || !options.read_only
            || (error != EIO && error != EUCLEAN)
        {
            return Err(error);
        }
        for slot in backups_by_age(&superblock) {
            let Some(superblock) = with_backup(&superblock, slot)? else {
                continue;
            };
            fs_warn!(device, "try to load backup roots slot {}", slot);
            if let Ok(fs) = Opening::run(&watched, superblock, options, true) {
                return Ok(fs);
            }
        }
        Err(error)
    }
}

/// Whether the superblock allows to write to the volume; what forbids it has a message.
///
/// # Errors
///
/// `EINVAL` for features that writers must know, which is what the C driver answers, too; `EROFS`
/// for a volume that can be mounted all the same, though read-only.
pub(super) fn check_writing(device: &dyn BlockDevice, superblock: &SuperBuf) -> Result {
    if writing_forbidden(device, superblock) {
        return Err(EINVAL);
    }
    if superblock.flags.get() & super_flags::ERROR != 0 {
        fs_warn!(device, "the superblock has the error flag set");
        return Err(EROFS);
    }
    Ok(())
}

impl Fs {
    /// Makes a volume that was opened for writing read-only if what it holds forbids that.
    fn settle_writing(&self) -> Result {
        match self.prove_writable() {
            Err(EROFS) => {
                fs_warn!(self, "mounting read-only");
                self.set_read_only(true)
            }
            proved => proved,
        }
    }
}

/// The slots of the backup roots, youngest first.
fn backups_by_age(superblock: &SuperBuf) -> [usize; BACKUP_ROOTS] {
    let mut slots = core::array::from_fn(|slot| slot);
    crate::sort::sort_by_key(&mut slots, |slot| {
        let root = superblock.super_roots.get(*slot);
        core::cmp::Reverse(root.map_or(0, |root| root.tree_root_gen.get()))
    });
    slots
}

/// The superblock as it was, as far as that matters to readers, when the backup was made.
fn with_backup(superblock: &SuperBuf, slot: usize) -> Result<Option<SuperBuf>> {
    let mut sb = superblock.try_clone()?;
    let Some(backup) = superblock.super_roots.get(slot) else {
        return Ok(None);
    };
    if backup.tree_root.get() == 0 || backup.tree_root_gen > superblock.generation {
        return Ok(None);
    }
    // The log belongs to the last commit.
    sb.log_root = 0.into();
    sb.generation = backup.tree_root_gen;
    sb.root = backup.tree_root;
    sb.root_level = backup.tree_root_level;
    sb.chunk_root = backup.chunk_root;
    sb.chunk_root_generation = backup.chunk_root_gen;
    sb.chunk_root_level = backup.chunk_root_level;
    Ok(Some(sb))
}

/// A device with what is known of it, and can be said about it, at any time.
struct Watched {
    device: Arc<dyn BlockDevice>,
    stats: Arc<DeviceStats>,
    barrier: Arc<Barrier>,
}

/// A volume that is being opened.
struct Opening {
    device: Arc<dyn BlockDevice>,
    chunk_limits: ChunkLimits,
    chunks: Arc<Mutex<Arc<ChunkMap>>>,
    cache: NodeCache,
    geometry: Geometry,
    roots: Arc<CommitRoots>,
}

impl Opening {
    fn run(
        watched: &Watched,
        superblock: SuperBuf,
        options: &OpenOptions,
        read_only: bool,
    ) -> Result<Arc<Fs>> {
        let rescue = &options.rescue;
        let mut opening = Self::begin(&watched.device, &superblock, options, read_only)?;
        opening
            .cache
            .ignore_checksums(rescue.ignore_metadata_checksums);
        opening.read_chunk_tree()?;
        let has_checksums = opening.read_roots(rescue.ignore_bad_roots)?;
        let generation = superblock.generation.get();
        let fs = opening.share(watched, generation, options, read_only, has_checksums)?;
        dev_stats::load(&fs)?;
        Ok(Arc::new(fs, GFP_KERNEL)?)
    }

    /// The volume, from what was read of it. Not inlined, as both are large and on the stack.
    #[inline(never)]
    fn share(
        self,
        watched: &Watched,
        generation: u64,
        options: &OpenOptions,
        read_only: bool,
        has_checksums: bool,
    ) -> Result<Fs> {
        let rescue = &options.rescue;
        let Self {
            device,
            chunks,
            cache,
            geometry,
            roots,
            ..
        } = self;
        let shared = Shared {
            device,
            stats: watched.stats.clone(),
            barrier: watched.barrier.clone(),
            ignore_data_checksums: Atomic::new(rescue.ignore_data_checksums || !has_checksums),
            ignore_bad_roots: rescue.ignore_bad_roots,
            scrub_speed_max: Atomic::new(0),
            geometry,
            cache,
            epochs: Epochs::new(generation)?,
            state: State::new()?,
            commits: CommitStats::new(),
            pressure: Pressure::new(),
            dirty_limit: options.dirty_bytes,
            chunks,
            roots: KBox::pin_init(new_mutex!(roots, "Fs::roots"), GFP_KERNEL)?,
            sealed: KBox::pin_init(new_mutex!(None, "Fs::sealed"), GFP_KERNEL)?,
            unsealed: KBox::pin_init(new_condvar!("Fs::unsealed"), GFP_KERNEL)?,
            log_sync: KBox::pin_init(new_mutex!(LogSync::new(), "Fs::log_sync"), GFP_KERNEL)?,
            log_synced: KBox::pin_init(new_condvar!("Fs::log_synced"), GFP_KERNEL)?,
            writer: KBox::pin_init(new_mutex!(WriterState::new(), "Fs::writer"), GFP_KERNEL)?,
            ordered_done: KBox::pin_init(new_condvar!("Fs::ordered_done"), GFP_KERNEL)?,
            running_trees: KBox::pin_init(
                new_mutex!(RunningTrees::new(), "Fs::running_trees"),
                GFP_KERNEL,
            )?,
            before_commit: KBox::pin_init(new_mutex!(None, "Fs::before_commit"), GFP_KERNEL)?,
            reservations: KBox::pin_init(
                new_mutex!(SpaceReservations::default(), "Fs::reservations"),
                GFP_KERNEL,
            )?,
            read_only: Atomic::new(read_only),
            failed: Atomic::new(0),
            is_shut_down: Atomic::new(false),
        };
        Fs::new(shared)
    }

    /// What the superblock alone tells.
    fn begin(
        device: &Arc<dyn BlockDevice>,
        superblock: &SuperBuf,
        options: &OpenOptions,
        read_only: bool,
    ) -> Result<Self> {
        let chunk_limits = superblock.chunk_limits()?;
        let array = superblock
            .sys_chunk_array
            .get(..superblock.sys_chunk_array_size.get() as usize)
            .ok_or(EUCLEAN)?;
        let map = ChunkMap::from_sys_array(&**device, array, &chunk_limits).inspect_err(|e| {
            fs_err!(device, "failed to read the system array: {}", e.to_errno());
        })?;
        let map = Arc::new(map, GFP_KERNEL)?;
        let chunks = Arc::pin_init(new_mutex!(map, "Fs::chunks"), GFP_KERNEL)?;
        let geometry = Geometry {
            nodesize: BlockSize::new(superblock.nodesize.get()).ok_or(EINVAL)?,
            sectorsize: BlockSize::new(superblock.sectorsize.get()).ok_or(EINVAL)?,
            checksum: ChecksumType::new(superblock.csum_type.get()).ok_or(EINVAL)?,
            fsid: superblock.fsid,
            chunk_tree_uuid: [0; 16],
        };
        let limits = Limits {
            geometry,
            incompat: superblock.incompat_flags.get(),
            newest: superblock.generation.get().saturating_add(1),
            writable: !read_only,
        };
        let cache = NodeCache::new(device.clone(), limits, chunks.clone(), options.cache_bytes)?;
        Ok(Self {
            device: device.clone(),
            chunk_limits,
            chunks,
            cache,
            geometry,
            roots: CommitRoots::new(superblock, 0)?,
        })
    }

    /// Completes the chunk map, which until now has the system chunks only.
    fn read_chunk_tree(&mut self) -> Result {
        let root = self.roots.chunk_tree();
        let node = self.cache.node(&root.into()).inspect_err(|_| {
            fs_err!(self.device, "failed to read chunk root");
        })?;
        self.geometry.chunk_tree_uuid = node.chunk_tree_uuid();
        let map = self.chunk_map().inspect_err(|e| {
            fs_err!(self.device, "failed to read chunk tree: {}", e.to_errno());
        })?;
        *self.chunks.lock() = Arc::new(map, GFP_KERNEL)?;
        Ok(())
    }

    fn chunk_map(&self) -> Result<ChunkMap> {
        let mut map = ChunkMap::new();
        for chunk in self.chunks.lock().iter() {
            map = map.with(*chunk)?;
        }
        let mut devices = 0u32;
        let mut cursor = Cursor::new(&self.cache, self.roots.chunk_tree()).with_readahead();
        cursor.seek(&Key::MIN)?;
        while let Some((key, bytes)) = cursor.item() {
            match key.typ {
                item_type::DEV_ITEM => {
                    self.check_device(&key, bytes)?;
                    devices = devices.saturating_add(1);
                }
                item_type::CHUNK_ITEM => {
                    let origin = Origin::Leaf {
                        bytenr: cursor.node_at(0).map_or(0, |leaf| leaf.bytenr()),
                        slot: cursor.slot_at(0),
                    };
                    map.add_item(&*self.device, origin, &key, bytes, &self.chunk_limits)?;
                }
                _ => {}
            }
            cursor.next()?;
        }
        if devices != 1 {
            fs_err!(
                self.device,
                "failed to read devices, found {} device items",
                devices
            );
            return Err(EUCLEAN);
        }
        let counted = self.roots.superblock.num_devices.get();
        if counted != 1 {
            fs_warn!(
                self.device,
                "super block num_devices {} mismatch with DEV_ITEM count {}",
                counted,
                devices
            );
        }
        map.check_device_ranges(&*self.device)?;
        Ok(map)
    }

    /// Checks that a device item is of the device that the superblock is on.
    fn check_device(&self, key: &Key, bytes: &[u8]) -> Result {
        let item: DevItem = read(bytes).inspect_err(|_| {
            fs_err!(
                self.device,
                "corrupt device item {key}: invalid item size {}",
                bytes.len()
            );
        })?;
        if key.objectid != objectid::DEV_ITEMS || item.devid.get() != key.offset {
            let devid = item.devid.get();
            fs_err!(
                self.device,
                "corrupt device item {key}: devid mismatch, item has {devid}"
            );
            return Err(EUCLEAN);
        }
        if item.devid.get() != self.chunk_limits.devid || item.uuid != self.chunk_limits.dev_uuid {
            let devid = item.devid.get();
            fs_err!(
                self.device,
                "devid {devid} is missing, only one device is supported"
            );
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Reads the tree of roots, and the roots that nothing works without. With `ignore_bad` that is
    /// the top-level subvolume alone. Returns whether checksums of data can be looked up.
    fn read_roots(&self, ignore_bad: bool) -> Result<bool> {
        let mut has_checksums = true;
        let root = self.roots.root_tree();
        self.cache.node(&root.into()).inspect_err(|_| {
            fs_warn!(self.device, "couldn't read tree root");
        })?;
        let features = self.roots.superblock.compat_ro_flags.get();
        let when = |bit: u64| features & bit != 0;
        for (tree, name, needed) in [
            (tree_id::EXTENT, "extent", true),
            (
                tree_id::BLOCK_GROUP,
                "block group",
                when(compat_ro::BLOCK_GROUP_TREE),
            ),
            (tree_id::DEV, "device", true),
            (tree_id::CSUM, "csum", true),
            (
                tree_id::FREE_SPACE,
                "free space",
                when(compat_ro::FREE_SPACE_TREE_VALID),
            ),
            (tree_id::FS, "fs", true),
        ] {
            if !needed {
                continue;
            }
            let root = self.roots.root(&self.cache, tree);
            let Err(e) = root.and_then(|root| self.cache.node(&root.into())) else {
                continue;
            };
            if ignore_bad && tree != tree_id::FS && e != ENOMEM {
                fs_warn!(self.device, "ignoring that root {} cannot be loaded", name);
                has_checksums &= tree != tree_id::CSUM;
                continue;
            }
            fs_err!(self.device, "failed to load root {}", name);
            // A volume without one of these is damaged, whatever the root tree answered.
            return Err(if e == ENOENT { EUCLEAN } else { e });
        }
        let generation = self.roots.superblock.generation.get();
        fs_info!(self.device, "opened at generation {}", generation);
        Ok(has_checksums)
    }
}
