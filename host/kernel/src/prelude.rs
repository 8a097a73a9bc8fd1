// SPDX-License-Identifier: GPL-2.0
//! What the engine imports by `use kernel::prelude::*`.

pub use core::mem::{align_of, align_of_val, size_of, size_of_val};
pub use core::pin::Pin;

pub use core::ffi::{
    c_char, c_int, c_long, c_longlong, c_schar, c_short, c_uchar, c_uint, c_ulong, c_ulonglong,
    c_ushort, c_void, CStr,
};

pub use crate::__fmt as fmt;
pub use crate::alloc::flags::*;
pub use crate::alloc::{Box, KBox, KVBox, KVVec, KVec, VBox, VVec, Vec};
pub use crate::error::code::*;
pub use crate::error::{Error, Result};
pub use crate::init::{InPlaceInit, InPlaceWrite, Init, PinInit, Zeroable};
pub use crate::{const_assert, static_assert};
pub use crate::{pr_alert, pr_crit, pr_debug, pr_emerg, pr_err, pr_info, pr_notice, pr_warn};
pub use zerocopy::{FromBytes, IntoBytes};
