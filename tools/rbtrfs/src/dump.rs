// SPDX-License-Identifier: GPL-2.0
//! Commands of a send stream as lines: the command, the path below the subvolume, and what else it
//! says.

use btrfs_stream::{StreamCommand as Command, Timespec};
use chrono::{DateTime, Datelike, Local, Offset, TimeZone, Timelike};
use std::fmt::Write;

/// What the lines so far say about the next.
#[derive(Default)]
pub struct Dump {
    /// The path of the subvolume that is being received.
    subvolume: String,
}

impl Dump {
    /// A command's line, or why there is none.
    pub fn line(&mut self, command: &Command) -> Result<String, String> {
        let full = |path: &str| self.path(path);
        let (name, path, fields) = match command {
            Command::Subvol {
                path,
                uuid,
                ctransid,
            } => {
                self.enter(path);
                let fields = format!("uuid={uuid} transid={ctransid}");
                ("subvol", self.subvolume.clone(), fields)
            }
            Command::Snapshot {
                path,
                uuid,
                ctransid,
                clone_uuid,
                clone_ctransid,
            } => {
                self.enter(path);
                let fields = format!(
                    "uuid={uuid} transid={ctransid} parent_uuid={clone_uuid} parent_transid={clone_ctransid}"
                );
                ("snapshot", self.subvolume.clone(), fields)
            }
            Command::Mkfile { path } => ("mkfile", full(path), String::new()),
            Command::Mkdir { path } => ("mkdir", full(path), String::new()),
            Command::Mknod { path, mode, rdev } => {
                ("mknod", full(path), format!("mode={mode:o} dev=0x{rdev:x}"))
            }
            Command::Mkfifo { path } => ("mkfifo", full(path), String::new()),
            Command::Mksock { path } => ("mksock", full(path), String::new()),
            Command::Symlink { path, target } => ("symlink", full(path), dest(text(target))),
            Command::Rename { from, to } => ("rename", full(from), dest(&full(to))),
            // The old name stands as the stream has it, without the subvolume.
            Command::Link { path, target } => ("link", full(path), dest(text(target))),
            Command::Unlink { path } => ("unlink", full(path), String::new()),
            Command::Rmdir { path } => ("rmdir", full(path), String::new()),
            Command::Write { path, offset, data } => {
                let fields = format!("offset={offset} len={}", data.len());
                ("write", full(path), fields)
            }
            Command::EncodedWrite {
                path,
                offset,
                unencoded_file_len,
                unencoded_len,
                unencoded_offset,
                compression,
                encryption,
                data,
            } => {
                let fields = format!(
                    "offset={offset} len={} unencoded_file_len={unencoded_file_len} unencoded_len={unencoded_len} \
                     unencoded_offset={unencoded_offset} compression={compression} encryption={encryption}",
                    data.len()
                );
                ("encoded_write", full(path), fields)
            }
            Command::Clone {
                path,
                offset,
                len,
                clone_path,
                clone_offset,
                ..
            } => {
                let from = escape(full(clone_path).as_bytes());
                let fields =
                    format!("offset={offset} len={len} from={from} clone_offset={clone_offset}");
                ("clone", full(path), fields)
            }
            Command::SetXattr {
                path,
                name: xattr,
                data,
            } => {
                let (xattr, value) = (escape(text(xattr).as_bytes()), escape(data));
                let fields = format!("name={xattr} {value} len={}", data.len());
                ("set_xattr", full(path), fields)
            }
            Command::RemoveXattr { path, name: xattr } => {
                let fields = format!("name={}", escape(text(xattr).as_bytes()));
                ("remove_xattr", full(path), fields)
            }
            Command::Truncate { path, size } => ("truncate", full(path), format!("size={size}")),
            Command::Chmod { path, mode } => ("chmod", full(path), format!("mode={mode:o}")),
            Command::Chown { path, uid, gid } => {
                ("chown", full(path), format!("gid={gid} uid={uid}"))
            }
            Command::Utimes {
                path,
                atime,
                mtime,
                ctime,
            } => {
                let (atime, mtime, ctime) = (time(atime)?, time(mtime)?, time(ctime)?);
                let fields = format!("atime={atime} mtime={mtime} ctime={ctime}");
                ("utimes", full(path), fields)
            }
            Command::UpdateExtent { path, offset, len } => {
                let fields = format!("offset={offset} len={len}");
                ("update_extent", full(path), fields)
            }
            Command::Fallocate {
                path,
                mode,
                offset,
                len,
            } => {
                let fields = format!("mode={mode} offset={offset} len={len}");
                ("fallocate", full(path), fields)
            }
            // Decimal behind 0x: the lines are to be those of btrfs-progs.
            Command::Fileattr { path, attr } => {
                ("fileattr", full(path), format!("fileattr=0x{attr}"))
            }
            Command::EnableVerity {
                path,
                algorithm,
                block_size,
                salt,
                sig,
            } => {
                let fields = format!(
                    "algorithm={algorithm} block_size={block_size} salt_len={} sig_len={}",
                    salt.len(),
                    sig.len()
                );
                ("enable_verity", full(path), fields)
            }
            Command::End => ("end", String::new(), String::new()),
        };
        let path = escape(path.as_bytes());
        Ok(match fields.as_str() {
            "" => format!("{name:<16}{path}"),
            _ => format!("{name:<16}{path:<31} {fields}"),
        })
    }

    fn enter(&mut self, subvolume: &str) {
        self.subvolume.clear();
        self.subvolume = self.path(subvolume);
    }

    /// A path of the stream below the subvolume that it is in.
    fn path(&self, path: &str) -> String {
        let above = match self.subvolume.as_str() {
            "" => ".",
            subvolume => subvolume,
        };
        format!("{above}/{}", text(path))
    }
}

/// A string as far as its first zero byte, as C reads it.
fn text(string: &str) -> &str {
    string.split('\0').next().unwrap_or_default()
}

fn dest(path: &str) -> String {
    format!("dest={}", escape(path.as_bytes()))
}

/// Bytes as printable ASCII without a space that is not after a backslash.
fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            7 => out.push_str("\\a"),
            8 => out.push_str("\\b"),
            b'\t' => out.push_str("\\t"),
            b'\n' => out.push_str("\\n"),
            11 => out.push_str("\\v"),
            12 => out.push_str("\\f"),
            b'\r' => out.push_str("\\r"),
            27 => out.push_str("\\e"),
            b' ' => out.push_str("\\ "),
            b'\\' => out.push_str("\\\\"),
            b'!'..=b'~' => out.push(char::from(*byte)),
            _ => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\{byte:03o}");
            }
        }
    }
    out
}

/// A time in the local zone.
fn time(time: &Timespec) -> Result<String, String> {
    let seconds = time.sec as i64;
    let local = DateTime::from_timestamp(seconds, 0).and_then(|utc| {
        let utc = utc.naive_utc();
        let offset = Local.offset_from_utc_datetime(&utc).fix();
        Some((utc.checked_add_offset(offset)?, offset.local_minus_utc()))
    });
    let Some((local, east)) = local else {
        let nanoseconds = time.nsec;
        return Err(format!(
            "failed to convert time {seconds}.{nanoseconds:09} to local time"
        ));
    };
    let sign = if east < 0 { '-' } else { '+' };
    let minutes = east.unsigned_abs() / 60;
    Ok(format!(
        "{}-{:02}-{:02}T{:02}:{:02}:{:02}{sign}{:02}{:02}",
        local.year(),
        local.month(),
        local.day(),
        local.hour(),
        local.minute(),
        local.second(),
        minutes / 60,
        minutes % 60
    ))
}
