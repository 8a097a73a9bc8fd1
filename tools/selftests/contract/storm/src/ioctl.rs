// SPDX-License-Identifier: GPL-2.0
//! The ioctls under test, each answering its errno.

use std::fs::File;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

/// What an ioctl ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Done,
    /// A return value above zero.
    Returned(i32),
    Errno(i32),
}

pub const RESUME: u64 = 1 << 4;
pub const METADATA: u64 = 1 << 2;
const RUNNING: u64 = 1 << 0;

#[repr(C)]
struct SendArgs {
    fd: i64,
    clone_sources_count: u64,
    clone_sources: u64,
    parent_root: u64,
    flags: u64,
    version: u32,
    reserved: [u8; 28],
}

/// `flags`, `state`, and what follows.
#[repr(C)]
struct BalanceArgs {
    flags: u64,
    state: u64,
    rest: [u64; 126],
}

const SEND: libc::c_ulong = 0x4048_9426;
const BALANCE_V2: libc::c_ulong = 0xc400_9420;
const BALANCE_CTL: libc::c_ulong = 0x4004_9421;
const BALANCE_PROGRESS: libc::c_ulong = 0x8400_9422;

fn end(ret: libc::c_int) -> End {
    match ret {
        0 => End::Done,
        ret if ret > 0 => End::Returned(ret),
        _ => End::Errno(Error::last_os_error().raw_os_error().unwrap_or(0)),
    }
}

pub fn send(subvolume: &File, out: RawFd) -> End {
    let mut args = SendArgs {
        fd: out.into(),
        clone_sources_count: 0,
        clone_sources: 0,
        parent_root: 0,
        flags: 0,
        version: 0,
        reserved: [0; 28],
    };
    // SAFETY: The command takes a pointer to what `args` is.
    end(unsafe { libc::ioctl(subvolume.as_raw_fd(), SEND as _, &raw mut args) })
}

pub fn balance(mount: &File, flags: u64) -> End {
    let mut args = BalanceArgs {
        flags,
        state: 0,
        rest: [0; 126],
    };
    // SAFETY: As above.
    end(unsafe { libc::ioctl(mount.as_raw_fd(), BALANCE_V2 as _, &raw mut args) })
}

pub fn pause(mount: &File) -> End {
    // SAFETY: The command takes a number.
    end(unsafe { libc::ioctl(mount.as_raw_fd(), BALANCE_CTL as _, 1) })
}

pub fn cancel(mount: &File) -> End {
    // SAFETY: As above.
    end(unsafe { libc::ioctl(mount.as_raw_fd(), BALANCE_CTL as _, 2) })
}

/// Whether a balance runs, or the errno.
pub fn progress(mount: &File) -> Result<bool, End> {
    let mut args = BalanceArgs {
        flags: 0,
        state: 0,
        rest: [0; 126],
    };
    // SAFETY: As for `send`.
    match end(unsafe { libc::ioctl(mount.as_raw_fd(), BALANCE_PROGRESS as _, &raw mut args) }) {
        End::Done => Ok(args.state & RUNNING != 0),
        other => Err(other),
    }
}

/// A pipe: the end to read, and the end to write.
pub fn pipe() -> (File, File) {
    let mut ends = [0; 2];
    // SAFETY: The call fills in two numbers.
    let ret = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
    assert_eq!(ret, 0, "no pipe");
    // SAFETY: Both were just opened, and are owned by nobody else.
    unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) }
}

/// A file in memory: `/dev/null` is one of the few files that the kernel itself does not write to.
pub fn memory() -> File {
    // SAFETY: The name is a string.
    let fd = unsafe { libc::memfd_create(c"stream".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "no file in memory");
    // SAFETY: It was just opened, and is owned by nobody else.
    unsafe { File::from_raw_fd(fd) }
}
