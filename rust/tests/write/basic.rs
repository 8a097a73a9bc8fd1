// SPDX-License-Identifier: GPL-2.0
//! The plain course of things.

use crate::files::*;
use crate::support::*;
use rbtrfs_engine::subvol::write::*;

#[test]
fn what_was_written_is_there() {
    for kind in KINDS {
        let scratch = Scratch::new("write-basic");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        let sub = mkdir(&fs, ROOT, "sub").unwrap();
        let (small, large) = (pattern(1234, 1), pattern(300_001, 2));
        let a = file(&fs, sub, "small").unwrap();
        fill(&fs, a, &small).unwrap();
        let b = file(&fs, sub, "large").unwrap();
        fill(&fs, b, &large).unwrap();
        let target = NewInode {
            target: b"sub/large",
            ..new(mode::LNK | 0o777)
        };
        create(&fs, ROOT, b"link", &target).unwrap();
        link(&fs, b.ino, ROOT, b"other", now()).unwrap();
        // Before and after the commit, and by a later mount.
        assert_eq!(read(&fs, a).unwrap(), small);
        assert_eq!(read(&fs, b).unwrap(), large);
        fs.commit().unwrap();
        assert_eq!(read(&fs, b).unwrap(), large);
        drop(fs);
        scratch.assert_clean(&device);
        let fs = open(&device).unwrap();
        assert_eq!(lookup(&fs, sub, "small").unwrap(), Some(a));
        assert_eq!(read(&fs, a).unwrap(), small);
        assert_eq!(read(&fs, b).unwrap(), large);
        mounted(&scratch, &device, |dir| {
            assert_eq!(std::fs::read(dir.join("sub/small")).unwrap(), small);
            assert_eq!(std::fs::read(dir.join("link")).unwrap(), large);
            assert_eq!(std::fs::read(dir.join("other")).unwrap(), large);
        });
    }
}
