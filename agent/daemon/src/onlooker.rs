//! The second process: it finds out which process a socket belongs to, which the agent's own confinement forbids the agent.
//!
//! It is started before anything else of the agent, with nothing but its end of a socket pair, as `defender onlooker`. It may look into
//! other processes (CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH) and has no Landlock domain, which would close that; it has no other
//! capability, and system calls are filtered as in the agent. It ends when the agent does.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use defender_sensors::network::onlooker;

use crate::config::Config;
use crate::confinement::{Capability, Confinement, Setting};

/// The word on the command line.
pub const WORD: &str = "onlooker";

/// Starts it.
///
/// # Errors
/// When no process can be started.
pub fn start(config: &Config) -> io::Result<(UnixStream, Child)> {
    let (near, far) = UnixStream::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(WORD)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(far)))
        .stdout(Stdio::null());
    if config.confinement.drop_privileges {
        command.arg(&config.agent.user);
    }
    std::os::unix::process::CommandExt::arg0(&mut command, "defender");
    Ok((near, command.spawn()?))
}

/// Is it: `user` is who it becomes, none to stay who it is.
#[must_use]
pub fn run(user: Option<OsString>) -> ExitCode {
    let Ok(stream) = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else {
        return ExitCode::FAILURE;
    };
    if let Some(user) = user.and_then(|user| user.into_string().ok()) {
        let confinement = Confinement {
            root: "/".into(),
            user,
            capabilities: vec![Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH],
            child_capabilities: Vec::new(),
            landlock: Setting::Off("it looks at /proc/PID/fd, which a Landlock domain forbids".to_owned()),
            seccomp: Setting::On(()),
        };
        // The agent reports its own confinement; what this process lacks shows there too, but for Landlock.
        let _ = confinement.apply();
    }
    match onlooker::look(stream, Path::new("/proc")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
