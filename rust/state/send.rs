// SPDX-License-Identifier: GPL-2.0
//! The send token, and the subvolumes under send.

use kernel::prelude::*;
use kernel::sync::MutexGuard;

use super::{FsFlags, FsState, Log, SendBalance, State};

/// One send under way and the subvolumes that it reads.
struct RunningSend {
    id: u64,
    root: u64,
    /// Parent and clone sources, sorted.
    sources: KVec<u64>,
}

impl RunningSend {
    fn uses(&self, root: u64) -> bool {
        self.root == root || self.sources.binary_search(&root).is_ok()
    }
}

/// The sends under way: how many, and of which subvolumes. Both change together, here alone.
pub(super) struct Sends {
    send_in_progress: u32,
    list: KVec<RunningSend>,
    /// The identity of the next send.
    next: u64,
}

impl Sends {
    pub(super) const fn new() -> Self {
        Sends {
            send_in_progress: 0,
            list: KVec::new(),
            next: 0,
        }
    }

    /// The number of sends under way (`fs_info->send_in_progress`).
    pub(super) fn send_in_progress(&self) -> u32 {
        self.send_in_progress
    }

    /// The number of sends that use subvolume `root`.
    pub(super) fn of(&self, root: u64) -> usize {
        self.list.iter().filter(|send| send.uses(root)).count()
    }

    /// Adds a send of subvolume `root`, for which the list has space. Returns its identity.
    fn begin(&mut self, root: u64) -> Result<u64> {
        let id = self.next;
        let send = RunningSend {
            id,
            root,
            sources: KVec::new(),
        };
        let count = self.send_in_progress.checked_add(1).ok_or(ENOMEM)?;
        self.list.push_within_capacity(send).map_err(|_| ENOMEM)?;
        self.send_in_progress = count;
        self.next = id.wrapping_add(1);
        Ok(id)
    }

    /// Removes a send. What is returned is memory to be freed, with the state unlocked.
    fn end(&mut self, id: u64) -> Option<impl Sized> {
        let at = self.list.iter().position(|send| send.id == id)?;
        let ended = self.list.remove(at).ok()?;
        self.send_in_progress = self.send_in_progress.saturating_sub(1);
        Some(ended)
    }
}

impl State {
    /// Enters a send of subvolume `root`, to be called before any work and any byte of stream.
    /// Sends run side by side; the token's drop leaves.
    ///
    /// # Errors
    ///
    /// In exclusive mode `EAGAIN`, with a rate-limited warning, while a relocation runs. `ENOMEM`.
    pub fn begin_send(&self, log: &dyn Log, root: u64) -> Result<SendToken<'_>> {
        let mut inner = self.lock_with_memory_for_send()?;
        let balance_running = inner.flags.has(FsFlags::BALANCE_RUNNING);
        if balance_running && inner.send_balance == SendBalance::Exclusive {
            let warn = inner.send_refused.admit();
            drop(inner);
            if warn {
                log.warn(format_args!(
                    "cannot run send because a balance operation is in progress"
                ));
            }
            return Err(EAGAIN);
        }
        let id = inner.sends.begin(root)?;
        Ok(SendToken { state: self, id })
    }

    /// Locks the state with space in its list for one more send, which is allocated while it is not
    /// locked.
    fn lock_with_memory_for_send(&self) -> Result<MutexGuard<'_, FsState>> {
        let mut spare = KVec::new();
        loop {
            let mut inner = self.inner.lock();
            let list = &mut inner.sends.list;
            let wanted = list.len().saturating_add(1);
            if wanted <= list.capacity() {
                return Ok(inner);
            }
            if wanted <= spare.capacity() {
                for send in list.drain_all() {
                    // Cannot fail: the space was measured above.
                    let _ = spare.push_within_capacity(send);
                }
                core::mem::swap(list, &mut spare);
                return Ok(inner);
            }
            drop(inner);
            spare = KVec::with_capacity(wanted.saturating_mul(2), GFP_KERNEL)?;
        }
    }
}

/// The right to send; while it lives, in exclusive mode no relocation begins.
#[must_use = "the send is over when its token is dropped"]
pub struct SendToken<'a> {
    state: &'a State,
    id: u64,
}

impl SendToken<'_> {
    /// Makes known that this send also reads the subvolumes `sources`: its parent and its clone
    /// sources.
    pub fn set_sources(&self, mut sources: KVec<u64>) {
        crate::sort::sort(&mut sources);
        let mut inner = self.state.inner.lock();
        let mut list = inner.sends.list.iter_mut();
        if let Some(send) = list.find(|send| send.id == self.id) {
            core::mem::swap(&mut send.sources, &mut sources);
        }
        // Unlocked before the list that was there is freed.
        drop(inner);
    }
}

impl Drop for SendToken<'_> {
    fn drop(&mut self) {
        let mut inner = self.state.inner.lock();
        let ended = inner.sends.end(self.id);
        drop(inner);
        drop(ended);
    }
}
