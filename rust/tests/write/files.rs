// SPDX-License-Identifier: GPL-2.0
//! What the tests do with files: the steps that the VFS takes, in short.

#![allow(dead_code)]

use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::format::file_extent::MAX_COMPRESSED;
use rbtrfs_engine::format::inode::{inode_flags, InodeItem, Timespec};
use rbtrfs_engine::format::{tree_id, CompressionMethod};
use rbtrfs_engine::mount::Compress;
use rbtrfs_engine::space::ordered_extent::push_checksums;
use rbtrfs_engine::subvol::compress::{choose, Compressed, Compressor};
use rbtrfs_engine::subvol::data::{read_running, Owner};
use rbtrfs_engine::subvol::scatter::Scatter;
use rbtrfs_engine::subvol::write::*;
use rbtrfs_engine::subvol::{dir, inode};
use rbtrfs_engine::trans::View;
use rbtrfs_engine::volume::Fs;
use std::cell::Cell;
use std::path::Path;
use std::process::Command;
use std::string::String;
use std::vec::Vec;

pub const ROOT: InodeId = InodeId {
    tree: tree_id::FS,
    ino: 256,
};

pub const SECTOR: u64 = 4096;

thread_local! {
    /// How the thread's volumes are mounted: what `compress-force=` says.
    static COMPRESS: Cell<Option<CompressionMethod>> = const { Cell::new(None) };
}

/// Mounts the volumes of this thread with `compress-force=`, or without.
pub fn compress_by(method: Option<CompressionMethod>) {
    COMPRESS.set(method);
}

/// How this thread's volumes are mounted.
pub fn compresses_by() -> Option<CompressionMethod> {
    COMPRESS.get()
}

/// What compresses a file's data.
fn compressor(fs: &Fs, id: InodeId) -> Result<Option<Compressor>> {
    let mount = COMPRESS.get().map(|method| Compress {
        method,
        level: method.level(0),
        is_forced: true,
    });
    let chosen = choose(fs, id, item(fs, id)?.flags.get(), mount)?;
    let new = |chosen| Compressor::new(chosen, fs.geometry.sectorsize);
    chosen.map(new).transpose()
}

/// A time that tells the transactions of a test apart.
pub fn now() -> Timespec {
    Timespec {
        sec: 1_700_000_000.into(),
        nsec: 5.into(),
    }
}

pub fn new(mode: u32) -> NewInode<'static> {
    NewInode {
        mode,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        now: now(),
        target: b"",
        xattrs: &[],
    }
}

pub fn file(fs: &Fs, dir: InodeId, name: &str) -> Result<InodeId> {
    let made = create(fs, dir, name.as_bytes(), &new(mode::REG | 0o644))?;
    Ok(InodeId {
        tree: dir.tree,
        ino: made.ino,
    })
}

pub fn mkdir(fs: &Fs, dir: InodeId, name: &str) -> Result<InodeId> {
    let made = create(fs, dir, name.as_bytes(), &new(mode::DIR | 0o755))?;
    Ok(InodeId {
        tree: dir.tree,
        ino: made.ino,
    })
}

pub fn item(fs: &Fs, id: InodeId) -> Result<InodeItem> {
    let view = fs.running_view(id.tree)?;
    inode::read(&view, view.tree_root(id.tree)?, id.ino)
}

pub fn lookup(fs: &Fs, parent: InodeId, name: &str) -> Result<Option<InodeId>> {
    let view = fs.running_view(parent.tree)?;
    let root = view.tree_root(parent.tree)?;
    let found = dir::lookup(&view, root, parent.ino, name.as_bytes())?;
    Ok(found.map(|target| InodeId {
        tree: parent.tree,
        ino: target.location.objectid,
    }))
}

/// Writes whole sectors at `offset`; the file is `size` bytes long at least.
pub fn write(fs: &Fs, id: InodeId, offset: u64, data: &[u8], size: u64) -> Result {
    write_pieces(fs, id, &[(offset, data)], size)
}

/// Writes whole sectors at several places of a file, all of which get their space, then their data,
/// and then enter the tree, as many at a time as it takes.
pub fn write_pieces(fs: &Fs, id: InodeId, pieces: &[(u64, &[u8])], size: u64) -> Result {
    let mut placed = place(fs, id, pieces, size)?;
    let mut rest = &mut placed[..];
    while !rest.is_empty() {
        let (_, count) = insert_pieces(fs, id, &mut rest.iter_mut())?;
        assert!((1..=64).contains(&count));
        rest = &mut rest[count..];
    }
    Ok(())
}

/// Finds space for what [`write_pieces`] is given, and writes it there.
pub fn place(fs: &Fs, id: InodeId, pieces: &[(u64, &[u8])], size: u64) -> Result<Vec<NewData>> {
    let whole = |data: &[u8]| (data.len() as u64).next_multiple_of(SECTOR);
    let mut left = pieces.iter().map(|(_, data)| whole(data)).sum();
    let mut reservation = fs.reserve_data(left)?;
    let flags = item(fs, id)?.flags.get();
    let mut compressor = compressor(fs, id)?.filter(|_| flags & inode_flags::PREALLOC == 0);
    let (mut spare, mut placed) = (None, vec![]);
    for (offset, data) in pieces {
        assert_eq!(offset % SECTOR, 0);
        let mut bytes = data.to_vec();
        bytes.resize(whole(data) as usize, 0);
        let mut at = 0;
        while at < bytes.len() {
            let mut want = (bytes.len() - at) as u64;
            if let Some(compressor) = &mut compressor {
                let piece = &bytes[at..bytes.len().min(at + MAX_COMPRESSED as usize)];
                let offset = offset + at as u64;
                if let Some(new) = place_compressed(fs, compressor, (offset, piece), size)? {
                    at += piece.len();
                    left -= piece.len() as u64;
                    placed.push(new);
                    continue;
                }
                want = piece.len() as u64;
            }
            let mut extent = match preallocated(fs, id, offset + at as u64, want)? {
                Some(extent) => extent,
                None => match spare.take() {
                    Some(extent) => extent,
                    None => fs.alloc_data(Some(&mut reservation), left)?,
                },
            };
            if extent.len() > want {
                let first = extent.split(want)?;
                spare = Some(std::mem::replace(&mut extent, first));
            }
            left -= extent.len();
            let piece = &bytes[at..at + extent.len() as usize];
            extent.write(0, piece)?;
            let mut sums = KVVec::new();
            if flags & inode_flags::NODATASUM == 0 {
                push_checksums(piece, &fs.geometry, &mut sums)?;
            }
            let offset = offset + at as u64;
            at += piece.len();
            placed.push(NewData {
                offset,
                size: size.min(offset + extent.len()),
                extent,
                encoded: None,
                sums,
            });
        }
    }
    Ok(placed)
}

