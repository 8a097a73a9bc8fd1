// SPDX-License-Identifier: GPL-2.0
//! What a balance is asked to do: the flags, their checks, and the words for them in the log.
//!
//! The arguments of one type of block groups are the same 136 bytes on disk and in the ioctl, so
//! [`DiskBalanceArgs`] serves as both, and `BalanceItem` as the whole request.

use core::fmt::{self, Display, Formatter, Write};

use kernel::prelude::*;

use crate::format::balance::{BalanceItem, DiskBalanceArgs};
use crate::format::chunk::block_group_flags as bg;
use crate::state::Log;

/// Bits of a balance's `flags`.
pub mod balance_flags {
    /// Balance data.
    pub const DATA: u64 = 1 << 0;
    /// Balance system chunks.
    pub const SYSTEM: u64 = 1 << 1;
    /// Balance metadata.
    pub const METADATA: u64 = 1 << 2;
    /// All types.
    pub const TYPE_MASK: u64 = DATA | SYSTEM | METADATA;
    /// Go on although metadata loses redundancy.
    pub const FORCE: u64 = 1 << 3;
    /// Go on with the balance that is paused.
    pub const RESUME: u64 = 1 << 4;
    /// The bits that btrfs admits: through a mix-up of masks these include those of single filters.
    pub const ADMITTED: u64 = TYPE_MASK | 0x4ff;
}

/// Bits of one type's `flags`: which of its filters are in force.
pub mod filter {
    /// Block groups of the profiles in `profiles`.
    pub const PROFILES: u64 = 1 << 0;
    /// Used to less than `usage` percent.
    pub const USAGE: u64 = 1 << 1;
    /// With a stripe on device `devid`.
    pub const DEVID: u64 = 1 << 2;
    /// With a stripe on that device between `pstart` and `pend`.
    pub const DRANGE: u64 = 1 << 3;
    /// With logical addresses between `vstart` and `vend`.
    pub const VRANGE: u64 = 1 << 4;
    /// At most `limit`.
    pub const LIMIT: u64 = 1 << 5;
    /// At most `limit`'s maximum, and none if there are fewer than its minimum.
    pub const LIMIT_RANGE: u64 = 1 << 6;
    /// With a number of stripes from `stripes_min` to `stripes_max`.
    pub const STRIPES_RANGE: u64 = 1 << 7;
    /// Not a filter: convert to the profile `target`.
    pub const CONVERT: u64 = 1 << 8;
    /// When converting, leave out what has that profile already.
    pub const SOFT: u64 = 1 << 9;
    /// Used from `usage`'s minimum to its maximum percent.
    pub const USAGE_RANGE: u64 = 1 << 10;
}

/// The usage above which a resumed balance takes block groups to be done already, in percent.
const RESUMED_USAGE: u64 = 90;

impl DiskBalanceArgs {
    /// Whether the filter `flag` is in force.
    pub fn has(&self, flag: u64) -> bool {
        self.flags.get() & flag != 0
    }

    /// `usage` as a range of percents.
    pub fn usage_range(&self) -> (u32, u32) {
        halves(self.usage.get())
    }

    /// `limit` as a range of numbers.
    pub fn limit_range(&self) -> (u32, u32) {
        halves(self.limit.get())
    }

    /// Makes a balance that is resumed skip what it probably did before: what has the target
    /// profile, or what is nearly full.
    fn narrow_for_resume(&mut self) {
        if self.has(filter::CONVERT) {
            self.flags |= filter::SOFT;
        } else if !self.has(filter::USAGE | filter::USAGE_RANGE) {
            self.flags |= filter::USAGE;
            self.usage.set(RESUMED_USAGE);
        }
    }
}

fn halves(value: u64) -> (u32, u32) {
    ((value & 0xffff_ffff) as u32, (value >> 32) as u32)
}

/// Checks the flags that user space gave.
///
/// # Errors
///
/// `EINVAL` for an unknown one.
pub fn check_flags(flags: u64) -> Result {
    if flags & !balance_flags::ADMITTED != 0 {
        return Err(EINVAL);
    }
    Ok(())
}

