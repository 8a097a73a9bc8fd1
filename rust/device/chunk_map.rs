// SPDX-License-Identifier: GPL-2.0
//! The map from logical to physical addresses.

use super::chunk::{item_size, Chunk, ChunkLimits, Fault, Origin};
use super::BlockDevice;
use crate::format::{read_at, slice, DiskKey, Key};
use crate::fs_err;
use kernel::prelude::*;

/// All chunks of the volume. It never changes: chunks come and go by a new map in its place.
#[derive(Debug)]
pub struct ChunkMap {
    /// By logical address, without overlap.
    chunks: KVVec<Chunk>,
}

/// Where the copies of a range are, in physical bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirrors {
    first: u64,
    second: Option<u64>,
}

impl Mirrors {
    /// The first copy.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The number of copies, 1 or 2.
    pub fn count(&self) -> u32 {
        if self.second.is_some() {
            2
        } else {
            1
        }
    }

    /// A copy by the number that messages have for it, from 1 on.
    pub fn get(&self, mirror: u32) -> Option<u64> {
        match mirror {
            1 => Some(self.first),
            2 => self.second,
            _ => None,
        }
    }

    /// All copies.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        [Some(self.first), self.second].into_iter().flatten()
    }
}

impl ChunkMap {
    /// A map without chunks.
    pub const fn new() -> Self {
        Self {
            chunks: KVVec::new(),
        }
    }

    /// The system chunks in the superblock, by which the chunk tree is found.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` and a message for nonsense, `EINVAL` and a message for chunks that need other
    /// devices.
    pub fn from_sys_array(
        device: &dyn BlockDevice,
        array: &[u8],
        limits: &ChunkLimits,
    ) -> Result<Self> {
        let mut map = Self::new();
        let mut at = 0usize;
        while at < array.len() {
            let Some((key, item)) = sys_array_entry(array, at) else {
                fs_err!(
                    device,
                    "super block sys chunk array short read, cur={} sys_array_size={}",
                    at,
                    array.len()
                );
                return Err(EUCLEAN);
            };
            let checked = Chunk::parse(&key, item, limits).and_then(|chunk| {
                use crate::format::chunk::block_group_flags::SYSTEM;
                if chunk.flags & SYSTEM == 0 {
                    return Err(Fault::Type(chunk.flags));
                }
                Ok(chunk)
            });
            let report = |fault: Fault| fault.report(device, Origin::SysArray, key.offset);
            map.add(checked.map_err(report)?)?.map_err(report)?;
            at = at
                .saturating_add(size_of::<DiskKey>())
                .saturating_add(item.len());
        }
        Ok(map)
    }

    /// Adds a chunk item of the chunk tree while a volume is opened. One that the system chunk
    /// array had must be the same.
    ///
    /// # Errors
    ///
    /// As [`Self::from_sys_array`], and `ENOMEM`.
    pub fn add_item(
        &mut self,
        device: &dyn BlockDevice,
        origin: Origin,
        key: &Key,
        bytes: &[u8],
        limits: &ChunkLimits,
    ) -> Result {
        let report = |fault: Fault| fault.report(device, origin, key.offset);
        let chunk = Chunk::parse(key, bytes, limits).map_err(report)?;
        match self.lookup(chunk.logical) {
            Some(known) if known.logical == chunk.logical => {
                if *known != chunk {
                    return Err(report(Fault::SysArray));
                }
                Ok(())
            }
            _ => self.add(chunk)?.map_err(report),
        }
    }

    /// Puts a chunk in its place. The inner result tells whether there is one.
    fn add(&mut self, chunk: Chunk) -> Result<core::result::Result<(), Fault>> {
        let at = self.position(chunk.logical);
        let before = at.checked_sub(1).and_then(|i| self.chunks.get(i));
        if let Some(before) = before.filter(|before| before.end() > chunk.logical) {
            return Ok(Err(Fault::Overlap(before.logical)));
        }
        if let Some(after) = self.chunks.get(at).filter(|c| c.logical < chunk.end()) {
            return Ok(Err(Fault::Overlap(after.logical)));
        }
        self.chunks.reserve(1, GFP_KERNEL)?;
        self.chunks.insert_within_capacity(at, chunk)?;
        Ok(Ok(()))
    }

    /// The index of the first chunk that starts above `logical`, where one at `logical` belongs.
    fn position(&self, logical: u64) -> usize {
        self.chunks
            .partition_point(|chunk| chunk.logical <= logical)
    }

