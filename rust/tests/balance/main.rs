// SPDX-License-Identifier: GPL-2.0
//! Balance on real volumes: what was on them stays, `btrfs check` accepts what comes out, and
//! faults lose nothing.

mod cancel;
mod contents;
mod corpus;
mod damaged;
mod faults;
mod full;
mod readers;
mod real;
mod sharing;
#[path = "../support/mod.rs"]
mod support;
