// SPDX-License-Identifier: GPL-2.0
//! Long readers beside everything else: what others free while a send waits can be used again, and
//! what others move does not change what is sent.

mod clones;
#[path = "../balance/contents.rs"]
mod contents;
mod failures;
#[path = "../write/files.rs"]
mod files;
mod judge;
mod pins;
mod random;
mod relocated;
mod stops;
#[path = "../support/mod.rs"]
mod support;
