// SPDX-License-Identifier: GPL-2.0
//! An image in a file, or a block device of the host.

use kernel::error::{Error, Result};
use kernel::prelude::{EIO, EOPNOTSUPP, EROFS};
use rbtrfs_engine::device::BlockDevice;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A file as a device.
pub struct FileDevice {
    name: String,
    file: File,
    size: u64,
    writable: bool,
}

impl FileDevice {
    /// Opens a file, for writing if `writable`; its last name is the device's.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn open(path: impl AsRef<Path>, writable: bool) -> io::Result<Self> {
        let path = path.as_ref();
        let mut file = OpenOptions::new().read(true).write(writable).open(path)?;
        // The end of a block device is where seeking says; its metadata has a size of zero.
        let size = file.seek(SeekFrom::End(0))?;
        let name = path.file_name().unwrap_or(path.as_os_str());
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            file,
            size: size - size % 512,
            writable,
        })
    }

    fn check_writable(&self) -> Result {
        if self.writable {
            Ok(())
        } else {
            Err(EROFS)
        }
    }
}

fn errno(e: io::Error) -> Error {
    e.raw_os_error().map_or(EIO, |e| Error::from_errno(-e))
}

impl BlockDevice for FileDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        !self.writable
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result {
        crate::check(offset, buf.len(), self.size)?;
        self.file.read_exact_at(buf, offset).map_err(errno)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result {
        self.check_writable()?;
        crate::check(offset, buf.len(), self.size)?;
        self.file.write_all_at(buf, offset).map_err(errno)
    }

    fn write_fua(&self, offset: u64, buf: &[u8]) -> Result {
        self.write(offset, buf)?;
        self.flush()
    }

    fn flush(&self) -> Result {
        self.file.sync_data().map_err(errno)
    }

    fn discard(&self, _offset: u64, _len: u64) -> Result {
        Err(EOPNOTSUPP)
    }
}
