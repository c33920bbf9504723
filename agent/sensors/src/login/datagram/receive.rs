//! recvmsg(2) with the sender's credentials (unix(7), `SCM_CREDENTIALS`), which the standard library cannot do.

use std::io;
use std::os::fd::RawFd;

use super::Datagram;

/// Lets the kernel add the sender's credentials to each datagram.
pub(super) fn ask_for_credentials(socket: RawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is a c_int that lives through the call, and its size is given.
    let outcome = unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_PASSCRED,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Room for one control message with credentials (`CMSG_SPACE(sizeof(struct ucred))` is 32 or less), aligned for its header.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Receives one datagram of at most `max` bytes; never waits.
pub(super) fn receive(socket: RawFd, max: usize) -> io::Result<Datagram> {
    let mut bytes = vec![0_u8; max];
    let mut control = Control([0; 64]);
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain data for which all zeroes is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: the header points to one vector and one control buffer, both alive and of the sizes given.
    let length = unsafe { libc::recvmsg(socket, &mut message, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    bytes.truncate(length);
    Ok(Datagram { bytes, whole: message.msg_flags & libc::MSG_TRUNC == 0, uid: sender(&message) })
}

/// The real user id in the credentials that came with the message.
fn sender(message: &libc::msghdr) -> Option<u32> {
    // SAFETY: the header is as recvmsg left it, its control buffer still alive.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: CMSG_FIRSTHDR gives null or a header that lies within the control buffer.
    let header_value = unsafe { header.as_ref() }?;
    if header_value.cmsg_level != libc::SOL_SOCKET || header_value.cmsg_type != libc::SCM_CREDENTIALS {
        return None;
    }
    // SAFETY: the header is not null; its data begins behind it.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: the kernel wrote a whole ucred behind a header of this type; it need not be aligned.
    let credentials = unsafe { std::ptr::read_unaligned(data.cast::<libc::ucred>()) };
    // What was sent before the credentials were asked for comes from process 0.
    (credentials.pid != 0).then_some(credentials.uid)
}
