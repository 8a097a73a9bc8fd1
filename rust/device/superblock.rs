// SPDX-License-Identifier: GPL-2.0
//! Superblocks: finding the newest copy, checking it, and writing all copies.

use super::chunk::ChunkLimits;
use super::features::{self, compat_ro_names, incompat_names};
use super::BlockDevice;
use crate::format::checksum::CSUM_FIELD;
use crate::format::header::MAX_LEVEL;
use crate::format::superblock::{
    compat_ro, incompat, super_flags, RootBackup, SuperBlock, BACKUP_ROOTS, COPIES, MAGIC,
    SUPERBLOCK_SIZE,
};
use crate::format::{BlockSize, ChecksumType};
use crate::{fs_err, fs_warn};
use core::fmt;
use core::ops::{Deref, DerefMut};
use kernel::prelude::*;
use zerocopy::{transmute_mut, transmute_ref};

const MIN_NODESIZE: u32 = 4096;
const MAX_NODESIZE: u32 = 65536;
const SECTORSIZE: u32 = 4096;

/// Flags of superblocks that can be mounted. The low two bits are those of node headers.
const SUPPORTED_FLAGS: u64 =
    0x3 | super_flags::ERROR | super_flags::METADUMP | super_flags::METADUMP_V2;

/// A superblock in memory of its own; it derefs to its fields.
pub struct SuperBuf(KBox<[u8; SUPERBLOCK_SIZE]>);

impl Deref for SuperBuf {
    type Target = SuperBlock;

    fn deref(&self) -> &SuperBlock {
        let bytes: &[u8; SUPERBLOCK_SIZE] = &self.0;
        transmute_ref!(bytes)
    }
}

impl DerefMut for SuperBuf {
    fn deref_mut(&mut self) -> &mut SuperBlock {
        let bytes: &mut [u8; SUPERBLOCK_SIZE] = &mut self.0;
        transmute_mut!(bytes)
    }
}

impl SuperBuf {
    /// All zero.
    pub fn zeroed() -> Result<Self> {
        Ok(Self(KBox::zeroed(GFP_KERNEL)?))
    }

    /// A copy.
    pub fn try_clone(&self) -> Result<Self> {
        let mut copy = Self::zeroed()?;
        copy.0.copy_from_slice(self.bytes());
        Ok(copy)
    }

    /// The bytes as they are on disk.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// The type of the checksum, if it is known.
    fn checksum_type(&self) -> Option<ChecksumType> {
        ChecksumType::new(self.csum_type.get())
    }

    /// What the checksum covers.
    fn covered(&self) -> &[u8] {
        self.bytes().get(CSUM_FIELD..).unwrap_or(&[])
    }

    fn has_good_csum(&self) -> bool {
        self.checksum_type()
            .is_some_and(|kind| kind.stored(&self.csum).matches(self.covered()))
    }

    /// Makes this the copy at `physical` and computes the checksum.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the type of the checksum is not known.
    fn seal(&mut self, physical: u64) -> Result {
        self.bytenr = physical.into();
        let kind = self.checksum_type().ok_or(EINVAL)?;
        self.csum = *kind.of(self.covered()).field();
        Ok(())
    }

    /// Puts the roots of a commit in the place of the oldest backup, or of the one that has the
    /// same generation.
    pub fn set_backup(&mut self, backup: &RootBackup) {
        let newest = self
            .super_roots
            .iter()
            .enumerate()
            .max_by_key(|(_, root)| root.tree_root_gen.get());
        let slot = match newest {
            Some((slot, root)) if root.tree_root_gen == backup.tree_root_gen => slot,
            Some((slot, root)) if root.tree_root_gen.get() != 0 => {
                slot.saturating_add(1) % BACKUP_ROOTS
            }
            _ => 0,
        };
        if let Some(place) = self.super_roots.get_mut(slot) {
            *place = *backup;
        }
    }

    /// The volume's UUID.
    pub fn fsid(&self) -> &[u8; 16] {
        &self.fsid
    }

    /// The label, without what is after its end.
    pub fn label(&self) -> &[u8] {
        self.label.split(|byte| *byte == 0).next().unwrap_or(&[])
    }

