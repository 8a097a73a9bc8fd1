// SPDX-License-Identifier: GPL-2.0
//! Balance from its start to its end: start, resume, pause, cancel, and the loop over block groups.
//!
//! The balance item goes to disk before the first block group moves and leaves it after the last,
//! so that a balance that was interrupted, or paused, is there after the next mount. `state`
//! decides who may do what; here is what takes time, and none of it happens under a lock of
//! `state`.

use kernel::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use crate::format::balance::BalanceItem;
use crate::format::chunk::block_group_flags as bg;
use crate::format::{item_type, objectid, tree_id, Key};
use crate::space::block_group::Kind;
use crate::space::space_info::SpaceContext;
use crate::state::{
    BalanceControl, BalanceProgress, BalanceRun, BalanceStatus, CancelBalance, Ending, Log, Refusal,
};
use crate::trans::transaction::{Reserve, Transaction};
use crate::tree::{delete::delete, insert::insert};
use crate::volume::Fs;

use super::args::{
    args_for, balance_flags, check_conversion, check_flags, convert_target, narrow_for_resume,
    Describe,
};
use super::chunks::{last_chunk_up_to, profiles_in_use, ChunkInUse};
use super::filter::{reaches_minimum, takes, use_limit};
use super::relocate::relocate_block_group;

/// Where the balance item is, in the tree of roots.
const ITEM_KEY: Key = Key::new(objectid::BALANCE, item_type::TEMPORARY_ITEM, 0);

/// How a balance that was admitted came out.
pub struct Outcome {
    /// `ECANCELED` if it was paused or cancelled, `ENOSPC` if some block groups had no space
    /// elsewhere.
    pub result: Result,
    /// What it had done by then.
    pub status: BalanceStatus,
}

/// Starts a balance and returns when it has ended or is paused. A fatal signal to the caller
/// cancels it.
///
/// # Errors
///
/// Before anything has moved: `EINPROGRESS` while a balance runs or is paused,
/// [`Refusal::Exclusive`] while another exclusive operation runs, `EINVAL` for bad arguments,
/// `EAGAIN` while sends run, `EROFS`, and those of writing the balance item.
pub fn start(fs: &Fs, control: KBox<BalanceControl>) -> core::result::Result<Outcome, Refusal> {
    let request = &control.item;
    fs.state.look_at_balance(false)?;
    check_flags(request.flags.get())?;
    if fs.state.has_balance() {
        return Err(Refusal::Error(EINPROGRESS));
    }
    fs.check_writable()?;
    check_conversion(request, &profiles_in_use(&fs.reader()?)?, &fs.device)?;
    let known = BalanceControl::new(request)?;
    let mut run = fs.state.start_balance(&fs.device, known)?;
    write_item(fs, request)?;
    run.item_written();
    Ok(carry_out(fs, run, control))
}

/// Resumes the paused balance and returns when it has ended or is paused again.
///
/// # Errors
///
/// As [`start`], and `ENOTCONN` if no balance is paused. The paused balance stays then.
pub fn resume(fs: &Fs) -> core::result::Result<Outcome, Refusal> {
    fs.state.look_at_balance(true)?;
    fs.check_writable()?;
    match fs.state.balance_status() {
        Ok(paused) => {
            let in_use = profiles_in_use(&fs.reader()?)?;
            check_conversion(&paused.control.item, &in_use, &fs.device)?;
        }
        Err(ENOTCONN) => {}
        Err(error) => return Err(error.into()),
    }
    let run = fs.state.resume_balance(&fs.device)?;
    let mut control = run.control()?;
    narrow_for_resume(&mut control.item);
    // Targets are known in memory alone; for a balance that is paused since the mount they are not
    // yet.
    let mut trans = fs.begin(Reserve::default())?;
    set_targets(&mut trans, |typ| convert_target(&control.item, typ))?;
    trans.cancel();
    Ok(carry_out(fs, run, control))
}

/// Asks the running balance to pause, and returns when it has stopped.
///
/// # Errors
///
/// `ENOTCONN` if none runs; `EINTR` on a signal, where the request stays.
pub fn pause(fs: &Fs) -> Result {
    fs.state.pause_balance()
}

