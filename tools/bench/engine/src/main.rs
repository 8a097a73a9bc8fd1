// SPDX-License-Identifier: GPL-2.0
//! Does what a benchmark does to files, with the engine as a program, on an empty volume in memory.
//!
//! Counts of instructions do not depend on what else runs on a machine: `tools/bench/count.sh` runs
//! this under callgrind, which counts within the functions below alone.
//!
//! usage: rbtrfs-bench IMAGE FILES

use kernel::prelude::*;
use kernel::sync::Arc;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_engine::format::inode::Timespec;
use rbtrfs_engine::format::tree_id;
use rbtrfs_engine::space::ordered_extent::push_checksums;
use rbtrfs_engine::subvol::data::{read_running, Owner};
use rbtrfs_engine::subvol::scatter::Scatter;
use rbtrfs_engine::subvol::write::{
    create, evict, insert_data, insert_inline, mode, unlink, InodeId, NewData, NewInline, NewInode,
};
use rbtrfs_engine::subvol::{dir, inode};
use rbtrfs_engine::trans::View;
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::MemDevice;
use std::hint::black_box;
use std::string::String;
use std::vec::Vec;

const ROOT: InodeId = InodeId {
    tree: tree_id::FS,
    ino: 256,
};

/// Files in a directory.
const PER_DIR: usize = 1000;

/// Bytes of a block.
const BLOCK: usize = 4096;

fn new_inode(mode: u32) -> NewInode<'static> {
    NewInode {
        mode,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        now: Timespec {
            sec: 1.into(),
            nsec: 0.into(),
        },
        target: b"",
        xattrs: &[],
    }
}

fn name(number: usize) -> String {
    format!("file-{number}")
}

fn make(fs: &Fs, dir: InodeId, name: &str, mode: u32) -> Result<InodeId> {
    let made = create(fs, dir, name.as_bytes(), &new_inode(mode))?;
    Ok(InodeId {
        tree: dir.tree,
        ino: made.ino,
    })
}

/// A file and the directory that it is in.
type File = (InodeId, InodeId);

#[inline(never)]
fn count_create(fs: &Fs, files: usize) -> Result<Vec<File>> {
    let mut made = Vec::new();
    let mut dir = ROOT;
    for number in 0..files {
        if number % PER_DIR == 0 {
            dir = make(fs, ROOT, &format!("d{number}"), mode::DIR | 0o755)?;
        }
        made.push((make(fs, dir, &name(number), mode::REG | 0o644)?, dir));
    }
    Ok(made)
}

#[inline(never)]
fn count_commit_created(fs: &Fs) -> Result {
    black_box("created");
    fs.commit()
}

/// 1,000 bytes each.
#[inline(never)]
fn count_write_inline(fs: &Fs, files: &[File]) -> Result {
    for (file, _) in files {
        let data = &[7; 1000];
        insert_inline(fs, *file, NewInline::plain(data))?;
    }
    Ok(())
}

#[inline(never)]
fn count_commit_inline(fs: &Fs) -> Result {
    black_box("inline");
    fs.commit()
}

/// A block each, the first or one more.
fn write_block(fs: &Fs, file: InodeId, block: usize) -> Result {
    let data = [block as u8; BLOCK];
    let mut reservation = fs.reserve_data(BLOCK as u64)?;
    let extent = fs.alloc_data(Some(&mut reservation), BLOCK as u64)?;
    extent.write(0, &data)?;
    let mut sums = KVVec::new();
    push_checksums(&data, &fs.geometry, &mut sums)?;
    let offset = (block * BLOCK) as u64;
    let new = NewData {
        offset,
        extent,
        encoded: None,
        sums,
        size: offset + BLOCK as u64,
    };
    insert_data(fs, file, new).map(|_| ())
}

#[inline(never)]
fn count_write_blocks(fs: &Fs, files: &[File]) -> Result {
    for (file, _) in files {
        write_block(fs, *file, 0)?;
    }
    Ok(())
}

#[inline(never)]
fn count_commit_blocks(fs: &Fs) -> Result {
    black_box("blocks");
    fs.commit()
}

/// As many blocks of one file, in no order.
#[inline(never)]
fn count_write_randomly(fs: &Fs, file: InodeId, blocks: usize) -> Result {
    for number in 0..blocks {
        write_block(fs, file, number * 7919 % blocks)?;
    }
    Ok(())
}

#[inline(never)]
fn count_commit_random(fs: &Fs) -> Result {
    black_box("random");
    fs.commit()
}

/// Looks every file up and reads its item.
#[inline(never)]
fn count_stat(fs: &Fs, files: &[File]) -> Result {
    for (number, (_, dir)) in files.iter().enumerate() {
        let view = fs.running_view(dir.tree)?;
        let root = view.tree_root(dir.tree)?;
        let found = dir::lookup(&view, root, dir.ino, name(number).as_bytes())?.ok_or(ENOENT)?;
        inode::read(&view, root, found.location.objectid)?;
    }
    Ok(())
}

#[inline(never)]
fn count_read_small(fs: &Fs, files: &[File]) -> Result {
    for (file, _) in files {
        let mut block = [0; BLOCK];
        let owner = Owner::new(fs, file.tree, file.ino, 0);
        read_running(fs, &owner, 0, &mut Scatter::one(&mut block)?)?;
    }
    Ok(())
}

#[inline(never)]
fn count_unlink(fs: &Fs, files: &[File]) -> Result {
    let now = new_inode(0).now;
    for (number, (file, dir)) in files.iter().enumerate() {
        unlink(fs, *dir, name(number).as_bytes(), now)?;
        evict(fs, *file)?;
    }
    Ok(())
}

#[inline(never)]
fn count_commit_unlinked(fs: &Fs) -> Result {
    black_box("unlinked");
    fs.commit()
}

fn open(device: &Arc<MemDevice>) -> Result<Arc<Fs>> {
    let device: Arc<dyn BlockDevice> = device.clone();
    Fs::open(device, &OpenOptions::default())
}

fn run(image: &str, files: usize) -> Result {
    let device = MemDevice::from_file(std::path::Path::new(image)).map_err(|_| EIO)?;
    let device = Arc::new(device, GFP_KERNEL)?;
    let fs = open(&device)?;
    let made = count_create(&fs, files)?;
    count_commit_created(&fs)?;
    count_write_inline(&fs, &made)?;
    count_commit_inline(&fs)?;
    // Cold, as after a mount.
    let fs = open(&device)?;
    count_stat(&fs, &made)?;
    count_read_small(&fs, &made)?;
    count_write_blocks(&fs, &made)?;
    count_commit_blocks(&fs)?;
    let large = make(&fs, ROOT, "large", mode::REG | 0o644)?;
    count_write_randomly(&fs, large, files)?;
    count_commit_random(&fs)?;
    let fs = open(&device)?;
    count_unlink(&fs, &made)?;
    count_commit_unlinked(&fs)?;
    Ok(())
}

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, image, files] = &arguments[..] else {
        eprintln!("usage: rbtrfs-bench IMAGE FILES");
        return std::process::ExitCode::from(2);
    };
    let files = files.parse().unwrap_or(0);
    match run(image, files) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            std::process::ExitCode::FAILURE
        }
    }
}
