// SPDX-License-Identifier: GPL-2.0
//! Kernel errors: a negative errno that is never zero.

use crate::alloc::AllocError;
use core::num::NonZeroI32;

/// The error codes, by their C names.
pub mod code {
    use super::Error;

    macro_rules! codes {
        ($($name:ident = $errno:literal;)*) => {
            $(
                #[doc = concat!("`", stringify!($name), "`, ", stringify!($errno), ".")]
                pub const $name: Error = Error::new($errno);
            )*

            pub(super) const NAMES: &[(i32, &core::ffi::CStr)] = &[$(
                ($errno, match core::ffi::CStr::from_bytes_with_nul(
                    concat!(stringify!($name), "\0").as_bytes(),
                ) {
                    Ok(name) => name,
                    Err(_) => c"?",
                }),
            )*];
        };
    }

    codes! {
        EPERM = 1;
        ENOENT = 2;
        ESRCH = 3;
        EINTR = 4;
        EIO = 5;
        ENXIO = 6;
        E2BIG = 7;
        ENOEXEC = 8;
        EBADF = 9;
        ECHILD = 10;
        EAGAIN = 11;
        ENOMEM = 12;
        EACCES = 13;
        EFAULT = 14;
        ENOTBLK = 15;
        EBUSY = 16;
        EEXIST = 17;
        EXDEV = 18;
        ENODEV = 19;
        ENOTDIR = 20;
        EISDIR = 21;
        EINVAL = 22;
        ENFILE = 23;
        EMFILE = 24;
        ENOTTY = 25;
        ETXTBSY = 26;
        EFBIG = 27;
        ENOSPC = 28;
        ESPIPE = 29;
        EROFS = 30;
        EMLINK = 31;
        EPIPE = 32;
        EDOM = 33;
        ERANGE = 34;
        EDEADLK = 35;
        ENAMETOOLONG = 36;
        ENOLCK = 37;
        ENOSYS = 38;
        ENOTEMPTY = 39;
        ELOOP = 40;
        ENOMSG = 42;
        EIDRM = 43;
        ECHRNG = 44;
        EL2NSYNC = 45;
        EL3HLT = 46;
        EL3RST = 47;
        ELNRNG = 48;
        EUNATCH = 49;
        ENOCSI = 50;
        EL2HLT = 51;
        EBADE = 52;
        EBADR = 53;
        EXFULL = 54;
        ENOANO = 55;
        EBADRQC = 56;
        EBADSLT = 57;
        EBFONT = 59;
        ENOSTR = 60;
        ENODATA = 61;
        ETIME = 62;
        ENOSR = 63;
        ENONET = 64;
        ENOPKG = 65;
        EREMOTE = 66;
        ENOLINK = 67;
        EADV = 68;
        ESRMNT = 69;
        ECOMM = 70;
        EPROTO = 71;
        EMULTIHOP = 72;
        EDOTDOT = 73;
        EBADMSG = 74;
        EFSBADCRC = 74;
        EOVERFLOW = 75;
        ENOTUNIQ = 76;
        EBADFD = 77;
        EREMCHG = 78;
        ELIBACC = 79;
        ELIBBAD = 80;
        ELIBSCN = 81;
        ELIBMAX = 82;
        ELIBEXEC = 83;
        EILSEQ = 84;
        ERESTART = 85;
        ESTRPIPE = 86;
        EUSERS = 87;
        ENOTSOCK = 88;
        EDESTADDRREQ = 89;
        EMSGSIZE = 90;
        EPROTOTYPE = 91;
        ENOPROTOOPT = 92;
        EPROTONOSUPPORT = 93;
        ESOCKTNOSUPPORT = 94;
        EOPNOTSUPP = 95;
        EPFNOSUPPORT = 96;
        EAFNOSUPPORT = 97;
        EADDRINUSE = 98;
        EADDRNOTAVAIL = 99;
        ENETDOWN = 100;
        ENETUNREACH = 101;
        ENETRESET = 102;
        ECONNABORTED = 103;
        ECONNRESET = 104;
        ENOBUFS = 105;
        EISCONN = 106;
        ENOTCONN = 107;
        ESHUTDOWN = 108;
        ETOOMANYREFS = 109;
        ETIMEDOUT = 110;
        ECONNREFUSED = 111;
        EHOSTDOWN = 112;
        EHOSTUNREACH = 113;
        EALREADY = 114;
        EINPROGRESS = 115;
        ESTALE = 116;
        EUCLEAN = 117;
        EFSCORRUPTED = 117;
        ENOTNAM = 118;
        ENAVAIL = 119;
        EISNAM = 120;
        EREMOTEIO = 121;
        EDQUOT = 122;
        ENOMEDIUM = 123;
        EMEDIUMTYPE = 124;
        ECANCELED = 125;
        ENOKEY = 126;
        EKEYEXPIRED = 127;
        EKEYREVOKED = 128;
        EKEYREJECTED = 129;
        EOWNERDEAD = 130;
        ENOTRECOVERABLE = 131;
        ERFKILL = 132;
        EHWPOISON = 133;
        EFTYPE = 134;
        ERESTARTSYS = 512;
        ERESTARTNOINTR = 513;
        ERESTARTNOHAND = 514;
        ENOIOCTLCMD = 515;
        ERESTART_RESTARTBLOCK = 516;
        EPROBE_DEFER = 517;
        EOPENSTALE = 518;
        ENOPARAM = 519;
        EBADHANDLE = 521;
        ENOTSYNC = 522;
        EBADCOOKIE = 523;
        ENOTSUPP = 524;
        ETOOSMALL = 525;
        ESERVERFAULT = 526;
        EBADTYPE = 527;
        EJUKEBOX = 528;
        EIOCBQUEUED = 529;
        ERECALLCONFLICT = 530;
        ENOGRACE = 531;
    }
}

