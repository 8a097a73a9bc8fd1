// SPDX-License-Identifier: GPL-2.0
//! Snapshots whose leaves were changed at random, with checksums that fit: an end, with or without
//! an error.

use super::*;
use rbtrfs_engine::format::crc::checksum;
use rbtrfs_engine::format::header::{HEADER_SIZE, ITEM_SIZE};
use rbtrfs_engine::format::Key;

/// Where the leaves of a tree are, in bytes, by logical address.
fn leaves(fs: &Fs, tree: u64) -> Vec<u64> {
    let reader = fs.reader().unwrap();
    let mut cursor = reader.cursor(reader.root(tree).unwrap());
    let mut leaves = Vec::new();
    cursor.seek(&Key::MIN).unwrap();
    while cursor.item().is_some() {
        let leaf = cursor.node_at(0).unwrap().bytenr();
        if leaves.last() != Some(&leaf) {
            leaves.push(leaf);
        }
        cursor.next().unwrap();
    }
    leaves
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (self.0 >> 33) as usize % bound
    }
}

/// Changes a byte of an item's data, or the last bytes of an item's key, where small numbers are.
fn change(block: &mut [u8], random: &mut Random) {
    let count = u32::from_le_bytes(block[96..100].try_into().unwrap()) as usize;
    let head = HEADER_SIZE + random.below(count) * ITEM_SIZE;
    let field = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap()) as usize;
    let (start, size) = (HEADER_SIZE + field(head + 17), field(head + 21));
    let small = random.below(64) as u8;
    if size == 0 || random.below(4) == 0 {
        block[head + 9] = small;
    } else {
        // Whole numbers are more telling than single bits.
        let at = start + random.below(size);
        block[at] = match random.below(3) {
            0 => small,
            1 => block[at].wrapping_add(1),
            _ => block[at] ^ (1 << random.below(8)),
        };
    }
    let sum = checksum(&block[32..]);
    block[..4].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn changed_leaves() {
    let Subject { volume, wanted } = changes::richest();
    let fs = open(Arc::new(volume.clone(), GFP_KERNEL).unwrap()).unwrap();
    let good = stream_of(&fs, &wanted.args()).unwrap();
    let mut places = leaves(&fs, wanted.root);
    places.extend(leaves(&fs, wanted.parent.unwrap()));
    let (mut same, mut other, mut failed) = (0, 0, 0);
    for seed in 0..400 {
        let mut random = Random(seed);
        let image = volume.clone();
        for _ in 0..1 + random.below(4) {
            let leaf = places[random.below(places.len())];
            let physical = fs.chunk_map().mirrors(leaf, 4096).unwrap().first();
            let mut block = [0; BLOCK];
            image.read(physical, &mut block).unwrap();
            change(&mut block, &mut random);
            image.copy_in(physical, &block);
        }
        let changed = open(Arc::new(image, GFP_KERNEL).unwrap()).unwrap();
        let (result, log) = kernel::log::capture(|| stream_of(&changed, &wanted.args()));
        match result {
            Ok(stream) if stream == good => same += 1,
            Ok(stream) => {
                other += 1;
                assert!(stream.len() < 64 << 20, "seed {seed}");
            }
            Err(error) => {
                failed += 1;
                let expected = [
                    EIO,
                    EUCLEAN,
                    ENOENT,
                    EEXIST,
                    ENAMETOOLONG,
                    EOPNOTSUPP,
                    E2BIG,
                ];
                assert!(expected.contains(&error), "seed {seed}: {error:?}");
                assert!(!log.is_empty(), "seed {seed}: {error:?}");
            }
        }
    }
    assert!(
        same > 0 && other > 0 && failed > 0,
        "{same} {other} {failed}"
    );
}