    /// What chunks are held against.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a sector size that is not a power of two.
    pub fn chunk_limits(&self) -> Result<ChunkLimits> {
        Ok(ChunkLimits {
            sectorsize: BlockSize::new(self.sectorsize.get()).ok_or(EINVAL)?,
            devid: self.dev_item.devid.get(),
            dev_uuid: self.dev_item.uuid,
            device_bytes: self.dev_item.total_bytes.get(),
        })
    }
}

/// What is found where a superblock should be.
enum Copy {
    Good(SuperBuf),
    /// The magic is there, all else is not to be trusted.
    Damaged {
        csum_type: u16,
    },
    NotBtrfs,
}

fn read_copy(device: &dyn BlockDevice, physical: u64) -> Result<Copy> {
    let mut sb = SuperBuf::zeroed()?;
    device.read(physical, sb.0.as_mut_slice())?;
    if sb.magic.get() != MAGIC {
        return Ok(Copy::NotBtrfs);
    }
    if !sb.has_good_csum() {
        return Ok(Copy::Damaged {
            csum_type: sb.csum_type.get(),
        });
    }
    if sb.bytenr.get() != physical {
        let found = sb.bytenr.get();
        fs_warn!(device, "super offset mismatch {} != {}", found, physical);
        return Ok(Copy::NotBtrfs);
    }
    Ok(Copy::Good(sb))
}

/// Whether a device of so many bytes has the copy.
fn exists(physical: u64, device_bytes: u64) -> bool {
    physical
        .checked_add(SUPERBLOCK_SIZE as u64)
        .is_some_and(|end| end <= device_bytes)
}

/// Reads the newest superblock of the volume on the device, checked by [`validate`].
///
/// The copies after the first count only where that is of btrfs as well, so that wiping the first,
/// as tools do, wipes them all; and where it is good, only those of the same volume. With
/// `ignore_flags` (the option `rescue=ignoresuperflags`) flags of the superblock that are not known
/// are only warned of.
///
/// # Errors
///
/// `EINVAL` and a message if there is no superblock that can be mounted; `EIO`, `ENOMEM`.
pub fn read_newest(device: &dyn BlockDevice, ignore_flags: bool) -> Result<SuperBuf> {
    let mut best: Option<SuperBuf> = None;
    let mut failure: Option<Error> = None;
    for (index, physical) in COPIES.into_iter().enumerate() {
        if !exists(physical, device.size()) {
            break;
        }
        match read_copy(device, physical) {
            Ok(Copy::Good(sb)) => {
                let newer = match &best {
                    None => true,
                    Some(best) => best.fsid == sb.fsid && sb.generation > best.generation,
                };
                if newer {
                    best = Some(sb);
                }
            }
            Ok(Copy::Damaged { csum_type }) if index == 0 => {
                if ChecksumType::new(csum_type).is_some() {
                    fs_err!(device, "superblock checksum mismatch");
                } else {
                    fs_err!(device, "unsupported checksum algorithm: {}", csum_type);
                }
                failure = Some(EINVAL);
            }
            Ok(Copy::NotBtrfs) if index == 0 => {
                fs_err!(device, "no valid FS found");
                return Err(EINVAL);
            }
            Ok(_) => {}
            Err(ENOMEM) => return Err(ENOMEM),
            Err(e) => {
                fs_warn!(device, "unable to read superblock at {}", physical);
                failure = failure.or(Some(e));
            }
        }
    }
    let Some(sb) = best else {
        return Err(failure.unwrap_or_else(|| {
            fs_err!(device, "no valid FS found");
            EINVAL
        }));
    };
    if sb.bytenr.get() != COPIES[0] {
        fs_warn!(
            device,
            "using the superblock at {} of generation {}: files synced after it may be as before",
            sb.bytenr.get(),
            sb.generation.get()
        );
    }
    // What a feature that is not known changes would be taken for damage.
    check_flags(device, &sb, ignore_flags).and(check_features(device, &sb))?;
    if let Err(e) = validate(device, &sb) {
        fs_err!(device, "superblock contains fatal errors");
        return Err(e);
    }
    Ok(sb)
}

/// What is wrong with a copy of the superblock of a mounted volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFault {
    /// The device cannot read it.
    Read,
    /// It is not a superblock, or damaged.
    Damaged,
    /// It is of this commit, where another one is expected.
    Generation(u64, u64),
    /// It could not be mounted.
    Invalid,
}

