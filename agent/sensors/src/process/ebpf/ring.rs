//! The kernel's ring buffer, read through its mappings. Source: Documentation/bpf/ringbuf.rst.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{fence, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

/// In front of each record: its length with the two flags, and a word of the kernel's.
const HEADER: usize = 8;
/// The record is being written.
const BUSY: u32 = 1 << 31;
/// It was given up.
const DISCARDED: u32 = 1 << 30;

/// A shared mapping of a map's memory.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the value, and is the same in every thread.
unsafe impl Send for Mapping {}
// SAFETY: what is shared of it are atomic numbers.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn new(map: &OwnedFd, writable: bool, offset: usize, length: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                access,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        match NonNull::new(start.cast()) {
            Some(_) if start == libc::MAP_FAILED => Err(io::Error::last_os_error()),
            Some(start) => Ok(Self { start, length }),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn at(&self, offset: usize, length: usize) -> *const u8 {
        assert!(offset.checked_add(length).is_some_and(|end| end <= self.length));
        // SAFETY: within the mapping, as just checked.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// The 64-bit number of that index. On a 32-bit machine its lower half: to load all of it at once, some of those would write to the
    /// mapping, which is not writable.
    pub(crate) fn number(&self, index: usize) -> usize {
        // SAFETY: mappings are aligned to pages, and `at` checks the bounds; the other side writes it atomically too.
        unsafe { &*self.at(8 * index, 8).cast::<AtomicUsize>() }.load(Ordering::Relaxed)
    }

    /// A position: an `unsigned long` at the start of the mapping.
    fn position(&self) -> &AtomicUsize {
        // SAFETY: as above.
        unsafe { &*self.at(0, size_of::<usize>()).cast::<AtomicUsize>() }
    }

    fn header(&self, offset: usize) -> u32 {
        // SAFETY: records are aligned to eight bytes, and the kernel writes their headers atomically.
        unsafe { &*self.at(offset, 4).cast::<AtomicU32>() }.load(Ordering::Acquire)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping, which nobody refers to any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// A ring buffer's reading end.
pub(crate) struct Ring {
    map: OwnedFd,
    /// How far was read; ours to write.
    consumer: Mapping,
    /// How far was written, then, after a page, the data twice in a row, so that no record has a seam.
    producer: Mapping,
    page: usize,
    size: usize,
}

impl Ring {
    pub(crate) fn new(map: OwnedFd, size: usize) -> io::Result<Self> {
        let page = page();
        let consumer = Mapping::new(&map, true, 0, page)?;
        let producer = Mapping::new(&map, false, page, page + 2 * size)?;
        Ok(Self { map, consumer, producer, page, size })
    }

    /// Waits for records, at most so long. The ring is watched only during this wait: what comes while nobody waits wakes nobody.
    pub(crate) async fn readable(&self, timeout: Duration) -> io::Result<()> {
        // SAFETY: the descriptor is borrowed from `self`, which this future borrows in turn: it stays open until the
        // registration is dropped at the end of this function.
        let watched = unsafe { AsyncFd::register_with_interest(self.map.as_fd(), Interest::READABLE) };
        let watched = watched.map_err(|refused| refused.into_parts().1)?;
        // Running out of time only means that nothing came.
        let _ = tokio::time::timeout(timeout, watched.readable()).await;
        Ok(())
    }

    /// It is time to read.
    pub(crate) fn half_full(&self) -> bool {
        let written = self.producer.position().load(Ordering::Acquire);
        written.wrapping_sub(self.consumer.position().load(Ordering::Relaxed)) > self.size / 2
    }

    /// Hands over each record that is there, oldest first, until `take` says that it is enough, but no more than the ring holds at
    /// once.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(&[u8]) -> bool) {
        let mut position = self.consumer.position().load(Ordering::Relaxed);
        let written = self.producer.position().load(Ordering::Acquire);
        let mut more = true;
        while more && position != written {
            let offset = self.page + (position & (self.size - 1));
            let header = self.producer.header(offset);
            if header & BUSY != 0 {
                break;
            }
            let length = (header & !DISCARDED) as usize;
            if length > self.size {
                // Not the kernel's doing. Everything is skipped rather than read at random.
                position = written;
            } else {
                if header & DISCARDED == 0 {
                    let record = self.producer.at(offset + HEADER, length);
                    // SAFETY: `at` checked the bounds, and the kernel does not touch the record before it is given back below.
                    more = take(unsafe { std::slice::from_raw_parts(record, length) });
                }
                position = position.wrapping_add((length + HEADER).next_multiple_of(8));
            }
            self.consumer.position().store(position, Ordering::Release);
            // The kernel wakes the reader for the record it would read next. It must see how far that is before it is looked at
            // whether there is one more.
            fence(Ordering::SeqCst);
        }
    }
}

/// Bytes of a page.
pub(crate) fn page() -> usize {
    // SAFETY: no memory is passed.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}
