//! A netlink socket that reads many datagrams with one system call.
//!
//! The audit stream is one datagram per record, some seven per exec: `recvmmsg(2)` is what keeps the price of a record down. This
//! is the only module of the crate with `unsafe` code for sockets. Sources: netlink(7), recvmmsg(2), linux/netlink.h.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

/// `NETLINK_CONNECTOR`, linux/netlink.h.
pub(crate) const CONNECTOR: i32 = 11;
/// `NETLINK_AUDIT`, linux/netlink.h.
pub(crate) const AUDIT: i32 = 9;
/// `NETLINK_KOBJECT_UEVENT`, linux/netlink.h.
pub(crate) const KOBJECT_UEVENT: i32 = 15;
/// `NETLINK_ROUTE`, linux/netlink.h.
pub(crate) const ROUTE: i32 = 0;
/// `NETLINK_NETFILTER`, linux/netlink.h.
pub(crate) const NETFILTER: i32 = 12;
/// Size of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// `NLMSG_ERROR`: acknowledgement or error.
pub(crate) const ERROR: u16 = 2;
/// `NLMSG_DONE`: end of a dump.
pub(crate) const DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const REQUEST_DUMP: u16 = 0x01 | 0x300;
/// `NLM_F_REQUEST | NLM_F_ACK`.
pub(crate) const REQUEST_ACK: u16 = 0x01 | 0x04;

/// Datagrams taken by one system call.
const BATCH: usize = 32;
/// Longest datagram: `MAX_AUDIT_MESSAGE_LENGTH` (8970, linux/audit.h) and a header, rounded up.
const DATAGRAM: usize = 9216;

/// One netlink message: its type, sequence number and payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// Buffers for one batch, allocated once; the pages beyond a datagram's real length are never touched.
pub(crate) struct Batch {
    storage: Vec<u8>,
    lengths: [usize; BATCH],
    filled: usize,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self { storage: vec![0; BATCH * DATAGRAM], lengths: [0; BATCH], filled: 0 }
    }

    /// A batch without buffers, that stands in for one in use.
    pub(crate) const fn empty() -> Self {
        Self { storage: Vec::new(), lengths: [0; BATCH], filled: 0 }
    }

    /// The messages of the last batch. One datagram is one message: the length field of audit records does not count the header
    /// in the unicast stream and does in the multicast stream (kernel/audit.c), so the datagram's own length is used.
    pub(crate) fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        self.storage
            .chunks_exact(DATAGRAM)
            .zip(self.lengths)
            .take(self.filled)
            .filter(|(_, length)| *length >= HEADER)
            .map(|(datagram, length)| Message {
                kind: u16::from_ne_bytes([datagram[4], datagram[5]]),
                sequence: u32::from_ne_bytes([datagram[8], datagram[9], datagram[10], datagram[11]]),
                payload: &datagram[HEADER..length],
            })
    }

    /// The messages of the last batch where a datagram may hold several of them, each with its true length: everything but audit.
    pub(crate) fn packed(&self) -> impl Iterator<Item = Message<'_>> {
        self.storage
            .chunks_exact(DATAGRAM)
            .zip(self.lengths)
            .take(self.filled)
            .flat_map(|(datagram, length)| Packed { rest: &datagram[..length] })
    }

    /// The datagrams of the last batch as they are, of a protocol whose messages have no header.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let filled = self.storage.chunks_exact(DATAGRAM).zip(self.lengths).take(self.filled);
        filled.filter(|(_, length)| *length > 0).map(|(datagram, length)| &datagram[..length])
    }

    /// The batch was full, so more may wait.
    pub(crate) fn is_full(&self) -> bool {
        self.filled == BATCH
    }
}

/// Messages one after the other, each aligned to four bytes (`NLMSG_ALIGN`). A length that cannot be ends them.
struct Packed<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packed<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = self.rest.first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let payload = self.rest.get(HEADER..length)?;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            payload,
        };
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

