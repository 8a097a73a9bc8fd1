// SPDX-License-Identifier: GPL-2.0
//! What the engine reaches through `crate::platform`, on the host.

use crate::error::{code::*, Result};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// CRC-32C of `data` going on from `seed`, without the usual inversions at start and end.
pub fn crc32c(seed: u32, data: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, data)
}

/// xxhash with 64 bits of `data`, with the seed 0.
pub fn xxh64(data: &[u8]) -> u64 {
    xxhash_rust::xxh64::xxh64(data, 0)
}

/// SHA-256 of `data`.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(data).into()
}

/// BLAKE2b with 256 bits of `data`.
pub fn blake2b(data: &[u8]) -> [u8; 32] {
    use blake2::Digest;
    blake2::Blake2b::<blake2::digest::consts::U32>::digest(data).into()
}

/// Decompresses a zlib stream until it ends or `dst` is full. Returns the bytes produced.
pub fn inflate(src: &[u8], dst: &mut [u8]) -> Result<usize> {
    use miniz_oxide::inflate::core::{decompress, inflate_flags, DecompressorOxide};
    use miniz_oxide::inflate::TINFLStatus;

    let flags = inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER
        | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let mut state = std::boxed::Box::<DecompressorOxide>::default();
    let (status, _, produced) = decompress(&mut state, src, dst, 0, flags);
    match status {
        TINFLStatus::Done | TINFLStatus::HasMoreOutput => Ok(produced),
        _ => Err(EIO),
    }
}

/// Decompresses one zstd frame until it ends or `dst` is full. Returns the bytes produced.
pub fn zstd(src: &[u8], dst: &mut [u8]) -> Result<usize> {
    let mut context = zstd_safe::DCtx::create();
    let mut input = zstd_safe::InBuffer::around(src);
    let mut output = zstd_safe::OutBuffer::around(dst);
    loop {
        let before = (input.pos(), output.pos());
        let hint = context
            .decompress_stream(&mut output, &mut input)
            .map_err(|_| EIO)?;
        if hint == 0 || output.pos() == output.capacity() {
            return Ok(output.pos());
        }
        if before == (input.pos(), output.pos()) {
            return Err(EIO);
        }
    }
}

/// Decompresses one LZO1X block, which must fit `dst`. Returns the bytes produced.
pub fn lzo1x(src: &[u8], dst: &mut [u8]) -> Result<usize> {
    let data = lzokay_native::decompress_all(src, None).map_err(|_| EIO)?;
    let out = dst.get_mut(..data.len()).ok_or(EIO)?;
    out.copy_from_slice(&data);
    Ok(data.len())
}

/// Compresses `src` into one zlib stream in `dst`. Returns its size, or `E2BIG`.
pub fn deflate(level: i32, src: &[u8], dst: &mut [u8]) -> Result<usize> {
    crate::fault::check()?;
    let level = u8::try_from(level).map_err(|_| EINVAL)?;
    fit(&miniz_oxide::deflate::compress_to_vec_zlib(src, level), dst)
}

/// Compresses `src` into one zstd frame in `dst`. Returns its size, or `E2BIG`.
pub fn zstd_compress(level: i32, src: &[u8], dst: &mut [u8]) -> Result<usize> {
    crate::fault::check()?;
    zstd_safe::compress(dst, src, level).map_err(|_| E2BIG)
}

/// Compresses `src` into one LZO1X block in `dst`. Returns its size, or `E2BIG`.
pub fn lzo1x_compress(src: &[u8], dst: &mut [u8]) -> Result<usize> {
    crate::fault::check()?;
    fit(&lzokay_native::compress(src).map_err(|_| EINVAL)?, dst)
}

fn fit(made: &[u8], dst: &mut [u8]) -> Result<usize> {
    let out = dst.get_mut(..made.len()).ok_or(E2BIG)?;
    out.copy_from_slice(made);
    Ok(made.len())
}

/// Allocations do not enter the filesystem while this lives; the host's never do.
pub struct NofsScope(());

impl NofsScope {
    /// Enters the scope.
    pub fn enter() -> Self {
        Self(())
    }
}

impl Drop for NofsScope {
    fn drop(&mut self) {}
}

pub mod signal {
    //! Signals that tests send to threads.

    use std::sync::atomic::{AtomicU8, Ordering};
    use std::sync::Arc;

    /// A thread that can be sent signals.
    #[derive(Clone)]
    pub struct Task(Arc<AtomicU8>);

    thread_local! {
        static CURRENT: Task = Task(Arc::new(AtomicU8::new(0)));
    }

    /// The calling thread.
    pub fn current() -> Task {
        CURRENT.with(Task::clone)
    }

    impl Task {
        /// Makes a signal pending, one that kills if `fatal`.
        pub fn send(&self, fatal: bool) {
            self.0
                .fetch_or(1 | (u8::from(fatal) << 1), Ordering::SeqCst);
        }

        /// No signal is pending any more.
        pub fn clear(&self) {
            self.0.store(0, Ordering::SeqCst);
        }

        pub(super) fn bits(&self) -> u8 {
            self.0.load(Ordering::SeqCst)
        }
    }
}

