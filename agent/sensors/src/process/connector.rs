//! The proc connector: the kernel announces fork, exec and exit; the details are read from `/proc` afterwards.
//!
//! Sources: linux/connector.h, linux/cn_proc.h, Documentation/driver-api/connector.rst. A process that ends before its turn to be
//! read is known by its id alone; that is the weakness of this source, and its events say `connector`.

use std::io;
use std::time::{Duration, Instant};

use defender_model::process::ExitReason;

use crate::netlink::{Batch, Drops, Socket, CONNECTOR};
use crate::process::Unavailable;

const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
const PROC_CN_MCAST_LISTEN: u32 = 1;
const PROC_CN_MCAST_IGNORE: u32 = 2;
const PROC_EVENT_FORK: u32 = 0x0000_0001;
const PROC_EVENT_EXEC: u32 = 0x0000_0002;
const PROC_EVENT_EXIT: u32 = 0x8000_0000;

/// Offset of `struct proc_event` in the payload: after `struct cn_msg` (idx, val, seq, ack: 4 each; len, flags: 2 each).
const EVENT: usize = 20;
/// Offset of its union: after `what`, `cpu` and the 64-bit time stamp.
const DATA: usize = EVENT + 16;

/// What the kernel announced, about whole processes (threads are left out).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announced {
    Fork { parent: u32, child: u32 },
    Exec { pid: u32 },
    Exit { pid: u32, reason: ExitReason },
}

