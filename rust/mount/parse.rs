// SPDX-License-Identifier: GPL-2.0
//! One option: found in the table, its value read, and taken (`fs_parse`).

use super::table::{Parameter, Takes, PARAMETERS};
use super::{number, Level, Log, MountOptions};
use kernel::prelude::*;

/// The value that an option was given.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// It has none.
    Flag,
    /// The text after the equals sign.
    Text(&'a [u8]),
    /// A file or a blob, which no option takes.
    Other,
}

/// What became of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// It is taken.
    Taken,
    /// The table does not have it. The VFS takes `source`, and refuses all else as an unknown
    /// parameter.
    Unknown,
}

/// The row of an option, and whether its name began with `no`. Of two rows with one name, the one
/// that takes the kind of value is meant (`fs_lookup_key`).
fn find(key: &[u8], is_flag: bool) -> Option<(&'static Parameter, bool)> {
    let named = || PARAMETERS.iter().filter(|row| row.name == key);
    if let Some(exact) = named().find(|row| row.takes.is_flag() == is_flag) {
        return Some((exact, false));
    }
    let negated = key.strip_prefix(b"no").filter(|_| is_flag);
    let can_negate =
        |row: &&Parameter| negated == Some(row.name) && matches!(row.takes, Takes::FlagOrNo(_));
    if let Some(row) = PARAMETERS.iter().find(can_negate) {
        return Some((row, true));
    }
    named().next().map(|row| (row, false))
}

impl MountOptions {
    /// Takes one option.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a value that makes no sense, and for what is not supported, with a message;
    /// `ENOMEM`.
    pub fn parse(&mut self, key: &[u8], value: Value<'_>, log: &mut Log<'_>) -> Result<Parsed> {
        let Some((row, negated)) = find(key, matches!(value, Value::Flag)) else {
            return Ok(Parsed::Unknown);
        };
        let taken = match (&row.takes, value) {
            (Takes::Flag(take), Value::Flag) => {
                take(&mut self.settings);
                Ok(())
            }
            (Takes::FlagOrNo(take), Value::Flag) => take(&mut self.settings, !negated, log),
            (Takes::Flag(_) | Takes::FlagOrNo(_), _) => {
                log(
                    Level::Error,
                    fmt!("Unexpected value for '{}'", shown(row.name)),
                );
                return Err(EINVAL);
            }
            (Takes::Number32(take), Value::Text(text)) => {
                match number::unsigned(text).and_then(|number| u32::try_from(number).ok()) {
                    Some(number) => take(self, number, log),
                    None => Err(bad_value(row, log)),
                }
            }
            (Takes::Number64(take), Value::Text(text)) => match number::unsigned(text) {
                Some(number) => {
                    take(self, number);
                    Ok(())
                }
                None => Err(bad_value(row, log)),
            },
            (Takes::Text(take), Value::Text(text)) if !text.is_empty() => take(self, text, log),
            (Takes::OneOf(choices), Value::Text(text)) => {
                match choices.iter().find(|(name, _)| *name == text) {
                    Some((_, take)) => take(&mut self.settings, log),
                    None => Err(bad_value(row, log)),
                }
            }
            _ => Err(bad_value(row, log)),
        };
        taken.map(|()| Parsed::Taken)
    }
}

fn bad_value(row: &Parameter, log: &mut Log<'_>) -> Error {
    log(Level::Error, fmt!("Bad value for '{}'", shown(row.name)));
    EINVAL
}

/// Bytes that a user gave, for a message.
pub(super) fn shown(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or("?")
}
