// SPDX-License-Identifier: GPL-2.0
//! Parsers alone, with bytes of any length: what items, streams of compressed data and lists within
//! items may be.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rbtrfs_engine::format::{item_type, BlockSize, Key};
use rbtrfs_engine::subvol::decompress::decompress;
use rbtrfs_engine::subvol::file_extent;
use rbtrfs_engine::subvol::{dir, inode};

const SECTORSIZE: BlockSize = BlockSize::new(4096).unwrap();

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    match kind % 4 {
        0 => {
            for entry in dir::Entries::new(data) {
                if entry.is_err() {
                    break;
                }
            }
        }
        1 => {
            for typ in [item_type::INODE_REF, item_type::INODE_EXTREF] {
                let key = Key::new(257, typ, 256);
                let _ = inode::names_of_item(&key, data, &mut |_| Ok(true));
            }
        }
        2 => {
            let key = Key::new(257, item_type::EXTENT_DATA, 4096);
            let _ = file_extent::parse(&key, data, SECTORSIZE);
        }
        _ => {
            let mut out = vec![0; 128 << 10];
            for compression in 0..4 {
                let _ = decompress(compression, data, &mut out, SECTORSIZE);
            }
        }
    }
});
