// SPDX-License-Identifier: GPL-2.0
//! Emptying a block group, and removing it.
//!
//! Work goes in batches. Each is one transaction: some extents of the block group are found,
//! everything that has to change for them to move is planned by reading alone, and only then is
//! anything changed. Until its commit begins, a batch can end without a trace, so pausing and
//! cancelling take effect there, too. Batches grow and shrink so that one takes about [`BATCH_MS`],
//! but do not shrink below what makes their ancestors worth copying: those of a block that many
//! snapshots share are as many for one such block as for a thousand.

use super::backref_cache::{BackrefCache, Check, Seeds};
use super::copy::copy;
use super::data_relocation::DataRelocation;
use crate::extent::backref::{find_extent, FoundExtent};
use crate::format::chunk::block_group_flags as flags;
use crate::format::{item_type, tree_id, Key};
use crate::platform;
use crate::space::block_group::Kind;
use crate::space::space_info::SpaceContext;
use crate::trans::transaction::{Reserve, Transaction};
use crate::tree::edit;
use crate::tree::{Cursor, EditContext};
use crate::volume::fs::Fs;
use crate::{fs_err, fs_info};
use kernel::prelude::*;

/// How long a batch should take, in milliseconds.
const BATCH_MS: u64 = 150;
/// The fewest and the most extents of a batch.
const BATCH_MIN: usize = 16;
const BATCH_MAX: usize = 2048;
/// The most bytes of data that a batch moves.
const BATCH_BYTES: u64 = 64 << 20;

/// Moves everything out of the block group at `start` (a logical address in bytes) and removes it.
///
/// The caller holds the relocation token. `check` is asked often whether to go on.
///
/// # Errors
///
/// `ENOENT` if there is no such block group; `ENOSPC` if its contents have no space elsewhere;
/// `EIO` and `EUCLEAN` for damaged trees or data, each after a line in the log; what `check` gives.
/// Whatever was moved by then stays moved, and everything else is where it was.
pub fn relocate_block_group(fs: &Fs, start: u64, check: Check<'_>) -> Result {
    check()?;
    let group = fs.set_block_group_read_only(start)?;
    fs_info!(
        fs,
        "relocating block group {} flags {}",
        start,
        FlagNames(group.flags())
    );
    let mut batch = Batch {
        fs,
        from: start,
        end: group.end(),
        limit: BATCH_MIN,
        most: BATCH_MAX,
        check,
    };
    let mut moved = 0u64;
    while let Some(count) = batch.run()? {
        moved = moved.saturating_add(count as u64);
    }
    if moved > 0 {
        fs_info!(fs, "found {} extents, stage: move data extents", moved);
    }
    group.remove()
}

/// The names of a block group's flags, as administrators know them.
struct FlagNames(u64);

impl core::fmt::Display for FlagNames {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let names = [
            (flags::DATA, "data"),
            (flags::SYSTEM, "system"),
            (flags::METADATA, "metadata"),
            (flags::DUP, "dup"),
        ];
        let mut first = true;
        for (_, name) in names.iter().filter(|(bit, _)| self.0 & bit != 0) {
            if !first {
                f.write_str("|")?;
            }
            f.write_str(name)?;
            first = false;
        }
        Ok(())
    }
}

/// Where the emptying of a block group stands.
struct Batch<'a> {
    fs: &'a Fs,
    /// Everything before this logical address has moved.
    from: u64,
    end: u64,
    limit: usize,
    /// The most extents that fit into the space that is left.
    most: usize,
    check: Check<'a>,
}

