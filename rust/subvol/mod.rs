// SPDX-License-Identifier: GPL-2.0
//! What lives in a subvolume's tree: inodes, directories, file extents, xattrs, and data checksums.
