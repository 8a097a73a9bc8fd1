// SPDX-License-Identifier: GPL-2.0
//! The send stream: its encoder, and the walk of a tree that fills it.
