//! The command line's end of the control socket: synchronous, and every wait has an end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::GROUP;
use crate::request::{Reply, Request};

/// How long the agent may take to accept the connection: its clients before us are gone by then.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the reply may take in all, longer than the server gives the pipeline.
const ANSWER: Duration = Duration::from_secs(40);
/// Longest reply, in bytes: many times what the agent keeps of events.
const MAX_REPLY: u64 = 64 << 20;

/// Why there is no reply.
#[derive(Debug)]
pub enum Error {
    /// Nobody listens at the socket, or there is none.
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket's mode, or that of its directory, keeps the caller out.
    Denied {
        /// The socket.
        socket: PathBuf,
    },
    /// The agent is there and does not answer.
    TimedOut {
        /// The socket.
        socket: PathBuf,
    },
    /// The connection failed or broke.
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What the kernel says.
        cause: io::Error,
    },
    /// What came is not a reply.
    NotAReply {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotRunning { socket } => write!(
                f,
                "the agent is not running: nobody listens at {}; start it with its init script or unit, or with \
                 `defender run`",
                socket.display()
            ),
            Self::Denied { socket } => write!(
                f,
                "permission denied at {}: only root and members of group {GROUP} may ask the agent",
                socket.display()
            ),
            Self::TimedOut { socket } => {
                write!(
                    f,
                    "the agent at {} does not answer; its log may say why, restarting it may help",
                    socket.display()
                )
            }
            Self::Broken { socket, cause } => {
                write!(f, "asking the agent at {} failed: {cause}; try again", socket.display())
            }
            Self::NotAReply { socket, cause } => write!(
                f,
                "the agent at {} sent what is not a reply ({cause}); agent and command line may be of different versions",
                socket.display()
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Broken { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

/// Asks the agent that listens at `socket`.
///
/// # Errors
/// When there is no reply; a request that was refused or failed is a reply.
pub fn ask(socket: &Path, request: &Request) -> Result<Reply, Error> {
    let named = || socket.to_owned();
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NotRunning { socket: named() },
        io::ErrorKind::PermissionDenied => Error::Denied { socket: named() },
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::TimedOut { socket: named() },
        _ => Error::Broken { socket: named(), cause },
    };
    let mut stream = connect(socket).map_err(failed)?;
    let end = Instant::now() + ANSWER;
    stream.set_write_timeout(Some(CONNECT)).map_err(failed)?;
    let not_a_reply = |cause: String| Error::NotAReply { socket: named(), cause };
    let mut line = serde_json::to_vec(request).map_err(|error| not_a_reply(error.to_string()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    let reply = read_line(stream, end).map_err(failed)?;
    if reply.last() != Some(&b'\n') {
        return Err(match reply.len() as u64 {
            MAX_REPLY => not_a_reply(format!("longer than {MAX_REPLY} bytes")),
            _ => failed(io::ErrorKind::UnexpectedEof.into()),
        });
    }
    Reply::from_json(&reply).map_err(not_a_reply)
}

/// connect(2) waits for a place in the listener's queue for ever, and the standard library has no bound for it, so a thread waits
/// in our stead. It is left behind if the wait ends without it; the process of a query is short-lived.
fn connect(socket: &Path) -> io::Result<UnixStream> {
    let (connected, connection) = mpsc::sync_channel(1);
    let path = socket.to_owned();
    std::thread::Builder::new().name("connect".into()).spawn(move || {
        // Nobody waits any more: the connection is closed again.
        let _ = connected.send(UnixStream::connect(path));
    })?;
    connection.recv_timeout(CONNECT).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Reads up to the first line end, the end of the stream, or the bound.
fn read_line(stream: UnixStream, end: Instant) -> io::Result<Vec<u8>> {
    let mut reply = Vec::new();
    let mut reader = BufReader::new(stream);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // Each read has a bound of its own, so that an agent that sends a byte now and then does not hold us for ever.
        reader.get_ref().set_read_timeout(Some(left))?;
        let room = MAX_REPLY - reply.len() as u64;
        let available = match reader.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let taken = available.take(room).read_until(b'\n', &mut reply)?;
        reader.consume(taken);
        if taken == 0 || reply.last() == Some(&b'\n') {
            return Ok(reply);
        }
    }
}
