// SPDX-License-Identifier: GPL-2.0
//! Reading ahead, beside the one who reads.
//!
//! What the page cache asks for at once is cut into pieces, each of which is read, checked and
//! decompressed by a workqueue: so one processor verifies a piece, another hands the last one to
//! the reader, and the device fetches the next. A small request is read at once, as its reader
//! waits for all of it.

use super::inode::Inode;
use super::page_cache::{fill, Folio};
use crate::bindings;
use kernel::prelude::*;

/// The least that a piece takes, in bytes, if there is as much. It becomes longer by a large folio.
const PIECE: usize = 512 << 10;

/// Up to this size, in bytes, a request is no work for others.
const SMALL: usize = 64 << 10;

/// The folios of a readahead request that were not taken yet.
struct Request(*mut bindings::readahead_control);

impl Request {
    fn next(&mut self) -> Option<Folio> {
        // SAFETY: `readahead` made this of the request that it was passed.
        let folio = unsafe { bindings::rbtrfs_readahead_folio(self.0) };
        // SAFETY: Folios of a request are locked and not uptodate, and it is for the filesystem to
        // unlock them.
        (!folio.is_null()).then(|| unsafe { Folio::from_raw(folio) })
    }

    fn len(&self) -> usize {
        // SAFETY: As above.
        unsafe { bindings::rbtrfs_readahead_length(self.0) }
    }

    fn piece(&mut self) -> Result<KVec<Folio>> {
        let mut folios = KVec::new();
        let mut bytes = 0usize;
        while bytes < PIECE {
            // The folio must find its place: once it is taken, nobody else unlocks it.
            folios.reserve(1, GFP_KERNEL | __GFP_NOWARN)?;
            let Some(folio) = self.next() else {
                break;
            };
            bytes = bytes.saturating_add(folio.len());
            folios.push_within_capacity(folio)?;
        }
        Ok(folios)
    }
}

/// Folios to be filled.
///
/// # Invariants
///
/// There is one at least. They are of the inode's mapping, so that it lasts as long as one of them
/// is locked.
struct Piece {
    inode: *const Inode,
    folios: KVec<Folio>,
}

// SAFETY: An inode may be used from any thread, and folios are `Send`.
unsafe impl Send for Piece {}

impl Piece {
    /// Fills the folios, all at once or, if that fails, each by itself. What cannot be read is left
    /// to `read_folio` to report.
    fn read(mut self) {
        // SAFETY: By the type invariant; the folios are unlocked when `self` is dropped.
        let inode = unsafe { &*self.inode };
        if fill(inode, &mut self.folios).is_err() && self.folios.len() > 1 {
            for folio in self.folios.iter_mut() {
                let _ = fill(inode, core::slice::from_mut(folio));
            }
        }
    }
}

/// `address_space_operations::readahead`.
///
/// # Safety
///
/// As the page cache calls it, for a mapping of a regular file of ours.
pub(super) unsafe extern "C" fn readahead(rac: *mut bindings::readahead_control) {
    // SAFETY: The request keeps the mapping, which is its inode's.
    let inode = unsafe { Inode::from_raw(bindings::rbtrfs_readahead_inode(rac)) };
    let mut request = Request(rac);
    let small = request.len() <= SMALL;
    while let Ok(folios) = request.piece() {
        if folios.is_empty() {
            break;
        }
        // INVARIANT: The folios are of this request, and there are some.
        let piece = Piece { inode, folios };
        if small {
            piece.read();
            continue;
        }
        // Without memory for that, the folios are unlocked as they are.
        let queue = inode.super_block().volume().readers();
        let _ = queue.try_spawn(GFP_KERNEL | __GFP_NOWARN, move || piece.read());
    }
}
