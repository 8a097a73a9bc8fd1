// SPDX-License-Identifier: GPL-2.0
//! Data that a commit must not leave behind: that of a file which was truncated to 0 and written
//! anew.

use crate::files::*;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::subvol::write::{truncate, InodeId};
use rbtrfs_engine::trans::Reserve;
use rbtrfs_engine::volume::{BeforeCommit, Fs};
use rbtrfs_testdev::MemDevice;
use std::sync::Mutex;
use std::vec::Vec;

/// Stands in for the page cache: what is dirty in a file.
struct Dirty {
    fs: Fs,
    id: InodeId,
    data: Mutex<Option<Vec<u8>>>,
}

impl BeforeCommit for Dirty {
    fn write_back(&self) {
        if let Some(data) = self.data.lock().unwrap().take() {
            fill(&self.fs, self.id, &data).unwrap();
        }
    }
}

/// What a file with contents `old` has after a power cut if it is truncated to 0 and `new` waits in
/// memory when `end` ends the transaction.
fn after(old: &[u8], new: &[u8], end: impl FnOnce(&Fs, u64)) -> Vec<u8> {
    let scratch = Scratch::new("write-replace");
    let device = share(make_small(&scratch, &[]));
    let fs = open(&device).unwrap();
    let id = file(&fs, ROOT, "file").unwrap();
    fill(&fs, id, old).unwrap();
    fs.commit().unwrap();
    let changed = truncate(&fs, id, 0, now()).unwrap().transid.get();
    let dirty = Dirty {
        fs: Fs::clone(&fs),
        id,
        data: Mutex::new(Some(new.to_vec())),
    };
    fs.set_before_commit(Some(kernel::sync::Arc::new(dirty, GFP_KERNEL).unwrap()));
    end(&fs, changed);
    let cut = share(MemDevice::clone(&device));
    fs.set_before_commit(None);
    drop(fs);
    scratch.assert_clean(&cut);
    read(&open(&cut).unwrap(), id).unwrap()
}

#[test]
fn a_commit_takes_along_what_replaces_a_file() {
    for len in [3, 5000, 300_000] {
        let (old, new) = (pattern(len, 1), pattern(len, 2));
        // Nothing was committed: all is as it was.
        assert!(after(&old, &new, |_, _| ()) == old);
        assert!(after(&old, &new, |fs, _| fs.commit().unwrap()) == new);
        // As an fsync of another file does it.
        assert!(after(&old, &new, |fs, transid| fs.commit_up_to(transid).unwrap()) == new);
        // What is in an older transaction is on disk, and nothing is committed for it.
        assert!(
            after(&old, &new, |fs, transid| fs
                .commit_up_to(transid - 1)
                .unwrap())
                == old
        );
        // A transaction of its own ends the one that runs.
        assert!(
            after(&old, &new, |fs, _| fs
                .begin(Reserve::default())
                .unwrap()
                .cancel())
                == new
        );
    }
}
