// SPDX-License-Identifier: GPL-2.0
//! `pr_err!` and its kin: to standard error, or to a capture of the thread.

#[doc(hidden)]
pub fn emit(args: core::fmt::Arguments<'_>) {
    if !crate::log::record(args) {
        std::eprint!("{args}");
    }
}

/// Prints an emergency. A line ends in a newline.
#[macro_export]
macro_rules! pr_emerg {
    ($($arg:tt)*) => {
        $crate::__emit(::core::format_args!($($arg)*))
    };
}

/// Prints an alert. A line ends in a newline.
#[macro_export]
macro_rules! pr_alert {
    ($($arg:tt)*) => {
        $crate::__emit(::core::format_args!($($arg)*))
    };
}

/// Prints a critical condition. A line ends in a newline.
#[macro_export]
macro_rules! pr_crit {
    ($($arg:tt)*) => {
        $crate::__emit(::core::format_args!($($arg)*))
    };
}

/// Prints an error. A line ends in a newline.
#[macro_export]
macro_rules! pr_err {
    ($($arg:tt)*) => {
        $crate::__emit(::core::format_args!($($arg)*))
    };
}

/// Prints a warning. A line ends in a newline.
#[macro_export]
macro_rules! pr_warn {
    ($($arg:tt)*) => {
        $crate::__emit(::core::format_args!($($arg)*))
    };
}

/// Prints a notice. A line ends in a newline.
#[macro_export]
macro_rules! pr_notice {
    ($($arg:tt)*) => {
        $crate::__emit(::core::format_args!($($arg)*))
    };
}

/// Prints information. A line ends in a newline.
#[macro_export]
macro_rules! pr_info {
    ($($arg:tt)*) => {
        $crate::__emit(::core::format_args!($($arg)*))
    };
}

/// Prints the continuation of a line. A line ends in a newline.
#[macro_export]
macro_rules! pr_cont {
    ($($arg:tt)*) => {
        $crate::__emit(::core::format_args!($($arg)*))
    };
}

/// Checked as the others are, and not printed, as in a kernel built without `DEBUG`.
#[macro_export]
macro_rules! pr_debug {
    ($($arg:tt)*) => {
        if false {
            $crate::__emit(::core::format_args!($($arg)*))
        }
    };
}
