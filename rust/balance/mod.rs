// SPDX-License-Identifier: GPL-2.0
//! Balance: filters, control, the walk of backrefs and the relocation of block groups.
