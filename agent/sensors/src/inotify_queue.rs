//! inotify's queue on the runtime.

use std::io;

use inotify::{Events, Inotify, Watches};
use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

/// An inotify instance whose queue can be waited for.
#[derive(Debug)]
pub(crate) struct Queue {
    inotify: AsyncFd<Inotify>,
}

impl Queue {
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = Inotify::init()?;
        // SAFETY: an Inotify owns one descriptor, which it opens when it is made, always returns and closes when it is dropped;
        // the AsyncFd owns the Inotify and never gives it away.
        let inotify = unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) }?;
        Ok(Self { inotify })
    }

    pub(crate) fn watches(&self) -> Watches {
        self.inotify.get_ref().watches()
    }

    /// Waits for news. The caller then reads all there is, for it is announced only once.
    pub(crate) async fn wait(&mut self) -> io::Result<()> {
        self.inotify.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// Some of what there is; fails with `WouldBlock` when there is no more.
    pub(crate) fn read<'a>(&mut self, buffer: &'a mut [u8]) -> io::Result<Events<'a>> {
        self.inotify.get_mut().read_events(buffer)
    }

    /// Puts a file in the place of the descriptor that cannot be read as inotify's.
    #[cfg(test)]
    pub(crate) fn injure(&self) {
        use std::os::fd::AsRawFd;
        let null = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: both descriptors are open and owned here and by `self`; the second stays open, as another file.
        assert!(unsafe { libc::dup2(null.as_raw_fd(), self.inotify.as_raw_fd()) } >= 0);
    }
}