impl fmt::Display for CopyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CopyFault::Read => write!(f, "cannot be read"),
            CopyFault::Damaged => write!(f, "has bad csum"),
            CopyFault::Generation(found, expected) => {
                write!(f, "has bad generation {found} expect {expected}")
            }
            CopyFault::Invalid => write!(f, "is not valid"),
        }
    }
}

/// Looks at every copy, and returns where those are, in physical bytes, that are not of the commit
/// that `current` is of.
///
/// # Errors
///
/// `ENOMEM`.
pub fn check_copies(
    device: &dyn BlockDevice,
    current: &SuperBlock,
) -> Result<KVec<(u64, CopyFault)>> {
    let mut bad = KVec::new();
    for physical in COPIES {
        if !exists(physical, current.dev_item.total_bytes.get()) {
            break;
        }
        let fault = match read_copy(device, physical) {
            Ok(Copy::Good(sb)) if sb.generation != current.generation => {
                CopyFault::Generation(sb.generation.get(), current.generation.get())
            }
            Ok(Copy::Good(sb)) => match validate(device, &sb) {
                Ok(()) => continue,
                Err(_) => CopyFault::Invalid,
            },
            Ok(_) => CopyFault::Damaged,
            Err(ENOMEM) => return Err(ENOMEM),
            Err(_) => CopyFault::Read,
        };
        bad.push((physical, fault), GFP_KERNEL)?;
    }
    Ok(bad)
}

/// Checks all that can be checked of a superblock alone, whose features are supported; each fault
/// has a message.
///
/// # Errors
///
/// `EINVAL` for what cannot be mounted, `EUCLEAN` for a bad size of the system chunk array.
fn validate(device: &dyn BlockDevice, sb: &SuperBlock) -> Result {
    let sizes = check_sizes(device, sb);
    let roots = check_roots(device, sb);
    sizes.and(roots).and(check_device(device, sb))
}

fn check_flags(device: &dyn BlockDevice, sb: &SuperBlock, ignore: bool) -> Result {
    let refused = sb.flags.get() & !SUPPORTED_FLAGS;
    if refused == 0 {
        return Ok(());
    }
    let name = if refused & super_flags::SEEDING != 0 {
        " (SEEDING)"
    } else {
        ""
    };
    if ignore {
        fs_warn!(
            device,
            "ignoring unrecognized or unsupported super flag {refused:#x}{name}"
        );
        return Ok(());
    }
    fs_err!(
        device,
        "unrecognized or unsupported super flag {refused:#x}{name}"
    );
    Err(EINVAL)
}

fn check_features(device: &dyn BlockDevice, sb: &SuperBlock) -> Result {
    let mut result = Ok(());
    let features = sb.incompat_flags.get();
    let refused = features & !features::INCOMPAT_SUPPORTED;
    if refused != 0 {
        fs_err!(
            device,
            "cannot mount because of unsupported incompat features ({:#x}): {}",
            refused,
            incompat_names(refused)
        );
        result = Err(EINVAL);
    }
    let ro_features = sb.compat_ro_flags.get();
    let needed = compat_ro::FREE_SPACE_TREE_VALID;
    if ro_features & compat_ro::BLOCK_GROUP_TREE != 0
        && (ro_features & needed == 0 || features & incompat::NO_HOLES == 0)
    {
        fs_err!(
            device,
            "block-group-tree feature requires free-space-tree and no-holes"
        );
        result = Err(EINVAL);
    }
    result
}

/// Whether features that a writer must know forbid to write; if so, they are named.
pub fn writing_forbidden(device: &dyn BlockDevice, sb: &SuperBlock) -> bool {
    let refused = sb.compat_ro_flags.get() & !features::COMPAT_RO_SUPPORTED;
    if refused == 0 {
        return false;
    }
    fs_err!(
        device,
        "cannot mount read-write because of unknown compat_ro features ({:#x}): {}",
        refused,
        compat_ro_names(refused)
    );
    true
}

