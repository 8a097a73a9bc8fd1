// SPDX-License-Identifier: GPL-2.0
//! A replay gives what one by the C driver gives.

use crate::listing::listing;
use crate::support::cut::every_cut;
use crate::support::*;
use crate::{captured, mount, recorded, LOGGED};
use kernel::prelude::*;
use rbtrfs_engine::log::{self, Replay};
use rbtrfs_engine::volume::OpenOptions;
use rbtrfs_testdev::{FileDevice, RecordingDevice};
use std::collections::HashSet;
use std::sync::Mutex;

#[test]
fn a_replay_gives_what_the_c_driver_gives() {
    for name in LOGGED {
        let scratch = Scratch::new(name);
        let (image, expected) = recorded(name);
        let device = share(image);
        let generation = {
            let fs = open(&device).unwrap();
            assert!(fs.has_log() && fs.is_read_only(), "{name}");
            fs.generation()
        };
        let fs = mount(&device).unwrap();
        assert_eq!(fs.generation(), generation + 1, "{name}");
        assert!(!fs.has_log() && !fs.is_read_only(), "{name}");
        assert_eq!(listing(&fs), expected, "{name}");
        read_everything(&fs);
        // What the log took can be used again, and nothing that it left is written over.
        cow_everything(&fs);
        cow_everything(&fs);
        assert_eq!(listing(&fs), expected, "{name}");
        drop(fs);
        scratch.assert_clean(&device);
    }
}

#[test]
fn a_volume_that_is_mounted_read_only_is_replayed_as_well() {
    let (image, expected) = recorded(LOGGED[0]);
    let device = share(image);
    let read_only = OpenOptions {
        read_only: true,
        ..OpenOptions::default()
    };
    let (fs, text) = captured(|| log::open(device.clone(), &read_only, Replay::No).unwrap());
    assert!(fs.has_log() && fs.is_read_only());
    assert!(text.contains("what was fsynced last is missing"), "{text}");
    assert_ne!(listing(&fs), expected);
    drop(fs);

    let fs = log::open(device.clone(), &read_only, Replay::Yes).unwrap();
    assert!(!fs.has_log() && fs.is_read_only());
    assert_eq!(listing(&fs), expected);
    assert_eq!(fs.set_read_only(false), Ok(()));
    assert_eq!(fs.check_writable(), Ok(()));
}

#[test]
fn a_log_on_a_device_that_cannot_be_written_is_an_error() {
    let scratch = Scratch::new("log-read-only");
    let path = scratch.path("image");
    recorded(LOGGED[0]).0.write_to(&path).unwrap();
    let device = share(FileDevice::open(&path, false).unwrap());
    let read_only = OpenOptions {
        read_only: true,
        ..OpenOptions::default()
    };
    let (result, text) =
        captured(|| log::open(device.clone(), &read_only, Replay::Yes).map(|_| ()));
    assert_eq!(result, Err(EIO));
    assert!(text.contains("log replay required on RO media"), "{text}");
    assert!(log::open(device, &read_only, Replay::No).is_ok());
}

/// Whatever a power cut leaves, the volume is as before the replay, with its log, or as after it.
#[test]
fn a_replay_that_is_cut_off_is_done_again() {
    for name in LOGGED {
        let scratch = Scratch::new(&format!("{name}-cut"));
        let (image, expected) = recorded(name);
        let device = share(RecordingDevice::new(image.clone()));
        drop(mount(&device).unwrap());
        let seen = Mutex::new(HashSet::new());
        let cuts = every_cut(&device, 4, |_, cut| {
            if !seen.lock().unwrap().insert(cut.fingerprint(&image)) {
                return;
            }
            let device = share(cut.clone());
            let fs = mount(&device).unwrap();
            assert_eq!(listing(&fs), expected);
            read_everything(&fs);
            drop(fs);
            scratch.assert_clean(&device);
        });
        assert!(cuts > 10, "{name}: {cuts}");
    }
}
