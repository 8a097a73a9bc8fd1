// SPDX-License-Identifier: GPL-2.0
//! What the engine prints, for tests that look at it.

use std::cell::RefCell;

thread_local! {
    static CAPTURE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `f` and returns, beside its result, the lines that this thread printed meanwhile.
pub fn capture<R>(f: impl FnOnce() -> R) -> (R, Vec<String>) {
    let outer = CAPTURE.replace(Some(String::new()));
    let result = f();
    let text = CAPTURE.replace(outer).unwrap_or_default();
    (result, text.lines().map(String::from).collect())
}

/// Whether `args` went to a capture of this thread.
pub(crate) fn record(args: core::fmt::Arguments<'_>) -> bool {
    CAPTURE.with_borrow_mut(|capture| match capture {
        Some(text) => {
            // Writing into a String cannot fail.
            let _ = core::fmt::Write::write_fmt(text, args);
            true
        }
        None => false,
    })
}
