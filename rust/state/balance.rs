// SPDX-License-Identifier: GPL-2.0
//! What balance is doing, and its start, pause, resume and cancel as far as they are state.
//!
//! A balance exists from its start until its item is gone from disk. It is *running* while its
//! owner holds a [`BalanceRun`], which includes a relocation token, from before the item is written
//! until after it is deleted; *paused* while only memory and the item tell of it; and *being
//! removed* while a cancel deletes the item of a paused one. Requests to pause and to cancel belong
//! to one run of one balance: a later run never sees them, and whoever waits for the run to end
//! waits for that very one.

use kernel::prelude::*;

use super::relocation::{refuse, NotNow};
use super::{Exclusive, FsState, Log, Refusal, RelocationToken, State};
use crate::format::balance::BalanceItem;

/// What a balance was asked to do, and how far it is.
#[derive(Clone, Copy, Debug)]
pub struct BalanceControl {
    /// Flags and filters. What the limit filters have used up is taken off here, not on disk.
    pub item: BalanceItem,
    /// How far the present run is.
    pub progress: BalanceProgress,
}

/// Numbers of block groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BalanceProgress {
    /// Those that the run expects to relocate.
    pub expected: u64,
    /// Those that it has looked at.
    pub considered: u64,
    /// Those that it has relocated.
    pub completed: u64,
}

impl BalanceControl {
    /// What `item` asks for, at its start. It is too large for the stack.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(item: &BalanceItem) -> Result<KBox<BalanceControl>> {
        let progress = BalanceProgress::default();
        let control = KBox::new_uninit(GFP_KERNEL)?;
        let item = *item;
        Ok(KBox::write(control, BalanceControl { item, progress }))
    }
}

/// One look at a balance.
#[derive(Debug)]
pub struct BalanceStatus {
    /// What it does.
    pub control: KBox<BalanceControl>,
    /// It runs.
    pub running: bool,
    /// Somebody asked it to pause.
    pub pause_requested: bool,
    /// Somebody asked it to end.
    pub cancel_requested: bool,
}

enum Phase {
    Running { pause: bool, cancel: bool },
    Paused,
    Removing,
}

/// The balance that the volume knows of.
pub(super) struct Balance {
    /// Stays the same from start to end, over pauses.
    id: u64,
    /// Another one for each run; requests are for one run.
    run: u64,
    phase: Phase,
    control: KBox<BalanceControl>,
}

impl Balance {
    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    pub(super) fn request_pause(&mut self) {
        if let Phase::Running { pause, .. } = &mut self.phase {
            *pause = true;
        }
    }

    fn request_cancel(&mut self) {
        if let Phase::Running { cancel, .. } = &mut self.phase {
            *cancel = true;
        }
    }

    pub(super) fn pause(&mut self) {
        self.phase = Phase::Paused;
    }
}

/// What the end of a relocation means for the balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnDrop {
    /// It was no balance.
    KeepExclusive,
    /// The balance is over.
    Forget,
    /// The balance is kept, paused.
    Pause,
}

/// How a run of a balance came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// On request; it stays on disk and can be resumed.
    Paused,
    /// On request, or by a signal to the caller.
    Canceled,
    /// By itself, in success or with an error.
    Over,
}

/// What a cancel has to do.
pub enum CancelBalance<'a> {
    /// Nothing more: the balance is gone.
    Done,
    /// The balance was paused: its item is to be deleted, and then [`PausedBalance::removed`]
    /// called.
    Remove(PausedBalance<'a>),
}

impl FsState {
    fn balance(&self) -> Option<&Balance> {
        match &self.exclusive {
            Exclusive::Balance(balance) => Some(balance),
            _ => None,
        }
    }

    fn balance_mut(&mut self) -> Option<&mut Balance> {
        match &mut self.exclusive {
            Exclusive::Balance(balance) => Some(balance),
            _ => None,
        }
    }

    fn removing(&self) -> bool {
        matches!(self.balance(), Some(balance) if matches!(balance.phase, Phase::Removing))
    }

    fn runs(&self, run: u64) -> bool {
        matches!(self.balance(), Some(balance) if balance.run == run && balance.is_running())
    }

    /// Answers for what stands in the way of a balance, sends aside.
    fn admit_balance(&self, resume: bool) -> core::result::Result<(), Refusal> {
        match &self.exclusive {
            Exclusive::Other(_) => Err(Refusal::Exclusive),
            Exclusive::Balance(balance) if balance.is_running() => Err(Refusal::Error(EINPROGRESS)),
            Exclusive::Balance(_) if !resume => Err(Refusal::Error(EINPROGRESS)),
            Exclusive::None if resume => Err(Refusal::Error(ENOTCONN)),
            Exclusive::Balance(_) | Exclusive::None => Ok(()),
        }
    }
}

