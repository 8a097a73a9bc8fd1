// SPDX-License-Identifier: GPL-2.0
//! Tests of the tokens: one by one, and with threads in every order, which needs shuttle's
//! scheduler (`cargo test --features shuttle state::tests`).

#[cfg(feature = "shuttle")]
mod interleavings;
#[cfg(not(feature = "shuttle"))]
mod tokens;
