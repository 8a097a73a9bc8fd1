// SPDX-License-Identifier: GPL-2.0
//! What the tokens say and leave behind, without threads; `interleavings.rs` has those.

use core::fmt;
use std::string::{String, ToString};
use std::sync::Mutex as StdMutex;
use std::vec::Vec;

use kernel::prelude::*;
use zerocopy::FromZeros;

use crate::format::balance::BalanceItem;
use crate::state::*;

#[derive(Default)]
struct Lines(StdMutex<Vec<String>>);

impl Log for Lines {
    fn info(&self, message: fmt::Arguments<'_>) {
        self.0.lock().unwrap().push(message.to_string());
    }
    fn warn(&self, message: fmt::Arguments<'_>) {
        self.info(message);
    }
    fn error(&self, message: fmt::Arguments<'_>) {
        self.info(message);
    }
}

impl Lines {
    fn take(&self) -> Vec<String> {
        core::mem::take(&mut self.0.lock().unwrap())
    }
}

fn control(flags: u64) -> KBox<BalanceControl> {
    let item = BalanceItem {
        flags: flags.into(),
        ..BalanceItem::new_zeroed()
    };
    BalanceControl::new(&item).unwrap()
}

#[test]
fn a_send_is_refused_while_a_relocation_runs() {
    let (state, lines) = (State::new().unwrap(), Lines::default());
    let relocation = state.begin_relocation(&lines).unwrap();
    assert_eq!(state.begin_send(&lines, 256).err(), Some(EAGAIN));
    assert_eq!(
        lines.take(),
        ["cannot run send because a balance operation is in progress"]
    );
    drop(relocation);
    assert!(state.begin_send(&lines, 256).is_ok());
    assert_eq!(state.send_in_progress(), 0);
    assert!(lines.take().is_empty());
}

#[test]
fn a_relocation_is_refused_while_sends_run() {
    let (state, lines) = (State::new().unwrap(), Lines::default());
    let sends: Vec<_> = (0..3)
        .map(|n| state.begin_send(&lines, 256 + n).unwrap())
        .collect();
    assert_eq!(state.begin_relocation(&lines).err(), Some(EAGAIN));
    assert_eq!(
        lines.take(),
        ["cannot run balance while send operations are in progress (3 in progress)"]
    );
    assert_eq!(
        state.start_balance(&lines, control(0)).err(),
        Some(Refusal::Error(EAGAIN))
    );
    assert_eq!(state.exclusive_operation().name(), "none");
    assert_eq!(lines.take().len(), 1);
    drop(sends);
    assert!(state.begin_relocation(&lines).is_ok());
}

#[test]
fn neither_is_refused_in_concurrent_mode() {
    let (state, lines) = (State::new().unwrap(), Lines::default());
    state.set_send_balance(SendBalance::Concurrent);
    let relocation = state.begin_relocation(&lines).unwrap();
    let send = state.begin_send(&lines, 256).unwrap();
    // Another relocation still is.
    assert_eq!(state.begin_relocation(&lines).err(), Some(EINPROGRESS));
    drop(relocation);
    let relocation = state.begin_relocation(&lines).unwrap();
    assert!(lines.take().is_empty());
    // Both go on when the mode changes, and what begins is judged by the new one.
    state.set_send_balance(SendBalance::Exclusive);
    assert_eq!(state.begin_send(&lines, 257).err(), Some(EAGAIN));
    drop(relocation);
    assert_eq!(state.begin_relocation(&lines).err(), Some(EAGAIN));
    assert!(state.begin_send(&lines, 257).is_ok());
    drop(send);
    assert!(state.begin_relocation(&lines).is_ok());
}

#[test]
fn warnings_are_limited() {
    let (state, lines) = (State::new().unwrap(), Lines::default());
    let relocation = state.begin_relocation(&lines).unwrap();
    for _ in 0..100 {
        assert_eq!(state.begin_send(&lines, 256).err(), Some(EAGAIN));
    }
    assert!((10..=20).contains(&lines.take().len()));
    drop(relocation);
}

