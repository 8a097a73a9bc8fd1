// SPDX-License-Identifier: GPL-2.0
//! Sizes in bytes.

macro_rules! sizes {
    ($($name:ident = $value:expr;)*) => { $(
        #[doc = concat!("`", stringify!($value), "` bytes.")]
        pub const $name: usize = $value;
    )* };
}

sizes! {
    SZ_1K = 1 << 10; SZ_2K = 2 << 10; SZ_4K = 4 << 10; SZ_8K = 8 << 10; SZ_16K = 16 << 10;
    SZ_32K = 32 << 10; SZ_64K = 64 << 10; SZ_128K = 128 << 10; SZ_256K = 256 << 10;
    SZ_512K = 512 << 10; SZ_1M = 1 << 20; SZ_2M = 2 << 20; SZ_4M = 4 << 20; SZ_8M = 8 << 20;
    SZ_16M = 16 << 20; SZ_32M = 32 << 20; SZ_64M = 64 << 20; SZ_128M = 128 << 20;
    SZ_256M = 256 << 20; SZ_512M = 512 << 20; SZ_1G = 1 << 30; SZ_2G = 2 << 30;
}
