// SPDX-License-Identifier: GPL-2.0
//! Options as `/proc/mounts` shows them (`btrfs_show_options`): what is in force and is not the
//! default.

use super::{Compress, Settings, COMMIT_INTERVAL};
use crate::format::CompressionMethod;
use crate::state::SendBalance;
use kernel::fmt;

/// The settings of a volume, each after a comma, in the C driver's order. Hints are not shown.
pub struct Shown {
    settings: Settings,
    free_space_tree: bool,
}

impl Settings {
    /// These settings for `/proc/mounts`, of a volume with a free space tree or without.
    pub fn show(&self, free_space_tree: bool) -> Shown {
        Shown {
            settings: *self,
            free_space_tree,
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.settings;
        if !settings.barrier {
            f.write_str(",nobarrier")?;
        }
        if let Some(compress) = &settings.compress {
            show_compress(compress, f)?;
        }
        if !settings.tree_log {
            f.write_str(",notreelog")?;
        }
        for (n, name) in settings.rescue.names().enumerate() {
            f.write_str(if n == 0 { ",rescue=" } else { ":" })?;
            f.write_str(name)?;
        }
        if settings.flush_on_commit {
            f.write_str(",flushoncommit")?;
        }
        if !settings.acl {
            f.write_str(",noacl")?;
        }
        f.write_str(if self.free_space_tree {
            ",space_cache=v2"
        } else {
            ",nospace_cache"
        })?;
        for (is_set, name) in [
            (settings.rescan_uuid_tree, ",rescan_uuid_tree"),
            (settings.clear_cache, ",clear_cache"),
            (settings.user_subvol_rm_allowed, ",user_subvol_rm_allowed"),
            (settings.skip_balance, ",skip_balance"),
        ] {
            if is_set {
                f.write_str(name)?;
            }
        }
        if settings.send_balance != SendBalance::default() {
            write!(f, ",send_balance={}", settings.send_balance.name())?;
        }
        if settings.commit_interval != COMMIT_INTERVAL {
            write!(f, ",commit={}", settings.commit_interval)?;
        }
        Ok(())
    }
}

fn show_compress(compress: &Compress, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let option = if compress.is_forced {
        "compress-force"
    } else {
        "compress"
    };
    write!(f, ",{option}={}", compress.method.name())?;
    if compress.method != CompressionMethod::Lzo {
        write!(f, ":{}", compress.level)?;
    }
    Ok(())
}