/// Whether a signal is pending for the calling thread.
pub fn signal_pending() -> bool {
    signal::current().bits() != 0
}

/// Whether a signal is pending that will kill the calling thread.
pub fn fatal_signal_pending() -> bool {
    signal::current().bits() & 2 != 0
}

/// Whether one more line may go to the log of those that come in any number: here, always.
pub fn may_log() -> bool {
    true
}

/// Lets others run.
pub fn yield_now() {
    #[cfg(feature = "shuttle")]
    shuttle::thread::yield_now();
    #[cfg(not(feature = "shuttle"))]
    std::thread::yield_now();
}

/// Sleeps, and returns whether no signal came. With the clock stopped no time passes.
pub fn sleep_interruptible(ms: u32) -> bool {
    if !clock::is_stopped() {
        std::thread::sleep(std::time::Duration::from_millis(ms.into()));
    }
    !signal_pending()
}

/// Seconds and nanoseconds of the real time.
pub fn now() -> (i64, u32) {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(d) => (d.as_secs() as i64, d.subsec_nanos()),
        Err(_) => (0, 0),
    }
}

pub mod clock {
    //! The clock of [`uptime_ms`](super::uptime_ms), for tests that have to find everything the
    //! same each time.

    use std::cell::Cell;

    thread_local! {
        static STOPPED: Cell<bool> = const { Cell::new(false) };
    }

    /// Stops the calling thread's clock at zero.
    pub fn stop() {
        STOPPED.set(true);
    }

    pub(super) fn is_stopped() -> bool {
        STOPPED.get()
    }
}

/// Milliseconds of a clock that does not go back.
pub fn uptime_ms() -> u64 {
    if clock::is_stopped() {
        return 0;
    }
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_raw() {
        // The check value of CRC-32C, 0xe3069283, is of a run with both inversions.
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        let whole = crc32c(7, b"123456789");
        assert_eq!(crc32c(crc32c(7, b"1234"), b"56789"), whole);
    }

    #[test]
    fn inflates_and_stops_when_full() {
        let text = [b'x'; 5000];
        let packed = miniz_oxide_compress(&text);
        let mut dst = [0; 6000];
        assert_eq!(inflate(&packed, &mut dst), Ok(5000));
        assert!(dst[..5000] == text);
        assert_eq!(inflate(&packed, &mut dst[..100]), Ok(100));
        assert_eq!(inflate(&packed[..4], &mut dst), Err(EIO));
        assert_eq!(inflate(b"nonsense", &mut dst), Err(EIO));
    }

    /// A zlib stream of stored blocks, so that no compressor is needed.
    fn miniz_oxide_compress(data: &[u8]) -> std::vec::Vec<u8> {
        let mut out = std::vec![0x78, 0x01, 0x01];
        out.extend((data.len() as u16).to_le_bytes());
        out.extend((!(data.len() as u16)).to_le_bytes());
        out.extend(data);
        let (mut a, mut b) = (1u32, 0u32);
        for byte in data {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        out.extend(((b << 16) | a).to_be_bytes());
        out
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let text: std::vec::Vec<u8> = (0..5000u32).map(|n| (n % 17) as u8).collect();
        type Compress = fn(&[u8], &mut [u8]) -> Result<usize>;
        type Decompress = fn(&[u8], &mut [u8]) -> Result<usize>;
        let methods: [(Compress, Decompress); 4] = [
            (|src, dst| deflate(9, src, dst), inflate),
            (|src, dst| zstd_compress(-5, src, dst), zstd),
            (|src, dst| zstd_compress(15, src, dst), zstd),
            (lzo1x_compress, lzo1x),
        ];
        for (compress, decompress) in methods {
            let (mut packed, mut out) = ([0; 4000], [0; 5000]);
            let len = compress(&text, &mut packed).unwrap();
            assert_eq!(compress(&text, &mut packed[..len - 1]), Err(E2BIG));
            assert_eq!(compress(&text, &mut packed), Ok(len));
            assert_eq!(decompress(&packed[..len], &mut out), Ok(5000));
            assert!(out[..] == text[..]);
        }
    }

    #[test]
    fn unpacks_zstd() {
        let text = [b'y'; 5000];
        let mut packed = [0; 200];
        let n = zstd_safe::compress(&mut packed[..], &text, 3).unwrap();
        let mut dst = [0; 6000];
        assert_eq!(zstd(&packed[..n], &mut dst), Ok(5000));
        assert_eq!(zstd(&packed[..n], &mut dst[..100]), Ok(100));
        assert_eq!(zstd(&packed[..n - 4], &mut dst), Err(EIO));
        assert_eq!(zstd(b"nonsense", &mut dst), Err(EIO));
    }

    #[test]
    fn unpacks_lzo() {
        // Four literals (17 + 4), and the end of the stream.
        let block = [21, b'a', b'b', b'c', b'd', 0x11, 0, 0];
        let mut dst = [0; 16];
        assert_eq!(lzo1x(&block, &mut dst), Ok(4));
        assert_eq!(&dst[..4], b"abcd");
        assert_eq!(lzo1x(&block, &mut dst[..3]), Err(EIO));
        assert_eq!(lzo1x(&block[..3], &mut dst), Err(EIO));
    }
}
