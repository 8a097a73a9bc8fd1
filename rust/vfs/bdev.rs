// SPDX-License-Identifier: GPL-2.0
//! The engine's `BlockDevice` over a `struct block_device`.
//!
//! A batch of requests is sent to the block layer under one plug and then awaited as a whole. Data
//! goes between the disk and the caller's own memory, be it from kmalloc, vmalloc or the page
//! cache.

use crate::bindings;
use crate::device::{BlockDevice, ReadIo, WriteIo};
use crate::platform::NofsScope;
use core::ptr::NonNull;
use kernel::error::to_result;
use kernel::fs::File;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::atomic::{Atomic, Full, Relaxed};
use kernel::sync::Completion;

/// The unit of the block layer's addresses, and what all offsets and lengths must be multiples of.
const SECTOR: usize = 512;

/// How a request is flagged.
#[derive(Clone, Copy)]
struct Op(u32);

impl Op {
    const READ: Op = Op(bindings::req_op_REQ_OP_READ);
    const WRITE: Op = Op(bindings::req_op_REQ_OP_WRITE);
    const SYNC: u32 = 1 << bindings::req_flag_bits___REQ_SYNC;
    const META: u32 = 1 << bindings::req_flag_bits___REQ_META;
    const FUA: u32 = 1 << bindings::req_flag_bits___REQ_FUA;

    const fn with(self, flags: u32) -> Op {
        Op(self.0 | flags)
    }
}

/// An open block device.
///
/// # Invariants
///
/// `bdev` is the device of `file` and is valid as long as `file` is held.
pub(super) struct Bdev {
    bdev: NonNull<bindings::block_device>,
    name: KVec<u8>,
    _file: ARef<File>,
}

// SAFETY: The block layer's functions may be called on one device from any thread, and `File` is
// `Send`.
unsafe impl Send for Bdev {}
// SAFETY: As above; `Bdev` has no state of its own that changes.
unsafe impl Sync for Bdev {}

/// What is shared between the submitter of a batch and the completions of its bios.
#[pin_data]
struct Batch {
    /// Bios in flight, and one for the submitter.
    pending: Atomic<i32>,
    #[pin]
    done: Completion,
}

impl Batch {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            pending: Atomic::new(1),
            done <- Completion::new(),
        })
    }

    fn put(&self) {
        if self.pending.fetch_sub(1, Full) == 1 {
            self.done.complete_all();
        }
    }
}

/// The outcome of one request, which may be several bios.
struct Slot {
    batch: NonNull<Batch>,
    /// Zero, or the first error as a negative number.
    status: Atomic<i32>,
}

impl Slot {
    fn fail(&self, errno: i32) {
        let _ = self.status.cmpxchg(0, errno, Relaxed);
    }

    fn result(&self) -> Result {
        to_result(self.status.load(Relaxed))
    }
}

/// Runs when a bio is done, maybe in interrupt context.
///
/// # Safety
///
/// `bi_private` of `bio` points to a [`Slot`] which, like its batch, lives until the batch is done.
unsafe extern "C" fn end_io(bio: *mut bindings::bio) {
    // SAFETY: By this function's contract; the submitter waits for `Batch::put` below before it
    // leaves.
    let slot = unsafe { &*(*bio).bi_private.cast::<Slot>() };
    // SAFETY: The block layer passes a valid bio.
    let errno = unsafe { bindings::rbtrfs_bio_errno(bio) };
    if errno != 0 {
        slot.fail(errno);
    }
    let batch = slot.batch;
    // SAFETY: This drops the reference that the submitter left to the completion.
    unsafe { bindings::bio_put(bio) };
    // SAFETY: The batch lives until its count reaches zero, and this bio is still counted.
    unsafe { batch.as_ref() }.put();
}

