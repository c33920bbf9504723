//! Well-known passwords: what devices ship with, tried against a hash of crypt(5).

/// Tried besides the account's own name. From the default credentials published for embedded boards and by botnets.
const WELL_KNOWN: &[&str] = &[
    "root",
    "admin",
    "password",
    "1234",
    "12345",
    "123456",
    "12345678",
    "default",
    "toor",
    "user",
    "pass",
    "guest",
    "changeme",
    "test",
    "debian",
    "raspberry",
    "linaro",
    "xc3511",
    "vizxv",
    "oelinux123",
    "embedded",
    "secret",
];

/// The well-known password behind a hash, if one of them is.
///
/// # Errors
/// The hash is of a kind that cannot be tried here.
pub(crate) fn well_known(name: &str, hash: &str) -> Result<Option<String>, String> {
    for word in WELL_KNOWN.iter().copied().chain([name]) {
        if verify(word.as_bytes(), hash)? {
            return Ok(Some(word.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(feature = "x509")]
use super::crypt::verify;

#[cfg(not(feature = "x509"))]
fn verify(_password: &[u8], _hash: &str) -> Result<bool, String> {
    Err("this build has no OpenSSL (feature `x509`) to try passwords with".to_owned())
}