/// The profiles in use for metadata and system, as bits of `block_group_flags`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProfilesInUse {
    /// Of metadata.
    pub metadata: u64,
    /// Of system chunks.
    pub system: u64,
}

/// Checks what `request` converts to, and says in the log what is wrong.
///
/// # Errors
///
/// `EINVAL` for a profile that one device cannot have or that is not supported, and for less
/// redundancy of metadata without `FORCE`.
pub fn check_conversion(request: &BalanceItem, in_use: &ProfilesInUse, log: &dyn Log) -> Result {
    let types = [
        (&request.data, "data"),
        (&request.meta, "metadata"),
        (&request.sys, "system"),
    ];
    for (args, name) in types {
        let target = args.target.get();
        let known = target == bg::AVAIL_ALLOC_BIT_SINGLE || target == bg::DUP;
        if args.has(filter::CONVERT) && !known {
            log.error(format_args!(
                "balance: invalid convert {name} profile {}",
                raid_name(target)
            ));
            return Err(EINVAL);
        }
    }
    let reduces = |args: &DiskBalanceArgs, in_use: u64| {
        args.has(filter::CONVERT) && in_use & bg::DUP != 0 && args.target.get() & bg::DUP == 0
    };
    if reduces(&request.sys, in_use.system) || reduces(&request.meta, in_use.metadata) {
        if request.flags.get() & balance_flags::FORCE == 0 {
            log.error(format_args!(
                "balance: reduces metadata redundancy, use --force if you want this"
            ));
            return Err(EINVAL);
        }
        log.info(format_args!("balance: force reducing metadata redundancy"));
    }
    Ok(())
}

/// Turns `request` into that of a resumed balance.
pub fn narrow_for_resume(request: &mut BalanceItem) {
    request.flags |= balance_flags::RESUME;
    request.data.narrow_for_resume();
    request.sys.narrow_for_resume();
    request.meta.narrow_for_resume();
}

/// The filters of `request` for a block group of type `typ`, or nothing if it does not balance that
/// type.
pub fn args_for(request: &mut BalanceItem, typ: u64) -> Option<&mut DiskBalanceArgs> {
    if typ & bg::TYPE_MASK & request.flags.get() & balance_flags::TYPE_MASK == 0 {
        None
    } else if typ & bg::DATA != 0 {
        Some(&mut request.data)
    } else if typ & bg::SYSTEM != 0 {
        Some(&mut request.sys)
    } else {
        Some(&mut request.meta)
    }
}

/// The profile that `request` wants new block groups of type `typ` to have, as a bit of the profile
/// mask or 0 for single; nothing if it does not convert that type.
pub fn convert_target(request: &BalanceItem, typ: u64) -> Option<u64> {
    let types = typ & bg::TYPE_MASK & request.flags.get() & balance_flags::TYPE_MASK;
    let args = match typ {
        _ if types == 0 => return None,
        _ if typ & bg::DATA != 0 => &request.data,
        _ if typ & bg::SYSTEM != 0 => &request.sys,
        _ => &request.meta,
    };
    let target = args.target.get() & bg::PROFILE_MASK;
    args.has(filter::CONVERT).then_some(target)
}

/// The name of a profile.
fn raid_name(flags: u64) -> &'static str {
    match (flags & bg::PROFILE_MASK).checked_ilog2() {
        None => "single",
        Some(bit) => PROFILES
            .iter()
            .find(|(profile, _)| *profile == 1 << bit)
            .map_or("(null)", |(_, name)| name),
    }
}

/// The profiles in the order in which they are listed.
const PROFILES: [(u64, &str); 8] = [
    (1 << 6, "raid10"),
    (1 << 4, "raid1"),
    (1 << 9, "raid1c3"),
    (1 << 10, "raid1c4"),
    (bg::DUP, "dup"),
    (1 << 3, "raid0"),
    (1 << 7, "raid5"),
    (1 << 8, "raid6"),
];

/// A set of types and profiles, as `data|dup`.
struct BlockGroupSet(u64);

