//! The control channel: commands for the guest that do not travel over the attacked network.
//!
//! The host's end is the standard input and output of QEMU, connected to a virtio-serial port; the guest's end is
//! `control-agent`. One command at a time.

pub mod wire;

use std::io::{BufReader, Read, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use wire::Message;

/// How much longer than the guest the host waits for an answer.
const GRACE: Duration = Duration::from_secs(15);

/// How a command in the guest ended.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Exit status; 124 when its time was over.
    pub status: i32,
    /// Standard output, invalid UTF-8 replaced.
    pub output: String,
    /// Standard error, likewise.
    pub error: String,
}

/// The host's end.
pub struct Control {
    to: Box<dyn Write + Send>,
    from: Receiver<Message>,
    next: u64,
}

impl Control {
    /// Over the given streams, which must be those of the port.
    pub fn new(to: impl Write + Send + 'static, from: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut from = BufReader::with_capacity(256 << 10, from);
            // Ends with the stream, or when nobody listens any more.
            while let Ok(Some(message)) = Message::read(&mut from) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        Self { to: Box::new(to), from: receiver, next: 1 }
    }

    /// Asks whether the guest listens, for at most `limit`. `Ok(false)`: not yet.
    ///
    /// # Errors
    /// When the machine is gone.
    pub fn sync(&mut self, limit: Duration) -> Result<bool> {
        let nonce = self.next_number();
        self.send(&Message::Syn(nonce))?;
        Ok(self.wait(limit, |message| (*message == Message::Ack(nonce)).then_some(()))?.is_some())
    }

    /// Runs a shell command in the guest, as root, at most `limit`.
    ///
    /// # Errors
    /// When the machine is gone or its agent does not answer. A command that fails is not an error here.
    pub fn run(&mut self, command: &str, input: &[u8], limit: Duration) -> Result<Reply> {
        let id = self.next_number();
        let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.send(&Message::Run {
            id,
            milliseconds,
            command: command.as_bytes().to_vec(),
            input: input.to_vec(),
        })?;
        let reply = self.wait(limit + GRACE, |message| match message {
            Message::End { id: of, status, output, error } if *of == id => Some(Reply {
                status: *status,
                output: String::from_utf8_lossy(output).into_owned(),
                error: String::from_utf8_lossy(error).into_owned(),
            }),
            _ => None,
        })?;
        reply.ok_or_else(|| Error::TimedOut {
            what: format!("the guest's answer to `{command}`"),
            after: limit + GRACE,
            seen: String::new(),
        })
    }

    fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn send(&mut self, message: &Message) -> Result<()> {
        message
            .write(&mut self.to)
            .map_err(|error| Error::Machine(format!("control channel closed: {error}")))
    }

    /// Answers to earlier questions that were given up are passed over.
    fn wait<T>(&mut self, limit: Duration, wanted: impl Fn(&Message) -> Option<T>) -> Result<Option<T>> {
        let deadline = Instant::now() + limit;
        loop {
            match self.from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(message) => {
                    if let Some(found) = wanted(&message) {
                        return Ok(Some(found));
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Machine("it is gone".into())),
            }
        }
    }
}
