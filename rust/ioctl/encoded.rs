// SPDX-License-Identifier: GPL-2.0
//! `ENCODED_READ` and `ENCODED_WRITE`: data of files as it is stored, compressed. `btrfs receive`
//! keeps what was sent compressed by the second.

use crate::format::CompressionMethod;
use crate::subvol::encoded::{EncodedRead, NewEncoded};
use crate::vfs::{capable_sys_admin, OpenFile, UserArg};
use kernel::prelude::*;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct btrfs_ioctl_encoded_io_args`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Args {
    iov: u64,
    iovcnt: u64,
    offset: i64,
    flags: u64,
    result: Encoding,
}

/// What reading fills in, from `len` on.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Encoding {
    len: u64,
    unencoded_len: u64,
    unencoded_offset: u64,
    compression: u32,
    encryption: u32,
    reserved: [[u64; 4]; 2],
}

/// `struct iovec`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct IoVec {
    base: u64,
    len: u64,
}

/// Where the part of the arguments starts that reading fills in, in bytes.
const RESULT: u64 = core::mem::offset_of!(Args, result) as u64;

const _: () = assert!(size_of::<Args>() == 128 && RESULT == 32);

/// The most elements of an `iov` (`UIO_MAXIOV`).
const MOST_VECTORS: u64 = 1024;

/// What is copied out of a hole at a time.
static ZEROS: [u8; 4096] = [0; 4096];

/// The most bytes that are read or written at once (`MAX_RW_COUNT`).
const MOST_BYTES: u64 = i32::MAX as u64 & !4095;

/// How many kinds of compression there are (`BTRFS_ENCODED_IO_COMPRESSION_TYPES`).
const COMPRESSION_TYPES: u32 = 8;

/// The number of a method here. The one of LZO tells the sector size, of which there is one.
const fn number(method: CompressionMethod) -> u32 {
    match method {
        CompressionMethod::Zlib => 1,
        CompressionMethod::Zstd => 2,
        CompressionMethod::Lzo => 3,
    }
}

/// Pieces of the caller's memory that are used as one.
struct UserVectors {
    all: KVec<IoVec>,
    bytes: u64,
}

impl UserVectors {
    fn read(args: &Args) -> Result<Self> {
        if args.iovcnt > MOST_VECTORS {
            return Err(EINVAL);
        }
        let size = size_of::<IoVec>() as u64;
        let (mut all, mut bytes) = (KVec::new(), 0u64);
        for n in 0..args.iovcnt {
            let at = UserArg::new(args.iov).add(n.saturating_mul(size))?;
            let mut one: IoVec = at.read()?;
            if i64::try_from(one.len).is_err() {
                return Err(EINVAL);
            }
            one.len = one.len.min(MOST_BYTES.saturating_sub(bytes));
            bytes = bytes.saturating_add(one.len);
            all.push(one, GFP_KERNEL)?;
        }
        Ok(Self { all, bytes })
    }

    /// Copies all of them in.
    fn copy_in(&self) -> Result<KVVec<u8>> {
        let mut copied = KVVec::zeroed(self.bytes as usize, GFP_KERNEL)?;
        let mut rest = &mut copied[..];
        for one in self.all.iter() {
            let (into, after) = rest.split_at_mut_checked(one.len as usize).ok_or(EFAULT)?;
            UserArg::new(one.base).read_slice(into)?;
            rest = after;
        }
        Ok(copied)
    }

    /// Copies `bytes` out, and so many zeros after them, which are no more than there is space for.
    fn copy_out(&self, mut bytes: &[u8], mut zeros: u64) -> Result {
        for one in self.all.iter() {
            let len = bytes.len().min(one.len as usize);
            let (part, after) = bytes.split_at_checked(len).ok_or(EFAULT)?;
            UserArg::new(one.base).write_slice(part)?;
            bytes = after;
            let mut at = len as u64;
            while zeros != 0 && at < one.len {
                let len = zeros
                    .min(one.len.saturating_sub(at))
                    .min(ZEROS.len() as u64);
                let part = ZEROS.get(..len as usize).ok_or(EFAULT)?;
                UserArg::new(one.base).add(at)?.write_slice(part)?;
                at = at.saturating_add(len);
                zeros = zeros.saturating_sub(len);
            }
        }
        Ok(())
    }
}

/// Reads a part of a file as it is stored, and returns how many bytes that is.
///
/// # Errors
///
/// `EPERM`, `EFAULT`, `EINVAL`; `ENOBUFS` if the caller's memory does not hold a compressed extent;
/// those of reading.
pub(super) fn read(file: &OpenFile<'_>, arg: UserArg) -> Result<isize> {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    let args: Args = arg.read()?;
    if args.flags != 0 {
        return Err(EINVAL);
    }
    let vectors = UserVectors::read(&args)?;
    if vectors.bytes == 0 {
        return Ok(0);
    }
    let offset = u64::try_from(args.offset).map_err(|_| EINVAL)?;
    let mut result = Encoding::default();
    let (mut bytes, mut zeros) = (KVVec::new(), 0);
    if let Some(read) = file.read_encoded(offset, vectors.bytes)? {
        let EncodedRead {
            len,
            unencoded_len,
            unencoded_offset,
            method,
            ..
        } = read;
        result = Encoding {
            len,
            unencoded_len,
            unencoded_offset,
            compression: method.map_or(0, number),
            ..result
        };
        (bytes, zeros) = (read.bytes, read.zeros);
    }
    vectors.copy_out(&bytes, zeros)?;
    arg.add(RESULT)?.write(&result)?;
    Ok((bytes.len() as u64).saturating_add(zeros) as isize)
}

/// Writes data that is compressed already, and returns how many bytes were.
///
/// # Errors
///
/// `EPERM`, `EBADF`, `EFAULT`, `EROFS`, `ENOSPC`, `EFBIG`; `EINVAL` for what the C driver refuses
/// as well, and for what no extent may be.
pub(super) fn write(file: &OpenFile<'_>, arg: UserArg) -> Result<isize> {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    if !file.is_open_for_writing() {
        return Err(EBADF);
    }
    let args: Args = arg.read()?;
    let Encoding {
        len,
        unencoded_len,
        unencoded_offset,
        compression,
        encryption,
        reserved,
    } = args.result;
    let after = unencoded_len.checked_sub(unencoded_offset);
    if args.flags != 0
        || reserved != [[0; 4]; 2]
        || !(1..COMPRESSION_TYPES).contains(&compression)
        || encryption != 0
        || after.is_none_or(|after| len > after)
    {
        return Err(EINVAL);
    }
    let vectors = UserVectors::read(&args)?;
    if vectors.bytes == 0 {
        return Ok(0);
    }
    let offset = u64::try_from(args.offset).map_err(|_| EINVAL)?;
    // As for any write (`rw_verify_area`).
    if args.offset.checked_add_unsigned(len).is_none() {
        return Err(EINVAL);
    }
    let _permission = file.want_write()?;
    let method = CompressionMethod::ALL
        .into_iter()
        .find(|method| number(*method) == compression)
        .ok_or(EINVAL)?;
    let new = NewEncoded {
        offset,
        len,
        unencoded_len,
        unencoded_offset,
        method,
    };
    new.check_bytes(vectors.bytes)?;
    if len == 0 {
        return Ok(0);
    }
    let bytes = vectors.copy_in()?;
    file.write_encoded(&new, &bytes)?;
    Ok(bytes.len() as isize)
}