impl Bdev {
    /// Takes the device that a superblock was set up on.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it has none, `ENOMEM`.
    ///
    /// # Safety
    ///
    /// `sb` is valid, and its device file, if there is one, stays open during this call.
    pub(super) unsafe fn of_super(sb: *mut bindings::super_block) -> Result<Self> {
        // SAFETY: By this function's contract.
        let (file, bdev) = unsafe { ((*sb).s_bdev_file, (*sb).s_bdev) };
        let bdev = NonNull::new(bdev).ok_or(ENODEV)?;
        if file.is_null() {
            return Err(ENODEV);
        }
        // SAFETY: `setup_bdev_super` filled `s_id` with a string.
        let id = unsafe { CStr::from_char_ptr((*sb).s_id.as_ptr().cast()) };
        let mut name = KVec::new();
        name.extend_from_slice(id.to_bytes(), GFP_KERNEL)?;
        // SAFETY: The file is open, and block devices have no position that could be in use.
        let file: ARef<File> = unsafe { File::from_raw_file(file) }.into();
        // INVARIANT: `s_bdev` is the device of `s_bdev_file`.
        let bdev = Self {
            bdev,
            name,
            _file: file,
        };
        // SAFETY: The device is open.
        unsafe { bindings::rbtrfs_bdev_sync(bdev.bdev.as_ptr()) };
        Ok(bdev)
    }

