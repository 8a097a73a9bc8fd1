// SPDX-License-Identifier: GPL-2.0
//! The kernel crate as Linux 7.3 has it, for kernels before. Kbuild gives this crate to the module
//! under the name `kernel` where the kernel's own lacks what is defined here; for 7.3 and later it
//! is not built. It is no module of ours: nothing in here is named by `mod.rs`.
//!
//! It holds constants and generic functions alone, which are compiled into their users: nothing of
//! it is linked.

#![allow(missing_docs)]

pub use kernel::*;

pub mod error {
    pub use kernel::error::*;

    pub mod code {
        use core::num::NonZeroI32;

        pub use kernel::error::code::*;
        use kernel::{bindings, error::Error};

        /// `Error` keeps its constructors that are `const` to itself.
        const fn error(errno: u32) -> Error {
            let Some(errno) = NonZeroI32::new(-(errno as i32)) else {
                panic!("no errno")
            };
            // SAFETY: `Error` wraps one `NonZeroI32`, an errno from -4095 to -1, and each caller is
            // a constant below with an errno of the kernel's headers. `AS_EXPECTED` shows that the
            // wrapper adds nothing.
            unsafe { core::mem::transmute::<NonZeroI32, Error>(errno) }
        }

        /// The representation of an error that the kernel crate made is the errno.
        const AS_EXPECTED: () = {
            // SAFETY: Both have one size, or this does not compile, and every bit of an `Error` of
            // that size is part of its number.
            let errno = unsafe { core::mem::transmute::<Error, i32>(EOVERFLOW) };
            assert!(errno == -(bindings::EOVERFLOW as i32));
        };

        macro_rules! declare {
            ($($name:ident)*) => {
                $(pub const $name: Error = {
                    let () = AS_EXPECTED;
                    error(bindings::$name)
                };)*
            };
        }

        declare! {
            ECANCELED EILSEQ EINPROGRESS ENAMETOOLONG ENODATA ENOTCONN ENOTEMPTY EOPNOTSUPP EPROTO
            EREMOTEIO ESTALE EUCLEAN
        }
    }
}

pub mod alloc {
    pub use kernel::alloc::*;

    use kernel::prelude::Zeroable;

    /// `Vec::zeroed` of 7.3.
    pub trait Zeroed: Sized {
        /// A vector of `n` elements, all of them zero.
        fn zeroed(n: usize, flags: Flags) -> Result<Self, AllocError>;
    }

    impl<T: Zeroable + Clone, A: Allocator> Zeroed for Vec<T, A> {
        fn zeroed(n: usize, flags: Flags) -> Result<Self, AllocError> {
            Vec::from_elem(T::zeroed(), n, flags)
        }
    }
}

pub mod prelude {
    pub use kernel::prelude::*;

    pub use crate::alloc::Zeroed as _;
    pub use crate::error::code::*;
}
