// SPDX-License-Identifier: GPL-2.0
//! Formatting. In the kernel `Display` is a trait of its own, so engine types implement
//! `kernel::fmt::Display`, which here is the one of `core`.

pub use core::fmt::{Arguments, Debug, Display, Error, Formatter, Result, Write};

/// Formats like `format_args!`; in the kernel it also routes foreign types. The prelude has it as
/// `fmt!`.
#[doc(hidden)]
#[macro_export]
macro_rules! __fmt {
    ($($arg:tt)*) => {
        ::core::format_args!($($arg)*)
    };
}
