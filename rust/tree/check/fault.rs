// SPDX-License-Identifier: GPL-2.0
//! A rule that an item breaks, with what its message says.

use crate::format::Key;
use core::fmt;

/// What a rule wants a number to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// This number.
    Value(u64),
    /// This number, of those that are read in hexadecimal, such as hashes.
    Hex(u64),
    /// From 0 to this number.
    AtMost(u64),
    /// This number or a larger one.
    AtLeast(u64),
    /// From the first to the second number.
    Within(u64, u64),
    /// A multiple of this number.
    Aligned(u64),
    /// No bits but these.
    Bits(u64),
    /// One of several, in words.
    Words(&'static str),
}

/// A number that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RuleFault {
    what: &'static str,
    found: u64,
    expected: Expected,
}

/// Whether an item obeys a rule.
pub(super) type Checked = Result<(), RuleFault>;

/// An item that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemFault {
    /// The item's slot in its leaf.
    pub slot: usize,
    /// The item's key.
    pub key: Key,
    /// The rule, by what is wrong.
    pub what: &'static str,
    /// The number that is wrong.
    pub found: u64,
    /// What it must be.
    pub expected: Expected,
}

impl RuleFault {
    /// The fault `what` of the number `found`.
    pub(super) fn new(what: &'static str, found: u64, expected: Expected) -> Self {
        Self {
            what,
            found,
            expected,
        }
    }

    /// The fault of the item in `slot`.
    pub(super) fn at(self, slot: usize, key: Key) -> ItemFault {
        ItemFault {
            slot,
            key,
            what: self.what,
            found: self.found,
            expected: self.expected,
        }
    }
}

impl fmt::Display for ItemFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.found;
        write!(f, "slot={} key={}, {}, ", self.slot, self.key, self.what)?;
        match self.expected {
            Expected::Value(value) => write!(f, "have {found} expect {value}"),
            Expected::Hex(value) => write!(f, "have {found:#x} expect {value:#x}"),
            Expected::AtMost(most) => write!(f, "have {found} expect [0, {most}]"),
            Expected::AtLeast(least) => write!(f, "have {found} expect at least {least}"),
            Expected::Within(low, high) => write!(f, "have {found} expect [{low}, {high}]"),
            Expected::Aligned(unit) => write!(f, "have {found} expect aligned to {unit}"),
            Expected::Bits(mask) => write!(f, "have {found:#x} expect mask {mask:#x}"),
            Expected::Words(words) => write!(f, "have {found} expect {words}"),
        }
    }
}

/// The fault `what` of the number `found`.
pub(super) fn fault(what: &'static str, found: u64, expected: Expected) -> Checked {
    Err(RuleFault::new(what, found, expected))
}

/// The number must be `expected`.
pub(super) fn equal(what: &'static str, found: u64, expected: u64) -> Checked {
    if found == expected {
        return Ok(());
    }
    fault(what, found, Expected::Value(expected))
}

/// The number must not be above `most`.
pub(super) fn at_most(what: &'static str, found: u64, most: u64) -> Checked {
    if found <= most {
        return Ok(());
    }
    fault(what, found, Expected::AtMost(most))
}

/// The number must not be below `least`.
pub(super) fn at_least(what: &'static str, found: u64, least: u64) -> Checked {
    if found >= least {
        return Ok(());
    }
    fault(what, found, Expected::AtLeast(least))
}

/// The number must be from `low` to `high`.
pub(super) fn within(what: &'static str, found: u64, low: u64, high: u64) -> Checked {
    if (low..=high).contains(&found) {
        return Ok(());
    }
    fault(what, found, Expected::Within(low, high))
}

/// The number must be a multiple of `unit`.
pub(super) fn aligned(what: &'static str, found: u64, unit: u64) -> Checked {
    if found.checked_rem(unit) == Some(0) {
        return Ok(());
    }
    fault(what, found, Expected::Aligned(unit))
}

/// The number must have no bits but those of `mask`.
pub(super) fn only_bits(what: &'static str, found: u64, mask: u64) -> Checked {
    if found & !mask == 0 {
        return Ok(());
    }
    fault(what, found, Expected::Bits(mask))
}

/// The sum of two numbers, which must be a number of 64 bits.
pub(super) fn sum(what: &'static str, start: u64, len: u64) -> Result<u64, RuleFault> {
    let most = Expected::AtMost(u64::MAX.saturating_sub(start));
    start
        .checked_add(len)
        .ok_or(RuleFault::new(what, len, most))
}
