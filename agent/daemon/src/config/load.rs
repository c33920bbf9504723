//! Reading the file and its drop-ins.
//!
//! A file with a mistake is left out as a whole and the mistake is told with file, line and key: half a file's settings could be
//! worse than none. The defaults and the other files still hold, so a mistake never leaves a device unguarded.

use std::io;
use std::path::{Path, PathBuf};

use defender_model::order;
use toml::de::{DeTable, DeValue};

use super::alert::Checked;
use super::Config;
use crate::small_file;

/// Longest file read, in bytes.
const LIMIT: u64 = 1 << 20;
/// Most drop-ins read.
const DROP_INS: usize = 256;

/// A mistake in a file, or a file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1; `None` when the mistake is not in a line.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub message: String,
    /// Only an `[[alert]]` is left out, and the rest of the file is in force.
    pub section: bool,
}

impl Problem {
    /// What becomes of the configuration.
    #[must_use]
    pub const fn consequence(&self) -> &'static str {
        if self.section {
            "the section is left out, everything else holds"
        } else {
            "the file is left out, defaults and other files hold"
        }
    }
}

impl core::fmt::Display for Problem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Problem {}

/// What was read.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The configuration in force.
    pub config: Config,
    /// Mistakes; each names a file that was left out, or an `[[alert]]`.
    pub problems: Vec<Problem>,
    /// Files that are in force, in the order they were applied.
    pub files: Vec<PathBuf>,
}

/// Reads `file` and the drop-ins beside it (`conf.d/*.toml`, by name; later ones win key by key, `[[...]]` sections add up).
///
/// Keys that belong together may stand in different files. Where the whole contradicts itself, the files that make it so are left out.
#[must_use]
pub fn load(file: &Path) -> Loaded {
    let mut loaded = Loaded::default();
    let mut files = vec![file.to_owned()];
    match drop_ins(&file.with_file_name("conf.d")) {
        Ok(more) => files.extend(more),
        Err(problem) => loaded.problems.push(problem),
    }
    let texts = files.into_iter().map(|file| {
        let text = read(&file);
        (file, text)
    });
    loaded.assemble(&texts.collect::<Vec<_>>());
    loaded
}

/// The configuration of an image that is not running, read below its root without ever leaving it: `file` and its drop-ins.
#[must_use]
pub fn load_image(root: &defender_posture::Root, file: &Path) -> Loaded {
    let mut loaded = Loaded::default();
    let mut files = vec![file.to_owned()];
    let pattern = file.with_file_name("conf.d/*.toml");
    match root.glob(&pattern.to_string_lossy()) {
        Ok(more) => files.extend(more),
        Err(error) => loaded.problems.push(Problem {
            file: pattern,
            line: None,
            message: error.to_string(),
            section: false,
        }),
    }
    let mut texts = Vec::new();
    for file in files {
        match root.text(&file) {
            Ok(Some(text)) => texts.push((file, Ok(text))),
            // An image without a configuration has the defaults.
            Ok(None) => {}
            Err(error) => {
                let problem =
                    Problem { file: file.clone(), line: None, message: error.reason, section: false };
                texts.push((file, Err(problem)));
            }
        }
    }
    loaded.assemble(&texts);
    loaded
}

impl Loaded {
    fn assemble(&mut self, texts: &[(PathBuf, Result<String, Problem>)]) {
        let mut parts = Vec::new();
        for (file, text) in texts {
            match text.as_ref().map_err(Clone::clone).and_then(|text| check(file, text)) {
                Ok(table) => parts.push(Part { file: file.clone(), table, out: None }),
                Err(problem) => self.problems.push(problem),
            }
        }
        self.config = whole(&parts).unwrap_or_else(|_| leave_contradictions_out(&mut parts));
        self.alerts(&parts, texts);
        for part in parts {
            match part.out {
                None => self.files.push(part.file),
                Some(message) => {
                    self.problems.push(Problem { file: part.file, line: None, message, section: false });
                }
            }
        }
    }

