// SPDX-License-Identifier: GPL-2.0
//! `INO_LOOKUP` and `INO_LOOKUP_USER`: from a directory's inode number to its path.

use crate::subvol::resolve::{last_parent, prepend_dir, with_child, PathBuf, ROOT_DIR};
use crate::vfs::{capable_sys_admin, OpenFile, UserArg};
use kernel::prelude::*;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4080;
const USER_PATH_MAX: usize = PATH_MAX - NAME_MAX - 1;

/// `struct btrfs_ioctl_ino_lookup_args`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Args {
    treeid: u64,
    objectid: u64,
    name: [u8; PATH_MAX],
}

/// `struct btrfs_ioctl_ino_lookup_user_args`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct UserArgs {
    dirid: u64,
    treeid: u64,
    name: [u8; NAME_MAX + 1],
    path: [u8; USER_PATH_MAX],
}

const _: () = assert!(size_of::<Args>() == 4096 && size_of::<UserArgs>() == 4096);

/// The path of an inode within a subvolume; of the root directory, only the subvolume's id.
pub(super) fn ino_lookup(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let mut args: KBox<Args> = arg.read_boxed()?;
    if args.treeid == 0 {
        args.treeid = file.tree();
    }
    if args.objectid == ROOT_DIR {
        // What anybody may ask.
        args.name[0] = 0;
    } else if !capable_sys_admin() {
        return Err(EPERM);
    } else {
        let reader = file.reader_of(args.treeid)?;
        let root = reader.root(args.treeid)?;
        let ino = args.objectid;
        // The last byte stays for the end of the string.
        let (buffer, end) = args.name.split_at_mut(PATH_MAX - 1);
        let mut path = PathBuf::new(buffer);
        prepend_dir(&reader, root, ino, &mut path)?;
        path.move_to_front();
        end.fill(0);
    }
    arg.write(&*args)
}

/// Name and path of a subvolume below the open directory, for anybody who may search the
/// directories on the way.
pub(super) fn ino_lookup_user(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let mut args: KBox<UserArgs> = arg.read_boxed()?;
    if args.dirid == ROOT_DIR && file.ino() != ROOT_DIR {
        return Err(EACCES);
    }
    let (tree, top) = (file.tree(), file.ino());
    let reader = file.reader_of(tree)?;
    let root = reader.root(tree)?;
    let (dirid, child) = (args.dirid, args.treeid);
    if dirid != top {
        let (buffer, end) = args.path.split_at_mut(USER_PATH_MAX - 1);
        let mut path = PathBuf::new(buffer);
        let mut dir = dirid;
        while dir != top {
            if dir == ROOT_DIR {
                return Err(EACCES);
            }
            dir = last_parent(&reader, root, dir, &mut |name| {
                path.prepend(b"/")?;
                path.prepend(name)
            })?;
            file.may_search(dir)?;
        }
        path.move_to_front();
        end.fill(0);
    }
    let name = &mut args.name;
    with_child(&reader, tree, child, |held_by, found| {
        if held_by != dirid {
            return Err(EINVAL);
        }
        name.fill(0);
        let place = name.get_mut(..found.len()).ok_or(EUCLEAN)?;
        place.copy_from_slice(found);
        Ok(())
    })?;
    // User memory is touched only when no commit is held.
    drop(reader);
    arg.write(&*args)
}
