// SPDX-License-Identifier: GPL-2.0
//! Numbers in option values, as the kernel's own parser reads them.

/// The binary units of `memparse`, with the powers of two that they stand for.
const UNITS: [(u8, u32); 6] = [
    (b'k', 10),
    (b'm', 20),
    (b'g', 30),
    (b't', 40),
    (b'p', 50),
    (b'e', 60),
];

/// A number as `kstrtoull` with base 0 reads it: decimal, octal after `0`, hexadecimal after `0x`,
/// after a plus sign or none.
pub(super) fn unsigned(text: &[u8]) -> Option<u64> {
    let text = text.strip_prefix(b"+").unwrap_or(text);
    let (digits, base) = match text {
        [b'0', b'x' | b'X', digits @ ..] => (digits, 16),
        [b'0', digits @ ..] if !digits.is_empty() => (digits, 8),
        _ => (text, 10),
    };
    in_base(digits, base)
}

/// A decimal number with a sign or none, as `kstrtoint` reads it.
pub(super) fn signed(text: &[u8]) -> Option<i32> {
    let (digits, negative) = match text {
        [b'-', digits @ ..] => (digits, true),
        [b'+', digits @ ..] => (digits, false),
        _ => (text, false),
    };
    let number = i64::try_from(in_base(digits, 10)?).ok()?;
    let number = if negative {
        number.checked_neg()?
    } else {
        number
    };
    i32::try_from(number).ok()
}

/// A size in bytes, with a unit after the number or none.
pub fn size(text: &[u8]) -> Option<u64> {
    let (unit, digits) = text.split_last()?;
    let shift = UNITS
        .iter()
        .find(|(letter, _)| unit.eq_ignore_ascii_case(letter));
    match shift {
        Some((_, shift)) => unsigned(digits)?.checked_mul(1u64.checked_shl(*shift)?),
        None => unsigned(text),
    }
}

/// Digits alone: no sign, and at least one.
fn in_base(digits: &[u8], base: u32) -> Option<u64> {
    if !digits.first()?.is_ascii_hexdigit() {
        return None;
    }
    u64::from_str_radix(core::str::from_utf8(digits).ok()?, base).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_the_kernel_reads_them() {
        for (text, number) in [
            ("0", Some(0)),
            ("17", Some(17)),
            ("+17", Some(17)),
            ("010", Some(8)),
            ("0x1F", Some(31)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("+", None),
            ("++1", None),
            ("-1", None),
            ("08", None),
            ("0x", None),
            ("0x+1", None),
            ("1s", None),
            (" 1", None),
        ] {
            assert_eq!(unsigned(text.as_bytes()), number, "{text}");
        }
        assert_eq!(signed(b"-15"), Some(-15));
        assert_eq!(signed(b"+3"), Some(3));
        assert_eq!(signed(b"3x"), None);
        assert_eq!(signed(b""), None);
        assert_eq!(signed(b"--3"), None);
        assert_eq!(signed(b"2147483648"), None);
        assert_eq!(size(b"4k"), Some(4096));
        assert_eq!(size(b"2048"), Some(2048));
        assert_eq!(size(b"0"), Some(0));
        assert_eq!(size(b"k"), None);
        assert_eq!(size(b""), None);
        assert_eq!(size(b"20e"), None);
    }
}
