// SPDX-License-Identifier: GPL-2.0
//! Orphan names: what an inode is called in the stream until it gets a real name.
//!
//! `o<inode>-<generation>-<n>` at the top of the subvolume, with the lowest `n` such that no entry
//! of the top directory has that name. The walk passes the top directory's entries before it needs
//! the first orphan name, so that it suffices to remember the few that look like one.

use crate::format::crc::name_hash;
use crate::format::{item_type, objectid, Key};
use crate::send::lookup::Finder;
use crate::subvol::dir::Entries;
use kernel::prelude::*;

/// The longest orphan name: `o`, three numbers of 20 digits, two dashes.
const MAX: usize = 63;

/// Names that are remembered; with more of them than this, each is looked up in the tree.
const MAX_TAKEN: usize = 1 << 16;

/// A name as a value.
#[derive(Clone, Copy)]
pub(in crate::send) struct Name {
    bytes: [u8; MAX],
    len: usize,
}

impl Name {
    pub(in crate::send) fn new(ino: u64, generation: u64, index: u64) -> Self {
        let mut name = Name {
            bytes: [0; MAX],
            len: 0,
        };
        name.push(b'o');
        name.number(ino);
        name.push(b'-');
        name.number(generation);
        name.push(b'-');
        name.number(index);
        name
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len = self.len.saturating_add(1);
        }
    }

    fn number(&mut self, mut number: u64) {
        let mut digits = [0u8; 20];
        let mut first = digits.len();
        loop {
            first = first.saturating_sub(1);
            if let Some(digit) = digits.get_mut(first) {
                *digit = b'0' | (number % 10) as u8;
            }
            number /= 10;
            if number == 0 {
                break;
            }
        }
        for digit in digits.iter().skip(first) {
            self.push(*digit);
        }
    }

    pub(in crate::send) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

/// The inode, generation and index that an orphan name is made of, or `None` for any other name.
fn parse(name: &[u8]) -> Option<(u64, u64, u64)> {
    let mut parts = name.strip_prefix(b"o")?.split(|byte| *byte == b'-');
    let ino = number(parts.next()?)?;
    let generation = number(parts.next()?)?;
    let index = number(parts.next()?)?;
    parts.next().is_none().then_some((ino, generation, index))
}

/// A decimal number as it is printed: no sign, no zeros in front.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || (digits.len() > 1 && digits.first() == Some(&b'0')) {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// The names at the top of the subvolume that look like orphan names.
pub(in crate::send) struct OrphanNames {
    taken: KVVec<(u64, u64, u64)>,
    sorted: bool,
    /// There were too many to remember.
    overflow: bool,
}

impl OrphanNames {
    pub(in crate::send) const fn new() -> Self {
        OrphanNames {
            taken: KVVec::new(),
            sorted: true,
            overflow: false,
        }
    }

    /// Takes note of a `DIR_ITEM` of the top directory.
    pub(in crate::send) fn note(&mut self, item: &[u8]) -> Result {
        if self.overflow {
            return Ok(());
        }
        for entry in Entries::new(item) {
            if let Some(parts) = parse(entry?.name) {
                if self.taken.len() >= MAX_TAKEN {
                    self.overflow = true;
                    self.taken = KVVec::new();
                    return Ok(());
                }
                self.taken.push(parts, GFP_KERNEL)?;
                self.sorted = false;
            }
        }
        Ok(())
    }

    /// The orphan name of an inode.
    pub(in crate::send) fn name(
        &mut self,
        finder: &mut Finder<'_>,
        ino: u64,
        generation: u64,
    ) -> Result<Name> {
        if !self.sorted {
            crate::sort::sort(&mut self.taken);
            self.sorted = true;
        }
        let mut index = 0u64;
        loop {
            let name = Name::new(ino, generation, index);
            let taken = if self.overflow {
                is_entry(finder, name.as_bytes())?
            } else {
                self.taken.binary_search(&(ino, generation, index)).is_ok()
            };
            if !taken {
                return Ok(name);
            }
            index = index.checked_add(1).ok_or(EOVERFLOW)?;
        }
    }
}

/// Whether the top directory has an entry of this name.
fn is_entry(finder: &mut Finder<'_>, name: &[u8]) -> Result<bool> {
    let key = Key::new(objectid::FIRST_FREE, item_type::DIR_ITEM, name_hash(name));
    let Some(item) = finder.exact(&key)? else {
        return Ok(false);
    };
    for entry in Entries::new(item) {
        if entry?.name == name {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_as_they_are_printed() {
        for parts in [(257, 5, 0), (u64::MAX, u64::MAX, u64::MAX), (0, 10, 100)] {
            let name = Name::new(parts.0, parts.1, parts.2);
            assert_eq!(parse(name.as_bytes()), Some(parts));
        }
        assert_eq!(Name::new(257, 5, 0).as_bytes(), b"o257-5-0");
        for other in [
            "o257-5",
            "o257-5-0-1",
            "o0257-5-0",
            "o257-5-",
            "o",
            "p257-5-0",
            "o-5-0",
            "o257-5-0 ",
            "o18446744073709551616-1-0",
        ] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }
}