    /// Checks that no two copies share a part of the device.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` and a message if some do, `ENOMEM`.
    pub fn check_device_ranges(&self, device: &dyn BlockDevice) -> Result {
        let mut ranges: KVVec<(u64, u64, u64)> =
            KVVec::with_capacity(self.chunks.len().saturating_mul(2), GFP_KERNEL)?;
        for chunk in &self.chunks {
            for start in chunk.stripes() {
                let end = start.saturating_add(chunk.length);
                ranges.push((start, end, chunk.logical), GFP_KERNEL)?;
            }
        }
        crate::sort::sort(&mut ranges);
        for pair in ranges.windows(2) {
            if let [(_, end, one), (start, _, other)] = pair {
                if start < end {
                    let fault = Fault::PhysicalOverlap(*one);
                    fs_err!(
                        device,
                        "corrupt chunk tree: chunk_start={}, {}",
                        other,
                        fault
                    );
                    return Err(fault.errno());
                }
            }
        }
        Ok(())
    }

    /// The chunk that has the logical address.
    pub fn lookup(&self, logical: u64) -> Option<&Chunk> {
        let at = self.position(logical).checked_sub(1)?;
        self.chunks.get(at).filter(|chunk| chunk.contains(logical))
    }

    /// Where the copies of `len` bytes at `logical` are.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if the range does not lie within one chunk: what refers to it is corrupt.
    pub fn mirrors(&self, logical: u64, len: u64) -> Result<Mirrors> {
        let chunk = self.lookup(logical).ok_or(EUCLEAN)?;
        let offset = logical.checked_sub(chunk.logical).ok_or(EUCLEAN)?;
        let end = offset.checked_add(len).ok_or(EUCLEAN)?;
        if end > chunk.length {
            return Err(EUCLEAN);
        }
        let physical = |start: u64| start.checked_add(offset).ok_or(EUCLEAN);
        Ok(Mirrors {
            first: physical(chunk.first)?,
            second: chunk.second.map(physical).transpose()?,
        })
    }

    /// All chunks by logical address.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Chunk> {
        self.chunks.iter()
    }

    /// The number of chunks.
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Whether there are no chunks.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The map with one chunk more.
    ///
    /// # Errors
    ///
    /// `EEXIST` if another chunk has a part of its addresses, `ENOMEM`.
    pub fn with(&self, chunk: Chunk) -> Result<ChunkMap> {
        let mut chunks = KVVec::with_capacity(self.chunks.len().saturating_add(1), GFP_KERNEL)?;
        chunks.extend_from_slice(&self.chunks, GFP_KERNEL)?;
        let mut map = ChunkMap { chunks };
        map.add(chunk)?.map_err(|_| EEXIST)?;
        Ok(map)
    }

    /// The map without the chunk that starts at `logical`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if none does, `ENOMEM`.
    pub fn without(&self, logical: u64) -> Result<ChunkMap> {
        let mut chunks = KVVec::with_capacity(self.chunks.len(), GFP_KERNEL)?;
        for chunk in self.chunks.iter().filter(|chunk| chunk.logical != logical) {
            chunks.push(*chunk, GFP_KERNEL)?;
        }
        if chunks.len() == self.chunks.len() {
            return Err(ENOENT);
        }
        Ok(ChunkMap { chunks })
    }
}

impl Default for ChunkMap {
    fn default() -> Self {
        Self::new()
    }
}