#[test]
fn the_subvolumes_under_send_are_known() {
    let (state, lines) = (State::new().unwrap(), Lines::default());
    let first = state.begin_send(&lines, 300).unwrap();
    let mut sources = KVec::new();
    for root in [420, 256, 300, 257] {
        sources.push(root, GFP_KERNEL).unwrap();
    }
    first.set_sources(sources);
    let second = state.begin_send(&lines, 257).unwrap();
    assert_eq!(
        [256, 257, 300, 420, 421].map(|root| state.sends_of(root)),
        [1, 2, 1, 1, 0]
    );
    drop(first);
    assert_eq!(state.sends_of(256), 0);
    assert_eq!(state.sends_of(257), 1);
    drop(second);
    assert_eq!(state.sends_of(257), 0);
}

#[test]
fn many_sends_come_and_go() {
    let (state, lines) = (State::new().unwrap(), Lines::default());
    let mut sends = Vec::new();
    for n in 0..100 {
        sends.push(state.begin_send(&lines, n).unwrap());
        assert_eq!(state.send_in_progress() as usize, sends.len());
    }
    while !sends.is_empty() {
        drop(sends.swap_remove(sends.len() / 2));
        assert_eq!(state.send_in_progress() as usize, sends.len());
    }
}

#[test]
fn a_balance_goes_through_its_life() {
    let (state, lines) = (State::new().unwrap(), Lines::default());
    assert_eq!(state.pause_balance(), Err(ENOTCONN));
    assert_eq!(state.cancel_balance(false).err(), Some(ENOTCONN));
    assert_eq!(state.look_at_balance(true), Err(Refusal::Error(ENOTCONN)));
    assert!(!state.has_balance());

    let mut run = state.start_balance(&lines, control(1)).unwrap();
    assert_eq!(state.exclusive_operation().name(), "balance");
    for resume in [false, true] {
        assert_eq!(
            state.look_at_balance(resume),
            Err(Refusal::Error(EINPROGRESS))
        );
    }
    assert_eq!(state.begin_send(&lines, 256).err(), Some(EAGAIN));
    assert_eq!(
        state.begin_exclusive(Operation::Resize).err(),
        Some(Refusal::Exclusive)
    );
    run.item_written();
    let mut shown = run.control().unwrap();
    shown.progress.expected = 5;
    run.publish(&shown);
    let status = state.balance_status().unwrap();
    assert!(status.running && status.control.progress.expected == 5);
    assert_eq!(run.check(), Ok(()));
    assert_eq!(run.ending(&Ok(())), Ending::Over);
    run.finish(Ending::Paused);

    assert_eq!(state.exclusive_operation().name(), "balance paused");
    assert!(!state.balance_status().unwrap().running);
    assert_eq!(state.look_at_balance(false), Ok(()));
    assert_eq!(
        state.start_balance(&lines, control(2)).err(),
        Some(Refusal::Error(EINPROGRESS))
    );
    assert_eq!(state.pause_balance(), Err(ENOTCONN));
    assert_eq!(state.cancel_balance(true).err(), Some(EROFS));

    // Sends may run while the balance is paused, and it cannot be resumed then.
    let send = state.begin_send(&lines, 256).unwrap();
    assert_eq!(
        state.resume_balance(&lines).err(),
        Some(Refusal::Error(EAGAIN))
    );
    assert_eq!(state.exclusive_operation().name(), "balance paused");
    drop(send);

    // A resume that fails before it works keeps the balance.
    drop(state.resume_balance(&lines).unwrap());
    let status = state.balance_status().unwrap();
    assert!(!status.running && status.control.item.flags.get() == 1);

    match state.cancel_balance(false).unwrap() {
        CancelBalance::Remove(paused) => {
            assert!(state.balance_status().unwrap().cancel_requested);
            paused.removed();
        }
        CancelBalance::Done => panic!("a paused balance has to be removed"),
    }
    assert!(!state.has_balance());
    assert_eq!(state.exclusive_operation().name(), "none");
}

#[test]
fn another_operation_holds_a_balance_off() {
    let (state, lines) = (State::new().unwrap(), Lines::default());
    let resize = state.begin_exclusive(Operation::Resize).unwrap();
    for resume in [false, true] {
        assert_eq!(state.look_at_balance(resume), Err(Refusal::Exclusive));
    }
    assert_eq!(
        state.start_balance(&lines, control(0)).err(),
        Some(Refusal::Exclusive)
    );
    assert_eq!(state.recover_balance(control(0)), Err(EBUSY));
    drop(resize);
    assert_eq!(state.recover_balance(control(0)), Ok(()));
}
