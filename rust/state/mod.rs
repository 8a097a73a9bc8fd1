// SPDX-License-Identifier: GPL-2.0
//! `FsState` behind its mutex: the tokens by which send and relocation exclude each other.