/// Compresses a piece, finds space for it, and writes it there, if it becomes smaller.
fn place_compressed(
    fs: &Fs,
    compressor: &mut Compressor,
    (offset, piece): (u64, &[u8]),
    size: u64,
) -> Result<Option<NewData>> {
    let method = compressor.chosen().method;
    let num_bytes = piece.len() as u64;
    // In two parts, as if in folios of the page cache.
    let (first, second) = piece.split_at(piece.len() / 2);
    let Compressed::Smaller(made) = compressor.compress(&[first, second])? else {
        return Ok(None);
    };
    let extent = fs.alloc_data(None, made.len() as u64)?;
    if extent.len() != made.len() as u64 {
        return Ok(None);
    }
    extent.write(0, &made)?;
    let mut sums = KVVec::new();
    push_checksums(&made, &fs.geometry, &mut sums)?;
    Ok(Some(NewData {
        offset,
        size: size.min(offset + num_bytes),
        extent,
        encoded: Some(Encoded {
            method,
            ram_bytes: num_bytes,
            offset: 0,
            num_bytes,
        }),
        sums,
    }))
}

/// Keeps all of a small file in the tree, if it is one.
pub fn fill_inline(fs: &Fs, id: InodeId, data: &[u8]) -> Result<bool> {
    if data.is_empty() || data.len() as u64 > SECTOR {
        return Ok(false);
    }
    let _promised = fs.reserve_data(SECTOR)?;
    if let Some(mut compressor) = compressor(fs, id)? {
        let (method, size) = (compressor.chosen().method, data.len() as u64);
        let mut sector = data.to_vec();
        sector.resize(SECTOR as usize, 0);
        if let Some(data) = compressor.compress_inline(&sector, size, MAX_INLINE)? {
            let method = Some(method);
            insert_inline(fs, id, NewInline { data, size, method })?;
            return Ok(true);
        }
    }
    if data.len() > MAX_INLINE {
        return Ok(false);
    }
    insert_inline(fs, id, NewInline::plain(data))?;
    Ok(true)
}

/// Makes `data` all of a file.
pub fn fill(fs: &Fs, id: InodeId, data: &[u8]) -> Result {
    if fill_inline(fs, id, data)? {
        return Ok(());
    }
    write(fs, id, 0, data, data.len() as u64)
}

/// All of a file.
pub fn read(fs: &Fs, id: InodeId) -> Result<Vec<u8>> {
    let item = item(fs, id)?;
    let size = item.size.get() as usize;
    let mut data = vec![0xee; size.next_multiple_of(SECTOR as usize)];
    let owner = Owner::new(fs, id.tree, id.ino, item.flags.get());
    // In two slices, as if in folios of the page cache.
    let middle = data.len().min(SECTOR as usize);
    let (first, second) = data.split_at_mut(middle);
    let mut slices = KVec::new();
    slices.push(first, GFP_KERNEL)?;
    slices.push(second, GFP_KERNEL)?;
    read_running(fs, &owner, 0, &mut Scatter::new(slices))?;
    data.truncate(size);
    Ok(data)
}

/// Bytes that depend on where they are and on `seed`. Where volumes are mounted to compress, most
/// come in runs of 32 that are alike.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let run = match (compresses_by(), seed % 4) {
        (Some(_), 1..) => 32,
        _ => 1,
    };
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|at| {
            if at % run == 0 {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
            }
            x as u8
        })
        .collect()
}

/// Lets `look` see the image as the host kernel's driver mounts it. Does nothing where that is not
/// possible.
pub fn mounted(scratch: &Scratch, image: &rbtrfs_testdev::MemDevice, look: impl FnOnce(&Path)) {
    let path = scratch.path("mounted");
    image.write_to(&path).unwrap();
    let dir = scratch.path("mnt");
    std::fs::create_dir_all(&dir).unwrap();
    let output = Command::new("mount")
        .args(["-t", "btrfs", "-o", "loop"])
        .args([&path, &dir])
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) if is_root() => {
            panic!("mount: {}", String::from_utf8_lossy(&output.stderr));
        }
        _ => {
            eprintln!("SKIP: only root can mount");
            return;
        }
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(&dir)));
    // A process that another test is just starting may hold what was open here, until it becomes
    // its program.
    let unmounted = (0..50).any(|n| {
        std::thread::sleep(std::time::Duration::from_millis(20 * n));
        let done = Command::new("umount").arg(&dir).status().unwrap();
        done.success()
    });
    assert!(unmounted);
    std::fs::remove_file(&path).unwrap();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout == b"0\n")
}