fn check_sizes(device: &dyn BlockDevice, sb: &SuperBlock) -> Result {
    let sectorsize = sb.sectorsize.get();
    let nodesize = sb.nodesize.get();
    let mut result = Ok(());
    if sectorsize != SECTORSIZE {
        fs_err!(
            device,
            "sectorsize {} not supported, only {}",
            sectorsize,
            SECTORSIZE
        );
        result = Err(EINVAL);
    }
    if !nodesize.is_power_of_two() || !(MIN_NODESIZE..=MAX_NODESIZE).contains(&nodesize) {
        fs_err!(device, "invalid nodesize {}", nodesize);
        result = Err(EINVAL);
    }
    if sb.unused_leafsize.get() != nodesize {
        fs_err!(
            device,
            "invalid leafsize {}, should be {}",
            sb.unused_leafsize.get(),
            nodesize
        );
        result = Err(EINVAL);
    }
    if !sb.stripesize.get().is_power_of_two() {
        fs_err!(device, "invalid stripesize {}", sb.stripesize.get());
        result = Err(EINVAL);
    }
    if sb.bytes_used.get() < 6 * u64::from(nodesize) {
        fs_err!(device, "bytes_used is too small {}", sb.bytes_used.get());
        result = Err(EINVAL);
    }
    if sb.sys_chunk_array_size.get() as usize > sb.sys_chunk_array.len() {
        fs_err!(
            device,
            "system chunk array too big {} > {}",
            sb.sys_chunk_array_size.get(),
            sb.sys_chunk_array.len()
        );
        result = result.and(Err(EUCLEAN));
    }
    result
}

fn check_roots(device: &dyn BlockDevice, sb: &SuperBlock) -> Result {
    let mut result = Ok(());
    for (name, bytenr, level) in [
        ("tree_root", sb.root, sb.root_level),
        ("chunk_root", sb.chunk_root, sb.chunk_root_level),
        ("log_root", sb.log_root, sb.log_root_level),
    ] {
        if level >= MAX_LEVEL {
            fs_err!(device, "{} level too big: {} >= {}", name, level, MAX_LEVEL);
            result = Err(EINVAL);
        }
        if bytenr.get() % u64::from(SECTORSIZE) != 0 {
            fs_err!(device, "{} block unaligned: {}", name, bytenr.get());
            result = Err(EINVAL);
        }
    }
    if sb.root.get() == 0 {
        fs_err!(device, "invalid superblock tree root bytenr");
        result = Err(EINVAL);
    }
    if sb.generation < sb.chunk_root_generation {
        fs_warn!(
            device,
            "suspicious: generation < chunk_root_generation: {} < {}",
            sb.generation.get(),
            sb.chunk_root_generation.get()
        );
    }
    result
}

fn check_device(device: &dyn BlockDevice, sb: &SuperBlock) -> Result {
    let mut result = Ok(());
    // How many there are the chunk tree knows; that count decides.
    if sb.num_devices.get() == 0 {
        fs_err!(device, "number of devices is 0");
        result = Err(EINVAL);
    }
    if sb.dev_item.fsid != sb.fsid {
        fs_err!(device, "dev_item UUID does not match metadata fsid");
        result = Err(EINVAL);
    }
    let used = sb.dev_item.total_bytes.get();
    if used > device.size() {
        fs_err!(
            device,
            "device total_bytes should be at most {} but found {}",
            device.size(),
            used
        );
        result = Err(EINVAL);
    }
    if sb.total_bytes.get() < used {
        fs_err!(
            device,
            "super_total_bytes {} mismatch with the device's {}",
            sb.total_bytes.get(),
            used
        );
        result = Err(EINVAL);
    }
    result
}

/// Writes the first copy alone, past the device's cache: it says where a log is, which only
/// those who read the first copy find.
///
/// # Errors
///
/// That of writing.
pub fn write_primary(device: &dyn BlockDevice, sb: &mut SuperBuf) -> Result {
    let physical = COPIES[0];
    sb.seal(physical)?;
    device.write_fua(physical, sb.bytes())
}

/// Writes every copy. What it refers to must be durable before, which takes a flush.
///
/// # Errors
///
/// That of writing the first copy; a failure of another one is a warning.
pub fn write_copies(device: &dyn BlockDevice, sb: &mut SuperBuf) -> Result {
    let device_bytes = sb.dev_item.total_bytes.get();
    for (index, physical) in COPIES.into_iter().enumerate() {
        if !exists(physical, device_bytes) {
            break;
        }
        sb.seal(physical)?;
        match device.write_fua(physical, sb.bytes()) {
            Ok(()) => {}
            Err(e) if index == 0 => {
                fs_err!(
                    device,
                    "error writing primary super block, error {}",
                    e.to_errno()
                );
                return Err(e);
            }
            Err(e) => {
                fs_warn!(
                    device,
                    "error writing super block at {}, error {}",
                    physical,
                    e.to_errno()
                );
            }
        }
    }
    Ok(())
}
