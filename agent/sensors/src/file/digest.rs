//! SHA-256 by the system's OpenSSL.

use std::io::{self, Read};

use defender_model::file::Sha256;

/// Read at a time.
const CHUNK: usize = 64 << 10;

/// The digest of what a file holds; `paced` hears how much was read and may take its time. `None` when the agent was built without a
/// crypto library.
///
/// # Errors
/// When reading fails, or there is more than `limit` bytes to read.
pub(super) fn sha256(
    file: &mut impl Read,
    limit: u64,
    mut paced: impl FnMut(usize),
) -> io::Result<Option<Sha256>> {
    let Some(mut hasher) = Hasher::new() else { return Ok(None) };
    let mut buffer = vec![0; CHUNK];
    let mut total = 0;
    loop {
        let length = match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(hasher.finish())),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        total += length as u64;
        if total > limit {
            return Err(io::Error::other("it grew while it was read"));
        }
        hasher.update(&buffer[..length]);
        paced(length);
    }
}

/// SHA-256 of bytes in memory; `None` where digests are not to be had.
#[must_use]
pub fn of(bytes: &[u8]) -> Option<Sha256> {
    sha256(&mut &bytes[..], u64::MAX, |_| {}).ok().flatten()
}

/// Whether digests are to be had.
pub(super) fn is_available() -> bool {
    Hasher::new().is_some()
}

/// The library's own function rather than what its providers offer: to load those takes 2 MiB of memory that nothing else at rest needs.
#[cfg(feature = "sha256")]
struct Hasher(openssl::sha::Sha256);

#[cfg(feature = "sha256")]
impl Hasher {
    fn new() -> Option<Self> {
        Some(Self(openssl::sha::Sha256::new()))
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self) -> Sha256 {
        Sha256(self.0.finish())
    }
}

#[cfg(not(feature = "sha256"))]
enum Hasher {}

#[cfg(not(feature = "sha256"))]
impl Hasher {
    fn new() -> Option<Self> {
        None
    }

    fn update(&mut self, _: &[u8]) {
        match *self {}
    }

    fn finish(self) -> Sha256 {
        match self {}
    }
}

#[cfg(all(test, feature = "sha256"))]
mod tests {
    use super::*;

    #[test]
    fn digests_of_fips_180() {
        let digest = |text: &[u8]| sha256(&mut &*text, 1 << 20, |_| {}).unwrap().unwrap().to_string();
        assert_eq!(digest(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn what_is_too_long_is_not_digested() {
        let mut read = 0;
        assert!(sha256(&mut io::repeat(0), 200_000, |length| read += length).is_err());
        assert!(read <= 200_000 + CHUNK);
    }
}
