//! crypt(5) by MD5, SHA-256 and SHA-512, to try a password against a hash.
//!
//! Sources: Ulrich Drepper, "Unix crypt using SHA-256 and SHA-512"; Poul-Henning Kamp's MD5 method as in FreeBSD's libcrypt.

use openssl::hash::{hash, Hasher, MessageDigest};

/// Most rounds that are computed: a hash that asks for more is not tried.
const MAX_ROUNDS: u32 = 20_000;
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Whether a password has that hash.
///
/// # Errors
/// The method is none of these, asks for too many rounds, or the library refuses it.
pub(crate) fn verify(password: &[u8], secret: &str) -> Result<bool, String> {
    let parts: Vec<&str> = secret.split('$').collect();
    let computed = match parts.as_slice() {
        ["", "1", salt, digest] => Some((md5(password, salt.as_bytes()), *digest)),
        ["", method @ ("5" | "6"), salt, digest] => {
            Some((sha(*method == "6", password, salt.as_bytes(), 5000), *digest))
        }
        ["", method @ ("5" | "6"), rounds, salt, digest] if rounds.starts_with("rounds=") => {
            let rounds = rounds["rounds=".len()..].parse::<u32>().unwrap_or(u32::MAX).max(1000);
            if rounds > MAX_ROUNDS {
                return Err(format!("a hash of {rounds} rounds, more than {MAX_ROUNDS}, is not tried"));
            }
            Some((sha(*method == "6", password, salt.as_bytes(), rounds), *digest))
        }
        _ => None,
    };
    match computed {
        Some((Ok(computed), digest)) => Ok(computed == digest),
        Some((Err(error), _)) => Err(format!("its hash cannot be computed: {error}")),
        None => Err("a hash of this method is not tried".to_owned()),
    }
}

fn sha(long: bool, password: &[u8], salt: &[u8], rounds: u32) -> Result<String, openssl::error::ErrorStack> {
    let digest = if long { MessageDigest::sha512() } else { MessageDigest::sha256() };
    let size = digest.size();
    let salt = &salt[..salt.len().min(16)];
    let b = hash(digest, &[password, salt, password].concat())?;
    let mut a = Hasher::new(digest)?;
    a.update(password)?;
    a.update(salt)?;
    a.update(&repeated(&b, password.len()))?;
    let mut bits = password.len();
    while bits > 0 {
        a.update(if bits & 1 == 1 { &b } else { password })?;
        bits >>= 1;
    }
    let a = a.finish()?;
    let p = repeated(&hash(digest, &password.repeat(password.len()))?, password.len());
    let s = repeated(&hash(digest, &salt.repeat(16 + usize::from(a[0])))?, salt.len());
    let mut c = a.to_vec();
    for round in 0..rounds {
        let mut next = Hasher::new(digest)?;
        next.update(if round & 1 == 1 { &p } else { &c })?;
        if round % 3 != 0 {
            next.update(&s)?;
        }
        if round % 7 != 0 {
            next.update(&p)?;
        }
        next.update(if round & 1 == 1 { &c } else { &p })?;
        c = next.finish()?.to_vec();
    }
    // Bytes go out in threes, each a third apart, in turn first, second and third.
    let third = size / 3;
    let mut out = String::new();
    for step in 0..third {
        let at = |part: usize| c[step + part * third];
        // SHA-512 turns one way and SHA-256 the other.
        let turn = if long { step % 3 } else { (3 - step % 3) % 3 };
        encode(&mut out, at(turn % 3), at((turn + 1) % 3), at((turn + 2) % 3), 4);
    }
    match long {
        true => encode(&mut out, 0, 0, c[63], 2),
        false => encode(&mut out, 0, c[31], c[30], 3),
    }
    Ok(out)
}

fn md5(password: &[u8], salt: &[u8]) -> Result<String, openssl::error::ErrorStack> {
    let digest = MessageDigest::md5();
    let salt = &salt[..salt.len().min(8)];
    let b = hash(digest, &[password, salt, password].concat())?;
    let mut a = Hasher::new(digest)?;
    a.update(password)?;
    a.update(b"$1$")?;
    a.update(salt)?;
    a.update(&repeated(&b, password.len()))?;
    let mut bits = password.len();
    while bits > 0 {
        a.update(if bits & 1 == 1 { &[0] } else { &password[..1] })?;
        bits >>= 1;
    }
    let mut c = a.finish()?.to_vec();
    for round in 0..1000 {
        let mut next = Hasher::new(digest)?;
        next.update(if round & 1 == 1 { password } else { &c })?;
        if round % 3 != 0 {
            next.update(salt)?;
        }
        if round % 7 != 0 {
            next.update(password)?;
        }
        next.update(if round & 1 == 1 { &c } else { password })?;
        c = next.finish()?.to_vec();
    }
    let mut out = String::new();
    for (x, y, z) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        encode(&mut out, c[x], c[y], c[z], 4);
    }
    encode(&mut out, 0, 0, c[11], 2);
    Ok(out)
}

/// The bytes over and over, to a length.
fn repeated(bytes: &[u8], length: usize) -> Vec<u8> {
    bytes.iter().copied().cycle().take(length).collect()
}

/// Three bytes as characters of six bits, lowest first.
fn encode(out: &mut String, high: u8, middle: u8, low: u8, characters: usize) {
    let mut bits = u32::from(high) << 16 | u32::from(middle) << 8 | u32::from(low);
    for _ in 0..characters {
        out.push(char::from(ALPHABET[(bits & 63) as usize]));
        bits >>= 6;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `openssl passwd -1|-5|-6`.
    #[test]
    fn agrees_with_the_system() {
        for method in ["-1", "-5", "-6"] {
            for (password, salt) in [
                ("root", "ab"),
                ("a much longer password than any block of the digest has, to be sure of it all", "saltsalt"),
                ("x", "q"),
            ] {
                let made = std::process::Command::new("openssl")
                    .args(["passwd", method, "-salt", salt, password])
                    .output();
                let Ok(made) = made else { panic!("the test needs the openssl program") };
                let hash = String::from_utf8(made.stdout).unwrap();
                assert_eq!(verify(password.as_bytes(), hash.trim()), Ok(true), "{hash}");
                assert_eq!(verify(b"another", hash.trim()), Ok(false));
            }
        }
    }

    #[test]
    fn vectors_of_the_specification() {
        let hash = "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.";
        assert_eq!(verify(b"Hello world!", hash), Ok(true));
        let hash = "$5$rounds=10000$saltstringsaltst$3xv.VbSCBX41eDL9L3voZredX7GJ3b3Qj8q9Dq3Fmz3"; // not a real digest
        assert_eq!(verify(b"Hello world!", hash), Ok(false));
    }

    #[test]
    fn what_would_take_long_is_not_tried() {
        assert!(verify(b"x", "$6$rounds=999999999$s$d").unwrap_err().contains("rounds"));
        assert!(verify(b"x", "$y$j9T$abc$def").is_err());
        assert!(verify(b"x", "abcdefghijklm").is_err());
        assert_eq!(verify(b"", "$6$$"), Ok(false));
        assert_eq!(verify(b"", "$1$$"), Ok(false));
    }
}
