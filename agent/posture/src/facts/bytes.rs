//! Looking for bytes among bytes.

/// Where `wanted` first is in `bytes`.
pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    // The C library's search is many times faster than what a build for size makes of a loop.
    // SAFETY: both lengths are those of the slices, which are only read.
    let found =
        unsafe { libc::memmem(bytes.as_ptr().cast(), bytes.len(), wanted.as_ptr().cast(), wanted.len()) };
    (!found.is_null()).then(|| found as usize - bytes.as_ptr() as usize)
}

#[cfg(test)]
mod tests {
    use super::find;

    proptest::proptest! {
        #[test]
        fn agrees_with_the_definition(bytes in "[ab]{0,20}", wanted in "[ab]{1,4}") {
            proptest::prop_assert_eq!(find(bytes.as_bytes(), wanted.as_bytes()), bytes.find(&wanted));
        }
    }
}
