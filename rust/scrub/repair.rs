// SPDX-License-Identifier: GPL-2.0
//! What becomes of a bad copy: it is counted, and written over with a good one if there is one.

use super::report;
use super::window::{Copy, Unit, UnitKind};
use crate::device::stats::Stat;
use crate::platform::may_log;
use crate::state::ScrubProgress;
use crate::tree::verify::{Fault, Report};
use crate::{fs_err, fs_warn};
use kernel::prelude::*;

/// What is wrong with a copy.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cause {
    /// The device cannot read it.
    Read,
    /// File data does not match its checksum.
    Checksum,
    /// It is not the tree block that must be there.
    Block(Fault),
}

impl Cause {
    /// As the log names it.
    fn name(&self) -> &'static str {
        match self {
            Cause::Read => "i/o error",
            Cause::Checksum => "checksum error",
            Cause::Block(Fault::Transid(_)) => "generation error",
            Cause::Block(_) => "header error",
        }
    }
}

/// A bad copy of a tree block or of a sector of file data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bad {
    pub(super) unit: Unit,
    pub(super) cause: Cause,
}

/// Where good bytes came from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Another copy.
    Other,
    /// The copy itself, which was only for a while what it is not now.
    Same,
}

/// Counts a bad copy and makes it good, if that can be done and is allowed.
///
/// # Errors
///
/// `ENOMEM`.
pub(super) fn repair(copy: &Copy<'_>, bad: &Bad, progress: &mut ScrubProgress) -> Result {
    let fs = copy.reader.fs();
    let unit = &bad.unit;
    let sectors = unit.len as u64 / fs.geometry.sectorsize;
    count(copy, bad, sectors, progress);
    let physical = copy.extent.physical_of(unit.logical);
    let mut bytes = KVVec::zeroed(unit.len, GFP_KERNEL)?;
    let good = match find_good(copy, unit, &mut bytes)? {
        Some(Source::Other) if !copy.read_only => fs.device.write(physical, &bytes).is_ok(),
        found => found.is_some(),
    };
    if !good {
        add(&mut progress.uncorrectable_errors, sectors);
        if may_log() {
            fs_err!(
                fs,
                "scrub: unable to fixup (regular) error at logical {} on dev /dev/{} physical {}",
                unit.logical,
                fs.name(),
                physical
            );
            report::name_users(copy.reader, unit, physical, bad.cause.name());
        }
        return Ok(());
    }
    add(&mut progress.corrected_errors, sectors);
    if may_log() {
        let done = if copy.read_only {
            "found but, as the scrub is read-only, did not fix"
        } else {
            "fixed up"
        };
        fs_err!(
            fs,
            "scrub: {} error at logical {} on dev /dev/{} physical {}",
            done,
            unit.logical,
            fs.name(),
            physical
        );
    }
    Ok(())
}

fn count(copy: &Copy<'_>, bad: &Bad, sectors: u64, progress: &mut ScrubProgress) {
    let fs = copy.reader.fs();
    match &bad.cause {
        // The device has counted it.
        Cause::Read => add(&mut progress.read_errors, sectors),
        Cause::Checksum => {
            add(&mut progress.csum_errors, sectors);
            fs.stats.count(Stat::Corruption, &*fs.device);
        }
        Cause::Block(fault) => {
            add(&mut progress.verify_errors, sectors);
            if matches!(fault, Fault::Transid(_)) {
                fs.stats.count(Stat::Generation, &*fs.device);
            }
            if let (UnitKind::Block(ptr), true) = (&bad.unit.kind, may_log()) {
                let report = Report {
                    fault: *fault,
                    ptr,
                    mirror: copy.mirror,
                };
                fs_warn!(fs, "scrub: {}", report);
            }
        }
    }
}

/// Reads a unit from the other copies, and at last from this one again, into `bytes`, until one is
/// good.
///
/// # Errors
///
/// `ENOMEM`.
fn find_good(copy: &Copy<'_>, unit: &Unit, bytes: &mut [u8]) -> Result<Option<Source>> {
    let reader = copy.reader;
    // Data without a checksum cannot be told good from bad, and may be overwritten where it is.
    let is_proved = !matches!(unit.kind, UnitKind::Sector(None));
    let len = bytes.len() as u64;
    let Ok(mirrors) = reader.fs().chunk_map().mirrors(unit.logical, len) else {
        return Ok(None);
    };
    let others = (1u32..=mirrors.count()).filter(|mirror| *mirror != copy.mirror && is_proved);
    for mirror in Iterator::chain(others, [copy.mirror]) {
        match reader.read_logical(unit.logical, bytes, mirror) {
            Ok(()) => {}
            Err(ENOMEM) => return Err(ENOMEM),
            Err(_) => continue,
        }
        if unit.prove(reader, bytes)?.is_ok() {
            return Ok(Some(if mirror == copy.mirror {
                Source::Same
            } else {
                Source::Other
            }));
        }
    }
    Ok(None)
}

fn add(count: &mut u64, more: u64) {
    *count = count.saturating_add(more);
}
