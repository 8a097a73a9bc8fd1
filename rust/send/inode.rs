// SPDX-License-Identifier: GPL-2.0
//! Inodes: how one begins, and what is sent once its items have been seen.

use super::context::Send;
use super::current_inode::{mode, Current, Fate};
use super::proto::{Attr, Command, Version};
use super::snapshots::Snapshot;
use crate::format::file_extent::{FileExtentHead, INLINE_HEAD_SIZE, TYPE_INLINE};
use crate::format::inode::InodeItem;
use crate::format::{self, compression, item_type, objectid, Key};
use crate::tree::Node;
use crate::{fs_crit, fs_err, fs_warn};
use kernel::prelude::*;

impl Send<'_> {
    /// Takes up the next inode, and creates it under its orphan name.
    pub(super) fn begin_inode(&mut self, leaf: &Node, ino: u64, data: &[u8]) -> Result {
        let item: InodeItem = format::read(data)?;
        let ignored = item.nlink.get() == 0;
        let mut inode = Current::new(ino, item, Fate::New);
        inode.ignored = ignored;
        self.position.inode = Some(inode);
        self.position.progress = ino;
        self.position.path_known = false;
        self.position.capability = None;
        if ignored || ino == objectid::FIRST_FREE {
            return Ok(());
        }
        let created = mode::kind(item.mode.get()) == mode::DIR && self.was_created_early(ino)?;
        if created {
            return Ok(());
        }
        self.create(Some(leaf), ino, &item)
    }

    /// Creates an inode under its orphan name.
    pub(super) fn create(&mut self, leaf: Option<&Node>, ino: u64, item: &InodeItem) -> Result {
        let mode = item.mode.get();
        let command = match mode::kind(mode) {
            mode::FILE => Command::Mkfile,
            mode::DIR => Command::Mkdir,
            mode::LINK => Command::Symlink,
            mode::CHAR | mode::BLOCK => Command::Mknod,
            mode::FIFO => Command::Mkfifo,
            mode::SOCKET => Command::Mksock,
            kind => {
                fs_warn!(
                    self.snapshots.session.fs(),
                    "unexpected inode type {:o}",
                    kind
                );
                return Err(EOPNOTSUPP);
            }
        };
        let generation = item.generation.get();
        let name = match self.snapshots.parent {
            Some(_) => self.gen_unique_name(ino, generation)?,
            None => self
                .names
                .orphans
                .name(&mut self.snapshots.sent_inodes, ino, generation)?,
        };
        if command == Command::Symlink {
            self.read_link(leaf, ino)?;
        }
        let builder = self
            .output
            .stream
            .command(command)?
            .bytes(Attr::Path, name.as_bytes())?
            .u64(Attr::Ino, ino)?;
        match command {
            Command::Mkfile | Command::Mkdir => builder.end(),
            Command::Symlink => builder
                .bytes(Attr::PathLink, self.names.other.as_bytes())?
                .end(),
            _ => builder
                .u64(Attr::Rdev, encode_device(item.rdev.get()))?
                .u64(Attr::Mode, u64::from(mode))?
                .end(),
        }
    }

    /// Puts what a symbolic link says into `self.names.other`. Its item comes after the inode's,
    /// mostly in the same leaf.
    fn read_link(&mut self, leaf: Option<&Node>, ino: u64) -> Result {
        let key = Key::new(ino, item_type::EXTENT_DATA, 0);
        let near = leaf.and_then(|leaf| {
            let slot = super::lookup::slot_in_leaf(leaf, &key)?;
            leaf.item(slot).filter(|(at, _)| *at == key)
        });
        let found = match near {
            Some((_, data)) => Some(data),
            None => self.snapshots.sent_inodes.exact(&key)?,
        };
        let Some(data) = found else {
            fs_err!(
                self.snapshots.session.fs(),
                "Found empty symlink inode {} at root {}",
                ino,
                self.snapshots.root.id
            );
            return Err(EIO);
        };
        let head: FileExtentHead = format::read(data)?;
        let problem = if head.typ != TYPE_INLINE {
            Some(("extent that is not inline", head.typ))
        } else if head.compression != compression::NONE {
            Some(("extent with compression", head.compression))
        } else {
            None
        };
        if let Some((what, number)) = problem {
            fs_crit!(
                self.snapshots.session.fs(),
                "send: found symlink {}, ino {} root {} type {}",
                what,
                ino,
                self.snapshots.root.id,
                number
            );
            return Err(EUCLEAN);
        }
        let target = usize::try_from(head.ram_bytes.get()).map_err(|_| EUCLEAN)?;
        let target = format::slice(data, INLINE_HEAD_SIZE, target)?;
        self.names.other.clear();
        self.names.other.push(target)
    }

    /// To be called before each item, and at the end of the walk: sends what was waiting for the
    /// last item of the current inode.
    pub(super) fn finish(&mut self, next: Option<&Key>) -> Result {
        let Some(inode) = &self.position.inode else {
            return Ok(());
        };
        if inode.ignored {
            return Ok(());
        }
        let same = next.filter(|key| key.objectid == inode.ino);
        let more_names = same.is_some_and(|key| key.typ <= item_type::INODE_EXTREF);
        if inode.names_pending && !more_names {
            self.names_done()?;
        }
        // An item of no inode, such as an orphan item, does not take the current inode's place: the
        // C driver finishes that one again before each of them.
        if same.is_none() {
            self.finish_inode()?;
        }
        self.send_overdue_utimes()
    }

    /// Sends what makes the current inode complete once its names, attributes and data are there.
    pub(super) fn finish_inode(&mut self) -> Result {
        let Some(inode) = &self.position.inode else {
            return Ok(());
        };
        let (ino, item) = (inode.ino, inode.item);
        let kind = mode::kind(item.mode.get());
        let size = item.size.get();
        let due = Due::of(inode);
        if kind == mode::FILE {
            self.hole_at_end()?;
        }
        if due.truncate {
            self.send_truncate(size)?;
        }
        if due.chown {
            self.know_path()?;
            self.output
                .stream
                .command(Command::Chown)?
                .bytes(Attr::Path, self.position.path.as_bytes())?
                .u64(Attr::Uid, u64::from(item.uid.get()))?
                .u64(Attr::Gid, u64::from(item.gid.get()))?
                .end()?;
        }
        if due.chmod {
            self.know_path()?;
            self.output
                .stream
                .command(Command::Chmod)?
                .bytes(Attr::Path, self.position.path.as_bytes())?
                .u64(Attr::Mode, u64::from(item.mode.get() & 0o7777))?
                .end()?;
        }
        if due.flags && self.output.stream.version() >= Version::V2 {
            self.know_path()?;
            self.output
                .stream
                .command(Command::Fileattr)?
                .bytes(Attr::Path, self.position.path.as_bytes())?
                .u64(Attr::Fileattr, item.flags.get())?
                .end()?;
        }
        self.send_capability()?;
        // The times of a directory that has yet to be moved are sent when it is.
        if self.names.dir_moves.is_waiting_for_move(ino) {
            return Ok(());
        }
        self.apply_children_dir_moves()?;
        self.position.progress = ino.saturating_add(1);
        // What is made in a directory later changes its times again, so those of a directory with
        // entries wait.
        let dir = (ino, item.generation.get());
        if kind == mode::DIR && size > 0 {
            self.output.utimes.touch(dir)
        } else {
            self.send_utimes_of(dir)
        }
    }

    /// Sets the size of the current file, in bytes.
    pub(super) fn send_truncate(&mut self, size: u64) -> Result {
        self.know_path()?;
        self.output
            .stream
            .command(Command::Truncate)?
            .bytes(Attr::Path, self.position.path.as_bytes())?
            .u64(Attr::Size, size)?
            .end()
    }

    /// Makes sure that `self.position.path` is the path of the current inode.
    pub(super) fn know_path(&mut self) -> Result {
        if self.position.path_known {
            return Ok(());
        }
        let Some(inode) = &self.position.inode else {
            return Err(EINVAL);
        };
        let (ino, generation) = (inode.ino, inode.generation());
        let mut path =
            core::mem::replace(&mut self.position.path, super::names::path::FsPath::empty());
        let result = match self.snapshots.parent {
            Some(_) => self.build_cur_path(ino, generation, &mut path),
            None => self.path_of(ino, &mut path).map(|_| ()),
        };
        self.position.path = path;
        result?;
        self.position.path_known = true;
        Ok(())
    }

    /// Sends the times of the directories that have waited long enough.
    pub(super) fn send_overdue_utimes(&mut self) -> Result {
        while let Some(dir) = self.output.utimes.overdue() {
            self.send_utimes_of(dir)?;
            self.output.utimes.drop_front();
        }
        Ok(())
    }

    /// Sends the times of the directories that still wait at the end of the stream.
    pub(super) fn send_due_utimes(&mut self) -> Result {
        while let Some(dir) = self.output.utimes.pop() {
            self.send_utimes_of(dir)?;
        }
        Ok(())
    }

    /// Sends the times of the current inode, or of a directory.
    fn send_utimes_of(&mut self, dir: super::utimes::Dir) -> Result {
        match &self.position.inode {
            Some(inode)
                if (inode.ino, inode.generation()) == dir && inode.fate != Fate::Deleted =>
            {
                let item = inode.item;
                self.know_path()?;
                send_utimes(
                    &mut self.output.stream,
                    self.position.path.as_bytes(),
                    &item,
                )
            }
            _ => {
                let mut path =
                    core::mem::replace(&mut self.names.other, super::names::path::FsPath::empty());
                let item = self.path_and_item(dir, &mut path);
                self.names.other = path;
                send_utimes(&mut self.output.stream, self.names.other.as_bytes(), &item?)
            }
        }
    }

    fn path_and_item(
        &mut self,
        (ino, generation): super::utimes::Dir,
        path: &mut super::names::path::FsPath,
    ) -> Result<InodeItem> {
        if self.snapshots.parent.is_none() {
            self.path_of_dir(ino, path)?;
            return self.existing(ino);
        }
        self.get_cur_path(ino, generation, path)?;
        self.snapshots.inode_in(Snapshot::Sent, ino)?.ok_or(ENOENT)
    }
}

