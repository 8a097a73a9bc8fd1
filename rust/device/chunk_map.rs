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
    /// `EUCLEAN` and a message for nonsense, `EINVAL` and a message for chunks that need other devices.
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

    /// Adds a chunk item of the chunk tree while a volume is opened. One that the system chunk array had
    /// must be the same.
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
        ranges.sort_unstable();
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
