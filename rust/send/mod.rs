// SPDX-License-Identifier: GPL-2.0
//! The send stream: a subvolume as commands that make the same tree elsewhere.
//!
//! [`run`] reads commit after commit through a [`ReadSession`], and holds neither a commit nor a
//! lock while it writes: the other end may take as long as it likes. For the same volume the stream
//! equals the C driver's byte for byte, so that much of what looks arbitrary here (which
//! directory's times come when, what is cloned from where) is a rule of the format in all but name;
//! where a file follows such a rule it says so.
//!
//! `full` walks the items; `inode`, `names`, `xattrs` and `data` turn them into commands, which
//! `stream` encodes and batches. With a parent, `compare` finds what differs from it, which
//! `read_ahead` has read by then, and `incremental` hands that out.
//!
//! A kernel's stack is small: names and items that a function holds would add up with those of the
//! functions that it calls if these were inlined into it, so that some of them are marked not to
//! be.

mod compare;
mod context;
mod current_inode;
mod cursor;
mod data;
mod full;
mod incremental;
mod inode;
mod lookup;
mod names;
mod output;
mod proto;
mod read_ahead;
mod roots;
mod sink;
mod snapshots;
mod stream;
mod utimes;
mod xattrs;

pub use proto::Version;
pub use sink::Sink;

use crate::format::tree_id;
use crate::trans::Reader;
use crate::tree::{NodePtr, Nodes};
use crate::volume::{ReadSession, Stamp};
use context::Send;
use data::clone_sources::CloneSources;
use kernel::prelude::*;
use output::Options;
use proto::{Attr, Command};
use roots::{name_of, Sendable};
use stream::Stream;

/// The flags of `struct btrfs_ioctl_send_args`.
pub mod flags {
    /// Only say where file data is, not what.
    pub const NO_FILE_DATA: u64 = 1 << 0;
    /// Leave the stream's head out.
    pub const OMIT_STREAM_HEADER: u64 = 1 << 1;
    /// Leave the command that ends the stream out.
    pub const OMIT_END_CMD: u64 = 1 << 2;
    /// The version is given.
    pub const VERSION: u64 = 1 << 3;
    /// Send compressed extents as they are; needs version 2.
    pub const COMPRESSED: u64 = 1 << 4;
    /// All of them.
    pub const MASK: u64 = NO_FILE_DATA | OMIT_STREAM_HEADER | OMIT_END_CMD | VERSION | COMPRESSED;
}

/// Clone sources of one send at most.
pub const MAX_CLONE_SOURCES: usize = (8 << 20) / 40;

/// What to send, as in `struct btrfs_ioctl_send_args`.
#[derive(Clone, Copy)]
pub struct SendArgs<'a> {
    /// The subvolume's tree.
    pub root: u64,
    /// The tree of a subvolume that the receiver has, to send only the differences to it.
    pub parent: Option<u64>,
    /// The trees of subvolumes that the receiver has, to clone data from.
    pub clones: &'a [u64],
    /// [`flags`].
    pub flags: u64,
    /// The version of the stream if `flags` has [`flags::VERSION`], where 0 is the highest there
    /// is.
    pub version: u32,
}

impl SendArgs<'_> {
    /// Checks all that can be checked without the volume, and returns the stream's version.
    ///
    /// # Errors
    ///
    /// `EINVAL` for too many clone sources or compressed data in version 1, `EOPNOTSUPP` for an
    /// unknown flag, `EPROTO` for an unknown version.
    pub fn check(&self) -> Result<Version> {
        if self.clones.len() > MAX_CLONE_SOURCES {
            return Err(EINVAL);
        }
        if self.flags & !flags::MASK != 0 {
            return Err(EOPNOTSUPP);
        }
        let version = if self.flags & flags::VERSION != 0 {
            Version::from_number(self.version)?
        } else {
            Version::V1
        };
        if self.flags & flags::COMPRESSED != 0 && version < Version::V2 {
            return Err(EINVAL);
        }
        Ok(version)
    }
}