/// The key and chunk item `at` bytes into a system chunk array.
pub fn sys_array_entry(array: &[u8], at: usize) -> Option<(Key, &[u8])> {
    type Item = crate::format::chunk::Chunk;
    let key: DiskKey = read_at(array, at).ok()?;
    let at = at.checked_add(size_of::<DiskKey>())?;
    let item: Item = read_at(array, at).ok()?;
    let size = item_size(item.num_stripes.get())?;
    Some((key.into(), slice(array, at, size).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::chunk::{block_group_flags as flags, Stripe, STRIPE_LEN};
    use crate::format::{item_type, objectid, BlockSize};
    use std::vec::Vec;
    use zerocopy::{FromZeros, IntoBytes};

    type Item = crate::format::chunk::Chunk;

    const MIB: u64 = 1 << 20;

    const LIMITS: ChunkLimits = ChunkLimits {
        sectorsize: BlockSize::new(4096).unwrap(),
        devid: 1,
        dev_uuid: [7; 16],
        device_bytes: 64 * MIB,
    };

    struct NoDevice;

    impl BlockDevice for NoDevice {
        fn name(&self) -> &str {
            "none"
        }
        fn size(&self) -> u64 {
            64 * MIB
        }
        fn read(&self, _: u64, _: &mut [u8]) -> Result {
            Err(EIO)
        }
        fn write(&self, _: u64, _: &[u8]) -> Result {
            Err(EIO)
        }
        fn write_fua(&self, _: u64, _: &[u8]) -> Result {
            Err(EIO)
        }
        fn flush(&self) -> Result {
            Err(EIO)
        }
        fn discard(&self, _: u64, _: u64) -> Result {
            Err(EIO)
        }
    }

    fn key(logical: u64) -> Key {
        Key::new(objectid::FIRST_CHUNK_TREE, item_type::CHUNK_ITEM, logical)
    }

    fn item(length: u64, flags: u64, stripes: &[u64]) -> (Item, Vec<Stripe>) {
        let mut item = Item::new_zeroed();
        item.length = length.into();
        item.typ = flags.into();
        item.stripe_len = STRIPE_LEN.into();
        item.sector_size = 4096.into();
        item.num_stripes = (stripes.len() as u16).into();
        let stripes = stripes.iter().map(|offset| Stripe {
            devid: 1.into(),
            offset: (*offset).into(),
            dev_uuid: [7; 16],
        });
        (item, stripes.collect())
    }

    fn bytes((item, stripes): &(Item, Vec<Stripe>)) -> Vec<u8> {
        let mut bytes = item.as_bytes().to_vec();
        for stripe in stripes {
            bytes.extend_from_slice(stripe.as_bytes());
        }
        bytes
    }

    fn parse(logical: u64, item: &(Item, Vec<Stripe>)) -> core::result::Result<Chunk, Fault> {
        Chunk::parse(&key(logical), &bytes(item), &LIMITS)
    }

    #[test]
    fn maps_single_and_dup() {
        let mut map = ChunkMap::new();
        let single = parse(8 * MIB, &item(4 * MIB, flags::DATA, &[MIB])).unwrap();
        let dup = item(MIB, flags::METADATA | flags::DUP, &[10 * MIB, 20 * MIB]);
        let dup = parse(MIB, &dup).unwrap();
        for chunk in [single, dup] {
            map.add(chunk).unwrap().unwrap();
        }
        assert_eq!(map.lookup(MIB - 1), None);
        assert_eq!(map.lookup(2 * MIB), None);
        assert_eq!(map.lookup(12 * MIB - 1), Some(&single));
        assert_eq!(map.lookup(12 * MIB), None);

        let mirrors = map.mirrors(MIB + 4096, 4096).unwrap();
        assert_eq!((mirrors.count(), mirrors.first()), (2, 10 * MIB + 4096));
        assert_eq!(mirrors.get(2), Some(20 * MIB + 4096));
        assert_eq!((mirrors.get(0), mirrors.get(3)), (None, None));
        assert_eq!(map.mirrors(9 * MIB, 4096).unwrap().count(), 1);
        assert_eq!(map.mirrors(2 * MIB - 4096, 8192), Err(EUCLEAN));
        assert_eq!(map.mirrors(u64::MAX - 5, u64::MAX), Err(EUCLEAN));
    }

    #[test]
    fn chunks_come_and_go() {
        let map = ChunkMap::new();
        let chunk = |logical| Chunk {
            logical,
            length: MIB,
            flags: flags::DATA,
            first: logical,
            second: None,
        };
        let map = map.with(chunk(4 * MIB)).unwrap();
        let map = map.with(chunk(2 * MIB)).unwrap();
        assert!(map.with(chunk(5 * MIB - 4096)).is_err_and(|e| e == EEXIST));
        assert!(map.with(chunk(2 * MIB - 4096)).is_err_and(|e| e == EEXIST));
        assert!(map.with(chunk(3 * MIB)).is_ok());
        assert!(map.without(3 * MIB).is_err_and(|e| e == ENOENT));
        let map = map.without(4 * MIB).unwrap();
        assert!(map.iter().map(|c| c.logical).eq([2 * MIB]));
    }

    #[test]
    fn nonsense_is_refused() {
        let good = || item(4 * MIB, flags::DATA, &[MIB]);
        assert!(parse(8 * MIB, &good()).is_ok());
        let fault = |logical, change: fn(&mut Item, &mut Vec<Stripe>)| {
            let mut item = good();
            change(&mut item.0, &mut item.1);
            parse(logical, &item).unwrap_err()
        };
        let at = 8 * MIB;
        assert_eq!(fault(at + 1, |_, _| ()), Fault::Logical);
        assert_eq!(fault(at, |c, _| c.length = 0.into()), Fault::Length(0));
        assert_eq!(fault(at, |c, _| c.length = 100.into()), Fault::Length(100));
        let all = u64::MAX - 4095;
        assert_eq!(
            fault(at, |c, _| c.length = (u64::MAX - 4095).into()),
            Fault::Length(all)
        );
        assert_eq!(
            fault(at, |c, _| c.stripe_len = 4096.into()),
            Fault::StripeLen(4096)
        );
        assert_eq!(
            fault(at, |c, _| c.sector_size = 512.into()),
            Fault::SectorSize(512)
        );
        assert_eq!(fault(at, |c, _| c.typ = 0.into()), Fault::Type(0));
        assert_eq!(fault(at, |c, _| c.typ = 5.into()), Fault::Type(5));
        assert_eq!(fault(at, |c, _| c.typ = 0x31.into()), Fault::Type(0x31));
        assert_eq!(fault(at, |c, _| c.typ = 0x11.into()), Fault::Profile(0x11));
        assert_eq!(fault(at, |c, _| c.typ = 0x21.into()), Fault::NumStripes(1));
        assert_eq!(
            fault(at, |c, _| c.num_stripes = 0.into()),
            Fault::ItemSize(80)
        );
        assert_eq!(
            fault(at, |c, _| c.num_stripes = u16::MAX.into()),
            Fault::ItemSize(80)
        );
        assert_eq!(fault(at, |_, s| s.clear()), Fault::ItemSize(48));
        assert_eq!(fault(at, |_, s| s[0].devid = 2.into()), Fault::Device(2));
        assert_eq!(fault(at, |_, s| s[0].dev_uuid[0] = 0), Fault::Device(1));
        let outside = 61 * MIB;
        assert_eq!(
            fault(at, |_, s| s[0].offset = (61 * MIB).into()),
            Fault::Physical(outside)
        );
        assert_eq!(
            fault(at, |_, s| s[0].offset = u64::MAX.into()),
            Fault::Physical(u64::MAX)
        );
        let wrong = Key::new(1, item_type::CHUNK_ITEM, at);
        assert_eq!(
            Chunk::parse(&wrong, &bytes(&good()), &LIMITS),
            Err(Fault::Key(wrong))
        );
    }

    #[test]
    fn ranges_that_overlap_are_refused() {
        let mut map = ChunkMap::new();
        let origin = Origin::SysArray;
        let mut add = |logical, length, physical| {
            let bytes = bytes(&item(length, flags::DATA, &[physical]));
            let (result, log) = kernel::log::capture(|| {
                map.add_item(&NoDevice, origin, &key(logical), &bytes, &LIMITS)
            });
            assert_eq!(result.is_err(), !log.is_empty());
            result
        };
        assert_eq!(add(8 * MIB, 4 * MIB, 0), Ok(()));
        assert_eq!(add(8 * MIB, 4 * MIB, 0), Ok(()), "the same again");
        assert_eq!(add(8 * MIB, 4 * MIB, MIB), Err(EUCLEAN));
        assert_eq!(add(6 * MIB, 4 * MIB, 20 * MIB), Err(EUCLEAN));
        assert_eq!(add(11 * MIB, 4 * MIB, 20 * MIB), Err(EUCLEAN));
        assert_eq!(add(9 * MIB, MIB, 20 * MIB), Err(EUCLEAN));
        assert_eq!(add(12 * MIB, 4 * MIB, 4 * MIB), Ok(()));
        assert_eq!(map.check_device_ranges(&NoDevice), Ok(()));
        let bytes = bytes(&item(MIB, flags::DATA, &[7 * MIB]));
        map.add_item(&NoDevice, origin, &key(32 * MIB), &bytes, &LIMITS)
            .unwrap();
        let (result, log) = kernel::log::capture(|| map.check_device_ranges(&NoDevice));
        assert_eq!(result, Err(EUCLEAN));
        assert!(log[0].contains("overlaps on the device"), "{log:?}");
    }
}
