//! Running `nft`: bounded in time and output, killed when either bound is passed.
//!
//! The crate `nftables` has a runner of its own; it lets a hung child live on after a time-out, leaves standard error (the
//! only place where `nft` names the cause) unread, and puts no bound on output, so this module starts the child itself and
//! the crate supplies the schema of what is sent.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::error::Error;
use crate::ruleset::FAMILY;

/// Most bytes taken from `nft`: two sets of 65,536 IPv6 elements fit.
const MAX_OUTPUT: usize = 16 << 20;
/// Most bytes of complaint taken.
const MAX_COMPLAINT: usize = 16 << 10;
/// How long a killed child may take to be gone.
const REAP: Duration = Duration::from_secs(1);

/// The `nft` program and the bound on each run of it.
#[derive(Clone, Debug)]
pub(crate) struct Nft {
    path: PathBuf,
    bound: Duration,
}

impl Nft {
    pub(crate) fn new(path: PathBuf, bound: Duration) -> Self {
        Self { path, bound }
    }

    /// One transaction: everything in the document, or nothing.
    pub(crate) async fn apply(&self, document: &str, doing: &'static str) -> Result<(), Error> {
        // "-" makes nft open /dev/stdin, a link that a small image need not have; this is what it points to.
        let ended = self.run(&["-j", "-f", "/proc/self/fd/0"], document.as_bytes(), doing).await?;
        if ended.status.success() {
            Ok(())
        } else {
            Err(classify(&self.path, doing, ended.status, &ended.complaint))
        }
    }

    /// The JSON listing of a table of ours, `None` when there is none. Other tables are never asked for.
    pub(crate) async fn list(&self, table: &str) -> Result<Option<Vec<u8>>, Error> {
        let doing = "listing the table";
        let ended = self.run(&["-j", "list", "table", FAMILY, table], b"", doing).await?;
        if ended.status.success() {
            return Ok(Some(ended.output));
        }
        match classify(&self.path, doing, ended.status, &ended.complaint) {
            Error::NftFailed { detail, .. } if detail.contains("No such file or directory") => Ok(None),
            other => Err(other),
        }
    }

    async fn run(&self, arguments: &[&str], input: &[u8], doing: &'static str) -> Result<Ended, Error> {
        let mut child = Command::new(&self.path)
            .args(arguments)
            // Messages are matched, so they must not be translated; nothing else of our environment concerns nft.
            .env_clear()
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A caller that drops the future must not leave a child behind.
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => Error::NftMissing { path: self.path.clone() },
                _ => Error::NftNotStarted { path: self.path.clone(), source },
            })?;
        if let Some(pid) = child.id() {
            crate::own::note(pid);
        }
        let result = timeout(self.bound, converse(&mut child, input, doing)).await;
        if matches!(result, Ok(Ok(_))) {
            return result.unwrap_or(Err(Error::Timeout { doing, after: self.bound }));
        }
        // Already gone is as good as killed.
        let _ = child.start_kill();
        if timeout(REAP, child.wait()).await.is_err() {
            tracing::warn!("a killed nft does not end; it is left to the runtime to reap");
        }
        result.unwrap_or(Err(Error::Timeout { doing, after: self.bound }))
    }
}

struct Ended {
    status: ExitStatus,
    output: Vec<u8>,
    complaint: Vec<u8>,
}

async fn converse(child: &mut Child, input: &[u8], doing: &'static str) -> Result<Ended, Error> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async move {
        if let Some(mut stdin) = stdin {
            // A child that ends without reading closes the pipe; its status and complaint say why.
            let _ = stdin.write_all(input).await;
        }
    };
    let (_, output, complaint) = tokio::join!(write, read(stdout, MAX_OUTPUT), read(stderr, MAX_COMPLAINT));
    let Some(output) = output else {
        return Err(Error::BadOutput { doing, cause: format!("more than {MAX_OUTPUT} bytes") });
    };
    let status = child
        .wait()
        .await
        .map_err(|e| Error::BadOutput { doing, cause: format!("its end could not be waited for: {e}") })?;
    // A long complaint is cut: the first lines name the cause.
    Ok(Ended { status, output, complaint: complaint.unwrap_or_else(|| b"(a very long complaint)".to_vec()) })
}

/// Everything up to the end, `None` when that is more than `limit`. The pipe is closed either way.
async fn read(pipe: Option<impl AsyncRead + Unpin>, limit: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // A read error ends the output; what is missing fails to parse.
        let _ = pipe.take(limit as u64 + 1).read_to_end(&mut bytes).await;
    }
    (bytes.len() <= limit).then_some(bytes)
}

/// Which error a failed run is, from the messages of libnftables, libmnl and strerror(3).
fn classify(path: &Path, doing: &'static str, status: ExitStatus, complaint: &[u8]) -> Error {
    let text = String::from_utf8_lossy(complaint);
    let detail = first_words(&text);
    let says = |needle: &str| text.contains(needle);
    if says("JSON support not compiled-in") {
        Error::NftWithoutJson { path: path.to_path_buf() }
    } else if says("Operation not permitted") || says("Permission denied") {
        Error::PermissionDenied { doing, detail }
    } else if says("Unable to initialize Netlink socket")
        || says("Protocol not supported")
        || says("Address family not supported")
        || says("cache initialization failed: Invalid argument")
    {
        Error::KernelUnsupported { detail }
    } else if says("Too many open files in system") {
        // ENFILE is what the kernel answers when a set's declared size is reached.
        Error::SetFull { detail }
    } else {
        Error::NftFailed { doing, status: status.to_string(), detail }
    }
}

/// The first non-empty line, printable and short.
fn first_words(text: &str) -> String {
    let line = text.lines().find(|l| !l.trim().is_empty()).unwrap_or("no message").trim();
    line.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn kind(complaint: &str) -> Error {
        classify(Path::new("/usr/sbin/nft"), "blocking", ExitStatus::from_raw(256), complaint.as_bytes())
    }

    #[test]
    fn messages_of_nft() {
        assert!(matches!(kind("JSON support not compiled-in\n"), Error::NftWithoutJson { .. }));
        assert!(matches!(
            kind("Operation not permitted (you must be root)\nnetlink: Error: cache initialization failed: Operation not permitted\n"),
            Error::PermissionDenied { .. }
        ));
        for text in [
            "nft: Unable to initialize Netlink socket: Protocol not supported\n",
            "netlink: Error: cache initialization failed: Invalid argument\n",
            "Error: Could not process rule: Address family not supported by protocol\n",
        ] {
            assert!(matches!(kind(text), Error::KernelUnsupported { .. }), "{text}");
        }
        assert!(matches!(
            kind("internal:0:0-0: Error: Could not process rule: Too many open files in system\n"),
            Error::SetFull { .. }
        ));
        match kind(
            "\n internal:0:0-0: Error: Could not process rule: No such file or directory\u{1b}[31m\n\n",
        ) {
            Error::NftFailed { detail, status, .. } => {
                assert_eq!(
                    detail,
                    "internal:0:0-0: Error: Could not process rule: No such file or directory [31m"
                );
                assert_eq!(status, "exit status: 1");
            }
            other => panic!("{other:?}"),
        }
    }
}
