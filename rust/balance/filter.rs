// SPDX-License-Identifier: GPL-2.0
//! Which block groups a balance takes.

use crate::format::balance::DiskBalanceArgs;
use crate::format::chunk::block_group_flags as bg;

use super::args::filter;

/// What the filters look at in a chunk and its block group. Addresses and lengths are in bytes.
pub struct Candidate<'a> {
    /// Logical start.
    pub start: u64,
    /// Logical length; on one device with profile single or dup it is also that of each stripe.
    pub length: u64,
    /// Type and profile.
    pub typ: u64,
    /// Bytes in use.
    pub used: u64,
    /// Device id and physical offset of each stripe.
    pub stripes: &'a [(u64, u64)],
}

/// Whether `args` take `chunk`, its type and the limit aside.
pub fn takes(args: &DiskBalanceArgs, chunk: &Candidate<'_>) -> bool {
    let refused = |flag: u64, admitted: fn(&DiskBalanceArgs, &Candidate<'_>) -> bool| {
        args.has(flag) && !admitted(args, chunk)
    };
    let usage_refused = if args.has(filter::USAGE) {
        !below_usage(args, chunk)
    } else {
        refused(filter::USAGE_RANGE, in_usage_range)
    };
    !(usage_refused
        || refused(filter::PROFILES, |args, chunk| {
            args.profiles.get() & extended_profile(chunk.typ) != 0
        })
        || refused(filter::DEVID, |args, chunk| {
            stripes_on_device(args, chunk).next().is_some()
        })
        || refused(filter::DRANGE, in_device_range)
        || refused(filter::VRANGE, |args, chunk| {
            let end = chunk.start.saturating_add(chunk.length);
            overlaps(chunk.start, end, args.vstart.get(), args.vend.get())
        })
        || refused(filter::STRIPES_RANGE, |args, chunk| {
            let count = chunk.stripes.len() as u64;
            (u64::from(args.stripes_min.get())..=u64::from(args.stripes_max.get())).contains(&count)
        })
        || refused(filter::SOFT, |args, chunk| {
            !args.has(filter::CONVERT) || args.target.get() != extended_profile(chunk.typ)
        }))
}

/// Takes one block group off the limit; false if it is used up.
pub fn use_limit(args: &mut DiskBalanceArgs) -> bool {
    if args.has(filter::LIMIT) {
        match args.limit.get().checked_sub(1) {
            Some(left) => args.limit.set(left),
            None => return false,
        }
    } else if args.has(filter::LIMIT_RANGE) {
        // The maximum is the upper half, and the minimum below it stays.
        match args.limit.get().checked_sub(1 << 32) {
            Some(left) => args.limit.set(left),
            None => return false,
        }
    }
    true
}

/// Whether `count` block groups are enough for the minimum of a limit.
pub fn reaches_minimum(args: &DiskBalanceArgs, count: u64) -> bool {
    let (minimum, _) = args.limit_range();
    !args.has(filter::LIMIT_RANGE) || count >= u64::from(minimum)
}

/// A chunk's profile with a bit for single, too.
fn extended_profile(typ: u64) -> u64 {
    match typ & bg::PROFILE_MASK {
        0 => bg::AVAIL_ALLOC_BIT_SINGLE,
        profile => profile,
    }
}

/// `percent` of `length`, which cannot overflow where percents are up to 100.
fn percent_of(length: u64, percent: u64) -> u64 {
    let whole = (length / 100).saturating_mul(percent);
    whole.saturating_add((length % 100).saturating_mul(percent) / 100)
}

/// The bytes below which a block group is used to less than `percent`; 0 percent is what is empty.
fn usage_threshold(length: u64, percent: u64) -> u64 {
    match percent {
        0 => 1,
        1..=100 => percent_of(length, percent),
        _ => length,
    }
}

fn below_usage(args: &DiskBalanceArgs, chunk: &Candidate<'_>) -> bool {
    // As btrfs has it, where single value and range share their bytes: an empty lower half means
    // empty.
    let threshold = match args.usage_range() {
        (0, _) => 1,
        _ => usage_threshold(chunk.length, args.usage.get()),
    };
    chunk.used < threshold
}

fn in_usage_range(args: &DiskBalanceArgs, chunk: &Candidate<'_>) -> bool {
    let (min, max) = args.usage_range();
    let least = percent_of(chunk.length, u64::from(min));
    (least..usage_threshold(chunk.length, u64::from(max))).contains(&chunk.used)
}

fn stripes_on_device<'a>(
    args: &DiskBalanceArgs,
    chunk: &'a Candidate<'_>,
) -> impl Iterator<Item = u64> + 'a {
    let devid = args.devid.get();
    let on_device = move |stripe: &&(u64, u64)| stripe.0 == devid;
    chunk
        .stripes
        .iter()
        .filter(on_device)
        .map(|stripe| stripe.1)
}

fn in_device_range(args: &DiskBalanceArgs, chunk: &Candidate<'_>) -> bool {
    // Without a device the range says nothing.
    !args.has(filter::DEVID)
        || stripes_on_device(args, chunk).any(|offset| {
            let end = offset.saturating_add(chunk.length);
            overlaps(offset, end, args.pstart.get(), args.pend.get())
        })
}

