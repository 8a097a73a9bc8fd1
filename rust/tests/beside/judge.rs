// SPDX-License-Identifier: GPL-2.0
//! Whether two streams make the same tree, where files share extents: which of several places is
//! cloned from follows the addresses of leaves, which a relocation changes.

use crate::contents::*;
use rbtrfs_engine::format::{compression, item_type, objectid};
use rbtrfs_engine::subvol::data::read_file;
use rbtrfs_engine::subvol::decompress::decompress;
use rbtrfs_engine::subvol::dir;
use rbtrfs_engine::trans::Reader;
use std::collections::BTreeMap;
use std::vec::Vec;

const SNAPSHOT: u16 = 2;
const WRITE: u16 = 15;
const CLONE: u16 = 16;
const TRUNCATE: u16 = 17;
const UPDATE_EXTENT: u16 = 22;
const ENCODED_WRITE: u16 = 25;

const SIZE: u16 = 4;
const PATH: u16 = 15;
const FILE_OFFSET: u16 = 18;
const DATA: u16 = 19;
const CLONE_UUID: u16 = 20;
const CLONE_PATH: u16 = 22;
const CLONE_OFFSET: u16 = 23;
const CLONE_LEN: u16 = 24;
const UNENCODED_FILE_LEN: u16 = 27;
const UNENCODED_LEN: u16 = 28;
const UNENCODED_OFFSET: u16 = 29;
const COMPRESSION: u16 = 30;

/// What is sent: the subvolume `tree`, and whether it has a parent.
type Of<'r> = (&'r Reader, u64, bool);

/// A command: its number, its bytes, and its attributes.
struct Command<'s> {
    number: u16,
    body: &'s [u8],
    attrs: BTreeMap<u16, &'s [u8]>,
}

impl Command<'_> {
    fn number(&self, attr: u16) -> u64 {
        u64::from_le_bytes(self.attrs[&attr].try_into().unwrap())
    }

    /// The length of the data that it stands for, in bytes, if it is about data.
    fn data_len(&self) -> Option<u64> {
        match self.number {
            WRITE => Some(self.attrs[&DATA].len() as u64),
            CLONE => Some(self.number(CLONE_LEN)),
            UPDATE_EXTENT => Some(self.number(SIZE)),
            ENCODED_WRITE => Some(self.number(UNENCODED_FILE_LEN)),
            _ => None,
        }
    }

    /// The data that it stands for, `len` bytes, as far as it can be told.
    fn data(&self, (reader, tree, has_parent): Of<'_>, len: u64) -> Option<Vec<u8>> {
        match self.number {
            WRITE => Some(self.attrs[&DATA].to_vec()),
            CLONE => {
                let is_source = |id: &u64| uuid_of(reader, *id)[..] == *self.attrs[&CLONE_UUID];
                let source = subvolumes(reader).into_iter().find(is_source).unwrap();
                let (path, from) = (self.attrs[&CLONE_PATH], self.number(CLONE_OFFSET));
                // In what is being sent, a name may still be that of another file.
                let is_final = source != tree || !has_parent;
                is_final.then(|| bytes_at(reader, source, path, from, len))?
            }
            ENCODED_WRITE => {
                let mut plain = vec![0; self.number(UNENCODED_LEN) as usize];
                let method = match self.attrs[&COMPRESSION] {
                    [1, ..] => compression::ZLIB,
                    [2, ..] => compression::ZSTD,
                    _ => compression::LZO,
                };
                let sector = reader.fs().geometry.sectorsize;
                decompress(method, self.attrs[&DATA], &mut plain, sector).unwrap();
                let from = self.number(UNENCODED_OFFSET) as usize;
                Some(plain[from..from + len as usize].to_vec())
            }
            _ => None,
        }
    }
}

/// What a receiver knows a subvolume by.
fn uuid_of(reader: &Reader, id: u64) -> [u8; 16] {
    let item = reader.root_item(id).unwrap();
    match item.received_uuid {
        uuid if uuid == [0; 16] => item.uuid,
        uuid => uuid,
    }
}

