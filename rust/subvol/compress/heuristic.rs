// SPDX-License-Identifier: GPL-2.0
//! Whether a piece of data is worth compressing, by a sample of its bytes.
//!
//! The rules and their limits are those of the C driver (`btrfs_compress_heuristic`), so that both
//! compress the same data. This asks for each piece of its own; the C driver also asks once for all
//! that it writes at a time, and takes the answer of the first piece for the others.

use crate::sort::sort_by;
use kernel::prelude::*;

/// So many bytes in a row are sampled.
const SAMPLE: usize = 16;

/// From the start of one sample to that of the next, in bytes.
const INTERVAL: usize = 256;

/// Data with fewer different bytes than this is text, or like it.
const FEW_VALUES: usize = 64;

/// If so many of the most frequent values make up nine tenths, the rest is rare.
const SMALL_CORE: usize = 64;

/// If it takes so many, all are about as frequent.
const LARGE_CORE: usize = 200;

/// In per cent of what random bytes have: below this data is compressed.
const HIGH_ENTROPY: u64 = 80;

/// The entropy of random bytes: eight bits, each of which counts four times.
const RANDOM: u64 = 8 * 4;

/// Looks at samples. The counts are a kilobyte, which is too much for the stack.
pub struct Heuristic {
    /// How often each value is in the sample; in [`Self::core`], the most frequent first.
    counts: KVec<u32>,
    /// The size of the sample in bytes.
    bytes: u32,
}

impl Heuristic {
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Self> {
        Ok(Self {
            counts: KVec::zeroed(256, GFP_KERNEL | __GFP_NOWARN)?,
            bytes: 0,
        })
    }

    /// Whether data is worth compressing.
    pub fn is_compressible(&mut self, data: &[u8]) -> bool {
        if repeats(data) {
            return true;
        }
        self.count(data);
        if self.values() < FEW_VALUES {
            return true;
        }
        match self.core() {
            ..=SMALL_CORE => true,
            LARGE_CORE.. => false,
            _ => self.entropy() < HIGH_ENTROPY,
        }
    }

    fn count(&mut self, data: &[u8]) {
        self.counts.fill(0);
        self.bytes = 0;
        for byte in sampled(data) {
            if let Some(count) = self.counts.get_mut(usize::from(byte)) {
                *count = count.saturating_add(1);
                self.bytes = self.bytes.saturating_add(1);
            }
        }
    }

    /// How many values there are.
    fn values(&self) -> usize {
        self.counts.iter().filter(|count| **count != 0).count()
    }

    /// How many of the most frequent values make up nine tenths of the sample.
    fn core(&mut self) -> usize {
        let most = u64::from(self.bytes).saturating_mul(90) / 100;
        sort_by(&mut self.counts, |a, b| b.cmp(a));
        let mut sum = 0u64;
        let counted = self.counts.iter().take_while(|count| {
            sum = sum.saturating_add(u64::from(**count));
            sum <= most
        });
        counted.count()
    }

    /// The entropy of the values, in per cent of what random bytes have. Logarithms are whole
    /// numbers, of the fourth powers, so that a quarter of a bit counts.
    fn entropy(&self) -> u64 {
        let log = |n: u32| u64::from(u64::from(n).saturating_pow(4).checked_ilog2().unwrap_or(0));
        let all = log(self.bytes);
        let sum = self.counts.iter().fold(0u64, |sum, count| {
            let bits = all.saturating_sub(log(*count));
            sum.saturating_add(u64::from(*count).saturating_mul(bits))
        });
        let mean = sum.checked_div(u64::from(self.bytes)).unwrap_or(0);
        mean.saturating_mul(100) / RANDOM
    }
}

/// The bytes of the sample.
fn sampled(data: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let samples = data.chunks(INTERVAL).filter_map(|part| part.get(..SAMPLE));
    samples.flatten().copied()
}

/// Whether the second half of the sample is as the first.
fn repeats(data: &[u8]) -> bool {
    let half = sampled(data).count() / 2;
    sampled(data)
        .take(half)
        .eq(sampled(data).skip(half).take(half))
}
