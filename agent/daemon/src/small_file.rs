//! Small files: read whole within a bound, and replaced whole.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// The bytes of a file of at most `most` bytes.
///
/// # Errors
/// It cannot be read, or is longer; the words say which.
pub(crate) fn read(file: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than is taken shows that it is too long.
    File::open(file)?.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::other(format!("longer than {most} bytes"))),
        false => Ok(bytes),
    }
}

/// Puts new content in the place of a file's, so that a reader, and the next boot after a loss of power, finds the old or the new.
///
/// # Errors
/// The file beside it (`.new`) cannot be written, or not take its place.
pub(crate) fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut open = File::create(&new)?;
    open.write_all(content)?;
    // Without it some file systems (UBIFS, F2FS) may have the rename on flash before the content: an empty file.
    open.sync_data()?;
    fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_bound_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("state");
        replace(&file, b"before").unwrap();
        replace(&file, b"after").unwrap();
        assert_eq!(read(&file, 5).unwrap(), b"after");
        assert_eq!(read(&file, 4).unwrap_err().to_string(), "longer than 4 bytes");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
        assert_eq!(read(&directory.path().join("none"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
