// SPDX-License-Identifier: GPL-2.0
//! What the engine asks of the machine: checksums, compression, clocks and the calling task.
//!
//! On the host `kernel::platform` of the stand-in offers the same names. Decompression works in
//! memory that was set aside when the module was loaded, so that reading a file does not need more
//! of it than its own pages: [`WORKSPACES`] keeps what is not in use. Memory for compression is
//! allocated at its first use and kept. It is not waited for: without it data is written as it is.

use crate::bindings;
use kernel::prelude::*;

kernel::sync::global_lock! {
    // SAFETY: `init` runs in the module's initialiser, before anything can be mounted.
    unsafe(uninit) static WORKSPACES: Mutex<Workspaces> = Workspaces::new();
}

/// Idle workspaces of each method.
struct Workspaces {
    zlib: KVec<KVVec<u8>>,
    zstd: KVec<KVVec<u8>>,
    deflate: KVec<KVVec<u8>>,
    zstd_compress: KVec<KVVec<u8>>,
    lzo: KVec<KVVec<u8>>,
}

/// How many idle workspaces of a method are kept.
const KEEP: usize = 4;

/// The largest window of a zstd frame that btrfs writes: an extent's worth.
const ZSTD_WINDOW: usize = 128 * 1024;

/// The base two logarithm of zlib's window in bytes.
const MAX_WBITS: i32 = 15;

/// How much memory zlib takes to compress (`DEF_MEM_LEVEL`).
const MEM_LEVEL: i32 = 8;

const Z_OK: i32 = 0;
const Z_STREAM_END: i32 = 1;

/// The memory that LZO takes to compress, in bytes (`LZO1X_1_MEM_COMPRESS`).
const LZO_WORKSPACE: usize = 8192 * size_of::<u16>();

#[derive(Clone, Copy)]
enum Method {
    /// Decompression of zlib streams.
    Zlib,
    /// Decompression of zstd frames.
    Zstd,
    /// Compression into zlib streams.
    Deflate,
    /// Compression into zstd frames, with a workspace of this size in bytes.
    ZstdCompress(usize),
    /// Compression into LZO blocks.
    Lzo,
}

impl Workspaces {
    const fn new() -> Self {
        Self {
            zlib: KVec::new(),
            zstd: KVec::new(),
            deflate: KVec::new(),
            zstd_compress: KVec::new(),
            lzo: KVec::new(),
        }
    }

    fn idle(&mut self, method: Method) -> &mut KVec<KVVec<u8>> {
        match method {
            Method::Zlib => &mut self.zlib,
            Method::Zstd => &mut self.zstd,
            Method::Deflate => &mut self.deflate,
            Method::ZstdCompress(_) => &mut self.zstd_compress,
            Method::Lzo => &mut self.lzo,
        }
    }
}

impl Method {
    fn allocate(self) -> Result<KVVec<u8>> {
        let bytes = match self {
            Method::Zlib => {
                // SAFETY: The function only returns a number.
                let bytes = unsafe { bindings::zlib_inflate_workspacesize() };
                usize::try_from(bytes).map_err(|_| EINVAL)?
            }
            // SAFETY: The function only computes a number.
            Method::Zstd => unsafe { bindings::zstd_dstream_workspace_bound(ZSTD_WINDOW) },
            Method::Deflate => {
                // SAFETY: The function only computes a number.
                let bytes = unsafe { bindings::zlib_deflate_workspacesize(MAX_WBITS, MEM_LEVEL) };
                usize::try_from(bytes).map_err(|_| EINVAL)?
            }
            Method::ZstdCompress(bytes) => bytes,
            Method::Lzo => LZO_WORKSPACE,
        };
        Ok(KVVec::zeroed(bytes, GFP_KERNEL | __GFP_NOWARN)?)
    }
}

/// A workspace for one call; the pool has it back when this is dropped.
struct Workspace {
    method: Method,
    memory: KVVec<u8>,
}

impl Workspace {
    fn get(method: Method) -> Result<Self> {
        let idle = WORKSPACES.lock().idle(method).pop();
        let memory = match (idle, method) {
            // One for a lower level may be too small.
            (Some(memory), Method::ZstdCompress(bytes)) if memory.len() < bytes => {
                drop(memory);
                method.allocate()?
            }
            (Some(memory), _) => memory,
            (None, _) => method.allocate()?,
        };
        Ok(Self { method, memory })
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let memory = core::mem::take(&mut self.memory);
        // The capacity is there since `init`; a workspace beyond it is freed.
        let refused = WORKSPACES
            .lock()
            .idle(self.method)
            .push_within_capacity(memory);
        drop(refused);
    }
}

