//! The packet filter's ruleset as nft prints it: `nft -j list ruleset`.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Longest ruleset read, in bytes.
const LIMIT: u64 = 4 << 20;

/// The ruleset of the running kernel; `None` when nft is missing, may not ask, or answers too much.
#[must_use]
pub fn read(nft: &Path) -> Option<String> {
    let mut command = Command::new(nft);
    command.args(["-j", "list", "ruleset"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut text = String::new();
    let read = child.stdout.take()?.take(LIMIT + 1).read_to_string(&mut text);
    if text.len() as u64 > LIMIT {
        // It may wait for a reader for ever; that it is gone already is no fault.
        let _ = child.kill();
    }
    let status = child.wait().ok()?;
    (status.success() && read.is_ok() && text.len() as u64 <= LIMIT).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_is_none() {
        assert_eq!(read(Path::new("/nowhere/nft")), None);
        assert_eq!(read(Path::new("/bin/false")), None);
        assert_eq!(read(Path::new("/bin/echo")).as_deref(), Some("-j list ruleset\n"));
    }
}
