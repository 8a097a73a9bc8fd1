// SPDX-License-Identifier: GPL-2.0
//! What a scrub counts where nothing is wrong.

use crate::places::*;
use crate::support::*;
use rbtrfs_engine::scrub::ScrubArgs;
use rbtrfs_engine::state::ScrubProgress;
use rbtrfs_testdev::RecordingDevice;

#[test]
fn all_that_is_allocated_is_read_and_nothing_is_written() {
    for (number, options) in KINDS.iter().enumerate() {
        let scratch = Scratch::new(&format!("scrub-counters-{number}"));
        let device = share(RecordingDevice::new(make_mem(&scratch, options)));
        let fs = open(&device).unwrap();
        let written = device.events().len();
        let found = run_all(&fs, &EVERYTHING);
        let (data, blocks) = allocated(&fs);
        assert!(data > 0 && blocks > 0);
        assert_eq!(
            (found.data_bytes_scrubbed, found.tree_bytes_scrubbed),
            (data, blocks)
        );
        let last = fs.chunk_map();
        let last = last.iter().flat_map(|chunk| {
            let length = chunk.length;
            chunk.stripes().map(move |start| start + length)
        });
        let expected = ScrubProgress {
            data_extents_scrubbed: found.data_extents_scrubbed,
            tree_extents_scrubbed: blocks / u64::from(fs.geometry.nodesize),
            data_bytes_scrubbed: data,
            tree_bytes_scrubbed: blocks,
            last_physical: last.max().unwrap(),
            ..ScrubProgress::default()
        };
        assert_eq!(found, expected, "{options:?}");
        assert_eq!(fs.stats.get(), [0; 5]);
        assert_eq!(device.events().len(), written);
    }
}

#[test]
fn nothing_beyond_the_end_is_looked_at() {
    let (_scratch, _image, fs) = volume("scrub-end", DUP);
    let whole = run_all(&fs, &EVERYTHING);
    let chunks = fs.chunk_map();
    let last = chunks
        .iter()
        .flat_map(|chunk| chunk.stripes())
        .max()
        .unwrap();
    let mut sum = ScrubProgress::default();
    for (start, end) in [(0, last), (last, u64::MAX)] {
        let args = ScrubArgs {
            start,
            end,
            ..EVERYTHING
        };
        let part = run_all(&fs, &args);
        sum.data_bytes_scrubbed += part.data_bytes_scrubbed;
        sum.tree_bytes_scrubbed += part.tree_bytes_scrubbed;
        sum.data_extents_scrubbed += part.data_extents_scrubbed;
        sum.tree_extents_scrubbed += part.tree_extents_scrubbed;
        sum.last_physical = part.last_physical;
    }
    assert_eq!(sum, whole);
    let beyond = ScrubArgs {
        start: fs.device.size(),
        ..EVERYTHING
    };
    let nothing = ScrubProgress {
        last_physical: fs.device.size(),
        ..ScrubProgress::default()
    };
    assert_eq!(run_all(&fs, &beyond), nothing);
}