/// Whether [start, end) and [from, to) have a byte in common.
fn overlaps(start: u64, end: u64, from: u64, to: u64) -> bool {
    start < to && end > from
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn data(used: u64) -> Candidate<'static> {
        Candidate {
            start: 10 * GIB,
            length: GIB,
            typ: bg::DATA,
            used,
            stripes: &[(1, 5 * GIB)],
        }
    }

    fn dup() -> Candidate<'static> {
        Candidate {
            typ: bg::METADATA | bg::DUP,
            stripes: &[(1, 5 * GIB), (1, 7 * GIB)],
            ..data(GIB / 2)
        }
    }

    fn args(flags: u64) -> DiskBalanceArgs {
        DiskBalanceArgs {
            flags: flags.into(),
            ..DiskBalanceArgs::new_zeroed()
        }
    }

    #[test]
    fn without_filters_all_are_taken() {
        assert!(takes(&args(0), &data(0)));
        assert!(takes(&args(0), &dup()));
    }

    #[test]
    fn usage_is_strictly_below() {
        let mut filters = args(filter::USAGE);
        assert!(takes(&filters, &data(0)));
        assert!(!takes(&filters, &data(1)));
        filters.usage.set(50);
        assert!(takes(&filters, &data(GIB / 2 - 1)));
        assert!(!takes(&filters, &data(GIB / 2)));
        filters.usage.set(100);
        assert!(takes(&filters, &data(GIB - 1)));
        assert!(!takes(&filters, &data(GIB)));
        filters.usage.set(u64::MAX);
        assert!(!takes(&filters, &data(GIB)));
        assert!(takes(&filters, &data(GIB - 1)));
        filters.usage.set(50 << 32);
        assert!(!takes(&filters, &data(1)));
    }

    #[test]
    fn usage_range_holds_its_lower_bound() {
        let mut filters = args(filter::USAGE_RANGE);
        filters.usage.set(10 | (20 << 32));
        let (low, high) = (percent_of(GIB, 10), percent_of(GIB, 20));
        for (used, taken) in [
            (0, false),
            (low - 1, false),
            (low, true),
            (high - 1, true),
            (high, false),
        ] {
            assert_eq!(takes(&filters, &data(used)), taken, "{used}");
        }
        filters.usage.set(0);
        assert!(takes(&filters, &data(0)));
        assert!(!takes(&filters, &data(1)));
        filters.usage.set(u64::MAX);
        assert!(!takes(&filters, &data(GIB - 1)));
    }

    #[test]
    fn profiles_tell_single_from_dup() {
        let mut filters = args(filter::PROFILES);
        filters.profiles.set(bg::AVAIL_ALLOC_BIT_SINGLE);
        assert!(takes(&filters, &data(0)) && !takes(&filters, &dup()));
        filters.profiles.set(bg::DUP);
        assert!(!takes(&filters, &data(0)) && takes(&filters, &dup()));
        filters.profiles.set(0);
        assert!(!takes(&filters, &data(0)) && !takes(&filters, &dup()));
    }

    #[test]
    fn devices_and_ranges() {
        let mut filters = args(filter::DEVID);
        assert!(!takes(&filters, &data(0)));
        filters.devid.set(1);
        assert!(takes(&filters, &data(0)));
        filters.flags.set(filter::DEVID | filter::DRANGE);
        for (from, to, taken) in [
            (0, 7 * GIB, false),
            (0, 7 * GIB + 1, true),
            (8 * GIB, u64::MAX, false),
            (8 * GIB - 1, u64::MAX, true),
        ] {
            filters.pstart.set(from);
            filters.pend.set(to);
            let second = Candidate {
                stripes: &[(2, 0), (1, 7 * GIB)],
                ..dup()
            };
            assert_eq!(takes(&filters, &second), taken, "{from}..{to}");
        }
        filters.flags.set(filter::DRANGE);
        assert!(takes(&filters, &data(0)));

        let mut filters = args(filter::VRANGE);
        for (from, to, taken) in [
            (0, 10 * GIB, false),
            (0, 10 * GIB + 1, true),
            (11 * GIB - 1, u64::MAX, true),
            (11 * GIB, u64::MAX, false),
        ] {
            filters.vstart.set(from);
            filters.vend.set(to);
            assert_eq!(takes(&filters, &data(0)), taken, "{from}..{to}");
        }
    }

    #[test]
    fn stripes_and_soft() {
        let mut filters = args(filter::STRIPES_RANGE);
        filters.stripes_min.set(2);
        filters.stripes_max.set(2);
        assert!(!takes(&filters, &data(0)) && takes(&filters, &dup()));

        let mut filters = args(filter::CONVERT | filter::SOFT);
        filters.target.set(bg::DUP);
        assert!(takes(&filters, &data(0)) && !takes(&filters, &dup()));
        filters.flags.set(filter::SOFT);
        assert!(takes(&filters, &dup()));
    }

    #[test]
    fn limits_are_used_up() {
        let mut filters = args(filter::LIMIT);
        filters.limit.set(2);
        assert_eq!(
            [(); 4].map(|()| use_limit(&mut filters)),
            [true, true, false, false]
        );
        assert!(reaches_minimum(&filters, 0));

        let mut filters = args(filter::LIMIT_RANGE);
        filters.limit.set(3 | (1 << 32));
        assert_eq!([(); 2].map(|()| use_limit(&mut filters)), [true, false]);
        assert_eq!(filters.limit_range(), (3, 0));
        assert!(!reaches_minimum(&filters, 2) && reaches_minimum(&filters, 3));
        assert!(use_limit(&mut args(0)));
    }
}