/// An errno between -4095 and -1.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error(NonZeroI32);

/// `Result` with the kernel's [`Error`].
pub type Result<T = (), E = Error> = core::result::Result<T, E>;

impl Error {
    const fn new(errno: i32) -> Self {
        match NonZeroI32::new(-errno) {
            Some(errno) => Self(errno),
            None => panic!("zero is no errno"),
        }
    }

    /// The error of a negative `errno`; `EINVAL` for what is out of range.
    pub fn from_errno(errno: i32) -> Self {
        match NonZeroI32::new(errno) {
            Some(n) if (-4095..0).contains(&errno) => Self(n),
            _ => {
                crate::pr_warn!("attempted to create `Error` with out of range `errno`: {errno}\n");
                code::EINVAL
            }
        }
    }

    /// The negative errno.
    pub fn to_errno(self) -> i32 {
        self.0.get()
    }

    /// The name of the code, `None` for codes that have none.
    pub fn name(&self) -> Option<&'static core::ffi::CStr> {
        let errno = -self.0.get();
        code::NAMES
            .iter()
            .find(|(code, _)| *code == errno)
            .map(|(_, name)| *name)
    }
}

impl core::fmt::Debug for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(name) => f.debug_tuple(name.to_str().unwrap_or("?")).finish(),
            None => f.debug_tuple("Error").field(&-self.0.get()).finish(),
        }
    }
}

impl From<AllocError> for Error {
    fn from(_: AllocError) -> Self {
        code::ENOMEM
    }
}

impl From<core::num::TryFromIntError> for Error {
    fn from(_: core::num::TryFromIntError) -> Self {
        code::EINVAL
    }
}

impl From<core::str::Utf8Error> for Error {
    fn from(_: core::str::Utf8Error) -> Self {
        code::EINVAL
    }
}

impl From<core::fmt::Error> for Error {
    fn from(_: core::fmt::Error) -> Self {
        code::EINVAL
    }
}

impl From<core::convert::Infallible> for Error {
    fn from(e: core::convert::Infallible) -> Self {
        match e {}
    }
}

/// A C return value as a result: negative values are errors.
pub fn to_result(err: core::ffi::c_int) -> Result {
    if err < 0 {
        Err(Error::from_errno(err))
    } else {
        Ok(())
    }
}

/// A result as a C return value.
pub fn from_result<T: From<i16>>(f: impl FnOnce() -> Result<T>) -> T {
    match f() {
        Ok(v) => v,
        Err(e) => T::from(e.to_errno() as i16),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_names_and_numbers() {
        assert_eq!(code::EUCLEAN.to_errno(), -117);
        assert_eq!(code::EUCLEAN.name(), Some(c"EUCLEAN"));
        assert_eq!(std::format!("{:?}", code::EIO), "EIO");
        assert_eq!(Error::from_errno(-5), code::EIO);
        assert_eq!(to_result(-2), Err(code::ENOENT));
        assert_eq!(from_result::<i32>(|| Err(code::EIO)), -5);
    }
}
