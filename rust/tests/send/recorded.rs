// SPDX-License-Identifier: GPL-2.0
//! What the C driver recorded, and what it refuses.

use super::*;

#[test]
fn streams_are_those_of_the_c_driver() {
    let fs = open(Arc::new(volume(), GFP_KERNEL).unwrap()).unwrap();
    for wanted in recorded() {
        check(&fs, &wanted);
    }
}

#[test]
fn arguments_are_refused_as_by_the_c_driver() {
    let fs = open(Arc::new(volume(), GFP_KERNEL).unwrap()).unwrap();
    let good = SendArgs {
        root: richest().root,
        parent: None,
        clones: &[],
        flags: 0,
        version: 0,
    };
    let try_args = |args: SendArgs<'_>| stream_of(&fs, &args).err();
    let with = |flags, version| SendArgs {
        flags,
        version,
        ..good
    };
    assert_eq!(try_args(good), None);
    assert_eq!(try_args(with(1 << 5, 0)), Some(EOPNOTSUPP));
    assert_eq!(try_args(with(flags::VERSION, 3)), Some(EPROTO));
    assert_eq!(try_args(with(flags::COMPRESSED, 0)), Some(EINVAL));
    assert_eq!(
        try_args(with(flags::COMPRESSED | flags::VERSION, 1)),
        Some(EINVAL)
    );
    // Without the flag the version does not matter.
    assert_eq!(try_args(with(0, 99)), None);
    let clones = [999_999];
    assert_eq!(
        try_args(SendArgs {
            clones: &clones,
            ..good
        }),
        Some(ENOENT)
    );
    // The subvolume that the snapshots were made of, and the top-level subvolume, can be written
    // to.
    for root in [256, 5] {
        assert_eq!(try_args(SendArgs { root, ..good }), Some(EPERM));
    }
}

/// Takes a stream apart: commands by number, with their attributes.
fn commands(mut stream: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut out = Vec::new();
    let mut crcs = 0;
    while !stream.is_empty() {
        let (head, rest) = stream.split_at(10);
        let len = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
        let (body, rest) = rest.split_at(len);
        let mut whole = stream[..10 + len].to_vec();
        whole[6..10].fill(0);
        assert_eq!(
            kernel::platform::crc32c(0, &whole).to_le_bytes(),
            head[6..10],
            "crc of command {}",
            out.len()
        );
        crcs += 1;
        out.push((u16::from_le_bytes([head[4], head[5]]), body.to_vec()));
        stream = rest;
    }
    assert_eq!(crcs, out.len());
    out
}

#[test]
fn every_command_has_its_checksum() {
    let fs = open(Arc::new(volume(), GFP_KERNEL).unwrap()).unwrap();
    for wanted in recorded() {
        let stream = stream_of(&fs, &wanted.args()).unwrap();
        let head = match wanted.flags & flags::OMIT_STREAM_HEADER {
            0 => 17,
            _ => 0,
        };
        let commands = commands(&stream[head..]);
        assert_eq!(commands[0].0, 1, "SUBVOL comes first");
        let ends = commands.last().unwrap().0 == 21;
        assert_eq!(ends, wanted.flags & flags::OMIT_END_CMD == 0);
    }
}
