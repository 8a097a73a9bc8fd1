// SPDX-License-Identifier: GPL-2.0
//! Block devices, the map from logical to physical addresses, and superblocks.
