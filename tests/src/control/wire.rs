//! What host and guest say to each other over the control port, and how.
//!
//! A message is one header line of ASCII words, then as many raw bytes as the header announces. A header that is not
//! understood is skipped, and `SYN nonce` is answered by `ACK nonce`, so that both ends find each other again after one of
//! them gave up in the middle of a message.
//!
//! | Line | Direction | Meaning |
//! |---|---|---|
//! | `SYN nonce` | host → guest | are you there? |
//! | `ACK nonce` | guest → host | yes |
//! | `RUN id milliseconds command-length input-length` | host → guest | run a shell command within this time |
//! | `END id status output-length error-length` | guest → host | it ended so |
//!
//! This file is also compiled into the guest's `control-agent`, which is why it needs nothing but `std`.

use std::io::{self, BufRead, Read, Write};

/// Name of the virtio-serial port both ends open.
pub const PORT: &str = "org.defender.validation";

/// Longest header line that is read before it is thrown away, bytes.
const MAX_HEADER: u64 = 200;

/// Largest command, input or output that is sent in one message, bytes.
pub const MAX_BODY: usize = 64 << 20;

/// Status reported for a command that was killed because its time was over (the same as `timeout(1)` uses).
pub const STATUS_TIMED_OUT: i32 = 124;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Are you there?
    Syn(u64),
    /// Yes.
    Ack(u64),
    /// Run `command` by `/bin/sh -c` with `input` on its standard input.
    Run {
        /// Chosen by the host, repeated in the answer.
        id: u64,
        /// After so many milliseconds the command and its process group are killed.
        milliseconds: u64,
        /// The shell command.
        command: Vec<u8>,
        /// Its standard input.
        input: Vec<u8>,
    },
    /// A command ended.
    End {
        /// Of the request.
        id: u64,
        /// Exit status; 128 + N if signal N ended it; [`STATUS_TIMED_OUT`].
        status: i32,
        /// Standard output.
        output: Vec<u8>,
        /// Standard error.
        error: Vec<u8>,
    },
}

impl Message {
    /// Writes the message in one go.
    ///
    /// # Errors
    /// When the port cannot be written.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let (header, first, second): (String, &[u8], &[u8]) = match self {
            Self::Syn(nonce) => (format!("\nSYN {nonce}\n"), &[], &[]),
            Self::Ack(nonce) => (format!("\nACK {nonce}\n"), &[], &[]),
            Self::Run { id, milliseconds, command, input } => {
                (format!("\nRUN {id} {milliseconds} {} {}\n", command.len(), input.len()), command, input)
            }
            Self::End { id, status, output, error } => {
                (format!("\nEND {id} {status} {} {}\n", output.len(), error.len()), output, error)
            }
        };
        let mut bytes = header.into_bytes();
        bytes.extend_from_slice(first);
        bytes.extend_from_slice(second);
        to.write_all(&bytes)?;
        to.flush()
    }

    /// Reads up to and including the next message. `Ok(None)` at the end of the input (for a virtio port: the other
    /// end is not connected).
    ///
    /// # Errors
    /// When the port cannot be read, or ends inside a message.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        loop {
            let mut line = Vec::new();
            if from.by_ref().take(MAX_HEADER).read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            let Some(header) = Header::parse(&line) else { continue };
            let mut body = |length: usize| -> io::Result<Vec<u8>> {
                let mut bytes = vec![0; length];
                from.read_exact(&mut bytes)?;
                Ok(bytes)
            };
            return Ok(Some(match header {
                Header::Syn(nonce) => Self::Syn(nonce),
                Header::Ack(nonce) => Self::Ack(nonce),
                Header::Run(id, milliseconds, command, input) => {
                    Self::Run { id, milliseconds, command: body(command)?, input: body(input)? }
                }
                Header::End(id, status, output, error) => {
                    Self::End { id, status, output: body(output)?, error: body(error)? }
                }
            }));
        }
    }
}

enum Header {
    Syn(u64),
    Ack(u64),
    Run(u64, u64, usize, usize),
    End(u64, i32, usize, usize),
}

impl Header {
    fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
        let words: Vec<&str> = line.split(' ').collect();
        let length = |word: &str| word.parse().ok().filter(|length: &usize| *length <= MAX_BODY);
        match words[..] {
            ["SYN", nonce] => Some(Self::Syn(nonce.parse().ok()?)),
            ["ACK", nonce] => Some(Self::Ack(nonce.parse().ok()?)),
            ["RUN", id, milliseconds, command, input] => Some(Self::Run(
                id.parse().ok()?,
                milliseconds.parse().ok()?,
                length(command)?,
                length(input)?,
            )),
            ["END", id, status, output, error] => {
                Some(Self::End(id.parse().ok()?, status.parse().ok()?, length(output)?, length(error)?))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(message: &Message) {
        let mut bytes = Vec::new();
        message.write(&mut bytes).expect("a Vec can be written");
        assert_eq!(Message::read(&mut bytes.as_slice()).expect("whole message"), Some(message.clone()));
    }

    #[test]
    fn every_message_survives_the_wire() {
        round_trip(&Message::Syn(7));
        round_trip(&Message::Ack(u64::MAX));
        round_trip(&Message::Run {
            id: 1,
            milliseconds: 2,
            command: b"a\nb".to_vec(),
            input: vec![0, 255, b'\n'],
        });
        round_trip(&Message::End { id: 1, status: -1, output: b"END 1 0 0 0\n".to_vec(), error: vec![] });
    }

    #[test]
    fn noise_before_a_message_is_skipped() {
        let mut bytes = b"half an answer END 3\nEND x y z\nEND 1 0 99999999999 0\n".to_vec();
        bytes.extend(vec![b'x'; 1000]);
        Message::Ack(5).write(&mut bytes).expect("a Vec can be written");
        assert_eq!(Message::read(&mut bytes.as_slice()).expect("found"), Some(Message::Ack(5)));
    }

    #[test]
    fn a_message_cut_short_is_an_error_and_silence_is_none() {
        assert!(Message::read(&mut &b"\nEND 1 0 5 0\nabc"[..]).is_err());
        assert_eq!(Message::read(&mut &b""[..]).expect("silence"), None);
    }
}