impl State {
    /// A first look, before the arguments are: whether a balance could start or, with `resume`, be
    /// resumed. The decision falls in [`State::start_balance`] and [`State::resume_balance`].
    ///
    /// # Errors
    ///
    /// [`Refusal::Exclusive`] while another exclusive operation runs; `EINPROGRESS` while a balance
    /// runs; `ENOTCONN` if there is none to resume. That one is paused is no answer yet: its turn
    /// comes after the arguments.
    pub fn look_at_balance(&self, resume: bool) -> core::result::Result<(), Refusal> {
        let inner = self.inner.lock();
        match inner.balance() {
            Some(balance) if !balance.is_running() => Ok(()),
            _ => inner.admit_balance(resume),
        }
    }

    /// Starts a balance, whose item is not on disk yet.
    ///
    /// # Errors
    ///
    /// [`Refusal::Exclusive`] while another exclusive operation runs; `EINPROGRESS` while a balance
    /// runs or is paused; `EAGAIN`, with a rate-limited warning, while sends run; `EINVAL` while
    /// the volume is being unmounted; `EINTR` on a signal while a cancelled balance is being
    /// removed.
    pub fn start_balance(
        &self,
        log: &dyn Log,
        control: KBox<BalanceControl>,
    ) -> core::result::Result<BalanceRun<'_>, Refusal> {
        self.begin_balance(log, Some(control))
    }

    /// Resumes the paused balance. If it is refused it stays paused, in memory and on disk.
    ///
    /// # Errors
    ///
    /// As [`State::start_balance`], and `ENOTCONN` if no balance is paused.
    pub fn resume_balance(&self, log: &dyn Log) -> core::result::Result<BalanceRun<'_>, Refusal> {
        self.begin_balance(log, None)
    }

    /// Starts `control` or, without it, resumes what is paused: one decision, under the lock.
    fn begin_balance(
        &self,
        log: &dyn Log,
        control: Option<KBox<BalanceControl>>,
    ) -> core::result::Result<BalanceRun<'_>, Refusal> {
        let mut inner = self.inner.lock();
        while inner.removing() {
            if self.changed.wait_interruptible(&mut inner) {
                return Err(Refusal::Error(EINTR));
            }
        }
        inner.admit_balance(control.is_none())?;
        if let Err(why) = inner.start_relocation() {
            let warn = matches!(why, NotNow::Sends(_)) && inner.relocation_refused.admit();
            drop(inner);
            return Err(Refusal::Error(refuse(log, why, warn)));
        }
        let run = inner.next_balance;
        inner.next_balance = run.wrapping_add(1);
        let phase = Phase::Running {
            pause: false,
            cancel: false,
        };
        let resumed = control.is_none();
        if let Some(control) = control {
            inner.exclusive = Exclusive::Balance(Balance {
                id: run,
                run,
                phase,
                control,
            });
        } else if let Some(balance) = inner.balance_mut() {
            balance.run = run;
            balance.phase = phase;
        }
        drop(inner);
        Ok(BalanceRun {
            relocation: RelocationToken {
                state: self,
                on_drop: if resumed {
                    OnDrop::Pause
                } else {
                    OnDrop::Forget
                },
            },
        })
    }

    /// Makes known the balance whose item the mount found: it is paused.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there is an exclusive operation already, which a mount cannot meet.
    pub fn recover_balance(&self, control: KBox<BalanceControl>) -> Result {
        let mut inner = self.inner.lock();
        if !matches!(inner.exclusive, Exclusive::None) {
            return Err(EBUSY);
        }
        let id = inner.next_balance;
        inner.next_balance = id.wrapping_add(1);
        inner.exclusive = Exclusive::Balance(Balance {
            id,
            run: id,
            phase: Phase::Paused,
            control,
        });
        Ok(())
    }

    /// Whether there is a balance, running or not.
    pub fn has_balance(&self) -> bool {
        self.inner.lock().balance().is_some()
    }

    /// What the balance does.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` if there is none, `ENOMEM`.
    pub fn balance_status(&self) -> Result<BalanceStatus> {
        let control = KBox::new_uninit(GFP_KERNEL)?;
        let inner = self.inner.lock();
        let balance = inner.balance().ok_or(ENOTCONN)?;
        let (running, pause_requested, cancel_requested) = match balance.phase {
            Phase::Running { pause, cancel } => (true, pause, cancel),
            Phase::Paused => (false, false, false),
            Phase::Removing => (false, false, true),
        };
        Ok(BalanceStatus {
            control: KBox::write(control, *balance.control),
            running,
            pause_requested,
            cancel_requested,
        })
    }

    /// Asks the running balance to pause and waits until its run is over, be it by this or
    /// otherwise.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` if none runs; `EINTR` on a signal, where the request stays.
    pub fn pause_balance(&self) -> Result {
        let mut inner = self.inner.lock();
        let run = match inner.balance_mut() {
            Some(balance) if balance.is_running() => {
                balance.request_pause();
                balance.run
            }
            _ => return Err(ENOTCONN),
        };
        while inner.runs(run) {
            if self.changed.wait_interruptible(&mut inner) {
                return Err(EINTR);
            }
        }
        Ok(())
    }

    /// Asks for the end of the balance, running or paused, and waits while another thread sees to
    /// it.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` if there is none; `EROFS` if the volume is read-only, so that the item cannot be
    /// deleted; `EINTR` on a signal, where a request to a running balance stays.
    pub fn cancel_balance(&self, read_only: bool) -> Result<CancelBalance<'_>> {
        let mut inner = self.inner.lock();
        let id = inner.balance().ok_or(ENOTCONN)?.id;
        if read_only {
            return Err(EROFS);
        }
        loop {
            let balance = match inner.balance_mut() {
                Some(balance) if balance.id == id => balance,
                _ => return Ok(CancelBalance::Done),
            };
            if matches!(balance.phase, Phase::Paused) {
                balance.phase = Phase::Removing;
                return Ok(CancelBalance::Remove(PausedBalance {
                    state: self,
                    removed: false,
                }));
            }
            // A run that was about to pause may miss the request: hence asked again after each
            // wait.
            balance.request_cancel();
            if self.changed.wait_interruptible(&mut inner) {
                return Err(EINTR);
            }
        }
    }
}