/// Sets up the pool of workspaces. The module's initialiser calls this, once.
///
/// # Errors
///
/// `ENOMEM`.
///
/// # Safety
///
/// Called once, before any other function of this file.
pub(crate) unsafe fn init() -> Result {
    // SAFETY: By this function's own contract this is the first use and the only initialisation.
    unsafe { WORKSPACES.init() };
    for method in [Method::Zlib, Method::Zstd] {
        let mut idle = KVec::with_capacity(KEEP, GFP_KERNEL)?;
        idle.push(method.allocate()?, GFP_KERNEL)?;
        *WORKSPACES.lock().idle(method) = idle;
    }
    for method in [Method::Deflate, Method::ZstdCompress(0), Method::Lzo] {
        let idle = KVec::with_capacity(KEEP, GFP_KERNEL)?;
        *WORKSPACES.lock().idle(method) = idle;
    }
    Ok(())
}

/// Frees the pool. Statics are not dropped, so the module's exit calls this.
pub(crate) fn exit() {
    let idle = core::mem::replace(&mut *WORKSPACES.lock(), Workspaces::new());
    drop(idle);
}

/// The raw Castagnoli CRC of `data` on top of `seed`, inverted neither before nor after.
pub fn crc32c(seed: u32, data: &[u8]) -> u32 {
    // SAFETY: The pointer and the length are those of a live slice.
    unsafe { bindings::rbtrfs_crc32c(seed, data.as_ptr().cast(), data.len()) }
}

/// xxhash with 64 bits of `data`, with the seed 0.
pub fn xxh64(data: &[u8]) -> u64 {
    // SAFETY: The pointer and the length are those of a live slice.
    unsafe { bindings::xxh64(data.as_ptr().cast(), data.len(), 0) }
}

/// SHA-256 of `data`.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    // SAFETY: The pointer and the length are those of a live slice, and a digest has 32 bytes.
    unsafe { bindings::sha256(data.as_ptr(), data.len(), sum.as_mut_ptr()) };
    sum
}

/// BLAKE2b with 256 bits of `data`, without a key.
pub fn blake2b(data: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    // SAFETY: Both pointers are those of live memory of the lengths that go with them.
    unsafe {
        bindings::rbtrfs_blake2b(data.as_ptr(), data.len(), sum.as_mut_ptr(), sum.len());
    }
    sum
}

/// What zlib is told of its memory, of what it reads and of what it writes.
fn zlib_stream(workspace: &mut Workspace, src: &[u8], dst: &mut [u8]) -> bindings::z_stream {
    bindings::z_stream {
        workspace: workspace.memory.as_mut_ptr().cast(),
        next_in: src.as_ptr(),
        avail_in: src.len(),
        next_out: dst.as_mut_ptr(),
        avail_out: dst.len(),
        ..pin_init::zeroed()
    }
}

/// Decompresses a zlib stream into `dst` and returns the bytes produced; stops when `dst` is full.
///
/// # Errors
///
/// `EIO` for a damaged stream, `ENOMEM`.
pub fn inflate(src: &[u8], dst: &mut [u8]) -> Result<usize> {
    const Z_SYNC_FLUSH: i32 = 3;

    let mut workspace = Workspace::get(Method::Zlib)?;
    let mut stream = zlib_stream(&mut workspace, src, dst);

    // SAFETY: The workspace has the size that zlib asks for, and it and both buffers outlive the
    // stream.
    if unsafe { bindings::zlib_inflateInit2(&mut stream, MAX_WBITS) } != Z_OK {
        return Err(EIO);
    }
    // SAFETY: As above. zlib keeps within `avail_in` and `avail_out`.
    let status = unsafe { bindings::zlib_inflate(&mut stream, Z_SYNC_FLUSH) };
    if status != Z_STREAM_END && !(status == Z_OK && stream.avail_out == 0) {
        return Err(EIO);
    }
    Ok(dst.len().saturating_sub(stream.avail_out))
}

