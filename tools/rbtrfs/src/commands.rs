// SPDX-License-Identifier: GPL-2.0
//! A send stream, read command by command.

use std::fmt;
use std::io::{self, BufReader, Read};

/// Magic and version.
const STREAM_HEADER: usize = 17;
/// Length of the payload, command, checksum.
const COMMAND_HEADER: usize = 10;
/// Far more than the kernel puts into a command, which is 128 KiB of data and names.
const LONGEST: u32 = 16 << 20;

/// A stream ends where none may, between two of its parts.
pub const UNEXPECTED_END: &str = "unexpected EOF in stream";

/// Hands out a stream, a command's header only once its payload is there, too: who makes space for
/// as much as the header says cannot be deceived.
pub struct Commands<R> {
    input: BufReader<R>,
    held: Vec<u8>,
    given: usize,
    started: bool,
}

/// The stream ends within a header or a payload.
#[derive(Debug)]
pub struct Short {
    expected: usize,
    read: usize,
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (expected, read) = (self.expected, self.read);
        write!(f, "short read from stream: expected {expected} read {read}")
    }
}

impl std::error::Error for Short {}

impl<R: Read> Commands<R> {
    pub fn new(input: R) -> Self {
        Commands {
            input: BufReader::new(input),
            held: Vec::new(),
            given: 0,
            started: false,
        }
    }

    /// Reads `expected` bytes more, or none where the stream ends before them; returns how many.
    fn hold(&mut self, expected: usize) -> io::Result<usize> {
        let read = Read::by_ref(&mut self.input)
            .take(expected as u64)
            .read_to_end(&mut self.held)?;
        match read {
            0 => Ok(0),
            _ if read == expected => Ok(read),
            _ => Err(io::Error::other(Short { expected, read })),
        }
    }

    fn next(&mut self) -> io::Result<()> {
        self.held.clear();
        self.given = 0;
        if !self.started {
            self.started = true;
            self.hold(STREAM_HEADER)?;
            return Ok(());
        }
        if self.hold(COMMAND_HEADER)? == 0 {
            return Ok(());
        }
        let [a, b, c, d, ..] = self.held[..] else {
            return Ok(());
        };
        let len = u32::from_le_bytes([a, b, c, d]);
        if len > LONGEST {
            let text = format!("command of {len} bytes, the longest can have {LONGEST}");
            return Err(io::Error::other(text));
        }
        let expected = len as usize;
        if expected != 0 && self.hold(expected)? == 0 {
            return Err(io::Error::other(UNEXPECTED_END));
        }
        Ok(())
    }
}

impl<R: Read> Read for Commands<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.given == self.held.len() {
            self.next()?;
        }
        let len = (&self.held[self.given..]).read(buf)?;
        self.given += len;
        Ok(len)
    }
}