/// Ends the balance, running or paused, and returns when it is gone.
///
/// # Errors
///
/// `ENOTCONN` if there is none, `EROFS` on a volume that is read-only, `EINTR` on a signal, where
/// the request stays; those of deleting the item of a paused balance, which then stays.
pub fn cancel(fs: &Fs) -> Result {
    match fs.state.cancel_balance(fs.is_read_only())? {
        CancelBalance::Done => Ok(()),
        CancelBalance::Remove(paused) => {
            delete_item(fs)?;
            paused.removed();
            fs.device.info(format_args!("balance: canceled"));
            Ok(())
        }
    }
}

/// Looks for the item of a balance that was interrupted or paused before the volume was mounted,
/// and makes that balance known as paused. To be called once, before anybody else can use the
/// volume.
///
/// # Errors
///
/// `EUCLEAN` for a bad item; what reading trees gives.
pub fn recover(fs: &Fs) -> Result {
    let reader = fs.reader()?;
    let mut cursor = reader.cursor(reader.root(tree_id::ROOT)?);
    if !cursor.seek(&ITEM_KEY)? {
        return Ok(());
    }
    let Some((_, item)) = cursor.item() else {
        return Ok(());
    };
    let (item, _) = BalanceItem::ref_from_prefix(item).map_err(|_| EUCLEAN)?;
    let mut control = BalanceControl::new(item)?;
    control.item.flags |= balance_flags::RESUME;
    fs.state.recover_balance(control)
}

/// Goes on with the balance that is paused, on behalf of nobody. To be called in a thread of its
/// own.
pub fn resume_after_mount(fs: &Fs) {
    // How it ends is in the log, and if it is refused it stays paused.
    let _ = resume(fs);
}

/// Says that the balance that [`recover`] found stays paused, as the mount was told to leave it.
pub fn skip_resume(fs: &Fs) {
    fs.device.info(format_args!("balance: resume skipped"));
}

/// Runs an admitted balance to its end.
fn carry_out(fs: &Fs, run: BalanceRun<'_>, mut control: KBox<BalanceControl>) -> Outcome {
    control.progress = BalanceProgress::default();
    run.publish(&control);
    fs.device
        .info(format_args!("balance: {}", Describe(&control.item)));
    let mut result = relocate_all(fs, &run, &mut control);
    let ending = run.ending(&result);
    match (ending, &result) {
        (Ending::Paused, _) => fs.device.info(format_args!("balance: paused")),
        (Ending::Canceled, _) => {
            fs.device.info(format_args!("balance: canceled"));
            result = Err(ECANCELED);
        }
        (Ending::Over, Ok(())) => fs
            .device
            .info(format_args!("balance: ended with status: 0")),
        (Ending::Over, Err(error)) => fs.device.info(format_args!(
            "balance: ended with status: {}",
            error.to_errno()
        )),
    }
    let status = BalanceStatus {
        control,
        running: false,
        pause_requested: ending == Ending::Paused,
        cancel_requested: ending == Ending::Canceled,
    };
    if ending == Ending::Paused {
        run.finish(ending);
    } else {
        match delete_item(fs) {
            Ok(()) => run.finish(ending),
            Err(error) => {
                // What is on disk stays known: the balance is paused, to be cancelled or resumed
                // later.
                fs.device.error(format_args!(
                    "balance: cannot delete the balance item: {}",
                    error.to_errno()
                ));
                run.finish(Ending::Paused);
                result = result.and(Err(error));
            }
        }
    }
    Outcome { result, status }
}