fn commands(mut stream: &[u8]) -> Vec<Command<'_>> {
    let mut version = 1;
    if stream.starts_with(b"btrfs-stream\0") {
        version = stream[13];
        stream = &stream[17..];
    }
    let mut all = vec![];
    while !stream.is_empty() {
        let len = u32::from_le_bytes(stream[..4].try_into().unwrap()) as usize;
        let number = u16::from_le_bytes([stream[4], stream[5]]);
        let body = &stream[10..10 + len];
        let (mut rest, mut attrs) = (body, BTreeMap::new());
        while !rest.is_empty() {
            let attr = u16::from_le_bytes([rest[0], rest[1]]);
            // The data of version 2 goes on to the end of its command.
            let (start, len) = match (attr, version) {
                (DATA, 2..) => (2, rest.len() - 2),
                _ => (4, u16::from_le_bytes([rest[2], rest[3]]) as usize),
            };
            attrs.insert(attr, &rest[start..start + len]);
            rest = &rest[start + len..];
        }
        all.push(Command {
            number,
            body,
            attrs,
        });
        stream = &stream[10 + len..];
    }
    all
}

/// Data and its offset in a file, in bytes.
type Piece = (u64, Vec<u8>);

/// A file at some moment: how many commands came before that were not about data, and its path.
type Place<'s> = (usize, &'s [u8]);

/// What a stream does.
#[derive(Default)]
struct Summary<'s> {
    /// All that is not about data. That files are shortened, for the end of another one to be
    /// cloned to their end, is.
    others: Vec<(u16, &'s [u8])>,
    /// The ranges that got data.
    ranges: BTreeMap<Place<'s>, Vec<(u64, u64)>>,
    /// The data, as far as it can be told.
    pieces: BTreeMap<Place<'s>, Vec<Piece>>,
    /// Bytes.
    cloned: u64,
}

/// What `commands` do.
fn summary<'s>(of: Of<'_>, commands: &'s [Command<'s>]) -> Summary<'s> {
    let mut all = Summary::default();
    for command in commands {
        let Some(len) = command.data_len() else {
            if command.number != TRUNCATE {
                all.others.push((command.number, command.body));
            }
            continue;
        };
        let start = command.number(FILE_OFFSET);
        let place = (all.others.len(), command.attrs[&PATH]);
        all.ranges
            .entry(place)
            .or_default()
            .push((start, start + len));
        if command.number == CLONE {
            all.cloned += len;
        }
        if let Some(data) = command.data(of, len) {
            all.pieces.entry(place).or_default().push((start, data));
        }
    }
    for ranges in all.ranges.values_mut() {
        ranges.sort();
        ranges.dedup_by(|next, last| {
            let touches = next.0 <= last.1;
            if touches {
                last.1 = last.1.max(next.1);
            }
            touches
        });
    }
    all
}

/// Whether two pieces have the same bytes where both have some.
fn overlap_is_same(one: &Piece, other: &Piece) -> bool {
    let start = one.0.max(other.0);
    let end = (one.0 + one.1.len() as u64).min(other.0 + other.1.len() as u64);
    let of = |piece: &Piece| piece.1[(start - piece.0) as usize..(end - piece.0) as usize].to_vec();
    start >= end || of(one) == of(other)
}

/// `len` bytes at `offset` of the file at `path` of a subvolume, if there is one.
fn bytes_at(reader: &Reader, tree: u64, path: &[u8], offset: u64, len: u64) -> Option<Vec<u8>> {
    let root = reader.root(tree).unwrap();
    let mut ino = objectid::FIRST_FREE;
    for name in path.split(|byte| *byte == b'/') {
        let found = dir::lookup(reader, root, ino, name).ok()??;
        if found.location.typ != item_type::INODE_ITEM {
            return None;
        }
        ino = found.location.objectid;
    }
    let mut bytes = vec![0; len as usize];
    let read = read_file(reader, root, ino, offset, &mut bytes).ok()?;
    bytes.truncate(read);
    Some(bytes)
}

/// Makes sure that `stream` sends what `alone` does, the subvolume `tree`, and clones as much.
#[track_caller]
pub fn assert_as_good(reader: &Reader, tree: u64, stream: &[u8], alone: &[u8], place: &str) {
    if stream == alone {
        return;
    }
    let (found, wanted) = (commands(stream), commands(alone));
    let has_parent = wanted[0].number == SNAPSHOT;
    let of = (reader, tree, has_parent);
    let (found, wanted) = (summary(of, &found), summary(of, &wanted));
    assert!(found.others == wanted.others, "{place}: other commands");
    assert!(found.ranges == wanted.ranges, "{place}: other ranges");
    for (at, pieces) in &found.pieces {
        for wanted in wanted.pieces.get(at).into_iter().flatten() {
            for piece in pieces {
                assert!(
                    overlap_is_same(piece, wanted),
                    "{place}: other data behind {}",
                    piece.0
                );
            }
        }
    }
    assert!(
        found.cloned >= wanted.cloned,
        "{place}: {} bytes cloned instead of {}",
        found.cloned,
        wanted.cloned
    );
}
