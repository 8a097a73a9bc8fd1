// SPDX-License-Identifier: GPL-2.0
//! `rbtrfs receive --dump` beside `btrfs receive --dump`: the same lines, the same errors, the same
//! status.

use kernel::error::Result;
use kernel::prelude::GFP_KERNEL;
use kernel::sync::Arc;
use rbtrfs_engine::send::{self, Sink};
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::recorded::{self, Stream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A file that is gone with this.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Scratch(std::env::temp_dir().join(format!("rbtrfs-{name}-{}", std::process::id())))
    }

    fn holding(self, bytes: &[u8]) -> Self {
        std::fs::write(&self.0, bytes).unwrap();
        self
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The test has ended, one way or the other.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn rbtrfs() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rbtrfs"))
}

fn dump(mut program: Command, stream: &Path) -> Output {
    // A zone that is not UTC, with daylight saving.
    program.env("TZ", "America/New_York");
    program.args(["receive", "--dump", "-f"]).arg(stream);
    program.output().unwrap()
}

/// The listing of btrfs-progs; `None`, and the test is noted as skipped, where they are not
/// installed.
fn theirs(stream: &Path) -> Option<Output> {
    if Command::new("btrfs").arg("--version").output().is_err() {
        rbtrfs_testdev::corpus::skip("no btrfs-progs");
        return None;
    }
    Some(dump(Command::new("btrfs"), stream))
}

#[derive(Default)]
struct Bytes(Vec<u8>);

impl Sink for Bytes {
    fn write(&mut self, bytes: &[u8]) -> Result {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn open(name: &str) -> Arc<Fs> {
    let device = Arc::new(recorded::volume(name), GFP_KERNEL).unwrap();
    let options = OpenOptions {
        read_only: true,
        ..OpenOptions::default()
    };
    Fs::open(device, &options).unwrap()
}

fn sent(fs: &Fs, stream: &Stream) -> Vec<u8> {
    let mut out = Bytes::default();
    send::run(fs.reader().unwrap(), &stream.args(), &mut out).unwrap();
    out.0
}

/// A recorded stream of version 2 with a header and an end.
fn sample() -> Vec<u8> {
    let mut streams = recorded::streams("full").into_iter();
    let wanted = streams.rfind(|stream| stream.flags == 24).unwrap();
    sent(&open("full"), &wanted)
}

fn assert_same(stream: &Path, what: &str) -> Option<Output> {
    let (ours, theirs) = (dump(rbtrfs(), stream), theirs(stream)?);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (our_lines, their_lines) = (text(&ours.stdout), text(&theirs.stdout));
    for (number, (our, their)) in our_lines.lines().zip(their_lines.lines()).enumerate() {
        assert_eq!(our, their, "line {number}, {what}");
    }
    assert_eq!(our_lines.len(), their_lines.len(), "{what}");
    assert_eq!(text(&ours.stderr), text(&theirs.stderr), "{what}");
    assert_eq!(ours.status.code(), theirs.status.code(), "{what}");
    Some(ours)
}

#[test]
fn listings_of_recorded_streams() {
    let file = Scratch::new("recorded");
    let (mut listed, mut lines) = (0, 0);
    for name in recorded::names() {
        let fs = open(&name);
        // Streams of random changes are much alike, and each costs two programs.
        let step = if ["cases", "full"].contains(&&*name) {
            1
        } else {
            3
        };
        for stream in recorded::streams(&name).iter().step_by(step) {
            let what = format!(
                "{name} {}: root {} parent {:?} flags {} version {}",
                stream.name, stream.root, stream.parent, stream.flags, stream.version
            );
            std::fs::write(&file.0, sent(&fs, stream)).unwrap();
            let Some(output) = assert_same(&file.0, &what) else {
                return;
            };
            listed += usize::from(output.status.success());
            lines += output.stdout.iter().filter(|byte| **byte == b'\n').count();
        }
    }
    assert!(
        listed > 800 && lines > 40 * listed,
        "{listed} streams, {lines} lines"
    );
}

/// Of streams that are not whole, or not streams.
#[test]
fn errors_are_those_of_btrfs_progs() {
    let whole = sample();
    let changed = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        bytes
    };
    let cases = [
        ("empty", Vec::new()),
        ("part of a header", whole[..5].to_vec()),
        ("nothing but a header", whole[..17].to_vec()),
        ("part of a command's header", whole[..20].to_vec()),
        ("a command without its payload", whole[..27].to_vec()),
        ("part of a payload", whole[..40].to_vec()),
        ("no end", whole[..whole.len() - 10].to_vec()),
        ("something else", vec![7; 1000]),
        ("a later version", changed(13, 9)),
        ("damage in a payload", changed(40, whole[40] ^ 1)),
        ("damage in a checksum", changed(23, whole[23] ^ 1)),
        ("something behind the end", [&whole[..], b"more"].concat()),
        ("two streams", [&whole[..], &whole[..]].concat()),
    ];
    for (what, bytes) in cases {
        let file = Scratch::new("errors").holding(&bytes);
        assert_same(&file.0, what);
    }
    assert_same(&std::env::temp_dir(), "a folder");
}

/// With a status that btrfs-progs 6.14 forgets.
#[test]
fn a_file_that_is_not_there() {
    let missing = Path::new("/no/such/file");
    let ours = dump(rbtrfs(), missing);
    assert_eq!(ours.status.code(), Some(1));
    if let Some(theirs) = theirs(missing) {
        assert_eq!(ours.stderr, theirs.stderr);
    }
}

#[test]
fn a_length_that_cannot_be() {
    let mut bytes = sample();
    bytes[17..21].copy_from_slice(&(1u32 << 31).to_le_bytes());
    let file = Scratch::new("length").holding(&bytes);
    let output = dump(rbtrfs(), &file.0);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "ERROR: command of 2147483648 bytes, the longest can have 16777216\n\
         ERROR: failed to dump the send stream: Invalid argument\n"
    );
}

