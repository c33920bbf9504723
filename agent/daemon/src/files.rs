//! The file sensor, and the operator's word to it.

use std::path::{Component, PathBuf};
use std::sync::{Arc, Mutex};

use defender_sensors::file::{FileSensor, Order, Settings, Status};
use defender_sensors::process::Writers;
use tokio::sync::mpsc;

use crate::clock::wall_clock;
use crate::config::Config;
use crate::posture::idle;

/// The pipeline's end of the sensor.
#[derive(Debug)]
pub struct Handle {
    /// What the sensor is doing.
    pub status: Arc<Mutex<Status>>,
    /// Takes orders.
    pub orders: mpsc::Sender<Order>,
}

/// The sensor of this configuration; `None` when it is off. `writers` tells who wrote.
#[must_use]
pub fn open(config: &Config, writers: Writers) -> Option<(FileSensor, Handle)> {
    let files = &config.files;
    files.enabled.then(|| {
        let (sensor, orders) = FileSensor::new(Settings {
            paths: files.paths.clone(),
            exclude: files.exclude.clone(),
            max_watches: files.max_watches,
            max_files: files.max_files,
            hash_limit: files.hash_max_kib.saturating_mul(1024),
            hash_rate: files.hash_kib_per_second.saturating_mul(1024),
            events_per_second: files.events_per_second,
            state_dir: config.agent.state_dir.clone(),
            writers,
            idle: idle::yield_to_everybody,
            clock: wall_clock,
        });
        let handle = Handle { status: sensor.status(), orders };
        (sensor, handle)
    })
}

/// The directories directly below `/` that the sensor has to read.
pub fn tops(config: &Config) -> impl Iterator<Item = PathBuf> + '_ {
    let paths = config.files.enabled.then_some(&config.files.paths);
    paths.into_iter().flatten().filter_map(|path| match path.components().nth(1) {
        Some(Component::Normal(name)) => Some(PathBuf::from("/").join(name)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_named_by_its_top() {
        let mut config = Config::default();
        assert!(tops(&config).any(|top| top.as_os_str() == "/boot"));
        config.files.paths = vec!["/data/keys/a".into(), "relative".into(), "/".into()];
        assert_eq!(tops(&config).collect::<Vec<_>>(), [PathBuf::from("/data")]);
        config.files.enabled = false;
        assert_eq!(tops(&config).count(), 0);
    }
}
