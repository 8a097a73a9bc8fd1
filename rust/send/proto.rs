// SPDX-License-Identifier: GPL-2.0
//! The numbers of the send stream, as in `fs/btrfs/send.h` of Linux, and what differs between its
//! versions.

use kernel::prelude::*;

/// What a stream starts with; the version follows as a little-endian `u32`.
pub const MAGIC: &[u8; 13] = b"btrfs-stream\0";

/// The size in bytes of a command's head: the length of what follows (4), the command (2), the crc
/// (4).
pub const COMMAND_HEAD: usize = 10;

/// Commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Command {
    /// The stream makes a new subvolume.
    Subvol = 1,
    /// The stream makes a new subvolume from a snapshot of another one.
    Snapshot = 2,
    /// Makes a regular file.
    Mkfile = 3,
    /// Makes a directory.
    Mkdir = 4,
    /// Makes a device file.
    Mknod = 5,
    /// Makes a named pipe.
    Mkfifo = 6,
    /// Makes a socket.
    Mksock = 7,
    /// Makes a symbolic link.
    Symlink = 8,
    /// Moves.
    Rename = 9,
    /// Adds a name.
    Link = 10,
    /// Removes a name.
    Unlink = 11,
    /// Removes a directory.
    Rmdir = 12,
    /// Sets an extended attribute.
    SetXattr = 13,
    /// Removes an extended attribute.
    RemoveXattr = 14,
    /// Writes file data.
    Write = 15,
    /// Shares file data with another file, or another part of the same file.
    Clone = 16,
    /// Sets a file's size.
    Truncate = 17,
    /// Sets permissions.
    Chmod = 18,
    /// Sets owner and group.
    Chown = 19,
    /// Sets times.
    Utimes = 20,
    /// Ends the stream.
    End = 21,
    /// Stands for a write in a stream without file data.
    UpdateExtent = 22,
    /// Version 2: makes a hole, as fallocate(2) does.
    Fallocate = 23,
    /// Version 2: sets the flags of the inode item.
    Fileattr = 24,
    /// Version 2: writes file data that is still compressed.
    EncodedWrite = 25,
}

/// Attributes of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Attr {
    /// The UUID of what is sent.
    Uuid = 1,
    /// The transaction of its last change.
    Ctransid = 2,
    /// An inode number.
    Ino = 3,
    /// A size in bytes.
    Size = 4,
    /// Type and permissions, or permissions alone.
    Mode = 5,
    /// Owner.
    Uid = 6,
    /// Group.
    Gid = 7,
    /// A device number.
    Rdev = 8,
    /// Last change of the inode.
    Ctime = 9,
    /// Last change of the data.
    Mtime = 10,
    /// Last access.
    Atime = 11,
    /// Birth, from version 2 on.
    Otime = 12,
    /// The name of an extended attribute.
    XattrName = 13,
    /// Its value.
    XattrData = 14,
    /// The path that the command is about.
    Path = 15,
    /// Where that moves to.
    PathTo = 16,
    /// What a symbolic link says, or the file that gets a further name.
    PathLink = 17,
    /// An offset in the file, in bytes.
    FileOffset = 18,
    /// File data.
    Data = 19,
    /// The UUID of the subvolume to clone from.
    CloneUuid = 20,
    /// The transaction of its last change.
    CloneCtransid = 21,
    /// The file to clone from.
    ClonePath = 22,
    /// Where in it, in bytes.
    CloneOffset = 23,
    /// How much, in bytes.
    CloneLen = 24,
    /// The mode of fallocate(2).
    FallocateMode = 25,
    /// The flags of an inode item.
    Fileattr = 26,
    /// The bytes of the file that an encoded write sets.
    UnencodedFileLen = 27,
    /// The size of the whole extent once it is decoded.
    UnencodedLen = 28,
    /// Where in that the file's bytes start.
    UnencodedOffset = 29,
    /// The compression.
    Compression = 30,
    /// The encryption, always none.
    Encryption = 31,
}

/// How `Attr::Compression` names a compression.
pub mod encoded {
    /// zlib.
    pub const ZLIB: u32 = 1;
    /// zstd.
    pub const ZSTD: u32 = 2;
    /// LZO in segments of 4 KiB; larger sectors have the numbers that follow.
    pub const LZO_4K: u32 = 3;
}

/// The version of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// All that there was before Linux 6.0.
    V1,
    /// Larger writes, birth times, encoded writes.
    V2,
}

impl Version {
    /// The highest version there is.
    pub const LATEST: Version = Version::V2;

    /// The version of a number in `btrfs_ioctl_send_args`, where 0 asks for the highest.
    ///
    /// # Errors
    ///
    /// `EPROTO` for a version that does not exist yet.
    pub fn from_number(number: u32) -> Result<Version> {
        match number {
            0 => Ok(Version::LATEST),
            1 => Ok(Version::V1),
            2 => Ok(Version::V2),
            _ => Err(EPROTO),
        }
    }

    /// The number in the stream's head.
    pub fn number(self) -> u32 {
        match self {
            Version::V1 => 1,
            Version::V2 => 2,
        }
    }

    /// The size in bytes that no command exceeds, its head included.
    pub fn max_command(self) -> usize {
        match self {
            Version::V1 => 64 << 10,
            // Space for the largest compressed extent after the other attributes.
            Version::V2 => (16 + 128) << 10,
        }
    }

    /// The bytes of file data in one command at most.
    pub fn max_data(self) -> u64 {
        match self {
            Version::V1 => 48 << 10,
            Version::V2 => 128 << 10,
        }
    }
}
