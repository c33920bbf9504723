//! Tracepoints by name, as tracefs has them: their numbers, and where their fields lie. Source:
//! Documentation/trace/events.rst, Documentation/filesystems/mount_api.rst.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Largest description of a tracepoint read, in bytes; real ones have under 4 KiB.
const LIMIT: u64 = 64 << 10;
/// Where it is mounted by custom; the second since before it was a file system of its own.
const PLACES: [&str; 2] = ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"];

/// A tracefs that can be read.
pub(crate) struct Tracefs {
    events: PathBuf,
    /// One that is mounted for us alone and nowhere visible.
    _mount: Option<OwnedFd>,
}

impl Tracefs {
    /// The one that is mounted, or one mounted for us alone, which needs `CAP_SYS_ADMIN` and Linux 5.2.
    ///
    /// # Errors
    /// Why there is none, from the attempt to mount it.
    pub(crate) fn open(proc: &Path) -> io::Result<Self> {
        let known = PLACES.iter().map(Path::new).find(|place| place.join("sched").exists());
        if let Some(events) = known {
            return Ok(Self { events: events.to_path_buf(), _mount: None });
        }
        let mount = mount(c"tracefs")?;
        let events = proc.join("self/fd").join(mount.as_raw_fd().to_string()).join("events");
        Ok(Self { events, _mount: Some(mount) })
    }

    fn read(&self, tracepoint: &str, file: &str) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(self.events.join(tracepoint).join(file))?.take(LIMIT).read_to_end(&mut content)?;
        Ok(content)
    }

    /// The number of a tracepoint such as `sched/sched_process_exec`.
    pub(crate) fn number(&self, tracepoint: &str) -> io::Result<u64> {
        let content = self.read(tracepoint, "id")?;
        let number = std::str::from_utf8(&content).ok().and_then(|text| text.trim().parse().ok());
        number.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Where a field of so many bytes lies in what the tracepoint hands over.
    pub(crate) fn field(&self, tracepoint: &str, name: &str, size: usize) -> io::Result<u32> {
        let content = self.read(tracepoint, "format")?;
        offset(&content, name, size).ok_or_else(|| {
            io::Error::other(format!("the format of {tracepoint} has no field {name} of {size} bytes"))
        })
    }
}

/// The offset of a field of that name and size. A line is `field:TYPE NAME;`, `offset:N;`, `size:4;`, `signed:1;` with tabs between.
fn offset(format: &[u8], name: &str, wanted: usize) -> Option<u32> {
    let text = std::str::from_utf8(format).ok()?;
    text.lines().find_map(|line| {
        let mut parts = line.trim().strip_prefix("field:")?.split(';').map(str::trim);
        let declared = parts.next()?.rsplit(' ').next()?;
        let offset = parts.next()?.strip_prefix("offset:")?.parse().ok()?;
        let size = parts.next()?.strip_prefix("size:")?.parse();
        (declared == name && size == Ok(wanted)).then_some(offset)
    })
}

/// A file system of its own instance, mounted nowhere: it is there for as long as the descriptor is open.
fn mount(kind: &CStr) -> io::Result<OwnedFd> {
    // Close-on-exec is 1 in both calls; FSCONFIG_CMD_CREATE is 6 (linux/mount.h).
    // SAFETY: the name lives through the call.
    let context = opened(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1) })?;
    let none = std::ptr::null::<u8>();
    // SAFETY: this command takes neither key nor value.
    if unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), 6, none, none, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = libc::MS_RDONLY as libc::c_ulong | 2 | 4 | 8;
    // SAFETY: numbers only. Read-only, no set-user-ID, devices or programs (MOUNT_ATTR_*, the same numbers as MS_*).
    opened(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, flags) })
}

fn opened(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it, and nobody else knows of it. Descriptors are small.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Linux 6.18. Before 6.14 the names are arrays of 16 bytes in place.
    const FORK: &[u8] = b"name: sched_process_fork\nID: 309\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:__data_loc char[] parent_comm;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:pid_t parent_pid;\toffset:12;\tsize:4;\tsigned:1;\n\
        \tfield:__data_loc char[] child_comm;\toffset:16;\tsize:4;\tsigned:0;\n\
        \tfield:pid_t child_pid;\toffset:20;\tsize:4;\tsigned:1;\n\n\
        print fmt: \"comm=%s pid=%d\", __get_str(parent_comm), REC->parent_pid\n";

    #[test]
    fn fields_are_found_by_name() {
        assert_eq!(offset(FORK, "child_pid", 4), Some(20));
        assert_eq!(offset(FORK, "parent_comm", 4), Some(8));
        assert_eq!(offset(FORK, "common_type", 2), Some(0));
        // Not one of four bytes, and none at all.
        assert_eq!(offset(FORK, "common_type", 4), None);
        assert_eq!(offset(FORK, "pid", 4), None);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(field:|offset:|size:4|;|\\t| |[a-z0-9]|\\n){0,60}") {
            let _ = offset(text.as_bytes(), "a", 4);
        }
    }
}
