// SPDX-License-Identifier: GPL-2.0
//! The state of a running send (`struct send_ctx`), by what owns it. Its methods are in the files
//! of the parts of the stream that they write.

use super::current_inode::Position;
use super::data::clone_sources::CloneSources;
use super::data::reader::DataReader;
use super::names::Names;
use super::output::{Options, Output};
use super::roots::SnapshotRoot;
use super::snapshots::Snapshots;
use super::stream::Stream;
use super::utimes::Utimes;
use crate::volume::ReadSession;
use kernel::prelude::*;

/// A running send.
pub(super) struct Send<'a> {
    pub(super) snapshots: KBox<Snapshots<'a>>,
    pub(super) output: Output<'a>,
    pub(super) names: KBox<Names>,
    pub(super) position: Position,
}

impl<'a> Send<'a> {
    /// A send in memory of its own, as it is too large for the stack that the walk runs on.
    #[inline(never)]
    pub(super) fn new(
        session: &'a ReadSession,
        root: SnapshotRoot,
        options: Options,
        stream: Stream<'a>,
        clones: CloneSources<'a>,
        parent: Option<SnapshotRoot>,
    ) -> Result<KBox<Self>> {
        // A parent that is the younger one says nothing about what it has.
        let older = parent.filter(|parent| parent.generation < root.generation);
        let known_to = older.map_or(0, |parent| parent.generation);
        let send = Send {
            snapshots: Snapshots::new(session, root, parent)?,
            output: Output {
                stream,
                options,
                data: KBox::new(DataReader::new(session, root.id, known_to), GFP_KERNEL)?,
                clones,
                utimes: Utimes::new(),
            },
            names: Names::new()?,
            position: Position::new()?,
        };
        Ok(KBox::new(send, GFP_KERNEL)?)
    }
}
