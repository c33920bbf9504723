//! Which sources are tried, and in which order.

use defender_model::process::Source;

/// Which source the configuration asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preference {
    /// The best that works: audit, which tells of logins, files and modules besides; then eBPF, connector, polling.
    #[default]
    Auto,
    /// Audit netlink, else nothing better than polling.
    Audit,
    /// eBPF, then as for `auto`.
    Ebpf,
    /// Proc connector, else polling.
    Connector,
    /// Polling of `/proc`.
    Poll,
}

impl Preference {
    /// Sources to try, best first. Polling always works, so a device is never left without a process sensor.
    pub(super) const fn order(self) -> &'static [Source] {
        match self {
            Self::Auto if cfg!(ebpf) => {
                &[Source::Audit, Source::Ebpf, Source::EbpfEntry, Source::Connector, Source::Poll]
            }
            Self::Auto => &[Source::Audit, Source::Connector, Source::Poll],
            Self::Audit => &[Source::Audit, Source::Poll],
            Self::Ebpf => &[Source::Ebpf, Source::EbpfEntry, Source::Audit, Source::Connector, Source::Poll],
            Self::Connector => &[Source::Connector, Source::Poll],
            Self::Poll => &[Source::Poll],
        }
    }
}
