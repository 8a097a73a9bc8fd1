// SPDX-License-Identifier: GPL-2.0
//! The relocation token: the right to move extents.

use kernel::prelude::*;

use super::balance::OnDrop;
use super::{Exclusive, FsFlags, FsState, Log, SendBalance, State};

/// Why a relocation may not begin now.
pub(super) enum NotNow {
    Sends(u32),
    Relocation,
    Closing,
}

impl FsState {
    /// Decides whether a relocation may begin, and if so marks it as running.
    pub(super) fn start_relocation(&mut self) -> core::result::Result<(), NotNow> {
        if self.flags.has(FsFlags::CLOSING) {
            return Err(NotNow::Closing);
        }
        if self.flags.has(FsFlags::BALANCE_RUNNING) {
            return Err(NotNow::Relocation);
        }
        let send_in_progress = self.sends.send_in_progress();
        if send_in_progress > 0 && self.send_balance == SendBalance::Exclusive {
            return Err(NotNow::Sends(send_in_progress));
        }
        self.flags.set(FsFlags::BALANCE_RUNNING);
        Ok(())
    }
}

impl State {
    /// Begins a relocation that is not a balance, such as shrinking.
    ///
    /// # Errors
    ///
    /// In exclusive mode `EAGAIN`, with a rate-limited warning, while sends run; `EINPROGRESS`
    /// while another relocation does; `EINVAL` while the volume is being unmounted.
    pub fn begin_relocation(&self, log: &dyn Log) -> Result<RelocationToken<'_>> {
        let mut inner = self.inner.lock();
        match inner.start_relocation() {
            Ok(()) => {
                drop(inner);
                Ok(RelocationToken {
                    state: self,
                    on_drop: OnDrop::KeepExclusive,
                })
            }
            Err(why) => {
                let warn = matches!(why, NotNow::Sends(_)) && inner.relocation_refused.admit();
                drop(inner);
                Err(refuse(log, why, warn))
            }
        }
    }
}

/// The error for `why`, after its warning if there is to be one.
pub(super) fn refuse(log: &dyn Log, why: NotNow, warn: bool) -> Error {
    match why {
        NotNow::Sends(count) => {
            if warn {
                log.warn(format_args!(
                    "cannot run balance while send operations are in progress ({count} in progress)"
                ));
            }
            EAGAIN
        }
        NotNow::Relocation => EINPROGRESS,
        NotNow::Closing => EINVAL,
    }
}

/// The right to move extents; while it lives, in exclusive mode no send begins.
#[must_use = "the relocation is over when its token is dropped"]
pub struct RelocationToken<'a> {
    pub(super) state: &'a State,
    /// What becomes of the balance, if this relocation is one.
    pub(super) on_drop: OnDrop,
}

impl Drop for RelocationToken<'_> {
    fn drop(&mut self) {
        let mut inner = self.state.inner.lock();
        inner.flags.clear(FsFlags::BALANCE_RUNNING);
        match self.on_drop {
            OnDrop::KeepExclusive => {}
            OnDrop::Forget => inner.exclusive = Exclusive::None,
            OnDrop::Pause => {
                if let Exclusive::Balance(balance) = &mut inner.exclusive {
                    balance.pause();
                }
            }
        }
        self.state.changed.notify_all();
    }
}
