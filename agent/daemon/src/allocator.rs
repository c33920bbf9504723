//! The C library's allocator, told that memory is counted. What is not glibc's (musl's gives back by itself) stays as it is.

/// Keeps little of what was freed: to be called before anything large is allocated.
///
/// By default glibc raises its bounds up to 64 MiB as large blocks are freed (mallopt(3), `M_MMAP_THRESHOLD`), after which what rules
/// take while they are compiled is never given back; and each thread that allocates gets an arena of its own.
pub(crate) fn keep_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const KEPT: libc::c_int = 64 << 10;
        for (parameter, value) in
            [(libc::M_MMAP_THRESHOLD, KEPT), (libc::M_TRIM_THRESHOLD, KEPT), (libc::M_ARENA_MAX, 1)]
        {
            // SAFETY: takes numbers only. What it does not take leaves the default.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}

/// Gives what is free back to the kernel, after work that took much and will not come again soon.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: may be called at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}
