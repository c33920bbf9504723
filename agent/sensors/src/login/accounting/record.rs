//! One record of utmp, wtmp or btmp: C's `struct utmp`, in the layouts that C libraries have.
//!
//! | Layout | Bytes | Written by |
//! |---|---|---|
//! | [`Layout::Time32`] | 384 | glibc where 32- and 64-bit programs share the files (`__WORDSIZE_TIME64_COMPAT32` of bits/wordsize.h: x86, Arm, PowerPC, MIPS, RISC-V), and every other 32-bit glibc with a 32-bit `time_t` |
//! | [`Layout::Time64`] | 400 | glibc on aarch64 and other 64-bit machines without that, and on 32-bit ones whose `time_t` has 64 bits; musl's `struct utmpx` since 1.2 (its functions write nothing, though: utmps and the like do) |
//!
//! Both begin alike (bits/utmp.h, musl's utmpx.h; utmp(5)):
//!
//! ```text
//!     0 ut_type  i16, padded     44 ut_user [32]      332 ut_exit   2 × i16
//!     4 ut_pid   i32             76 ut_host [256]     336 ut_session
//!     8 ut_line  [32]                                     then ut_tv, ut_addr_v6 [16] and 20 bytes of nothing:
//!    40 ut_id    [4]              Time32: ut_tv at 340 (i32 seconds), the address at 348
//!                                 Time64: ut_tv at 344 (i64 seconds), the address at 360
//! ```
//!
//! Numbers have the machine's byte order, the address that of the network. Texts end at a NUL or at their field's end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use defender_model::text;

use crate::login::address;

/// Record types of utmp(5) that say something of a session.
pub(super) mod kind {
    /// `INIT_PROCESS`: init started what will ask for a name.
    pub(crate) const INIT: i16 = 5;
    /// `LOGIN_PROCESS`: it asks.
    pub(crate) const LOGIN: i16 = 6;
    /// `USER_PROCESS`: somebody is logged in. In btmp types do not matter.
    pub(crate) const USER: i16 = 7;
    /// `DEAD_PROCESS`: no more.
    pub(crate) const DEAD: i16 = 8;
    /// `ACCOUNTING`, the highest there is.
    pub(crate) const HIGHEST: i16 = 9;
}

/// Longest name that fits, in bytes: what is longer is cut.
pub(in crate::login) const USER_BYTES: usize = 32;
/// Plausible times: until the year 2100, in seconds.
const LATEST: i64 = 4_102_444_800;
/// Records looked at to find out the layout.
const LOOKED_AT: usize = 64;

/// Which C library wrote the file, as far as it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// 384 bytes, seconds in 32 bits.
    Time32,
    /// 400 bytes, seconds in 64 bits.
    Time64,
}

impl Layout {
    /// What this machine's glibc writes.
    pub const NATIVE: Self = if cfg!(any(target_arch = "aarch64", target_arch = "loongarch64")) {
        Self::Time64
    } else {
        Self::Time32
    };

    /// Size of one record, in bytes.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Time32 => 384,
            Self::Time64 => 400,
        }
    }

    /// The layout of a file of `length` bytes that begins with `head`; `None` while it holds no whole record, or no records at all.
    ///
    /// One whose size divides the length, and under which the first records look like records, wins; of two such the machine's own. A
    /// length that none divides may be that of a file whose last record is just being written.
    #[must_use]
    pub fn of(head: &[u8], length: u64) -> Option<Self> {
        let other = if Self::NATIVE == Self::Time32 { Self::Time64 } else { Self::Time32 };
        let plausible = |layout: &Self| {
            let mut records = head.chunks_exact(layout.size()).take(LOOKED_AT).peekable();
            // What seems an empty record may be the end of a longer one: of an empty one the beginning is empty.
            let fits = |bytes: &[u8]| {
                is_plausible(*layout, bytes) && (bytes[0] != 0 || bytes[1] != 0 || bytes[..40] == [0; 40])
            };
            records.peek().is_some() && records.all(fits)
        };
        let divides = |layout: &Self| length % layout.size() as u64 == 0;
        let candidates = [Self::NATIVE, other];
        let whole = candidates.into_iter().find(|layout| divides(layout) && plausible(layout));
        whole.or_else(|| candidates.into_iter().find(plausible))
    }
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `ut_type`.
    pub kind: i16,
    /// Process that was logged in, or asked for the name.
    pub pid: Option<u32>,
    /// Terminal, without `/dev/`; none of logins without one (`ssh:notty`).
    pub line: Option<String>,
    /// Account. In btmp the client's text.
    pub user: Option<String>,
    /// Where the client is, if that is an address.
    pub source: Option<IpAddr>,
    /// When, in seconds since 1970.
    pub seconds: i64,
}

