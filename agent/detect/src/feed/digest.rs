//! SHA-256 digests, sorted, so that a look-up is one binary search.

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// Digests and where their labels are.
#[derive(Debug, Clone, Default)]
pub(super) struct Digests {
    rows: Vec<(Digest, u32)>,
}

impl Digests {
    pub(super) fn push(&mut self, digest: Digest, label: u32) {
        self.rows.push((digest, label));
    }

    /// Makes look-ups possible. Of equal digests the first stays.
    pub(super) fn finish(&mut self) {
        self.rows.sort_by_key(|row| row.0);
        self.rows.dedup_by(|next, kept| next.0 == kept.0);
        self.rows.shrink_to_fit();
    }

    /// Label of the digest, if it is listed.
    pub(super) fn find(&self, digest: &Digest) -> Option<u32> {
        self.rows.binary_search_by(|row| row.0.cmp(digest)).ok().map(|at| self.rows[at].1)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<(Digest, u32)>()
    }
}

/// The digest that 64 hexadecimal digits spell.
#[must_use]
pub fn from_hex(text: &[u8]) -> Option<Digest> {
    if text.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(digest)
}

/// The digest as 64 hexadecimal digits.
#[must_use]
pub fn to_hex(digest: &Digest) -> String {
    digest
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|n| char::from_digit(n.into(), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_there_and_back() {
        let text = "0123456789abcdefABCDEF00112233445566778899aabbccddeeff0011223344";
        let digest = from_hex(text.as_bytes()).unwrap();
        assert_eq!(to_hex(&digest), text.to_ascii_lowercase());
        assert_eq!(from_hex(&text.as_bytes()[1..]), None);
        assert_eq!(from_hex(text.replace('0', "g").as_bytes()), None);
    }

    #[test]
    fn finds_what_is_listed() {
        let mut all = Digests::default();
        for n in [9u8, 3, 200, 3] {
            all.push([n; 32], n.into());
        }
        all.finish();
        assert_eq!((all.len(), all.find(&[3; 32]), all.find(&[4; 32])), (3, Some(3), None));
    }
}
