//! Network namespaces without a name: one lives as long as someone holds its file descriptor, so nothing is left behind,
//! however this program ends.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process::{self, Command};
use std::thread;

use crate::error::{Error, Result};

/// A network namespace of our own.
#[derive(Debug)]
pub struct Netns(File);

impl Netns {
    /// A new one, with nothing in it but a loopback interface that is down. Needs root.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> Result<Self> {
        // In a thread of its own, which takes the change of its namespace with it into its grave.
        let made = thread::spawn(|| {
            // SAFETY: unshare takes flags only; CLONE_NEWNET changes the calling thread alone.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            File::open("/proc/thread-self/ns/net")
        });
        let file = made.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")));
        file.map(Self).map_err(Error::io("cannot make a network namespace (this needs root)"))
    }

    /// A path by which other programs can name it while this one runs.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd())
    }

    /// A command that will run `program` inside, and be killed when the thread that starts it ends, at the latest with
    /// this program.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path()));
        command.args(["setpriv", "--pdeathsig", "KILL", program]);
        command
    }

    /// Runs `work` in a thread inside. Sockets it makes stay inside, whoever uses them later.
    ///
    /// # Errors
    /// When the namespace cannot be entered; otherwise what `work` returns.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let descriptor = self.0.as_raw_fd();
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                // SAFETY: the descriptor is open: `self` outlives this scope. setns changes the calling thread alone.
                if unsafe { libc::setns(descriptor, libc::CLONE_NEWNET) } != 0 {
                    return Err(Error::io("cannot enter a network namespace")(io::Error::last_os_error()));
                }
                work()
            });
            inside
                .join()
                .unwrap_or_else(|_| Err(Error::Unexpected("work inside a namespace panicked".into())))
        })
    }
}