/// A run of a balance: the right to relocate, and the way to tell how far it is and how it ended.
///
/// Dropped without [`BalanceRun::finish`], a balance that was being started is forgotten, since its
/// item did not get to disk, and one that was being resumed is paused again.
pub struct BalanceRun<'a> {
    relocation: RelocationToken<'a>,
}

impl<'a> BalanceRun<'a> {
    /// The right to move extents.
    pub fn relocation(&self) -> &RelocationToken<'a> {
        &self.relocation
    }

    /// What the balance was asked to do.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn control(&self) -> Result<KBox<BalanceControl>> {
        let control = KBox::new_uninit(GFP_KERNEL)?;
        let inner = self.relocation.state.inner.lock();
        let balance = inner.balance().ok_or(ENOTCONN)?;
        Ok(KBox::write(control, *balance.control))
    }

    /// Makes `control` what others see.
    pub fn publish(&self, control: &BalanceControl) {
        let mut inner = self.relocation.state.inner.lock();
        if let Some(balance) = inner.balance_mut() {
            *balance.control = *control;
        }
    }

    /// Whether to go on with the count of block groups, which a pause lets come to its end.
    ///
    /// # Errors
    ///
    /// `ECANCELED` if the balance is to end.
    pub fn check_cancel(&self) -> Result {
        let (_, cancel) = self.requests();
        if cancel || crate::platform::fatal_signal_pending() {
            return Err(ECANCELED);
        }
        Ok(())
    }

    /// Whether to go on relocating; asked between any two batches of work.
    ///
    /// # Errors
    ///
    /// `ECANCELED` if the balance is to pause or to end.
    pub fn check(&self) -> Result {
        let (pause, cancel) = self.requests();
        if pause || cancel || crate::platform::fatal_signal_pending() {
            return Err(ECANCELED);
        }
        Ok(())
    }

    /// Requests to pause and to cancel.
    fn requests(&self) -> (bool, bool) {
        let inner = self.relocation.state.inner.lock();
        match inner.balance().map(|balance| &balance.phase) {
            Some(Phase::Running { pause, cancel }) => (*pause, *cancel),
            _ => (false, false),
        }
    }

    /// How the run is ending, now that its work ended with `result`. A cancel goes before a pause.
    pub fn ending(&self, result: &Result) -> Ending {
        let (pause, cancel) = self.requests();
        match result {
            Err(error) if *error == ECANCELED && pause && !cancel => Ending::Paused,
            Err(error) if *error == ECANCELED || *error == EINTR => Ending::Canceled,
            _ => Ending::Over,
        }
    }

    /// The item is safely on disk: whatever happens to this run, the balance is not to be
    /// forgotten.
    pub fn item_written(&mut self) {
        self.relocation.on_drop = OnDrop::Pause;
    }

    /// Ends the run. Unless it is paused, its item has been deleted.
    pub fn finish(mut self, ending: Ending) {
        self.relocation.on_drop = match ending {
            Ending::Paused => OnDrop::Pause,
            Ending::Canceled | Ending::Over => OnDrop::Forget,
        };
    }
}

/// A paused balance that is being cancelled. Dropped without [`PausedBalance::removed`], it is
/// paused again.
#[must_use = "the balance is paused again when this is dropped"]
pub struct PausedBalance<'a> {
    state: &'a State,
    removed: bool,
}

impl PausedBalance<'_> {
    /// Its item is gone from disk, and so it is gone.
    pub fn removed(mut self) {
        self.removed = true;
    }
}

impl Drop for PausedBalance<'_> {
    fn drop(&mut self) {
        let mut inner = self.state.inner.lock();
        if self.removed {
            inner.exclusive = Exclusive::None;
        } else if let Some(balance) = inner.balance_mut() {
            balance.pause();
        }
        self.state.changed.notify_all();
    }
}
