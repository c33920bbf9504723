//! The source in force: what opens it, what it is called and what it has lost.

use std::time::Instant;

use defender_model::process::Source;

use super::audit::stream::{AuditStream, Settings as AuditSettings};
use super::connector::Connector;
#[cfg(ebpf)]
use super::ebpf;
use super::poll::Poller;
use super::sensor::Settings;
use super::writers::Writers;
use super::Unavailable;

/// The source in force.
pub(super) enum Active {
    Audit(Box<AuditStream>),
    #[cfg(ebpf)]
    Ebpf(Box<ebpf::Stream>),
    #[cfg(ebpf)]
    EbpfEntry(Box<ebpf::Stream>),
    Connector(Box<Connector>),
    Poll(Poller),
}

impl Active {
    pub(super) const fn source(&self) -> Source {
        match self {
            Self::Audit(_) => Source::Audit,
            #[cfg(ebpf)]
            Self::Ebpf(_) => Source::Ebpf,
            #[cfg(ebpf)]
            Self::EbpfEntry(_) => Source::EbpfEntry,
            Self::Connector(_) => Source::Connector,
            Self::Poll(_) => Source::Poll,
        }
    }

    /// How it is read, in words.
    pub(super) fn detail(&self) -> &str {
        match self {
            Self::Audit(stream) => stream.role().describe(),
            #[cfg(ebpf)]
            Self::Ebpf(stream) | Self::EbpfEntry(stream) => stream.detail(),
            Self::Connector(_) => "details are read from /proc after the kernel's announcement",
            Self::Poll(_) => "short-lived processes are missed",
        }
    }

    /// Events known to be lost by this source.
    pub(super) fn lost(&self) -> u64 {
        match self {
            Self::Audit(stream) => stream.lost(),
            #[cfg(ebpf)]
            Self::Ebpf(stream) | Self::EbpfEntry(stream) => stream.lost(),
            Self::Connector(connector) => connector.lost(),
            Self::Poll(_) => 0,
        }
    }

    /// Since when things may have gone unseen, when the source has failed. What eBPF programs write stays where it is, whatever becomes of
    /// the wait for it.
    pub(super) fn unsure_since(&self) -> Option<Instant> {
        match self {
            Self::Audit(stream) => Some(stream.unsure_since()),
            Self::Connector(connector) => Some(connector.heard()),
            _ => None,
        }
    }

    /// Words of whose a connection is that this source lost; `None` where it has none.
    pub(super) fn owners_lost(&self) -> Option<u64> {
        match self {
            #[cfg(ebpf)]
            Self::Ebpf(stream) | Self::EbpfEntry(stream) => stream.connections_lost(),
            _ => None,
        }
    }

    /// It tells who accepts connections.
    pub(super) fn accepts(&self) -> bool {
        match self {
            #[cfg(ebpf)]
            Self::Ebpf(stream) | Self::EbpfEntry(stream) => stream.accepts(),
            _ => false,
        }
    }

    /// Takes out of the kernel what the source has put there.
    pub(super) fn close(self) {
        match self {
            Self::Audit(stream) => stream.close(),
            Self::Connector(connector) => connector.close(),
            // The programs are gone with their descriptors.
            #[cfg(ebpf)]
            Self::Ebpf(_) | Self::EbpfEntry(_) => {}
            Self::Poll(_) => {}
        }
    }
}

/// Opens one source.
pub(super) fn open(settings: &Settings, writers: &Writers, source: Source) -> Result<Active, Unavailable> {
    let receive_buffer = i32::try_from(settings.receive_buffer).unwrap_or(i32::MAX);
    match source {
        Source::Audit => AuditStream::open(AuditSettings {
            machine: settings.machine.clone(),
            proc: settings.proc.clone(),
            exits: settings.exits,
            receive_buffer,
            backlog_limit: settings.audit_backlog_limit,
            backlog_wait: settings.audit_backlog_wait,
            watched: settings.watched.clone(),
            writers: writers.clone(),
        })
        .map(|stream| Active::Audit(Box::new(stream))),
        #[cfg(ebpf)]
        Source::Ebpf => ebpf::Stream::open(&settings.proc, wanted(settings), &settings.btf)
            .map(|stream| Active::Ebpf(Box::new(stream))),
        #[cfg(ebpf)]
        Source::EbpfEntry => ebpf::Stream::open_entry(&settings.proc, wanted(settings))
            .map(|stream| Active::EbpfEntry(Box::new(stream))),
        #[cfg(not(ebpf))]
        Source::Ebpf | Source::EbpfEntry => {
            Err(Unavailable::new("this agent was built without the cargo feature ebpf"))
        }
        Source::Connector => {
            Connector::open(receive_buffer).map(|connector| Active::Connector(Box::new(connector)))
        }
        Source::Poll | Source::Snapshot | Source::Replay => Ok(Active::Poll(Poller::new(&settings.proc))),
    }
}

#[cfg(ebpf)]
const fn wanted(settings: &Settings) -> ebpf::Wanted {
    ebpf::Wanted { exits: settings.exits, connections: settings.connections }
}

/// The first source of the order that works; polling when none does.
pub(super) fn open_best(
    settings: &Settings,
    writers: &Writers,
    order: &[Source],
    declined: &mut Vec<(Source, String)>,
) -> Active {
    for source in order {
        match open(settings, writers, *source) {
            Ok(active) => return active,
            Err(unavailable) => declined.push((*source, unavailable.to_string())),
        }
    }
    Active::Poll(Poller::new(&settings.proc))
}
