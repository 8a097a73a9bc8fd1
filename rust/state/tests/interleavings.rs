// SPDX-License-Identifier: GPL-2.0
//! Every interleaving of a few threads over the state, walked one by one.
//!
//! Shuttle takes the place of the operating system's scheduler: it switches threads before each
//! lock and in each wait, in all possible orders, and reports a deadlock (a lost wake-up is one) as
//! a failure. Each test also collects what happened in any order at all, so that a walk that missed
//! the interesting ones fails.

use core::fmt;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex as StdMutex};
use std::vec::Vec;

use kernel::prelude::*;
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::{thread, Config, Runner};
use zerocopy::FromZeros;

use crate::format::balance::BalanceItem;
use crate::state::*;

/// Nobody reads the messages here; the unit tests do.
struct Quiet;

impl Log for Quiet {
    fn info(&self, _: fmt::Arguments<'_>) {}
    fn warn(&self, _: fmt::Arguments<'_>) {}
    fn error(&self, _: fmt::Arguments<'_>) {}
}

/// The outcomes that were seen in any interleaving.
type Seen = Arc<StdMutex<BTreeSet<&'static str>>>;

fn note(seen: &Seen, what: &'static str) {
    seen.lock().unwrap().insert(what);
}

/// Runs every order of the threads, depth first: all have the same start, and differ in one choice
/// at least. The first thread only starts the others and waits for their ends, so it has no say in
/// the orders.
#[derive(Default)]
struct EveryOrder {
    /// The choices of this execution: the place among those that could run, and their number.
    choices: Vec<(usize, usize)>,
    depth: usize,
    executions: usize,
}

impl Scheduler for EveryOrder {
    fn new_execution(&mut self) -> Option<Schedule> {
        if self.executions > 0 {
            while matches!(self.choices.last(), Some((choice, of)) if choice + 1 == *of) {
                self.choices.pop();
            }
            self.choices.last_mut()?.0 += 1;
        }
        self.depth = 0;
        self.executions += 1;
        Some(Schedule::new(0))
    }

    fn next_task(&mut self, runnable: &[&Task], _: Option<TaskId>, _: bool) -> Option<TaskId> {
        let first = runnable.iter().find(|task| usize::from(task.id()) == 0);
        if let Some(first) = first {
            return Some(first.id());
        }
        if self.depth == self.choices.len() {
            self.choices.push((0, runnable.len()));
        }
        let (choice, of) = self.choices[self.depth];
        assert_eq!(of, runnable.len(), "the test is not deterministic");
        self.depth += 1;
        Some(runnable[choice].id())
    }

    fn next_u64(&mut self) -> u64 {
        unreachable!("nothing here is random")
    }
}

/// Walks all interleavings of `test`, and demands that each of `outcomes` was among what it noted,
/// and nothing else.
fn walk(outcomes: &[&'static str], test: impl Fn(Arc<State>, Seen) + Send + Sync + 'static) {
    let seen: Seen = Arc::default();
    let kept = seen.clone();
    let mut config = Config::new();
    config.failure_persistence = shuttle::FailurePersistence::None;
    let schedules = Runner::new(EveryOrder::default(), config).run(move || {
        let state = Arc::new(State::new().unwrap());
        test(state.clone(), seen.clone());
        assert_eq!(state.send_in_progress(), 0, "a send was left");
        assert!(!state.relocation_running(), "a relocation was left");
    });
    let kept: Vec<_> = kept.lock().unwrap().iter().copied().collect();
    let mut outcomes = outcomes.to_vec();
    outcomes.sort_unstable();
    assert_eq!(kept, outcomes, "after {schedules} interleavings");
    assert!(schedules > 1);
}

fn control() -> KBox<BalanceControl> {
    BalanceControl::new(&BalanceItem::new_zeroed()).unwrap()
}

fn spawn(state: &Arc<State>, seen: &Seen, f: fn(&State, &Seen)) -> thread::JoinHandle<()> {
    let (state, seen) = (state.clone(), seen.clone());
    thread::spawn(move || f(&state, &seen))
}

fn join<const N: usize>(threads: [thread::JoinHandle<()>; N]) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Works through a run as balance does: `batches` batches of work, then the end that was asked for.
fn run(run: BalanceRun<'_>, batches: usize) -> Ending {
    let mut run = run;
    run.item_written();
    let mut result = Ok(());
    for _ in 0..batches {
        result = run.check();
        if result.is_err() {
            break;
        }
    }
    let ending = run.ending(&result);
    run.finish(ending);
    ending
}

fn cancel(state: &State) -> &'static str {
    match state.cancel_balance(false) {
        Ok(CancelBalance::Done) => "cancel: stopped",
        Ok(CancelBalance::Remove(paused)) => {
            paused.removed();
            "cancel: removed"
        }
        Err(error) => {
            assert_eq!(error, ENOTCONN);
            "cancel: none"
        }
    }
}

fn start(state: &State, batches: usize) -> &'static str {
    match state.start_balance(&Quiet, control()) {
        Ok(token) => match run(token, batches) {
            Ending::Paused => "balance: paused",
            Ending::Canceled => "balance: canceled",
            Ending::Over => "balance: over",
        },
        Err(Refusal::Error(error)) if error == EAGAIN => "balance: again",
        Err(Refusal::Error(error)) if error == EINPROGRESS => "balance: in progress",
        Err(Refusal::Error(error)) if error == EINVAL => "balance: closing",
        Err(Refusal::Exclusive) => "balance: other",
        Err(other) => panic!("{other:?}"),
    }
}

fn resume(state: &State, batches: usize) -> &'static str {
    match state.resume_balance(&Quiet) {
        Ok(token) => match run(token, batches) {
            Ending::Paused => "resume: paused",
            Ending::Canceled => "resume: canceled",
            Ending::Over => "resume: over",
        },
        Err(Refusal::Error(error)) if error == EAGAIN => "resume: again",
        Err(Refusal::Error(error)) if error == EINPROGRESS => "resume: in progress",
        Err(Refusal::Error(error)) if error == ENOTCONN => "resume: none",
        Err(other) => panic!("{other:?}"),
    }
}

/// Sends and relocations, each counting itself in and out, of which never both are in.
#[test]
fn a_send_and_a_relocation_never_run_at_once() {
    static SENDS: AtomicUsize = AtomicUsize::new(0);
    static RELOCATIONS: AtomicUsize = AtomicUsize::new(0);
    fn send(state: &State, seen: &Seen) {
        match state.begin_send(&Quiet, 256) {
            Ok(token) => {
                let others = SENDS.fetch_add(1, SeqCst);
                note(
                    seen,
                    if others > 0 {
                        "sends side by side"
                    } else {
                        "a send"
                    },
                );
                token.set_sources(KVec::new());
                assert_eq!(RELOCATIONS.load(SeqCst), 0);
                SENDS.fetch_sub(1, SeqCst);
            }
            Err(error) => {
                assert_eq!(error, EAGAIN);
                note(seen, "a send refused");
            }
        }
    }
    fn relocate(state: &State, seen: &Seen) {
        match state.begin_relocation(&Quiet) {
            Ok(token) => {
                assert_eq!(RELOCATIONS.fetch_add(1, SeqCst), 0);
                assert_eq!(state.send_in_progress(), 0);
                assert_eq!(SENDS.load(SeqCst), 0);
                RELOCATIONS.fetch_sub(1, SeqCst);
                drop(token);
                note(seen, "a relocation");
            }
            Err(error) => {
                assert_eq!(error, EAGAIN);
                note(seen, "a relocation refused");
            }
        }
    }
    walk(
        &[
            "a relocation",
            "a relocation refused",
            "a send",
            "a send refused",
            "sends side by side",
        ],
        |state, seen| {
            join([
                spawn(&state, &seen, send),
                spawn(&state, &seen, send),
                spawn(&state, &seen, relocate),
            ]);
        },
    );
}

#[test]
fn two_relocations_never_run_at_once() {
    static RELOCATIONS: AtomicUsize = AtomicUsize::new(0);
    fn relocate(state: &State, seen: &Seen) {
        match state.begin_relocation(&Quiet) {
            Ok(_token) => {
                assert_eq!(RELOCATIONS.fetch_add(1, SeqCst), 0);
                assert!(state.relocation_running());
                RELOCATIONS.fetch_sub(1, SeqCst);
                note(seen, "ran");
            }
            Err(error) => {
                assert_eq!(error, EINPROGRESS);
                note(seen, "refused");
            }
        }
    }
    walk(&["ran", "refused"], |state, seen| {
        join([
            spawn(&state, &seen, relocate),
            spawn(&state, &seen, relocate),
            spawn(&state, &seen, relocate),
        ]);
    });
}

/// A pause that was admitted returns once the run is over, whether the pause ended it or not.
#[test]
fn a_pause_always_returns() {
    walk(
        &[
            "balance: over",
            "balance: paused",
            "pause: done",
            "pause: none",
        ],
        |state, seen| {
            let balance = spawn(&state, &seen, |state, seen| note(seen, start(state, 2)));
            let pause = |state: &State, seen: &Seen| match state.pause_balance() {
                Ok(()) => {
                    assert!(!state.balance_status().is_ok_and(|status| status.running));
                    note(seen, "pause: done");
                }
                Err(error) => {
                    assert_eq!(error, ENOTCONN);
                    note(seen, "pause: none");
                }
            };
            join([
                balance,
                spawn(&state, &seen, pause),
                spawn(&state, &seen, pause),
            ]);
        },
    );
}

/// A cancel that was admitted leaves no balance behind, even when a pause was faster.
#[test]
fn a_cancel_is_never_lost_to_a_pause() {
    walk(
        &[
            "balance: canceled",
            "balance: over",
            "balance: paused",
            "cancel: none",
            "cancel: removed",
            "cancel: stopped",
        ],
        |state, seen| {
            let balance = spawn(&state, &seen, |state, seen| note(seen, start(state, 1)));
            let pause = spawn(&state, &seen, |state, _| {
                let _ = state.pause_balance();
            });
            let cancel = spawn(&state, &seen, |state, seen| {
                let outcome = cancel(state);
                note(seen, outcome);
                if outcome != "cancel: none" {
                    assert!(!state.has_balance(), "cancelled and there");
                }
            });
            join([balance, pause, cancel]);
        },
    );
}

/// While a send runs a paused balance can be neither resumed nor lost.
#[test]
fn a_refused_resume_keeps_the_paused_balance() {
    walk(
        &["resume: again", "resume: over", "send", "send: again"],
        |state, seen| {
            state.recover_balance(control()).unwrap();
            let send = spawn(&state, &seen, |state, seen| {
                match state.begin_send(&Quiet, 256) {
                    Ok(_token) => {
                        note(seen, "send");
                        assert!(!state.relocation_running());
                    }
                    Err(error) => {
                        assert_eq!(error, EAGAIN);
                        note(seen, "send: again");
                    }
                }
            });
            let resume = spawn(&state, &seen, |state, seen| {
                let outcome = resume(state, 0);
                note(seen, outcome);
                let kept = outcome == "resume: again";
                assert_eq!(state.has_balance(), kept);
                let name = state.exclusive_operation().name();
                assert_eq!(name, if kept { "balance paused" } else { "none" });
            });
            join([send, resume]);
        },
    );
}

/// Of all who find a paused balance one takes it; each of the others learns how that ended.
#[test]
fn a_paused_balance_is_taken_once() {
    walk(
        &[
            "cancel: none",
            "cancel: removed",
            "cancel: stopped",
            "resume: canceled",
            "resume: none",
            "resume: over",
        ],
        |state, seen| {
            state.recover_balance(control()).unwrap();
            let cancel = |state: &State, seen: &Seen| note(seen, cancel(state));
            join([
                spawn(&state, &seen, cancel),
                spawn(&state, &seen, cancel),
                spawn(&state, &seen, |state, seen| note(seen, resume(state, 1))),
            ]);
            assert!(!state.has_balance());
            assert_eq!(state.exclusive_operation().name(), "none");
        },
    );
}

/// A cancel that cannot delete the item pauses the balance again, and those who waited for it go
/// on.
#[test]
fn a_failed_removal_pauses_again() {
    walk(
        &[
            "cancel: failed",
            "cancel: none",
            "cancel: removed",
            "cancel: stopped",
            "resume: none",
            "resume: over",
        ],
        |state, seen| {
            state.recover_balance(control()).unwrap();
            let failing = spawn(&state, &seen, |state, seen| {
                if let Ok(CancelBalance::Remove(paused)) = state.cancel_balance(false) {
                    drop(paused);
                    note(seen, "cancel: failed");
                }
            });
            let cancel = spawn(&state, &seen, |state, seen| note(seen, cancel(state)));
            let resume = spawn(&state, &seen, |state, seen| note(seen, resume(state, 0)));
            join([failing, cancel, resume]);
            assert!(!state.has_balance());
        },
    );
}

/// A start whose item does not get to disk leaves nothing, and wakes whoever waited for it.
#[test]
fn a_failed_start_leaves_nothing() {
    walk(
        &["cancel: none", "cancel: stopped", "failed", "refused"],
        |state, seen| {
            let failing = |state: &State, seen: &Seen| match state.start_balance(&Quiet, control())
            {
                Ok(run) => {
                    drop(run);
                    note(seen, "failed");
                }
                Err(refusal) => {
                    assert_eq!(refusal, Refusal::Error(EINPROGRESS));
                    note(seen, "refused");
                }
            };
            join([
                spawn(&state, &seen, failing),
                spawn(&state, &seen, failing),
                spawn(&state, &seen, |state, seen| note(seen, cancel(state))),
            ]);
            assert!(!state.has_balance());
        },
    );
}

#[test]
fn exclusive_operations_exclude_each_other() {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    walk(
        &[
            "balance: other",
            "balance: over",
            "resize",
            "resize: refused",
        ],
        |state, seen| {
            let resize = |state: &State, seen: &Seen| match state.begin_exclusive(Operation::Resize)
            {
                Ok(_token) => {
                    assert_eq!(RUNNING.fetch_add(1, SeqCst), 0);
                    assert_eq!(state.exclusive_operation().name(), "resize");
                    RUNNING.fetch_sub(1, SeqCst);
                    note(seen, "resize");
                }
                Err(refusal) => {
                    assert_eq!(refusal, Refusal::Exclusive);
                    note(seen, "resize: refused");
                }
            };
            join([
                spawn(&state, &seen, resize),
                spawn(&state, &seen, resize),
                spawn(&state, &seen, |state, seen| note(seen, start(state, 0))),
            ]);
            assert_eq!(state.exclusive_operation(), ExclusiveOperation::None);
        },
    );
}

/// Unmount waits for the balance, which stays paused if it was stopped, and nothing starts
/// afterwards.
#[test]
fn closing_waits_for_the_balance() {
    walk(
        &["balance: closing", "balance: over", "balance: paused"],
        |state, seen| {
            let balance = spawn(&state, &seen, |state, seen| note(seen, start(state, 2)));
            let close = spawn(&state, &seen, |state, seen| {
                state.close();
                assert!(!state.relocation_running());
                let late = start(state, 1);
                assert!(late == "balance: closing" || late == "balance: in progress");
                if late == "balance: closing" {
                    note(seen, late);
                }
            });
            join([balance, close]);
        },
    );
}

/// Balances and sends together, with a pause in between: what is asked of the state never
/// contradicts itself.
#[test]
fn what_is_shown_is_consistent() {
    walk(
        &[
            "balance: again",
            "balance: over",
            "balance: paused",
            "send",
            "send: again",
        ],
        |state, seen| {
            let balance = spawn(&state, &seen, |state, seen| note(seen, start(state, 1)));
            let send = spawn(&state, &seen, |state, seen| {
                match state.begin_send(&Quiet, 256) {
                    Ok(_token) => {
                        assert_ne!(state.exclusive_operation(), ExclusiveOperation::Balance);
                        assert_eq!(state.sends_of(256), 1);
                        note(seen, "send");
                    }
                    Err(_) => note(seen, "send: again"),
                }
            });
            let pause = spawn(&state, &seen, |state, _| {
                let _ = state.pause_balance();
            });
            join([balance, send, pause]);
        },
    );
}
