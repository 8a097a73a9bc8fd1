// SPDX-License-Identifier: GPL-2.0
//! What a send writes to, and what it takes the data from.

use super::data::clone_sources::CloneSources;
use super::data::reader::DataReader;
use super::stream::Stream;
use super::utimes::Utimes;
use kernel::prelude::*;

/// What the caller wants of the stream besides its version.
#[derive(Clone, Copy)]
pub(super) struct Options {
    /// Only say where file data changed.
    pub(super) no_data: bool,
    /// Send compressed extents as they are.
    pub(super) compressed: bool,
}

/// The stream and what goes into it.
pub(super) struct Output<'a> {
    pub(super) stream: Stream<'a>,
    pub(super) options: Options,
    pub(super) data: KBox<DataReader<'a>>,
    pub(super) clones: CloneSources<'a>,
    /// The directories whose times are still to be sent.
    pub(super) utimes: Utimes,
}
