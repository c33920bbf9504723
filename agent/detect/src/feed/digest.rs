//! SHA-256 digests, sorted, so that a look-up is one binary search.

use defender_model::file::Sha256;

/// Digests and where their labels are.
#[derive(Debug, Clone, Default)]
pub(super) struct Digests {
    rows: Vec<([u8; 32], u32)>,
}

impl Digests {
    pub(super) fn push(&mut self, digest: Sha256, label: u32) {
        self.rows.push((digest.0, label));
    }

    /// Makes look-ups possible. Of equal digests the first stays.
    pub(super) fn finish(&mut self) {
        self.rows.sort_by_key(|row| row.0);
        self.rows.dedup_by(|next, kept| next.0 == kept.0);
        self.rows.shrink_to_fit();
    }

    /// Label of the digest, if it is listed.
    pub(super) fn find(&self, digest: Sha256) -> Option<u32> {
        self.rows.binary_search_by(|row| row.0.cmp(&digest.0)).ok().map(|at| self.rows[at].1)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<([u8; 32], u32)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_listed() {
        let mut all = Digests::default();
        for n in [9u8, 3, 200, 3] {
            all.push(Sha256([n; 32]), n.into());
        }
        all.finish();
        assert_eq!((all.len(), all.find(Sha256([3; 32])), all.find(Sha256([4; 32]))), (3, Some(3), None));
    }
}