/// Reads one connector message; `None` for other events and for threads.
pub(crate) fn parse(payload: &[u8]) -> Option<Announced> {
    let word = |at: usize| -> Option<u32> {
        payload.get(at..at + 4).map(|bytes| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    if (word(0)?, word(4)?) != (CN_IDX_PROC, CN_VAL_PROC) {
        return None;
    }
    match word(EVENT)? {
        PROC_EVENT_FORK => {
            // parent_pid, parent_tgid, child_pid, child_tgid: a new thread shares its group's id.
            let (parent, child, group) = (word(DATA + 4)?, word(DATA + 8)?, word(DATA + 12)?);
            (child == group).then_some(Announced::Fork { parent, child })
        }
        PROC_EVENT_EXEC => Some(Announced::Exec { pid: word(DATA + 4)? }),
        PROC_EVENT_EXIT => {
            let (pid, group, status) = (word(DATA)?, word(DATA + 4)?, word(DATA + 8)?);
            (pid == group).then_some(Announced::Exit { pid, reason: wait_status(status) })
        }
        _ => None,
    }
}

/// The status wait(2) would give: signal in the low seven bits, else exit code in the next byte.
pub(crate) fn wait_status(status: u32) -> ExitReason {
    let [low, high, ..] = status.to_le_bytes();
    match low & 0x7f {
        0 => ExitReason::Code(high),
        signal => ExitReason::Signal(signal),
    }
}

/// The subscription.
pub(crate) struct Connector {
    socket: Socket,
    batch: Batch,
    drops: Drops,
    /// Whatever was announced by then was read.
    heard: Instant,
}

impl Connector {
    /// Subscribes.
    ///
    /// # Errors
    /// [`Unavailable`] with the cause.
    pub(crate) fn open(receive_buffer: i32) -> Result<Self, Unavailable> {
        let mut socket = Socket::open(CONNECTOR, CN_IDX_PROC).map_err(|error| explain(&error))?;
        socket.set_receive_buffer(receive_buffer);
        socket.send(DONE, 0, &operation(PROC_CN_MCAST_LISTEN)).map_err(|error| explain(&error))?;
        let mut this = Self { socket, batch: Batch::new(), drops: Drops::default(), heard: Instant::now() };
        this.confirm()?;
        Ok(this)
    }

    /// The kernel answers the subscription with an event of its own (`PROC_EVENT_NONE`) that carries an error number; outside the
    /// initial PID and user namespaces it does not answer at all.
    fn confirm(&mut self) -> Result<(), Unavailable> {
        let patience = Duration::from_millis(500);
        match self.socket.wait(patience) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Unavailable::new(
                "the proc connector does not answer: it works in the initial PID and user namespaces only",
            )),
            Err(error) => Err(explain(&error)),
        }
    }

    /// Waits for announcements, at most so long.
    ///
    /// # Errors
    /// When the socket cannot be waited for.
    pub(crate) async fn readable(&self, timeout: Duration) -> Result<(), Unavailable> {
        self.socket.readable(timeout).await.map_err(|error| explain(&error))
    }

    /// Appends what waits. True when the kernel had to drop announcements.
    ///
    /// # Errors
    /// When the socket fails for good.
    pub(crate) fn drain(&mut self, out: &mut Vec<Announced>) -> Result<bool, Unavailable> {
        let mut overrun = false;
        let began = Instant::now();
        for _ in 0..64 {
            match self.socket.receive(&mut self.batch) {
                Ok(()) => {
                    out.extend(self.batch.messages().filter_map(|message| parse(message.payload)));
                    if !self.batch.is_full() {
                        self.heard = began;
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.heard = began;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    overrun = true;
                    self.drops.look(&self.socket, true);
                }
                Err(error) => return Err(explain(&error)),
            }
        }
        Ok(overrun)
    }

    /// All that was announced before was read.
    pub(crate) const fn heard(&self) -> Instant {
        self.heard
    }

    /// Announcements that the kernel had no room for.
    pub(crate) const fn lost(&self) -> u64 {
        self.drops.total()
    }

    /// Unsubscribes, so that the kernel stops making announcements for nobody.
    pub(crate) fn close(mut self) {
        let _ = self.socket.send(DONE, 0, &operation(PROC_CN_MCAST_IGNORE));
    }
}

/// `NLMSG_DONE`: the connector's messages carry this type in both directions.
const DONE: u16 = crate::netlink::DONE;

/// `struct cn_msg` with a `enum proc_cn_mcast_op`.
fn operation(operation: u32) -> [u8; 24] {
    let mut message = [0; 24];
    message[..4].copy_from_slice(&CN_IDX_PROC.to_ne_bytes());
    message[4..8].copy_from_slice(&CN_VAL_PROC.to_ne_bytes());
    message[16..18].copy_from_slice(&4u16.to_ne_bytes());
    message[20..].copy_from_slice(&operation.to_ne_bytes());
    message
}

fn explain(error: &io::Error) -> Unavailable {
    let reason = match error.raw_os_error() {
        Some(libc::EPROTONOSUPPORT | libc::ECONNREFUSED | libc::ENOENT) => {
            "the kernel lacks CONFIG_PROC_EVENTS (or this is not its initial network namespace)"
        }
        Some(libc::EPERM | libc::EACCES) => "not permitted: CAP_NET_ADMIN is needed",
        _ => return Unavailable::new(format!("proc connector: {error}")),
    };
    Unavailable::new(format!("proc connector: {error}: {reason}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(what: u32, data: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; DATA];
        bytes[..4].copy_from_slice(&1u32.to_ne_bytes());
        bytes[4..8].copy_from_slice(&1u32.to_ne_bytes());
        bytes[EVENT..EVENT + 4].copy_from_slice(&what.to_ne_bytes());
        bytes.extend(data.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    }

    #[test]
    fn tells_processes_from_threads() {
        assert_eq!(
            parse(&message(PROC_EVENT_FORK, &[7, 7, 9, 9])),
            Some(Announced::Fork { parent: 7, child: 9 })
        );
        assert_eq!(parse(&message(PROC_EVENT_FORK, &[7, 7, 9, 7])), None);
        assert_eq!(parse(&message(PROC_EVENT_EXEC, &[10, 9])), Some(Announced::Exec { pid: 9 }));
        assert_eq!(parse(&message(PROC_EVENT_EXIT, &[10, 9, 0, 17])), None);
    }

    #[test]
    fn reads_how_it_ended() {
        let exit = |status| parse(&message(PROC_EVENT_EXIT, &[9, 9, status, 17]));
        assert_eq!(exit(3 << 8), Some(Announced::Exit { pid: 9, reason: ExitReason::Code(3) }));
        assert_eq!(exit(9), Some(Announced::Exit { pid: 9, reason: ExitReason::Signal(9) }));
        assert_eq!(exit(0x80 | 11), Some(Announced::Exit { pid: 9, reason: ExitReason::Signal(11) }));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&bytes);
        }
    }
}
