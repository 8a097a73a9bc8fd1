// SPDX-License-Identifier: GPL-2.0
//! No pin outlives a batch: nothing is held while a reader waits for user space.

use crate::files::*;
use crate::stops::*;
use kernel::prelude::*;
use rbtrfs_engine::send::flags;
use rbtrfs_engine::subvol::tree_search::{search, Found, SearchKey};
use rbtrfs_engine::subvol::write::{preallocate, truncate};
use rbtrfs_engine::volume::{Fs, ReadSession};
use rbtrfs_testdev::recorded;
use zerocopy::FromZeros;

/// Uses 256 MiB and frees them, each in a commit of its own, `rounds` times.
fn churn(fs: &Fs, rounds: usize) -> Result {
    let id = match lookup(fs, ROOT, "churn")? {
        Some(id) => id,
        None => file(fs, ROOT, "churn")?,
    };
    for round in 0..rounds {
        let size = 256 << 20;
        preallocate(fs, id, 0, size, size, now())?;
        fs.commit()?;
        truncate(fs, id, 0, now())?;
        fs.commit()?;
        let pinned: u64 = fs.usages().unwrap().iter().map(|sum| sum.pinned).sum();
        assert!(pinned <= 300 << 20, "{pinned} bytes in round {round}");
    }
    Ok(())
}

#[test]
fn what_is_freed_beside_a_held_send_is_used_again() {
    let volume = Volume::recorded("full");
    let mut streams = recorded::streams("full");
    streams.retain(|stream| stream.flags & flags::NO_FILE_DATA == 0);
    let wanted = streams.iter().max_by_key(|stream| stream.size).unwrap();
    let (_, steps) = volume.send_alone(&wanted.args());
    // The last step is a write.
    let (stream, _) = volume
        .send(&wanted.args(), steps, |fs| churn(fs, 20).unwrap())
        .unwrap();
    assert!(is_recorded(&stream, wanted));
}

/// All recorded streams, the sink of which fails if a commit is held.
#[test]
fn no_send_holds_a_commit_while_it_writes() {
    for name in recorded::names() {
        let volume = Volume::recorded(&name);
        for wanted in recorded::streams(&name) {
            let (stream, _) = volume.send_alone(&wanted.args());
            assert!(is_recorded(&stream, &wanted), "{name} {}", wanted.name);
        }
    }
}

/// A search whose caller changes the volume whenever it is handed items: it goes on after the last
/// one of them.
#[test]
fn a_tree_search_holds_no_commit_while_items_are_handed_out() {
    let volume = Volume::recorded("full");
    let fs = &volume.fs;
    let streams = recorded::streams("full");
    let tree = streams.iter().max_by_key(|s| s.size).unwrap().root;
    let mut key = SearchKey::new_zeroed();
    (key.max_objectid, key.max_offset, key.max_transid) = (u64::MAX, u64::MAX, u64::MAX);
    (key.max_type, key.nr_items) = (255, u32::MAX);
    let all = |change: bool| {
        let session = ReadSession::new(fs.reader().unwrap());
        let mut bytes = vec![];
        let mut calls = 0;
        let found = search(&session, tree, &key, 16 << 20, &mut |offset, part| {
            assert_eq!(fs.epochs.oldest(), None, "a commit is held");
            assert_eq!(offset, bytes.len() as u64);
            bytes.extend_from_slice(part);
            calls += 1;
            if change {
                churn(fs, 1)?;
            }
            Ok(())
        });
        let Ok(Found::Items(count)) = found else {
            panic!("{found:?}");
        };
        (bytes, count, calls)
    };
    let alone = all(false);
    assert!(alone.2 > 1, "{} batches", alone.2);
    assert_eq!(all(true), alone);
}