    fn check(&self, offset: u64, len: usize) -> Result {
        let end = offset.checked_add(len as u64).ok_or(EINVAL)?;
        if offset % SECTOR as u64 != 0 || len % SECTOR != 0 || end > self.size() {
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Sends the bios of one request; what goes wrong is found in `slot` when the batch is done.
    ///
    /// # Safety
    ///
    /// `data` is valid for `len` bytes, for writes if `op` reads, and is not otherwise used; that
    /// and the slot and its batch last until the batch is done.
    unsafe fn submit(&self, slot: &Slot, op: Op, offset: u64, data: *mut u8, len: usize) {
        if let Err(e) = self.check(offset, len) {
            slot.fail(e.to_errno());
            return;
        }
        let mut done = 0;
        while done < len {
            let left = len - done;
            let vecs = u32::try_from(left / kernel::page::PAGE_SIZE)
                .unwrap_or(u32::MAX - 2)
                .saturating_add(2);
            let sector = (offset + done as u64) / SECTOR as u64;
            // SAFETY: The device is open. An allocation that may wait does not fail.
            let bio = unsafe { bindings::rbtrfs_bio_alloc(self.bdev.as_ptr(), vecs, op.0, sector) };
            // SAFETY: `done` is less than `len`, so the sum stays within the buffer.
            let at = unsafe { data.add(done) };
            // SAFETY: By this function's contract about `data`.
            let added = unsafe { bindings::rbtrfs_bio_add(bio, at.cast(), left) };
            if added == 0 || added % SECTOR != 0 {
                // SAFETY: The bio was not submitted and this is the only reference.
                unsafe { bindings::bio_put(bio) };
                slot.fail(EIO.to_errno());
                return;
            }
            // SAFETY: The bio is not yet submitted, so it is ours to fill.
            unsafe {
                (*bio).bi_private = core::ptr::from_ref(slot).cast_mut().cast();
                (*bio).bi_end_io = Some(end_io);
            }
            // SAFETY: The batch outlives this call by this function's contract.
            unsafe { slot.batch.as_ref() }.pending.fetch_add(1, Relaxed);
            // SAFETY: The bio is complete; its reference goes over to `end_io`.
            unsafe { bindings::submit_bio(bio) };
            done += added;
        }
    }

    /// Issues `requests`, calls `meanwhile`, waits for all of them, and gives each its result.
    ///
    /// # Safety
    ///
    /// Each request's pointer is valid for its length, for writes if `op` reads, and not used
    /// otherwise until this returns.
    unsafe fn run(
        &self,
        op: Op,
        count: usize,
        request: &mut dyn FnMut(usize) -> (u64, *mut u8, usize),
        meanwhile: &mut dyn FnMut(),
        result: &mut dyn FnMut(usize, Result),
    ) -> Result {
        // Memory for an I/O must not wait for a filesystem to write some back.
        let _nofs = NofsScope::enter();
        let mut slots = KVVec::with_capacity(count, GFP_KERNEL)?;
        pin_init::stack_pin_init!(let batch = Batch::new());
        let batch = batch.into_ref();
        for _ in 0..count {
            let slot = Slot {
                batch: NonNull::from(&*batch),
                status: Atomic::new(0),
            };
            slots.push(slot, GFP_KERNEL)?;
        }

        let mut plug = bindings::blk_plug::default();
        // SAFETY: The plug is on this stack and finished below.
        unsafe { bindings::blk_start_plug(&mut plug) };
        for (i, slot) in slots.iter().enumerate() {
            let (offset, data, len) = request(i);
            // SAFETY: By this function's contract; the slots and the batch live until the wait
            // below.
            unsafe { self.submit(slot, op, offset, data, len) };
        }
        // SAFETY: Started above, in this function.
        unsafe { bindings::blk_finish_plug(&mut plug) };
        meanwhile();
        batch.put();
        batch.done.wait_for_completion();

        let mut all = Ok(());
        for (i, slot) in slots.iter().enumerate() {
            let one = slot.result();
            if all.is_ok() {
                all = one;
            }
            result(i, one);
        }
        all
    }

    fn write_op(&self, op: Op, offset: u64, buf: &[u8]) -> Result {
        let bounce;
        let buf = if aligned(buf) {
            buf
        } else {
            bounce = copied(buf)?;
            &bounce[..]
        };
        let data = buf.as_ptr().cast_mut();
        // SAFETY: A write only reads the buffer, which is borrowed until the call returns.
        unsafe {
            self.run(
                op,
                1,
                &mut |_| (offset, data, buf.len()),
                &mut || (),
                &mut |_, _| (),
            )
        }
    }
}

/// Whether devices can be asked to transfer from or to this memory itself.
fn aligned(buf: &[u8]) -> bool {
    buf.as_ptr().addr() % SECTOR == 0
}

fn copied(buf: &[u8]) -> Result<KVVec<u8>> {
    let mut copy = KVVec::with_capacity(buf.len(), GFP_KERNEL)?;
    copy.extend_from_slice(buf, GFP_KERNEL)?;
    Ok(copy)
}

impl BlockDevice for Bdev {
    fn name(&self) -> &str {
        core::str::from_utf8(&self.name).unwrap_or("?")
    }

    fn size(&self) -> u64 {
        // SAFETY: The device is open, by the type invariant.
        unsafe { bindings::rbtrfs_bdev_size(self.bdev.as_ptr()) }
    }

    fn is_read_only(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::rbtrfs_bdev_read_only(self.bdev.as_ptr()) }
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result {
        let mut ios = [ReadIo::new(offset, buf)];
        self.read_many(&mut ios)
    }

    fn read_many(&self, ios: &mut [ReadIo<'_>]) -> Result {
        let mut bounces: KVec<(usize, KVVec<u8>)> = KVec::new();
        let mut requests: KVec<(u64, *mut u8, usize)> = KVec::with_capacity(ios.len(), GFP_KERNEL)?;
        for (i, io) in ios.iter_mut().enumerate() {
            let len = io.buf.len();
            let data = if aligned(io.buf) {
                io.buf.as_mut_ptr()
            } else {
                let mut bounce = KVVec::zeroed(len, GFP_KERNEL)?;
                let data = bounce.as_mut_ptr();
                bounces.push((i, bounce), GFP_KERNEL)?;
                data
            };
            requests.push((io.offset, data, len), GFP_KERNEL)?;
        }
        let nothing = (0, core::ptr::null_mut(), 0);
        let mut results: KVec<Result> = KVec::with_capacity(ios.len(), GFP_KERNEL)?;
        // SAFETY: Each pointer is that of a buffer which `ios` borrows, or of a bounce buffer, with
        // its length; neither is used until the call returns. There is space for every result, so
        // no push fails.
        let all = unsafe {
            self.run(
                Op::READ,
                requests.len(),
                &mut |i| requests.get(i).copied().unwrap_or(nothing),
                &mut || (),
                &mut |_, result| drop(results.push_within_capacity(result)),
            )
        };
        for (_, data, len) in requests.iter() {
            // SAFETY: Each pointer is still valid for its length.
            unsafe { bindings::rbtrfs_kmem_after_read(data.cast(), *len) };
        }
        for (i, bounce) in bounces.iter() {
            if let Some(io) = ios.get_mut(*i) {
                io.buf.copy_from_slice(bounce);
            }
        }
        for (io, result) in ios.iter_mut().zip(results.iter()) {
            io.result = *result;
        }
        all
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result {
        self.write_op(Op::WRITE.with(Op::SYNC), offset, buf)
    }

    fn write_many(&self, ios: &[WriteIo<'_>]) -> Result {
        self.write_many_while(ios, &mut || ())
    }

    fn write_many_while(&self, ios: &[WriteIo<'_>], meanwhile: &mut dyn FnMut()) -> Result {
        let mut bounces: KVec<KVVec<u8>> = KVec::new();
        let mut requests: KVVec<(u64, *mut u8, usize)> =
            KVVec::with_capacity(ios.len(), GFP_KERNEL)?;
        for io in ios {
            let data = if aligned(io.buf) {
                io.buf.as_ptr()
            } else {
                let bounce = copied(io.buf)?;
                let data = bounce.as_ptr();
                bounces.push(bounce, GFP_KERNEL)?;
                data
            };
            requests.push((io.offset, data.cast_mut(), io.buf.len()), GFP_KERNEL)?;
        }
        let nothing = (0, core::ptr::null_mut(), 0);
        // SAFETY: A write only reads, and each pointer is that of a buffer that `ios` borrows or of
        // a bounce buffer, with its length; the latter move with the vector that owns them, their
        // memory does not.
        unsafe {
            self.run(
                Op::WRITE.with(Op::SYNC),
                requests.len(),
                &mut |i| requests.get(i).copied().unwrap_or(nothing),
                meanwhile,
                &mut |_, _| (),
            )
        }
    }

    fn write_fua(&self, offset: u64, buf: &[u8]) -> Result {
        self.write_op(Op::WRITE.with(Op::SYNC | Op::META | Op::FUA), offset, buf)?;
        // Tools read superblocks through the device's page cache.
        // SAFETY: The device is open, by the type invariant.
        unsafe { bindings::rbtrfs_bdev_invalidate(self.bdev.as_ptr(), offset, buf.len() as u64) };
        Ok(())
    }

    fn flush(&self) -> Result {
        // SAFETY: The device is open, by the type invariant.
        to_result(unsafe { bindings::blkdev_issue_flush(self.bdev.as_ptr()) })
    }

    fn discard_granularity(&self) -> Option<u64> {
        // SAFETY: The device is open, by the type invariant.
        let bytes = unsafe { bindings::rbtrfs_bdev_discard_granularity(self.bdev.as_ptr()) };
        (bytes != 0).then_some(bytes.into())
    }

    fn discard(&self, offset: u64, len: u64) -> Result {
        if self.discard_granularity().is_none() {
            return Err(EOPNOTSUPP);
        }
        let end = offset.checked_add(len).ok_or(EINVAL)?;
        if end > self.size() {
            return Err(EINVAL);
        }
        let _nofs = NofsScope::enter();
        // SAFETY: The device is open, by the type invariant, and the range lies within it.
        to_result(unsafe {
            bindings::blkdev_issue_discard(
                self.bdev.as_ptr(),
                offset / SECTOR as u64,
                len / SECTOR as u64,
                bindings::GFP_KERNEL,
            )
        })
    }
}
