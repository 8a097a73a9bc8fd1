// SPDX-License-Identifier: GPL-2.0
//! `rbtrfs receive`.

use crate::commands::{Commands, Short, UNEXPECTED_END};
use crate::dump::Dump;
use anyhow::{anyhow, Context, Result};
use btrfs_stream::{StreamCommand, StreamError, StreamReader};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const EINVAL: i32 = 22;
const ENODATA: i32 = 61;

/// List the commands of a send stream, one a line, as `btrfs receive --dump` does.
///
/// The listing ends with the first end command, and an error is said in the words of btrfs-progs.
/// It differs where names are not UTF-8, in streams of version 0 or 3, for commands over 16 MiB,
/// and for times beyond the year 262142: these are errors.
#[derive(clap::Args)]
pub struct Args {
    /// List the stream; nothing else can be done with it without mounting a volume.
    #[arg(long, required = true)]
    dump: bool,
    /// The stream, in place of standard input.
    stream: Option<PathBuf>,
    /// The stream, as an option like that of btrfs-progs.
    #[arg(
        short = 'f',
        long = "file",
        value_name = "FILE",
        conflicts_with = "stream"
    )]
    file: Option<PathBuf>,
}

/// What ended a listing too early: a line about it, unless there is nothing to add to the system's
/// error.
struct Failure {
    detail: Option<String>,
    errno: i32,
}

impl Failure {
    fn new(detail: impl Into<String>, errno: i32) -> Self {
        Failure {
            detail: Some(detail.into()),
            errno,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => {
                let reason = reason(errno);
                Failure::new(format!("read from stream failed: {reason}"), errno)
            }
            None if error.get_ref().is_some_and(|inner| inner.is::<Short>()) => {
                Failure::new(error.to_string(), EIO)
            }
            // Not one byte, when there should be a header.
            None if error.kind() == io::ErrorKind::UnexpectedEof => Failure {
                detail: None,
                errno: ENODATA,
            },
            None => Failure::new(error.to_string(), EINVAL),
        }
    }
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::TruncatedHeader(error)
            | StreamError::TruncatedPayload(error)
            | StreamError::Io(error) => error.into(),
            StreamError::BadMagic => Failure::new("unexpected header", EINVAL),
            StreamError::UnsupportedVersion(version) => unsupported(version),
            StreamError::CrcMismatch { .. } => Failure::new("crc32 mismatch in command", EINVAL),
            StreamError::TruncatedTlv { .. } => Failure::new("send stream is truncated", EINVAL),
            StreamError::InvalidTlvType(typ) => {
                Failure::new(format!("invalid tlv in cmd tlv_type = {typ}"), EINVAL)
            }
            StreamError::MissingAttribute(name) => Failure::new(
                format!("attribute {name} requested but not present"),
                ENOENT,
            ),
            error => Failure::new(error.to_string(), EINVAL),
        }
    }
}

fn unsupported(version: u32) -> Failure {
    let text = format!("stream version {version} not supported, please use newer version");
    Failure::new(text, EINVAL)
}

/// What the system calls an error, without its number.
fn reason(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].into()
}

/// Lists the stream as far as its first end command. The outer error is of writing the list.
fn dump(stream: impl Read, out: &mut impl Write) -> Result<Result<(), Failure>> {
    let mut reader = match StreamReader::new(Commands::new(stream)) {
        Ok(reader) if reader.version() > 2 => return Ok(Err(unsupported(reader.version()))),
        Ok(reader) => reader,
        Err(error) => return Ok(Err(error.into())),
    };
    let mut dump = Dump::default();
    loop {
        let command = match reader.next_command() {
            Ok(Some(StreamCommand::End)) => return Ok(Ok(())),
            Ok(Some(command)) => command,
            Ok(None) => return Ok(Err(Failure::new(UNEXPECTED_END, EINVAL))),
            // As a receiver of an older version does.
            Err(StreamError::UnknownCommand(_)) => continue,
            Err(error) => return Ok(Err(error.into())),
        };
        match dump.line(&command) {
            Ok(line) => writeln!(out, "{line}").context("cannot write the listing")?,
            Err(detail) => return Ok(Err(Failure::new(detail, EINVAL))),
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let stream: Box<dyn Read> = match args.file.as_ref().or(args.stream.as_ref()) {
        Some(path) => {
            let file = File::open(path).map_err(|error| {
                let reason = error.raw_os_error().map_or(error.to_string(), reason);
                anyhow!("cannot open {}: {reason}", path.display())
            })?;
            Box::new(file)
        }
        None => Box::new(io::stdin().lock()),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let dumped = dump(stream, &mut out)?;
    out.flush().context("cannot write the listing")?;
    dumped.map_err(|failure| {
        if let Some(detail) = failure.detail {
            eprintln!("ERROR: {detail}");
        }
        anyhow!("failed to dump the send stream: {}", reason(failure.errno))
    })
}