/// Sends a subvolume to `out`. The caller holds a [`crate::state::SendToken`] and took `reader`
/// after that.
///
/// # Errors
///
/// Those of [`SendArgs::check`]; `EPERM` for a subvolume, a parent, or a clone source, that can be
/// written to or is being deleted; `ENOENT` for one that is not there; `EINTR` for a signal; what
/// `out` gives; `EIO`, `EUCLEAN`, `ENOENT` and `ENAMETOOLONG` for damage, which the log names.
pub fn run(reader: Reader, args: &SendArgs<'_>, out: &mut dyn Sink) -> Result {
    let version = args.check()?;
    let session = ReadSession::new(reader);
    let stream = Stream::new(&session, out, version)?;
    let mut send = start(&session, args, stream)?;
    let walked = match args.parent {
        Some(_) => send.walk_changes(),
        None => send.walk(),
    };
    walked.inspect_err(|error| send.report_inconsistent_snapshot(*error))?;
    if args.flags & flags::OMIT_END_CMD == 0 {
        send.output.stream.command(Command::End)?.end()?;
    }
    send.output.stream.flush()
}

/// Looks everything up that is read, and sends what comes first.
#[inline(never)]
fn start<'a>(
    session: &'a ReadSession,
    args: &SendArgs<'_>,
    mut stream: Stream<'a>,
) -> Result<KBox<Send<'a>>> {
    let sendable = |id| session.read(|reader| Sendable::new(reader, id));
    let sent = sendable(args.root)?;
    let begun = session.read(|reader| Ok(Stamp::of_snapshots(reader)))?;
    let mut clones = CloneSources::new(begun);
    for id in args.clones {
        clones.add(session, &sendable(*id)?)?;
    }
    clones.add(session, &sent)?;
    let parent = args.parent.map(sendable).transpose()?;
    let has = |flag| args.flags & flag != 0;
    let options = Options {
        no_data: has(flags::NO_FILE_DATA),
        compressed: has(flags::COMPRESSED),
    };
    if !has(flags::OMIT_STREAM_HEADER) {
        stream.header()?;
    }
    // All at once, as each alone would be waited for. What is wrong with one is found out when its
    // turn comes.
    let roots = session.read(|reader| {
        let blocks = root_blocks(reader, &clones, parent.as_ref())?;
        reader.prefetch(&blocks);
        Ok(())
    });
    // What kept them from being read is found out when their turn comes.
    let _ = roots;
    let name = session.read(|reader| name_of(reader, sent.tree.id))?;
    begin(&name, &sent, parent.as_ref(), &mut stream)?;
    let parent = parent.map(|parent| parent.tree);
    Send::new(session, sent.tree, options, stream, clones, parent)
}

/// The root blocks that will be needed.
#[inline(never)]
fn root_blocks(
    reader: &Reader,
    clones: &CloneSources<'_>,
    parent: Option<&Sendable>,
) -> Result<KVec<NodePtr>> {
    let mut blocks = KVec::new();
    for tree in [tree_id::ROOT, tree_id::CSUM, tree_id::EXTENT] {
        blocks.push(reader.root(tree)?.into(), GFP_KERNEL)?;
    }
    if let Some(parent) = parent {
        blocks.push(reader.root(parent.tree.id)?.into(), GFP_KERNEL)?;
    }
    for tree in clones.trees() {
        blocks.push(reader.root(tree)?.into(), GFP_KERNEL)?;
    }
    Ok(blocks)
}

/// Sends the command that makes the subvolume `name`, from a snapshot of `parent` if there is one.
fn begin(
    name: &[u8],
    sent: &Sendable,
    parent: Option<&Sendable>,
    stream: &mut Stream<'_>,
) -> Result {
    let command = match parent {
        Some(_) => Command::Snapshot,
        None => Command::Subvol,
    };
    let builder = stream
        .command(command)?
        .bytes(Attr::Path, name)?
        .bytes(Attr::Uuid, &sent.uuid)?
        .u64(Attr::Ctransid, sent.ctransid)?;
    let Some(parent) = parent else {
        return builder.end();
    };
    builder
        .bytes(Attr::CloneUuid, &parent.uuid)?
        .u64(Attr::CloneCtransid, parent.ctransid)?
        .end()
}
