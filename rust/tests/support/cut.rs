// SPDX-License-Identifier: GPL-2.0
//! Power cuts at every point of what was recorded.

use super::every::every;
use rbtrfs_testdev::{MemDevice, RecordingDevice};

/// Some of the writes that were not flushed: another half of them for each seed.
fn half(seed: u64) -> impl FnMut(usize) -> bool {
    let mut random = seed;
    move |_| {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        random >> 63 == 0
    }
}

/// Calls `judge` with `images` images that a power cut may leave, for each number of events after
/// which it may come: what was not flushed is lost but for one half or another, and for more than
/// two images, all of it is lost, or all reached the disk all the same. Returns the number of
/// places, which is one more than there are events.
pub fn every_cut(
    device: &RecordingDevice,
    images: u64,
    judge: impl Fn(u64, &MemDevice) + Sync,
) -> u64 {
    let events = device.events().len() as u64;
    let places = every("cut after event", |n| {
        if n > events {
            return false;
        }
        for image in 0..images {
            let image = match image {
                2 => device.cut_with(n as usize, |_| false),
                3 => device.cut_with(n as usize, |_| true),
                _ => device.cut_with(n as usize, half(n * 2 + image)),
            };
            judge(n, &image);
        }
        true
    });
    assert_eq!(places, events + 1);
    places
}
