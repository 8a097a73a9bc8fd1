// SPDX-License-Identifier: GPL-2.0
//! Progress of long work, shown where standard error is a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// A line that counts bytes.
pub fn bytes(what: &'static str) -> ProgressBar {
    spinner("{spinner} {msg}: {bytes} ({bytes_per_sec})", what)
}

/// A line that counts things.
pub fn count(what: &'static str) -> ProgressBar {
    spinner("{spinner} {msg}: {human_pos} ({per_sec})", what)
}

fn spinner(template: &str, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