/// What is to be set when an inode is done.
struct Due {
    truncate: bool,
    chown: bool,
    chmod: bool,
    flags: bool,
}

impl Due {
    fn of(inode: &Current) -> Due {
        let item = &inode.item;
        let size = item.size.get();
        let is_link = inode.is(mode::LINK);
        let written = inode.next_write == size;
        let Some(before) = &inode.before else {
            return Due {
                truncate: inode.is(mode::FILE) && !written,
                chown: true,
                chmod: !is_link,
                flags: false,
            };
        };
        let old_size = before.size.get();
        let sized = old_size == size || (size > old_size && written);
        Due {
            truncate: inode.is(mode::FILE) && !sized,
            chown: (item.uid, item.gid) != (before.uid, before.gid),
            chmod: !is_link && item.mode != before.mode,
            flags: !is_link && item.flags != before.flags,
        }
    }
}

fn send_utimes(stream: &mut super::stream::Stream<'_>, path: &[u8], item: &InodeItem) -> Result {
    let version = stream.version();
    let builder = stream
        .command(Command::Utimes)?
        .bytes(Attr::Path, path)?
        .time(Attr::Atime, &item.atime)?
        .time(Attr::Mtime, &item.mtime)?
        .time(Attr::Ctime, &item.ctime)?;
    if version < Version::V2 {
        return builder.end();
    }
    builder.time(Attr::Otime, &item.otime)?.end()
}

/// A device number as user space has it, from the kernel's own (12 bits major, 20 bits minor).
fn encode_device(rdev: u64) -> u64 {
    let rdev = rdev as u32;
    let (major, minor) = (rdev >> 20, rdev & 0xf_ffff);
    u64::from((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers() {
        assert_eq!(encode_device((8 << 20) | 1), 0x801);
        assert_eq!(encode_device((0xabc << 20) | 0x12345), 0x123a_bc45);
    }
}
