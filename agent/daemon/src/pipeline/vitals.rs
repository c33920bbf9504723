//! What the agent itself takes of the device.

/// Resident memory in KiB, from `/proc/self/statm` (proc_pid_statm(5)); 0 where it cannot be read.
pub(super) fn resident_kib() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|text| resident_pages(&text));
    // SAFETY: sysconf(3) takes a number and changes nothing.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.unwrap_or_default().saturating_mul(u64::try_from(page).unwrap_or_default()) / 1024
}

fn resident_pages(statm: &str) -> Option<u64> {
    statm.split(' ').nth(1)?.parse().ok()
}

/// Processor time since the start in milliseconds, for the agent and in the kernel on its behalf.
pub(super) fn processor_ms() -> u64 {
    // SAFETY: all zeroes is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the structure lives through the call, which fills it.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } != 0 {
        return 0;
    }
    let ms = |time: libc::timeval| {
        let (seconds, micros) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_usec));
        seconds.unwrap_or_default() * 1000 + micros.unwrap_or_default() / 1000
    };
    ms(usage.ru_utime) + ms(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_something() {
        assert!((100..10_000_000).contains(&resident_kib()), "{}", resident_kib());
        let before = processor_ms();
        let mut sum = 0u64;
        while processor_ms() < before + 20 {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        assert!(sum > 0);
        assert_eq!(resident_pages("100 25 3 1 0 9 0\n"), Some(25));
        assert_eq!(resident_pages("x"), None);
    }
}
