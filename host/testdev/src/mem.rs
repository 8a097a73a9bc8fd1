// SPDX-License-Identifier: GPL-2.0
//! An image in memory.

use kernel::error::Result;
use rbtrfs_engine::device::BlockDevice;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, RwLock};

const BLOCK: usize = 4096;

type Block = Arc<[u8; BLOCK]>;

/// A device in memory that takes space only for what is not zero. A clone has the same contents,
/// shares what neither changes, and sees no later change.
pub struct MemDevice {
    name: String,
    size: u64,
    blocks: RwLock<HashMap<u64, Block>>,
}

impl MemDevice {
    /// `size` zeros, which is rounded down to whole blocks of 4096 bytes.
    pub fn new(size: u64) -> Self {
        Self {
            name: "mem".into(),
            size: size - size % BLOCK as u64,
            blocks: RwLock::default(),
        }
    }

    /// A copy of an image in a file.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn from_file(path: impl AsRef<Path>) -> io::Result<Self> {
        use std::io::Read;
        let mut file = std::fs::File::open(path)?;
        let device = Self::new(file.metadata()?.len());
        let mut buf = vec![0; 256 * BLOCK];
        let mut blocks = HashMap::new();
        for start in (0..device.size).step_by(buf.len()) {
            let len = (device.size - start).min(buf.len() as u64) as usize;
            file.read_exact(&mut buf[..len])?;
            let first = start / BLOCK as u64;
            for (index, block) in (first..).zip(buf[..len].chunks_exact(BLOCK)) {
                let block: &[u8; BLOCK] = block.try_into().expect("chunks are of this size");
                if *block != [0; BLOCK] {
                    blocks.insert(index, Arc::new(*block));
                }
            }
        }
        *device.blocks.write().unwrap() = blocks;
        Ok(device)
    }

    /// Writes the image to a file.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn write_to(&self, path: impl AsRef<Path>) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::create(path)?;
        file.set_len(self.size)?;
        for (index, block) in self.blocks.read().unwrap().iter() {
            file.write_all_at(&block[..], index * BLOCK as u64)?;
        }
        Ok(())
    }

    /// One number for all blocks that are not as they are in `base`, and for where they are.
    pub fn fingerprint(&self, base: &MemDevice) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        const ZEROS: &[u8; BLOCK] = &[0; BLOCK];
        let (blocks, base) = (self.blocks.read().unwrap(), base.blocks.read().unwrap());
        let of = |blocks: &HashMap<u64, Block>, index: u64| blocks.get(&index).cloned();
        let mut changed: Vec<_> = blocks
            .iter()
            .filter(|(index, block)| !base.get(index).is_some_and(|was| Arc::ptr_eq(was, block)))
            .map(|(index, _)| *index)
            .chain(
                base.keys()
                    .filter(|index| !blocks.contains_key(index))
                    .copied(),
            )
            .collect();
        changed.sort_unstable();
        let mut hasher = DefaultHasher::new();
        for index in changed {
            let (now, was) = (of(&blocks, index), of(&base, index));
            let (now, was) = (now.as_deref(), was.as_deref());
            if now.unwrap_or(ZEROS) != was.unwrap_or(ZEROS) {
                (index, now.unwrap_or(ZEROS)).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// Inverts all bits of the byte at `offset`, as damage would.
    pub fn flip(&self, offset: u64) {
        let mut byte = [0];
        self.copy_out(offset, &mut byte);
        self.copy_in(offset, &[!byte[0]]);
    }

    /// Copies bytes out, without regard to sectors.
    pub fn copy_out(&self, offset: u64, buf: &mut [u8]) {
        let blocks = self.blocks.read().unwrap();
        for_each_block(offset, buf.len(), |index, within, range| {
            match blocks.get(&index) {
                Some(block) => buf[range].copy_from_slice(&block[within]),
                None => buf[range].fill(0),
            }
        });
    }

    /// Copies bytes in, without regard to sectors.
    pub fn copy_in(&self, offset: u64, buf: &[u8]) {
        let mut blocks = self.blocks.write().unwrap();
        for_each_block(offset, buf.len(), |index, within, range| {
            let block = blocks.entry(index).or_insert_with(|| Arc::new([0; BLOCK]));
            Arc::make_mut(block)[within].copy_from_slice(&buf[range]);
        });
    }
}

impl Clone for MemDevice {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            size: self.size,
            blocks: RwLock::new(self.blocks.read().unwrap().clone()),
        }
    }
}

/// Cuts a range at block boundaries: calls `f` with the block, the range in it, and the range in
/// the buffer.
fn for_each_block(
    offset: u64,
    len: usize,
    mut f: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let within = (at % BLOCK as u64) as usize;
        let n = (BLOCK - within).min(len - done);
        f(at / BLOCK as u64, within..within + n, done..done + n);
        done += n;
    }
}

impl BlockDevice for MemDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result {
        crate::check(offset, buf.len(), self.size)?;
        self.copy_out(offset, buf);
        Ok(())
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result {
        crate::check(offset, buf.len(), self.size)?;
        self.copy_in(offset, buf);
        Ok(())
    }

    fn write_fua(&self, offset: u64, buf: &[u8]) -> Result {
        self.write(offset, buf)
    }

    fn flush(&self) -> Result {
        Ok(())
    }

    fn discard_granularity(&self) -> Option<u64> {
        Some(BLOCK as u64)
    }

    fn discard(&self, offset: u64, len: u64) -> Result {
        crate::check(offset, len as usize, self.size)?;
        let mut blocks = self.blocks.write().unwrap();
        // What is discarded reads as zeros; only whole blocks are.
        let first = offset.div_ceil(BLOCK as u64);
        for index in first..(offset + len) / BLOCK as u64 {
            blocks.remove(&index);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::prelude::EINVAL;

    #[test]
    fn a_clone_sees_no_later_change() {
        let one = MemDevice::new(1 << 20);
        one.write(4096 - 512, &[7; 1024]).unwrap();
        let two = one.clone();
        one.write(4096, &[8; 512]).unwrap();
        let mut buf = [0; 1024];
        two.read(4096 - 512, &mut buf).unwrap();
        assert_eq!(buf, [7; 1024]);
        one.read(4096, &mut buf).unwrap();
        assert_eq!((buf[0], buf[511], buf[512]), (8, 8, 0));
    }

    #[test]
    fn a_fingerprint_is_of_what_differs() {
        let base = MemDevice::new(1 << 20);
        base.write(4096, &[7; 4096]).unwrap();
        let other = base.clone();
        let same = other.fingerprint(&base);
        other.write(8192, &[0; 4096]).unwrap();
        other.write(4096, &[7; 512]).unwrap();
        assert_eq!(other.fingerprint(&base), same);
        other.write(8192, &[8; 512]).unwrap();
        let written = other.fingerprint(&base);
        assert_ne!(written, same);
        other.discard(4096, 4096).unwrap();
        assert!(![same, written].contains(&other.fingerprint(&base)));
    }

    #[test]
    fn only_whole_sectors_within_the_device() {
        let device = MemDevice::new(1 << 20);
        assert_eq!(device.read(100, &mut [0; 512]), Err(EINVAL));
        assert_eq!(device.write(0, &[0; 100]), Err(EINVAL));
        assert_eq!(device.read((1 << 20) - 512, &mut [0; 1024]), Err(EINVAL));
        device.write(8192, &[1; 4096]).unwrap();
        device.discard(8192, 4096).unwrap();
        let mut buf = [1; 512];
        device.read(8192, &mut buf).unwrap();
        assert_eq!(buf, [0; 512]);
    }
}