    /// Puts the alerts in force that are right, and tells of the others. One that is wrong takes nothing else with it.
    fn alerts(&mut self, parts: &[Part<'_>], texts: &[(PathBuf, Result<String, Problem>)]) {
        let mut alerts = Checked::default();
        for part in parts.iter().filter(|part| part.out.is_none()) {
            let mistakes = alerts.add(&part.file, &part.table, &self.config.rules.placeholders);
            let text =
                texts.iter().find(|(file, _)| *file == part.file).and_then(|(_, text)| text.as_deref().ok());
            for (at, message) in mistakes {
                let line = text.map(|text| line_of(text, at));
                self.problems.push(Problem { file: part.file.clone(), line, message, section: true });
            }
        }
        self.config.alert = alerts.into_sections();
    }
}

/// The line, from 1, of an offset.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// A file that is right by itself.
struct Part<'t> {
    file: PathBuf,
    table: DeTable<'t>,
    /// Why it is left out.
    out: Option<String>,
}

/// The configuration that the parts make that are not left out.
fn whole(parts: &[Part<'_>]) -> Result<Config, String> {
    let mut merged = DeTable::new();
    for part in parts.iter().filter(|part| part.out.is_none()) {
        merge(&mut merged, part.table.clone());
    }
    Config::try_from(merged)
}

/// Adds file by file what does not contradict the others. A file may depend on one behind it, so those that were left out are tried
/// again as long as that brings one more in.
fn leave_contradictions_out(parts: &mut [Part<'_>]) -> Config {
    let mut config = Config::default();
    for part in &mut *parts {
        part.out = Some(String::new());
    }
    loop {
        let mut more = false;
        for index in 0..parts.len() {
            if parts[index].out.take().is_none() {
                continue;
            }
            match whole(parts) {
                Ok(with) => (config, more) = (with, true),
                Err(message) => parts[index].out = Some(message),
            }
        }
        if !more {
            return config;
        }
    }
}

impl Config {
    /// Things that are wrong in a section by itself, so that no other file can make them right.
    fn mistakes(&self) -> Result<(), String> {
        if let Some(at) = self.rule.iter().position(|rule| rule.id.is_empty()) {
            return Err(format!("[[rule]] number {} has no `id`", at + 1));
        }
        if let Some(at) = self.feed.iter().position(|feed| feed.path.as_os_str().is_empty()) {
            return Err(format!("[[feed]] number {} has no `path`", at + 1));
        }
        let hook = &self.response.hook;
        if !hook.as_os_str().is_empty() && !hook.is_absolute() {
            return Err(format!("`response.hook` is `{}`; name it by an absolute path", hook.display()));
        }
        for exception in &self.exception {
            exception.spec()?;
        }
        self.posture.exceptions()?;
        let limits = [
            ("posture.interval_hours", self.posture.interval_hours.into(), 1, 365 * 24),
            ("posture.spread_minutes", self.posture.spread_minutes.into(), 0, 365 * 24 * 60),
            ("posture.minimum_score", self.posture.minimum_score.into(), 0, 100),
            ("suppression.repeat_window_s", self.suppression.repeat_window_s, 0, 86_400),
            ("feeds.max_entries", self.feeds.max_entries as u64, 1, 1 << 20),
            ("feeds.interval_s", self.feeds.interval_s, 1, 86_400),
            ("agent.queue", self.agent.queue as u64, 16, 1 << 20),
            ("process.table_capacity", self.process.table_capacity as u64, 16, 1 << 20),
            ("process.poll_interval_ms", self.process.poll_interval_ms, 1, 60_000),
            ("process.receive_buffer_kib", self.process.receive_buffer_kib.into(), 16, 1 << 20),
            ("process.audit_backlog_limit", self.process.audit_backlog_limit.into(), 64, 1 << 20),
            ("response.hook_timeout_s", self.response.hook_timeout_s, 1, 3600),
            ("response.isolate_s", self.response.isolate_s, 10, 86_400),
            ("response.block_seconds", self.response.block_seconds, 1, 365 * 86_400),
            ("priorities.high_s", self.priorities.high_s, 1, 30 * 86_400),
            ("priorities.medium_s", self.priorities.medium_s, 1, 30 * 86_400),
            ("priorities.low_s", self.priorities.low_s, 1, 30 * 86_400),
            ("spool.max_kib", self.spool.max_kib, 256, 1 << 30),
            ("sink.mqtt.keep_alive_s", self.sink.mqtt.keep_alive_s, 10, 65_535),
            ("sink.file.max_kib", self.sink.file.max_kib, 16, 1 << 30),
            ("sink.file.keep", self.sink.file.keep.into(), 0, 1000),
        ];
        for (key, value, least, most) in limits {
            if value < least || value > most {
                return Err(format!("`{key}` is {value}; it must lie between {least} and {most}"));
            }
        }
        Ok(())
    }

    /// Things that are wrong between keys, which may stand in different files.
    fn contradictions(&self) -> Result<(), String> {
        for (name, enabled, host) in [
            ("sink.remote_syslog", self.sink.remote_syslog.enabled, &self.sink.remote_syslog.host),
            ("sink.mqtt", self.sink.mqtt.enabled, &self.sink.mqtt.host),
        ] {
            let mqtt = &self.sink.mqtt;
            let provisioned = !mqtt.dps_id_scope.is_empty();
            let hub =
                name == "sink.mqtt" && (provisioned || !mqtt.connection_string_file.as_os_str().is_empty());
            if enabled && host.is_empty() && !hub {
                return Err(format!("[{name}] is enabled without a `host`"));
            }
            if enabled && hub && !mqtt.tls {
                let key = if provisioned { "dps_id_scope" } else { "connection_string_file" };
                return Err(format!("[{name}] has a `{key}`, but IoT Hub needs `tls = true`"));
            }
            if enabled
                && name == "sink.mqtt"
                && !hub
                && !mqtt.configuration_keys.is_empty()
                && !mqtt.topic.contains("{kind}")
            {
                return Err(format!("[{name}] has `configuration_keys`, but no `{{kind}}` in `topic` that would be `configuration`"));
            }
            let nobody = [&mqtt.dps_key_file, &mqtt.certificate_file].map(|file| file.as_os_str().is_empty());
            if enabled && hub && provisioned && nobody == [true; 2] {
                return Err(format!("[{name}] has a `dps_id_scope`, but neither `dps_key_file` nor `certificate_file` says who the device is"));
            }
        }
        Ok(())
    }
}

impl TryFrom<DeTable<'_>> for Config {
    type Error = String;

    /// The whole configuration, merged from every file.
    fn try_from(table: DeTable<'_>) -> Result<Self, String> {
        let config = Self::read(&table).map_err(|fault| fault.message)?;
        config.mistakes()?;
        config.contradictions()?;
        Ok(config)
    }
}

fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, Problem> {
    let problem = |error: io::Error| Problem {
        file: directory.to_owned(),
        line: None,
        message: format!("cannot list the drop-ins: {error}"),
        section: false,
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(problem(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(problem)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    order::sort(&mut files);
    if files.len() > DROP_INS {
        let message = format!("{} drop-ins; at most {DROP_INS} are read", files.len());
        return Err(Problem { file: directory.to_owned(), line: None, message, section: false });
    }
    Ok(files)
}

fn read(file: &Path) -> Result<String, Problem> {
    let problem = |message: String| Problem { file: file.to_owned(), line: None, message, section: false };
    let bytes = small_file::read(file, LIMIT).map_err(|error| problem(format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
        Problem { file: file.to_owned(), line: Some(line), message: "not UTF-8".to_owned(), section: false }
    })
}

/// Checks one file by itself and returns its content. Whether its keys fit together shows only when every file is read.
///
/// # Errors
/// The first mistake, with its line and, for an unknown key, the nearest known one.
pub fn check<'t>(file: &Path, text: &'t str) -> Result<DeTable<'t>, Problem> {
    let problem = |line, message| Problem { file: file.to_owned(), line, message, section: false };
    let line = |at: usize| Some(line_of(text, at));
    let table = DeTable::parse(text)
        .map_err(|error| problem(error.span().and_then(|span| line(span.start)), error.message().to_owned()))?
        .into_inner();
    let config = Config::read(&table).map_err(|fault| problem(line(fault.at), fault.message))?;
    config.mistakes().map_err(|message| problem(None, message))?;
    Ok(table)
}

fn merge<'t>(into: &mut DeTable<'t>, from: DeTable<'t>) {
    for (key, value) in from {
        let Some(old) = into.get_mut(&key) else {
            into.insert(key, value);
            continue;
        };
        match (old.get_mut(), value.into_inner()) {
            (DeValue::Table(old), DeValue::Table(new)) => merge(old, new),
            // Repeated sections, `[[rule]]`, add up. An empty list says that there shall be nothing.
            (DeValue::Array(old), DeValue::Array(new))
                if !new.is_empty() && new.iter().all(|item| item.get_ref().is_table()) =>
            {
                new.into_iter().for_each(|item| old.push(item));
            }
            (old, new) => *old = new,
        }
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
