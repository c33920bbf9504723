//! TEMPORARY
use std::io::Write;
use std::sync::Arc;
use defender_model::event::Event;
use defender_model::health::Health;
use defender_model::identity::DeviceIdentity;
use crate::config;
use crate::request::SinkStatus;
pub(super) struct Sinks { file: Option<std::io::BufWriter<std::fs::File>>, written: u64 }
impl Sinks {
    pub(super) fn start(config: &config::Sinks, _device: &DeviceIdentity) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&config.file.path).ok();
        Self { file: file.map(|f| std::io::BufWriter::with_capacity(64<<10, f)), written: 0 }
    }
    pub(super) fn push(&mut self, event: &Event, line: &Arc<str>) {
        if let Some(f) = &mut self.file { let _ = f.write_all(line.as_bytes()); let _ = f.write_all(b"\n"); self.written += 1; if event.severity() > defender_model::severity::Severity::Low { let _ = f.flush(); } }
    }
    pub(super) fn changes(&mut self) -> Vec<Health> { if let Some(f) = &mut self.file { let _ = f.flush(); } Vec::new() }
    pub(super) fn status(&self) -> Vec<SinkStatus> { Vec::new() }
    pub(super) async fn close(self) {}
}