/// A non-blocking netlink socket.
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket of the protocol and joins the multicast groups of the mask `groups`.
    pub(crate) fn open(protocol: i32, groups: u32) -> io::Result<Self> {
        let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: socket(2) takes three integers and returns a descriptor or -1.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, flags, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: sockaddr_nl is plain data; all zeroes is its "kernel chooses the port" value.
        let mut address: libc::sockaddr_nl = unsafe { zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = groups;
        // SAFETY: the address lives through the call and its true size is given.
        let bound = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_nl>() as libc::socklen_t,
            )
        };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { fd, sequence: 0 })
    }

    /// Asks for a receive buffer of so many bytes, beyond the system's limit where CAP_NET_ADMIN allows it.
    pub(crate) fn set_receive_buffer(&self, bytes: i32) {
        for option in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
            // SAFETY: the option value is an int that lives through the call, as socket(7) asks.
            let done = unsafe {
                libc::setsockopt(
                    self.fd.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const bytes).cast(),
                    size_of::<i32>() as libc::socklen_t,
                )
            };
            if done == 0 {
                return;
            }
        }
    }

    /// How many datagrams for this socket the kernel had no room for, since it was opened; `None` before Linux 4.12, which does not tell.
    /// It is a 32-bit counter that wraps (`SK_MEMINFO_DROPS` of `SO_MEMINFO`, linux/sock_diag.h).
    fn drops(&self) -> Option<u32> {
        const SO_MEMINFO: libc::c_int = 55;
        const DROPS: usize = 8;
        let mut figures = [0u32; DROPS + 1];
        let mut length = size_of_val(&figures) as libc::socklen_t;
        // SAFETY: the figures live through the call, which is told how many bytes they take.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_MEMINFO,
                figures.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        (result == 0 && length as usize == size_of_val(&figures)).then_some(figures[DROPS])
    }

    /// Sends one request to the kernel and returns its sequence number.
    pub(crate) fn send(&mut self, kind: u16, flags: u16, payload: &[u8]) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let length = u32::try_from(HEADER + payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut message = Vec::with_capacity(HEADER + payload.len());
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&0u32.to_ne_bytes());
        message.extend_from_slice(payload);
        // SAFETY: all zeroes is the kernel's address.
        let mut kernel: libc::sockaddr_nl = unsafe { zeroed() };
        kernel.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        // SAFETY: buffer and address live through the call, with their true sizes.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                message.as_ptr().cast(),
                message.len(),
                0,
                (&raw const kernel).cast(),
                size_of::<libc::sockaddr_nl>() as libc::socklen_t,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(self.sequence)
    }

    /// Fills the batch with what waits. `WouldBlock` when nothing does, `ENOBUFS` when the kernel had to drop datagrams.
    ///
    /// Datagrams that did not come from the kernel (port 0) are left out: with CAP_NET_ADMIN anyone may write to our port.
    pub(crate) fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        batch.filled = 0;
        // SAFETY: all zeroes is a valid value of these plain structures.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut vectors: [libc::iovec; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut senders: [libc::sockaddr_nl; BATCH] = unsafe { zeroed() };
        let parts = headers.iter_mut().zip(&mut vectors).zip(&mut senders);
        for (((header, vector), sender), buffer) in parts.zip(batch.storage.chunks_exact_mut(DATAGRAM)) {
            vector.iov_base = buffer.as_mut_ptr().cast();
            vector.iov_len = DATAGRAM;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = std::ptr::from_mut(sender).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        }
        // SAFETY: every header points at its own buffer, vector and sender, all of which outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        batch.filled = count as usize;
        for ((length, header), sender) in
            batch.lengths.iter_mut().zip(&headers).zip(&senders).take(batch.filled)
        {
            *length = if sender.nl_pid == 0 { (header.msg_len as usize).min(DATAGRAM) } else { 0 };
        }
        Ok(())
    }

    /// Hands what waits to `each`, batch after batch, at most so many of them.
    ///
    /// # Errors
    /// When the socket is of no use any more.
    pub(crate) fn drain(
        &self,
        batch: &mut Batch,
        rounds: usize,
        each: &mut dyn FnMut(&Batch),
    ) -> io::Result<u64> {
        let mut overruns = 0;
        for _ in 0..rounds {
            match self.receive(batch) {
                Ok(()) => {
                    each(batch);
                    if !batch.is_full() {
                        break;
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => overruns += 1,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(overruns)
    }

    /// Puts a file in the place of the socket that cannot be read as one.
    #[cfg(test)]
    pub(crate) fn injure(&self) {
        let null = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: both descriptors are open and owned here and by `self`; the second stays open, as another file.
        assert!(unsafe { libc::dup2(null.as_raw_fd(), self.fd.as_raw_fd()) } >= 0);
    }

    /// Waits for the socket to become readable, at most so long, without holding up the runtime.
    ///
    /// The socket is registered with the runtime only for this wait, so that datagrams which come while nobody waits wake nobody.
    pub(crate) async fn readable(&self, timeout: Duration) -> io::Result<()> {
        // SAFETY: the descriptor is borrowed from `self`, which this future borrows in turn: it stays open until the
        // registration is dropped at the end of this function.
        let watched = unsafe { AsyncFd::register_with_interest(self.fd.as_fd(), Interest::READABLE) };
        let watched = watched.map_err(|refused| refused.into_parts().1)?;
        // Running out of time only means that nothing came.
        let _ = tokio::time::timeout(timeout, watched.readable()).await;
        Ok(())
    }

    /// Holds the thread until the socket becomes readable, at most so long; false when it did not.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
            // SAFETY: one pollfd is given and it lives through the call.
            match unsafe { libc::poll(&raw mut poll, 1, millis) } {
                -1 => {
                    // poll(2) is never restarted after a signal (signal(7)), and children that end send one.
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
                0 => return Ok(false),
                _ => return Ok(true),
            }
        }
    }

    /// Asks for a list and hands every entry of it to `each`. A list longer than the kernel's patience allows is cut.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        payload: &[u8],
        timeout: Duration,
        each: &mut dyn FnMut(Message<'_>),
    ) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        let sequence = self.send(kind, REQUEST_DUMP, payload)?;
        let mut batch = Batch::new();
        loop {
            match self.receive(&mut batch) {
                Ok(()) => {
                    for message in batch.packed().filter(|m| m.sequence == sequence) {
                        match message.kind {
                            DONE => return Ok(()),
                            ERROR => return acknowledgement(message.payload),
                            _ => each(message),
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() || !self.wait(left)? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a request and hands every answer to `each` until it says stop (`true`), or the time is over.
    ///
    /// For control sockets only: what else arrives on the socket is handed to `each` too.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        payload: &[u8],
        timeout: Duration,
        mut each: impl FnMut(Message<'_>) -> io::Result<bool>,
    ) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        let sequence = self.send(kind, flags, payload)?;
        let mut batch = Batch::new();
        loop {
            match self.receive(&mut batch) {
                Ok(()) => {
                    for message in batch.messages().filter(|m| m.sequence == sequence) {
                        if each(message)? {
                            return Ok(());
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() || !self.wait(left)? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// What the kernel dropped of what was for a sensor, over all sockets that it had.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Drops {
    /// The kernel's counter at the last look.
    last: u32,
    total: u64,
}

impl Drops {
    /// Looks at the socket's counter. `overrun`: the kernel has just said that it dropped something, which is at least one where it does
    /// not count.
    pub(crate) fn look(&mut self, socket: &Socket, overrun: bool) {
        match socket.drops() {
            Some(now) => {
                self.total += u64::from(now.wrapping_sub(self.last));
                self.last = now;
            }
            None => self.total += u64::from(overrun),
        }
    }

    /// Another socket, which counts from zero, takes the place of the last one.
    pub(crate) fn renew(&mut self) {
        self.last = 0;
    }

    /// Datagrams dropped.
    pub(crate) const fn total(self) -> u64 {
        self.total
    }
}

/// The error an `NLMSG_ERROR` payload carries; `Ok` for an acknowledgement (code 0).
pub(crate) fn acknowledgement(payload: &[u8]) -> io::Result<()> {
    let code = payload.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes));
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn several_messages_in_a_datagram() {
        let mut bytes = Vec::new();
        for (kind, payload) in [(7u16, &b"abcde"[..]), (8, b""), (9, b"xyz")] {
            bytes.extend((16 + payload.len() as u32).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 2]);
            bytes.extend(u32::from(kind).to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(payload);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let read: Vec<_> =
            Packed { rest: &bytes }.map(|m| (m.kind, m.sequence, m.payload.to_vec())).collect();
        assert_eq!(read, [(7, 7, b"abcde".to_vec()), (8, 8, vec![]), (9, 9, b"xyz".to_vec())]);
        bytes[0] = 15;
        assert_eq!(Packed { rest: &bytes }.count(), 0);
    }

    proptest! {
        #[test]
        fn arbitrary_datagrams_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let count = Packed { rest: &bytes }.count();
            prop_assert!(count <= bytes.len() / HEADER);
        }
    }
}