impl Display for BlockGroupSet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let types = [
            (bg::DATA, "data"),
            (bg::SYSTEM, "system"),
            (bg::METADATA, "metadata"),
            (bg::AVAIL_ALLOC_BIT_SINGLE, "single"),
        ];
        let mut rest = self.0;
        let mut separator = "";
        for (flag, name) in Iterator::chain(types.into_iter(), PROFILES) {
            if rest & flag != 0 {
                write!(f, "{separator}{name}")?;
                separator = "|";
                rest &= !flag;
            }
        }
        if rest != 0 {
            write!(f, "{separator}{rest:#x}")?;
        }
        Ok(())
    }
}

/// Writes what is given to it with commas in between.
struct List<'a, 'b> {
    f: &'a mut Formatter<'b>,
    started: bool,
}

impl List<'_, '_> {
    fn item(&mut self, item: fmt::Arguments<'_>) -> fmt::Result {
        if self.started {
            self.f.write_char(',')?;
        }
        self.started = true;
        self.f.write_fmt(item)
    }
}

/// The filters of one type, as `usage=50,limit=3`.
struct Filters<'a>(&'a DiskBalanceArgs);

impl Display for Filters<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let args = self.0;
        let mut list = List { f, started: false };
        if args.has(filter::CONVERT) {
            let target = raid_name(args.target.get());
            list.item(format_args!("convert={target}"))?;
        }
        if args.has(filter::SOFT) {
            list.item(format_args!("soft"))?;
        }
        if args.has(filter::PROFILES) {
            let profiles = BlockGroupSet(args.profiles.get());
            list.item(format_args!("profiles={profiles}"))?;
        }
        if args.has(filter::USAGE) {
            list.item(format_args!("usage={}", args.usage))?;
        }
        if args.has(filter::USAGE_RANGE) {
            let (min, max) = args.usage_range();
            list.item(format_args!("usage={min}..{max}"))?;
        }
        if args.has(filter::DEVID) {
            list.item(format_args!("devid={}", args.devid))?;
        }
        if args.has(filter::DRANGE) {
            list.item(format_args!("drange={}..{}", args.pstart, args.pend))?;
        }
        if args.has(filter::VRANGE) {
            list.item(format_args!("vrange={}..{}", args.vstart, args.vend))?;
        }
        if args.has(filter::LIMIT) {
            list.item(format_args!("limit={}", args.limit))?;
        }
        if args.has(filter::LIMIT_RANGE) {
            let (min, max) = args.limit_range();
            list.item(format_args!("limit={min}..{max}"))?;
        }
        if args.has(filter::STRIPES_RANGE) {
            list.item(format_args!(
                "stripes={}..{}",
                args.stripes_min, args.stripes_max
            ))?;
        }
        Ok(())
    }
}

/// A whole request as the log shows it: `start -dusage=50 -m`, in the terms of the command line.
pub struct Describe<'a>(pub &'a BalanceItem);

