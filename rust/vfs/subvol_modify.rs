// SPDX-License-Identifier: GPL-2.0
//! The VFS's part in making and deleting subvolumes: names in directories, permissions, and what is
//! in memory.

use super::attributes::{id, now, take_over_dir};
use super::iget::iget;
use super::inode::{Inode, ROOT_DIR, S_IFDIR};
use super::ioctl::OpenFile;
use super::lock::{Exclusive, InodeGuard};
use super::super_block::SuperBlock;
use crate::bindings;
use crate::subvol::subvolume::{self, NewSnapshot, NewSubvolume};
use kernel::error::{from_err_ptr, to_result};
use kernel::prelude::*;

/// What is to be made.
#[derive(Clone, Copy)]
enum Make {
    Empty,
    Snapshot { source: u64, read_only: bool },
}

fn random_uuid() -> [u8; 16] {
    let mut uuid = [0u8; 16];
    // SAFETY: The buffer has that size.
    unsafe { bindings::get_random_bytes(uuid.as_mut_ptr().cast(), uuid.len()) };
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// A dentry that is being made or removed, with its directory locked until this is dropped.
struct Changing {
    child: *mut bindings::dentry,
    parent: *mut bindings::dentry,
}

impl Changing {
    /// Begins to make `name` in the directory.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `EACCES`, `EINTR`, and what looking the name up gives.
    ///
    /// # Safety
    ///
    /// `parent` is a directory's dentry that the caller holds, and `idmap` that of its mount.
    unsafe fn create(
        idmap: *mut bindings::mnt_idmap,
        parent: *mut bindings::dentry,
        name: &[u8],
    ) -> Result<Self> {
        let len = u32::try_from(name.len()).map_err(|_| ENAMETOOLONG)?;
        // SAFETY: By this function's contract; the name is a live slice.
        let child = from_err_ptr(unsafe {
            bindings::rbtrfs_start_creating(idmap, parent, name.as_ptr().cast(), len)
        })?;
        let changing = Self { child, parent };
        // SAFETY: As above.
        to_result(unsafe { bindings::may_create_dentry(idmap, changing.dir_ptr(), child) })?;
        Ok(changing)
    }

    /// Begins to remove `name` from the directory.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `EACCES`, `EINTR`, and what looking the name up gives.
    ///
    /// # Safety
    ///
    /// As for [`Self::create`].
    unsafe fn remove(
        idmap: *mut bindings::mnt_idmap,
        parent: *mut bindings::dentry,
        name: &[u8],
    ) -> Result<Self> {
        let len = u32::try_from(name.len()).map_err(|_| ENAMETOOLONG)?;
        // SAFETY: By this function's contract; the name is a live slice.
        let child = from_err_ptr(unsafe {
            bindings::rbtrfs_start_removing(idmap, parent, name.as_ptr().cast(), len)
        })?;
        Ok(Self { child, parent })
    }

    fn dir_ptr(&self) -> *mut bindings::inode {
        // SAFETY: The parent is a directory's dentry.
        unsafe { bindings::rbtrfs_d_inode(self.parent) }
    }

    fn dir(&self) -> Exclusive<'_> {
        // SAFETY: The directory is locked as long as this lives.
        unsafe { Exclusive::assume(Inode::from_raw(self.dir_ptr())) }
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        // SAFETY: The kernel's function locked the directory and got the dentry.
        unsafe { bindings::end_dirop(self.child) }
    }
}