/// Decompresses one zstd frame into `dst` and returns the bytes produced; stops when `dst` is full.
///
/// # Errors
///
/// `EIO` for a damaged or truncated frame, `ENOMEM`.
pub fn zstd(src: &[u8], dst: &mut [u8]) -> Result<usize> {
    let mut workspace = Workspace::get(Method::Zstd)?;
    // SAFETY: The workspace lives until after the last use of the stream, and its size is passed.
    let stream = unsafe {
        bindings::zstd_init_dstream(
            ZSTD_WINDOW,
            workspace.memory.as_mut_ptr().cast(),
            workspace.memory.len(),
        )
    };
    if stream.is_null() {
        return Err(EIO);
    }
    let mut input = bindings::zstd_in_buffer {
        src: src.as_ptr().cast(),
        size: src.len(),
        pos: 0,
    };
    let mut output = bindings::zstd_out_buffer {
        dst: dst.as_mut_ptr().cast(),
        size: dst.len(),
        pos: 0,
    };
    loop {
        let before = (input.pos, output.pos);
        // SAFETY: The stream is valid and the buffers describe live slices; zstd keeps within them.
        let left = unsafe { bindings::zstd_decompress_stream(stream, &mut output, &mut input) };
        // SAFETY: The function only looks at the number.
        if unsafe { bindings::zstd_is_error(left) } != 0 {
            return Err(EIO);
        }
        if left == 0 || output.pos == output.size {
            return Ok(output.pos);
        }
        // Neither input taken nor output made: the frame goes on where the input ends.
        if (input.pos, output.pos) == before || input.pos == input.size {
            return Err(EIO);
        }
    }
}

/// Compresses `src` into one zlib stream in `dst`, and returns its size.
///
/// # Errors
///
/// `E2BIG` if it does not fit, `ENOMEM`, `EINVAL` for a level that there is not.
pub fn deflate(level: i32, src: &[u8], dst: &mut [u8]) -> Result<usize> {
    const Z_DEFLATED: i32 = 8;
    const Z_FINISH: i32 = 5;

    let mut workspace = Workspace::get(Method::Deflate)?;
    let mut stream = zlib_stream(&mut workspace, src, dst);

    // SAFETY: The workspace has the size that zlib asks for with these parameters, and it and both
    // buffers outlive the stream.
    let status = unsafe {
        bindings::zlib_deflateInit2(&mut stream, level, Z_DEFLATED, MAX_WBITS, MEM_LEVEL, 0)
    };
    if status != Z_OK {
        return Err(EINVAL);
    }
    // SAFETY: As above. zlib keeps within `avail_in` and `avail_out`.
    let status = unsafe { bindings::zlib_deflate(&mut stream, Z_FINISH) };
    if status != Z_STREAM_END {
        return Err(E2BIG);
    }
    Ok(dst.len().saturating_sub(stream.avail_out))
}

/// Compresses `src` into one zstd frame in `dst`, and returns its size. The window is no larger
/// than the C driver's readers take, which is that of an extent.
///
/// # Errors
///
/// `E2BIG` if it does not fit, `ENOMEM`, `EINVAL` for more than an extent's worth.
pub fn zstd_compress(level: i32, src: &[u8], dst: &mut [u8]) -> Result<usize> {
    if src.len() > ZSTD_WINDOW {
        return Err(EINVAL);
    }
    // SAFETY: The functions only compute parameters, and the memory for these.
    let (parameters, bytes) = unsafe {
        let parameters = bindings::zstd_get_params(level, src.len() as u64);
        (
            parameters,
            bindings::zstd_cctx_workspace_bound(&parameters.cParams),
        )
    };
    let mut workspace = Workspace::get(Method::ZstdCompress(bytes))?;
    // SAFETY: The workspace lives until after the last use of the context, and its size is passed.
    let context = unsafe {
        bindings::zstd_init_cctx(workspace.memory.as_mut_ptr().cast(), workspace.memory.len())
    };
    if context.is_null() {
        return Err(ENOMEM);
    }
    // SAFETY: The context is valid and the pointers and lengths are those of live slices.
    let made = unsafe {
        bindings::zstd_compress_cctx(
            context,
            dst.as_mut_ptr().cast(),
            dst.len(),
            src.as_ptr().cast(),
            src.len(),
            &parameters,
        )
    };
    // SAFETY: The function only looks at the number. There is no error but that of the size.
    if unsafe { bindings::zstd_is_error(made) } != 0 {
        return Err(E2BIG);
    }
    Ok(made)
}

