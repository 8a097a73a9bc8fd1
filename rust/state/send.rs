// SPDX-License-Identifier: GPL-2.0
//! The send token, and the subvolumes under send.

use kernel::prelude::*;
use kernel::sync::MutexGuard;

use super::{FsState, Log, SendBalance, State};

/// One send under way and the subvolumes that it reads.
pub(super) struct RunningSend {
    id: u64,
    root: u64,
    /// Parent and clone sources, sorted.
    sources: KVec<u64>,
}

impl RunningSend {
    pub(super) fn uses(&self, root: u64) -> bool {
        self.root == root || self.sources.binary_search(&root).is_ok()
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
        if inner.balance_running && inner.send_balance == SendBalance::Exclusive {
            let warn = inner.send_refused.admit();
            drop(inner);
            if warn {
                log.warn(format_args!(
                    "cannot run send because a balance operation is in progress"
                ));
            }
            return Err(EAGAIN);
        }
        let id = inner.next_send;
        inner.next_send = id.wrapping_add(1);
        let send = RunningSend {
            id,
            root,
            sources: KVec::new(),
        };
        inner.sends.push_within_capacity(send).map_err(|_| ENOMEM)?;
        Ok(SendToken { state: self, id })
    }

    /// Locks the state with space in its list for one more send, which is allocated while it is not
    /// locked.
    fn lock_with_memory_for_send(&self) -> Result<MutexGuard<'_, FsState>> {
        let mut spare = KVec::new();
        loop {
            let mut inner = self.inner.lock();
            let wanted = inner.sends.len().saturating_add(1);
            if wanted <= inner.sends.capacity() {
                return Ok(inner);
            }
            if wanted <= spare.capacity() {
                for send in inner.sends.drain_all() {
                    // Cannot fail: the space was measured above.
                    let _ = spare.push_within_capacity(send);
                }
                core::mem::swap(&mut inner.sends, &mut spare);
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
        if let Some(send) = inner.sends.iter_mut().find(|send| send.id == self.id) {
            core::mem::swap(&mut send.sources, &mut sources);
        }
        // Unlocked before the list that was there is freed.
        drop(inner);
    }
}

impl Drop for SendToken<'_> {
    fn drop(&mut self) {
        let mut inner = self.state.inner.lock();
        let ended = inner
            .sends
            .iter()
            .position(|send| send.id == self.id)
            .map(|at| inner.sends.remove(at));
        drop(inner);
        drop(ended);
    }
}