impl OpenFile<'_> {
    /// Makes an empty subvolume in this directory.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`, `EEXIST`, `EROFS`, `EACCES`, `ENOSPC`; those of a commit.
    pub(crate) fn create_subvolume(&self, name: &[u8]) -> Result {
        self.make_subvolume(name, Make::Empty)
    }

    /// Makes a snapshot, in this directory, of the subvolume whose root directory the caller has
    /// open as `source`.
    ///
    /// # Errors
    ///
    /// As for [`Self::create_subvolume`]; `EINVAL` if `source` is nothing of the sort, `EXDEV` if
    /// it is of another volume, `EPERM` if it is not the caller's, `EINTR`.
    pub(crate) fn create_snapshot(&self, name: &[u8], source: i64, read_only: bool) -> Result {
        let tree = self.snapshot_source(source)?;
        let known = self.super_block().volume().subvolumes();
        let source = known.find(tree).ok_or(ENOENT)?;
        let _snapshotting = source.snapshot_lock().lock_for_snapshot()?;
        // What is dirty belongs into the snapshot.
        self.write_back_all()?;
        let make = Make::Snapshot {
            source: tree,
            read_only,
        };
        self.make_subvolume(name, make)
    }

    fn snapshot_source(&self, fd: i64) -> Result<u64> {
        let fd = u32::try_from(fd).map_err(|_| EINVAL)?;
        // SAFETY: The function takes any number, and only returns files of the superblock.
        let file = unsafe { bindings::rbtrfs_fget_of(fd, self.super_block().as_ptr()) };
        let file = from_err_ptr(file)?;
        // SAFETY: The file is referenced, and of our superblock.
        let (inode, owned) = unsafe {
            (
                Inode::of_file(file),
                bindings::rbtrfs_inode_owner_or_capable(file),
            )
        };
        let (tree, is_root) = (
            inode.info().tree,
            inode.is_dir() && inode.info().ino == ROOT_DIR,
        );
        // SAFETY: The reference is ours.
        unsafe { bindings::fput(file) };
        if !owned {
            return Err(EPERM);
        }
        if !is_root {
            return Err(EINVAL);
        }
        Ok(tree)
    }

    /// Writes back whatever is dirty in the volume, and waits for it.
    ///
    /// # Errors
    ///
    /// None: what fails is told to those who sync the files.
    pub(crate) fn write_back_all(&self) -> Result {
        let sb = self.super_block().as_ptr();
        // SAFETY: The superblock is valid. The caller holds no lock of it.
        unsafe {
            bindings::rbtrfs_sb_lock_shared(sb);
            bindings::sync_inodes_sb(sb);
            bindings::rbtrfs_sb_unlock_shared(sb);
        }
        Ok(())
    }

    fn make_subvolume(&self, name: &[u8], make: Make) -> Result {
        if !self.is_dir() {
            return Err(ENOTDIR);
        }
        let _writing = self.want_write()?;
        if name.contains(&b'/') || name.is_empty() {
            return Err(EINVAL);
        }
        if matches!(name, b"." | b"..") {
            return Err(EEXIST);
        }
        let (idmap, parent) = (self.idmap(), self.dentry());
        // SAFETY: The file is open, so that its dentry is held.
        let changing = unsafe { Changing::create(idmap, parent, name) }?;
        let dir = changing.dir();
        dir.subvolume().check_writable()?;
        let (fs, sb) = (dir.fs(), dir.super_block());
        let made = match make {
            Make::Empty => {
                // SAFETY: The map is that of the file's mount.
                let (uid, gid) = unsafe {
                    (
                        bindings::rbtrfs_fsuid(idmap, sb.as_ptr()),
                        bindings::rbtrfs_fsgid(idmap, sb.as_ptr()),
                    )
                };
                // SAFETY: The function reads the current task's umask.
                let mode = S_IFDIR | 0o777 & !unsafe { bindings::rbtrfs_umask() };
                let new = NewSubvolume {
                    uuid: random_uuid(),
                    uid,
                    gid,
                    mode,
                    now: now(&[&dir]),
                };
                subvolume::create_subvolume(fs, id(&dir), name, &new)?
            }
            Make::Snapshot { source, read_only } => {
                let new = NewSnapshot {
                    uuid: random_uuid(),
                    read_only,
                    now: now(&[&dir]),
                };
                subvolume::snapshot(fs, source, id(&dir), name, &new)?
            }
        };
        take_over_dir(dir, &made.dir);
        fs.commit()?;
        let inode = iget(sb, made.tree, ROOT_DIR)?;
        // SAFETY: The dentry is negative and its directory locked; it takes the reference over.
        unsafe {
            bindings::d_instantiate(changing.child, inode.into_raw());
            bindings::rbtrfs_notify_mkdir(changing.dir_ptr(), changing.child);
        }
        Ok(())
    }

    /// Deletes the subvolume `name` in this directory.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`, `ENOENT`, `EINVAL` if it is no subvolume, `EPERM` if it is the default one or
    /// under send, or not the caller's to delete, `ENOTEMPTY` if it holds subvolumes, `EROFS`.
    pub(crate) fn delete_subvolume(&self, name: &[u8]) -> Result {
        if name.contains(&b'/') || name == b".." {
            return Err(EINVAL);
        }
        if !self.is_dir() {
            return Err(ENOTDIR);
        }
        let _writing = self.want_write()?;
        // SAFETY: The file is open, so that its dentry is held.
        unsafe { self.delete_at(self.dentry(), name) }
    }

    /// Deletes the subvolume whose tree is `tree`, wherever it is.
    ///
    /// # Errors
    ///
    /// As for [`Self::delete_subvolume`].
    pub(crate) fn delete_subvolume_by_id(&self, tree: u64) -> Result {
        if tree < ROOT_DIR {
            return Err(EINVAL);
        }
        let _writing = self.want_write()?;
        let (parent, name) = super::export::place_of_subvolume(self.super_block(), tree)?;
        let deleted = if parent != self.dentry() && self.is_idmapped() {
            // Whom the caller is there is not known.
            Err(EOPNOTSUPP)
        } else {
            // SAFETY: The dentry is referenced until below.
            unsafe { self.delete_at(parent, &name) }
        };
        // SAFETY: The reference is ours.
        unsafe { bindings::dput(parent) };
        deleted
    }

    /// # Safety
    ///
    /// `parent` is a directory's dentry of the same superblock that the caller holds.
    unsafe fn delete_at(&self, parent: *mut bindings::dentry, name: &[u8]) -> Result {
        let idmap = self.idmap();
        // SAFETY: By this function's contract.
        let changing = unsafe { Changing::remove(idmap, parent, name) }?;
        let dir = changing.dir();
        // SAFETY: The dentry is positive, and held.
        let inode = unsafe { Inode::of_dentry(changing.child) };
        if !super::ioctl::capable_sys_admin() {
            if !dir.super_block().volume().settings().user_subvol_rm_allowed {
                return Err(EPERM);
            }
            if self.tree() == inode.info().tree {
                return Err(EINVAL);
            }
            let mask = (bindings::MAY_WRITE | bindings::MAY_EXEC) as i32;
            // SAFETY: The inode is held.
            to_result(unsafe { bindings::inode_permission(idmap, inode.as_ptr(), mask) })?;
        }
        // SAFETY: The directory is locked.
        to_result(unsafe {
            bindings::may_delete_dentry(idmap, changing.dir_ptr(), changing.child, true)
        })?;
        if inode.info().ino != ROOT_DIR || !inode.is_dir() {
            return Err(EINVAL);
        }
        {
            let _victim = InodeGuard::lock(inode);
            // SAFETY: The dentry is held.
            unsafe { bindings::shrink_dcache_parent(changing.child) };
            let deleted = subvolume::delete_subvolume(dir.fs(), id(&dir), name, now(&[&dir]))?;
            take_over_dir(dir, &deleted.dir);
            inode.subvolume().set_deleted();
            // SAFETY: The inode is locked.
            unsafe { bindings::rbtrfs_inode_set_dead(inode.as_ptr()) };
        }
        // SAFETY: The dentry is held, and its directory locked.
        unsafe { bindings::rbtrfs_delete_notify(changing.dir_ptr(), changing.child) };
        dir.super_block().volume().wake_cleaner();
        Ok(())
    }

    /// Makes the subvolume that this is the root directory of read-only, or writable.
    ///
    /// # Errors
    ///
    /// Those of the engine, and of a commit.
    pub(crate) fn set_subvolume_read_only(&self, read_only: bool) -> Result {
        let subvolume = self.inode().subvolume();
        if read_only {
            // Nobody makes anything dirty any more, and what is dirty becomes part of it.
            let before = subvolume.is_read_only();
            subvolume.set_read_only(true);
            let settled = subvolume.writers().wait();
            let done = settled.and_then(|()| self.write_back_all()).and_then(|()| {
                let _writing = self.want_write()?;
                subvolume::set_read_only(self.fs(), self.tree(), true)
            });
            if let Err(e) = done {
                subvolume.set_read_only(before);
                return Err(e);
            }
        } else {
            let _writing = self.want_write()?;
            subvolume::set_read_only(self.fs(), self.tree(), false)?;
            subvolume.set_read_only(false);
        }
        self.fs().commit()
    }

    fn super_block(&self) -> &SuperBlock {
        self.inode().super_block()
    }

    fn is_idmapped(&self) -> bool {
        // SAFETY: The file is open by the type invariant.
        unsafe { bindings::rbtrfs_file_is_idmapped(self.file()) }
    }

    fn idmap(&self) -> *mut bindings::mnt_idmap {
        // SAFETY: The file is open by the type invariant.
        unsafe { bindings::rbtrfs_file_idmap(self.file()) }
    }

    fn dentry(&self) -> *mut bindings::dentry {
        // SAFETY: The file is open by the type invariant.
        unsafe { bindings::rbtrfs_file_dentry(self.file()) }
    }
}