/// Relocates what the filters take, after a first pass that counts it.
fn relocate_all(fs: &Fs, run: &BalanceRun<'_>, control: &mut BalanceControl) -> Result {
    let counts = count(fs, run, control)?;
    let mut without_room = 0u64;
    let result = walk(fs, |chunk| {
        run.check()?;
        control.progress.considered = control.progress.considered.saturating_add(1);
        run.publish(control);
        let Some(args) = args_for(&mut control.item, chunk.typ) else {
            return Ok(());
        };
        let mut used = *args;
        let enough = reaches_minimum(args, counts.of(chunk.typ));
        if !takes(args, &chunk.candidate()) || !use_limit(&mut used) || !enough {
            return Ok(());
        }
        match relocate_block_group(fs, chunk.start, &|| run.check()) {
            Ok(()) => control.progress.completed = control.progress.completed.saturating_add(1),
            Err(error) if error == ENOSPC => without_room = without_room.saturating_add(1),
            Err(error) => return Err(error),
        }
        // Only what was processed counts for the limit, so that a resume takes up where a pause
        // was.
        if let Some(args) = args_for(&mut control.item, chunk.typ) {
            *args = used;
        }
        run.publish(control);
        Ok(())
    });
    if without_room > 0 {
        fs.device
            .info(format_args!("{without_room} enospc errors during balance"));
        return result.and(Err(ENOSPC));
    }
    result
}

/// Numbers of block groups by type.
#[derive(Default)]
struct Counts {
    data: u64,
    metadata: u64,
    system: u64,
}

impl Counts {
    fn of(&self, typ: u64) -> u64 {
        match typ {
            _ if typ & bg::DATA != 0 => self.data,
            _ if typ & bg::SYSTEM != 0 => self.system,
            _ => self.metadata,
        }
    }

    fn add(&mut self, typ: u64) {
        let count = match typ {
            _ if typ & bg::DATA != 0 => &mut self.data,
            _ if typ & bg::SYSTEM != 0 => &mut self.system,
            _ => &mut self.metadata,
        };
        *count = count.saturating_add(1);
    }
}

/// Counts what the filters take, within their limits.
fn count(fs: &Fs, run: &BalanceRun<'_>, control: &mut BalanceControl) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut counted = BalanceControl::new(&control.item)?;
    walk(fs, |chunk| {
        run.check_cancel()?;
        if let Some(args) = args_for(&mut counted.item, chunk.typ) {
            if takes(args, &chunk.candidate()) && use_limit(args) {
                counts.add(chunk.typ);
                control.progress.expected = control.progress.expected.saturating_add(1);
            }
        }
        Ok(())
    })?;
    run.publish(control);
    Ok(counts)
}

/// Calls `visit` for each chunk from the last one down. No reader is held meanwhile: what is freed
/// may be used.
fn walk(fs: &Fs, mut visit: impl FnMut(&ChunkInUse) -> Result) -> Result {
    let mut below = Some(u64::MAX);
    while let Some(logical) = below {
        let Some(chunk) = last_chunk_up_to(&fs.reader()?, logical)? else {
            break;
        };
        visit(&chunk)?;
        below = chunk.start.checked_sub(1);
    }
    Ok(())
}

/// Runs `change` as a transaction of its own, all of it or nothing.
fn change(fs: &Fs, change: impl FnOnce(&mut Transaction<'_>) -> Result) -> Result {
    let mut trans = fs.begin(Reserve::default())?;
    match change(&mut trans) {
        Ok(()) => trans.commit(),
        Err(error) => {
            trans.cancel();
            Err(error)
        }
    }
}

/// Puts `request` on disk, and makes new chunks have the profiles that it converts to.
fn write_item(fs: &Fs, request: &BalanceItem) -> Result {
    change(fs, |trans| {
        insert(trans, tree_id::ROOT, &ITEM_KEY, request.as_bytes())?;
        set_targets(trans, |typ| convert_target(request, typ))
    })
}

/// Takes the balance item off the disk, and lets new chunks have what profile they would.
fn delete_item(fs: &Fs) -> Result {
    change(fs, |trans| {
        delete(trans, tree_id::ROOT, &ITEM_KEY)?;
        set_targets(trans, |_| None)
    })
}

/// Makes new chunks of each type have the profile that `target` gives for it.
fn set_targets(trans: &mut Transaction<'_>, target: impl Fn(u64) -> Option<u64>) -> Result {
    let types = [
        (Kind::Data, bg::DATA),
        (Kind::Metadata, bg::METADATA),
        (Kind::System, bg::SYSTEM),
    ];
    for (kind, typ) in types {
        trans.space_mut().set_target(kind, target(typ))?;
    }
    Ok(())
}
