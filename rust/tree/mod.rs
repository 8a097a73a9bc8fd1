// SPDX-License-Identifier: GPL-2.0
//! Verified tree nodes, their cache, search, and copy-on-write changes.