impl Display for Describe<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let request = self.0;
        let flags = request.flags.get();
        let resume = flags & balance_flags::RESUME != 0;
        f.write_str(if resume { "resume" } else { "start" })?;
        if flags & balance_flags::FORCE != 0 {
            f.write_str(" -f")?;
        }
        if flags & balance_flags::DATA != 0 {
            write!(f, " -d{}", Filters(&request.data))?;
        }
        if flags & balance_flags::METADATA != 0 {
            write!(f, " -m{}", Filters(&request.meta))?;
        }
        if flags & balance_flags::SYSTEM != 0 {
            write!(f, " -s{}", Filters(&request.sys))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};
    use std::sync::Mutex;

    use zerocopy::FromZeros;

    use super::*;

    #[derive(Default)]
    struct Last(Mutex<String>);

    impl Log for Last {
        fn info(&self, message: fmt::Arguments<'_>) {
            *self.0.lock().unwrap() = message.to_string();
        }
        fn warn(&self, message: fmt::Arguments<'_>) {
            self.info(message);
        }
        fn error(&self, message: fmt::Arguments<'_>) {
            self.info(message);
        }
    }

    fn request(flags: u64) -> BalanceItem {
        BalanceItem {
            flags: flags.into(),
            ..BalanceItem::new_zeroed()
        }
    }

    #[test]
    fn unknown_flags_are_refused() {
        for bit in 0..64 {
            let admitted = bit < 8 || bit == 10;
            assert_eq!(check_flags(1 << bit).is_ok(), admitted, "bit {bit}");
        }
    }

    #[test]
    fn a_request_is_described_in_the_terms_of_the_command_line() {
        let mut item = request(15);
        assert_eq!(Describe(&item).to_string(), "start -f -d -m -s");
        item.flags.set(balance_flags::DATA | balance_flags::RESUME);
        item.data.flags.set(0x7ff);
        item.data
            .profiles
            .set(bg::AVAIL_ALLOC_BIT_SINGLE | bg::DUP | (1 << 40));
        item.data.usage.set(5 | (60 << 32));
        item.data.devid.set(1);
        item.data.pstart.set(2);
        item.data.pend.set(3);
        item.data.vstart.set(4);
        item.data.vend.set(u64::MAX);
        item.data.limit.set(7 | (8 << 32));
        item.data.stripes_min.set(9);
        item.data.stripes_max.set(10);
        item.data.target.set(bg::DUP);
        assert_eq!(
            Describe(&item).to_string(),
            "resume -dconvert=dup,soft,profiles=single|dup|0x10000000000,usage=257698037765,\
             usage=5..60,devid=1,drange=2..3,vrange=4..18446744073709551615,limit=34359738375,\
             limit=7..8,stripes=9..10"
        );
    }

    #[test]
    fn conversions_are_checked() {
        let log = Last::default();
        let in_use = ProfilesInUse {
            metadata: bg::METADATA | bg::DUP,
            system: bg::SYSTEM | bg::DUP,
        };
        let mut item = request(balance_flags::DATA);
        item.data.flags.set(filter::CONVERT);
        for (target, name) in [
            (0, "single"),
            (1 << 3, "raid0"),
            (1 << 4, "raid1"),
            (1 << 10, "raid1c4"),
            (bg::DUP | bg::AVAIL_ALLOC_BIT_SINGLE, "dup"),
            (u64::MAX, "raid1c4"),
        ] {
            item.data.target.set(target);
            assert_eq!(check_conversion(&item, &in_use, &log), Err(EINVAL));
            assert_eq!(
                *log.0.lock().unwrap(),
                std::format!("balance: invalid convert data profile {name}")
            );
        }
        for target in [bg::DUP, bg::AVAIL_ALLOC_BIT_SINGLE] {
            item.data.target.set(target);
            assert_eq!(check_conversion(&item, &in_use, &log), Ok(()));
        }

        item.meta.flags.set(filter::CONVERT);
        item.meta.target.set(bg::AVAIL_ALLOC_BIT_SINGLE);
        assert_eq!(check_conversion(&item, &in_use, &log), Err(EINVAL));
        assert_eq!(
            *log.0.lock().unwrap(),
            "balance: reduces metadata redundancy, use --force if you want this"
        );
        item.flags.set(balance_flags::FORCE);
        assert_eq!(check_conversion(&item, &in_use, &log), Ok(()));
        assert_eq!(
            *log.0.lock().unwrap(),
            "balance: force reducing metadata redundancy"
        );
        assert_eq!(convert_target(&item, bg::METADATA | bg::DUP), None);
        item.flags.set(balance_flags::METADATA);
        assert_eq!(convert_target(&item, bg::METADATA | bg::DUP), Some(0));
        item.meta.target.set(bg::DUP);
        assert_eq!(convert_target(&item, bg::METADATA), Some(bg::DUP));
    }

    #[test]
    fn a_resumed_balance_is_narrowed() {
        let mut item = request(7);
        item.data.flags.set(filter::CONVERT);
        item.meta.flags.set(filter::USAGE_RANGE);
        narrow_for_resume(&mut item);
        assert_eq!(item.flags.get(), 7 | balance_flags::RESUME);
        assert_eq!(item.data.flags.get(), filter::CONVERT | filter::SOFT);
        assert_eq!(item.meta.flags.get(), filter::USAGE_RANGE);
        assert_eq!(item.sys.flags.get(), filter::USAGE);
        assert_eq!(item.sys.usage.get(), 90);
    }
}
