//! `defender pam`: called by pam_exec(8) when a session begins or ends, it tells the agent, and never stands in anybody's way.
//!
//! Whatever happens, it ends within [`LIMIT`] and with success: no agent, one that hangs, no socket, no permission, a wrong command line.
//! So neither a stopped agent nor a broken one can lock a user out, whichever control word the PAM line has.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use defender_model::text;
use defender_sensors::login::pam::Items;

use crate::control;
use crate::request::Request;

/// The word on the command line.
pub const WORD: &str = "pam";
/// How long a login is held up at most.
pub const LIMIT: Duration = Duration::from_millis(200);
/// Longest value that is passed on, in bytes.
pub const MAX_VALUE: usize = 256;
/// Where the agent listens unless `--socket` says otherwise.
const RUN: &str = "/run/defender";

/// Tells the agent what the environment says. `arguments` are those after the word.
#[must_use]
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let named = arguments.find(|argument| argument == "--socket").and_then(|_| arguments.next());
    let socket = named.map_or_else(|| PathBuf::from(RUN).join(control::SOCKET_NAME), PathBuf::from);
    let (done, waited) = mpsc::channel();
    // A connection can block, and the wait for it has no limit of its own. The process ends with this thread, not with that one.
    let thread = std::thread::Builder::new().spawn(move || {
        let _ = tell(&socket);
        let _ = done.send(());
    });
    if thread.is_ok() {
        let _ = waited.recv_timeout(LIMIT);
    }
    ExitCode::SUCCESS
}

/// Sends the request, without waiting for its answer: the agent reads it also after this process has ended.
fn tell(socket: &std::path::Path) -> std::io::Result<()> {
    let item = |name: &str| {
        let value = std::env::var_os(name).unwrap_or_default();
        text::truncate(&text::from_bytes(value.as_bytes()), MAX_VALUE).to_owned()
    };
    let items = Items {
        kind: item("PAM_TYPE"),
        user: item("PAM_USER"),
        rhost: item("PAM_RHOST"),
        tty: item("PAM_TTY"),
        service: item("PAM_SERVICE"),
        pid: std::os::unix::process::parent_id(),
    };
    let mut line = serde_json::to_vec(&Request::pam(items))?;
    line.push(b'\n');
    UnixStream::connect(socket)?.write_all(&line)
}