/// Compresses `src` into one LZO1X block in `dst`, and returns its size.
///
/// # Errors
///
/// `E2BIG` if it does not fit, `ENOMEM`.
pub fn lzo1x_compress(src: &[u8], dst: &mut [u8]) -> Result<usize> {
    let mut workspace = Workspace::get(Method::Lzo)?;
    let mut len = dst.len();
    // SAFETY: Both buffers are live slices of the lengths passed, within which LZO keeps, and the
    // workspace has the size that it asks for.
    let status = unsafe {
        bindings::lzo1x_1_compress_safe(
            src.as_ptr(),
            src.len(),
            dst.as_mut_ptr(),
            &mut len,
            workspace.memory.as_mut_ptr().cast(),
        )
    };
    if status != 0 {
        return Err(E2BIG);
    }
    Ok(len)
}

/// Decompresses one LZO1X block into `dst` and returns the bytes produced.
///
/// # Errors
///
/// `EIO` for a damaged block or one that does not fit.
pub fn lzo1x(src: &[u8], dst: &mut [u8]) -> Result<usize> {
    let mut len = dst.len();
    // SAFETY: Both buffers are live slices of the lengths passed, within which LZO keeps.
    let status = unsafe {
        bindings::lzo1x_decompress_safe(src.as_ptr(), src.len(), dst.as_mut_ptr(), &mut len)
    };
    if status != 0 {
        return Err(EIO);
    }
    Ok(len)
}

/// While it lives, the calling task's allocations do not enter filesystems.
///
/// It belongs to the task that made it, so it cannot be sent to another.
pub struct NofsScope {
    flags: u32,
    _not_send: kernel::types::NotThreadSafe,
}

impl NofsScope {
    /// Begins the scope.
    pub fn enter() -> Self {
        Self {
            // SAFETY: `drop` restores the flags in the same task, for scopes nest and are not
            // `Send`.
            flags: unsafe { bindings::rbtrfs_memalloc_nofs_save() },
            _not_send: kernel::types::NotThreadSafe,
        }
    }
}

impl Drop for NofsScope {
    fn drop(&mut self) {
        // SAFETY: These are the flags that `enter` saved, in this task.
        unsafe { bindings::rbtrfs_memalloc_nofs_restore(self.flags) }
    }
}

/// Whether a signal waits for the calling task.
pub fn signal_pending() -> bool {
    kernel::current!().signal_pending()
}

/// Whether the calling task is about to be killed.
pub fn fatal_signal_pending() -> bool {
    // SAFETY: The function reads the state of the current task.
    unsafe { bindings::rbtrfs_fatal_signal_pending() }
}

/// Lets other tasks run if any waits for this CPU.
pub fn yield_now() {
    // SAFETY: The engine calls this where it may sleep, holding no spin lock.
    unsafe { bindings::rbtrfs_cond_resched() }
}

/// Sleeps, and returns whether no signal came.
pub fn sleep_interruptible(ms: u32) -> bool {
    // SAFETY: The function lets the current task sleep, which holds no lock here.
    unsafe { bindings::msleep_interruptible(ms) == 0 }
}

/// Whether one more line may go to the log of those that come in any number, a line for each bad
/// sector. The kernel says how many were left out.
pub fn may_log() -> bool {
    // SAFETY: The function has a lock of its own.
    unsafe { bindings::rbtrfs_may_log() }
}

/// The real time, in seconds and nanoseconds. It is the clock from which the VFS takes the times of
/// inodes: by a finer one, what a write changes would look older than the file that was made just
/// before.
pub fn now() -> (i64, u32) {
    let mut time = bindings::timespec64::default();
    // SAFETY: The pointer is valid for the write.
    unsafe { bindings::ktime_get_coarse_real_ts64(&mut time) };
    (time.tv_sec, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Milliseconds of a clock that only goes forward.
pub fn uptime_ms() -> u64 {
    // SAFETY: The function only reads the clock.
    let ns = unsafe { bindings::ktime_get() };
    u64::try_from(ns).unwrap_or(0) / 1_000_000
}