impl Batch<'_> {
    /// Moves some extents; `None` when there are none left.
    fn run(&mut self) -> Result<Option<usize>> {
        (self.check)()?;
        let begun = platform::uptime_ms();
        let trans = self.fs.begin(Reserve::default())?;
        self.run_in(trans, begun)
    }

    /// Moves some extents as the transaction `trans`. Apart from [`Self::run`], lest each has the
    /// other's stack.
    #[inline(never)]
    fn run_in(&mut self, mut trans: Transaction<'_>, begun: u64) -> Result<Option<usize>> {
        let mut plan = self.plan(&trans)?;
        if plan.count == 0 {
            return Ok(None);
        }
        let count = plan.count;
        let copied = plan.backref_cache.as_ref().map_or(0, BackrefCache::len);
        let done = self
            .reserve_space(&mut trans, &plan)
            .and_then(|()| self.carry_out(&mut trans, &mut plan));
        if let Err(error) = done {
            // Nothing that the last commit knows of was touched yet.
            trans.cancel();
            if error == ENOSPC && count > 1 {
                // Fewer extents have fewer ancestors, and what one batch frees the next can use.
                self.most = count / 2;
                self.limit = self.most;
                return Ok(Some(0));
            }
            return Err(error);
        }
        trans.commit()?;
        let took = platform::uptime_ms().saturating_sub(begun);
        self.adapt(took, copied > count.saturating_mul(2));
        Ok(Some(count))
    }

    /// Chooses the size of the next batch after one that took `took` milliseconds, mostly for
    /// ancestors or not.
    fn adapt(&mut self, took: u64, mostly_ancestors: bool) {
        if took < BATCH_MS / 2 || mostly_ancestors {
            self.limit = self.limit.saturating_mul(2).min(self.most);
        } else if took > BATCH_MS {
            self.limit = (self.limit / 2).max(BATCH_MIN).min(self.most);
        }
    }

    /// Finds extents and everything that has to change with them.
    fn plan(&self, trans: &Transaction<'_>) -> Result<KBox<Plan>> {
        let plan = Plan {
            seeds: Seeds::new(),
            relocated: DataRelocation::new(),
            backref_cache: None,
            count: 0,
        };
        let mut plan = KBox::new(plan, GFP_KERNEL)?;
        let mut extents = Extents {
            at: self.from,
            end: self.end,
        };
        while plan.count < self.limit && plan.relocated.bytes() < BATCH_BYTES {
            let Some(found) = extents.next(self.fs, trans)? else {
                break;
            };
            match found.level() {
                Some(level) => plan.seeds.add(level, found.bytenr())?,
                None => {
                    let Plan {
                        seeds, relocated, ..
                    } = &mut *plan;
                    relocated.add(trans, &found, seeds)?;
                }
            }
            plan.count = plan.count.saturating_add(1);
            (self.check)()?;
        }
        let backref_cache = BackrefCache::build(trans, &mut plan.seeds, self.check)?;
        plan.relocated.prove(trans, &backref_cache)?;
        plan.backref_cache = Some(backref_cache);
        Ok(plan)
    }

    /// Refuses what does not fit while nothing is changed yet.
    fn reserve_space(&self, trans: &mut Transaction<'_>, plan: &Plan) -> Result {
        let nodesize = u64::from(trans.geometry().nodesize);
        let nodes = plan.blocks().saturating_mul(nodesize);
        let mut data = plan.relocated.bytes();
        if data != 0 {
            // What was reserved for writers is not there for copies.
            data = data.saturating_add(self.fs.data_bytes_may_use());
        }
        let (space, base) = trans.allocator();
        space.ensure_available(base, Kind::Metadata, nodes)?;
        space.ensure_available(base, Kind::Data, data)
    }

    fn carry_out(&self, trans: &mut Transaction<'_>, plan: &mut Plan) -> Result {
        let backref_cache = plan.backref_cache.take().ok_or(EINVAL)?;
        trans.set_relocates();
        let reader = self.fs.reader()?;
        plan.relocated.copy_data(trans, &reader)?;
        let copies = copy(trans, &backref_cache, &plan.relocated, self.check)?;
        plan.relocated.finish(trans, &reader, &copies)?;
        for path in plan.seeds.paths.iter() {
            edit::cow_to(trans, path.tree, &path.key, path.level)?;
        }
        // What the extent tree does not agree with, or has no space for, shows here and not in the
        // commit.
        trans.settle()
    }
}

/// All that a batch does.
struct Plan {
    seeds: Seeds,
    relocated: DataRelocation,
    backref_cache: Option<BackrefCache>,
    count: usize,
}

impl Plan {
    /// How many tree blocks are copied, at the most.
    fn blocks(&self) -> u64 {
        let backref_cache = self.backref_cache.as_ref().map_or(0, BackrefCache::len) as u64;
        self.seeds.paths.iter().fold(backref_cache, |sum, path| {
            sum.saturating_add(u64::from(path.level)).saturating_add(1)
        })
    }
}

/// The extents of a block group, in order.
struct Extents {
    at: u64,
    end: u64,
}

impl Extents {
    fn next(&mut self, fs: &Fs, trans: &Transaction<'_>) -> Result<Option<FoundExtent>> {
        let extents = trans.root(tree_id::EXTENT)?;
        let mut cursor = Cursor::new(trans, extents);
        cursor.seek(&Key::new(self.at, 0, 0))?;
        while let Some((key, _)) = cursor.item() {
            if key.objectid >= self.end {
                break;
            }
            if matches!(key.typ, item_type::EXTENT_ITEM | item_type::METADATA_ITEM) {
                let found = find_extent(fs, trans, extents, key.objectid)?.ok_or(EUCLEAN)?;
                let next = key.objectid.checked_add(found.num_bytes.max(1));
                self.at = next.ok_or(EUCLEAN)?;
                if self.at > self.end {
                    fs_err!(
                        fs,
                        "extent {} of {} bytes crosses the end of its block group at {}",
                        key.objectid,
                        found.num_bytes,
                        self.end
                    );
                    return Err(EUCLEAN);
                }
                return Ok(Some(found));
            }
            cursor.next()?;
        }
        Ok(None)
    }
}
