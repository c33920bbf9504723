//! Lists by number, one behind the other in one block: what thousands of short vectors would take several times the memory for.

/// The lists, each a row.
#[derive(Debug, Default)]
pub(crate) struct Rows<T> {
    /// By row: where it ends, and the next one begins.
    ends: Box<[u32]>,
    items: Box<[T]>,
}

impl<T> Rows<T> {
    /// The rows, each with its items. There are less than 2^32 items.
    pub(crate) fn new(rows: Vec<Vec<T>>) -> Self {
        let mut end = 0;
        let ends = rows.iter().map(|row| {
            end += row.len() as u32;
            end
        });
        Self { ends: ends.collect(), items: rows.into_iter().flatten().collect() }
    }

    /// The items of a row.
    #[inline]
    pub(crate) fn of(&self, row: usize) -> &[T] {
        let from = row.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.items[from..self.ends[row] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_what_they_were() {
        let lists = vec![vec![], vec![1, 2], vec![], vec![3], vec![]];
        let rows = Rows::new(lists.clone());
        for (number, list) in lists.iter().enumerate() {
            assert_eq!(rows.of(number), list);
        }
        assert_eq!(Rows::<u8>::new(Vec::new()).items.len(), 0);
    }
}
