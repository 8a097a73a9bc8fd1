// SPDX-License-Identifier: GPL-2.0
//! One mounted volume: block groups, free space, delayed refs, transactions, commit and epochs.