/// A command with its attributes and checksum.
fn command(number: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (typ, value) in attributes {
        payload.extend(typ.to_le_bytes());
        payload.extend((value.len() as u16).to_le_bytes());
        payload.extend_from_slice(value);
    }
    let mut head = Vec::new();
    head.extend((payload.len() as u32).to_le_bytes());
    head.extend(number.to_le_bytes());
    let sum = kernel::platform::crc32c(0, &[&head[..], &[0; 4], &payload].concat());
    [&head[..], &sum.to_le_bytes(), &payload].concat()
}

fn stream(version: u32, commands: &[Vec<u8>]) -> Vec<u8> {
    let subvolume = command(1, &[(15, b"top"), (1, &[7; 16]), (2, &[1; 8])]);
    let end = command(21, &[]);
    [
        &b"btrfs-stream\0"[..],
        &version.to_le_bytes(),
        &subvolume,
        &commands.concat(),
        &end,
    ]
    .concat()
}

/// What no recorded stream has in it.
#[test]
fn listings_of_streams_made_up() {
    let ino = (3, &[0; 8][..]);
    let every_byte: Vec<u8> = (0..=255).collect();
    let ascii: Vec<u8> = (1..128).collect();
    let time = |seconds: i64| [&seconds.to_le_bytes()[..], &[0; 4]].concat();
    let utimes = |seconds: i64| {
        let time = time(seconds);
        command(20, &[(15, b"f"), (11, &time), (10, &time), (9, &time)])
    };
    let eight = 0o7_654_321u64.to_le_bytes();
    let number = (5, &eight[..]);
    let nodes = [
        command(5, &[(15, b"device"), ino, number, (8, &eight)]),
        command(6, &[(15, b"fifo"), ino, number, (8, &eight)]),
        command(7, &[(15, b"socket"), ino, number, (8, &eight)]),
        command(8, &[(15, b"symlink"), ino, (17, b"some where\0else")]),
    ];
    let second = command(
        2,
        &[
            (15, b"other top"),
            (1, &[7; 16]),
            (2, &[1; 8]),
            (20, &[9; 16]),
            (21, &[2; 8]),
        ],
    );
    let moved = command(9, &[(15, b"a"), (16, b"b c")]);
    let linked = command(10, &[(15, b"a"), (17, b"b c")]);
    let cases = [
        ("escapes", vec![command(4, &[(15, &ascii), ino])]),
        (
            "a value",
            vec![command(
                13,
                &[(15, b"f"), (13, b"user.a b"), (14, &every_byte)],
            )],
        ),
        ("the top", vec![command(18, &[(15, b""), number])]),
        ("nodes", nodes.to_vec()),
        (
            "times",
            [0, -1, 1_720_000_000, -3_000_000_000, 1 << 40, -(1 << 40)]
                .map(utimes)
                .to_vec(),
        ),
        ("no such time", vec![utimes(i64::MAX)]),
        ("a second subvolume", vec![moved, second, linked]),
        (
            "an unknown command",
            vec![command(99, &[(15, b"f")]), command(11, &[(15, b"f")])],
        ),
        (
            "an unknown attribute",
            vec![command(4, &[(15, b"f"), ino, (99, b"")])],
        ),
        (
            "verity",
            vec![command(
                26,
                &[
                    (15, b"f"),
                    (32, &[1]),
                    (33, &[0, 16, 0, 0]),
                    (34, b"salt"),
                    (35, b"sig"),
                ],
            )],
        ),
    ];
    for (what, commands) in cases {
        for version in [1, 2] {
            let file = Scratch::new("made-up").holding(&stream(version, &commands));
            assert_same(&file.0, what);
        }
    }
}

#[test]
fn a_name_that_is_not_utf8() {
    let made = command(11, &[(15, b"f\xff")]);
    let file = Scratch::new("utf8").holding(&stream(1, &[made]));
    let output = dump(rbtrfs(), &file.0);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("not valid UTF-8"), "{text}");
}

#[test]
fn standard_input_is_the_stream_without_a_file() {
    let file = Scratch::new("input").holding(&sample());
    let named = rbtrfs()
        .args(["receive", "--dump"])
        .arg(&file.0)
        .output()
        .unwrap();
    let piped = rbtrfs()
        .args(["receive", "--dump"])
        .stdin(std::fs::File::open(&file.0).unwrap())
        .output()
        .unwrap();
    assert!(named.status.success() && named.stdout.len() > 1000);
    assert_eq!(named.stdout, piped.stdout);
    assert!(named.stdout.starts_with(b"subvol          ./snap-"));
}

#[test]
fn nothing_but_a_listing_is_offered() {
    let output = rbtrfs().args(["receive", "/dev/null"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--dump"), "{text}");
}