impl Record {
    /// Takes a record apart; `None` if `bytes` are not [`Layout::size`] long, or nothing that a C library writes.
    #[must_use]
    pub fn parse(layout: Layout, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != layout.size() || !is_plausible(layout, bytes) {
            return None;
        }
        let at = match layout {
            Layout::Time32 => 348,
            Layout::Time64 => 360,
        };
        let user = field(bytes, 44, USER_BYTES);
        Some(Self {
            kind: number(bytes)?,
            pid: u32::try_from(pid(bytes)?).ok().filter(|pid| *pid != 0),
            line: field(bytes, 8, 32)
                .and_then(|line| super::super::message::tty_name(&line).map(str::to_owned)),
            // What login(1) writes of names that do not exist.
            user: user.filter(|user| !matches!(user.as_str(), "UNKNOWN" | "(unknown)")),
            source: numeric(bytes.get(at..at + 16)?).or_else(|| address::parse(&field(bytes, 76, 256)?)),
            seconds: seconds(layout, bytes)?,
        })
    }
}

fn number(bytes: &[u8]) -> Option<i16> {
    Some(i16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?))
}

fn pid(bytes: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.get(4..8)?.try_into().ok()?))
}

fn seconds(layout: Layout, bytes: &[u8]) -> Option<i64> {
    Some(match layout {
        // Unsigned since glibc 2.40; before, nobody logged in before 1970 either.
        Layout::Time32 => u32::from_ne_bytes(bytes.get(340..344)?.try_into().ok()?).into(),
        Layout::Time64 => i64::from_ne_bytes(bytes.get(344..352)?.try_into().ok()?),
    })
}

fn is_plausible(layout: Layout, bytes: &[u8]) -> bool {
    let texts = [(8, 32), (44, 32), (76, 256)];
    number(bytes).is_some_and(|kind| (0..=kind::HIGHEST).contains(&kind))
        && pid(bytes).is_some_and(|pid| pid >= 0)
        && seconds(layout, bytes).is_some_and(|seconds| (0..LATEST).contains(&seconds))
        // Terminals and hosts are nobody's free text. A name in btmp is.
        && texts.iter().filter(|(at, _)| *at != 44).all(|(at, length)| {
            bytes[*at..at + length].iter().take_while(|b| **b != 0).all(|b| b.is_ascii_graphic() || *b == b' ')
        })
}

fn field(bytes: &[u8], at: usize, length: usize) -> Option<String> {
    let field = bytes.get(at..at + length)?;
    let end = field.iter().position(|b| *b == 0).unwrap_or(length);
    (end > 0).then(|| text::from_bytes(&field[..end]))
}

/// `ut_addr_v6`: an IPv4 address is its first four bytes alone.
fn numeric(bytes: &[u8]) -> Option<IpAddr> {
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    let [a, b, c, d, rest @ ..] = bytes;
    if bytes == [0; 16] {
        return None;
    }
    if rest == [0; 12] {
        return Some(Ipv4Addr::new(a, b, c, d).into());
    }
    let v6 = Ipv6Addr::from(bytes);
    Some(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4))
}

#[cfg(test)]
mod tests;
