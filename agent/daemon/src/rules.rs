//! Rule files of the configured directories, read and compiled.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use defender_detect::suppression::Settings;
use defender_detect::{ExceptionSpec, RuleOverride, RuleSet, RuleSetBuilder};
use defender_model::time::Timestamp;

use crate::config::{Config, RuleException};

/// Deepest directory below a rules directory.
const DEPTH: usize = 8;
/// Most rule files.
const FILES: usize = 10_000;
/// Longest rule file, in bytes.
const BYTES: u64 = 1 << 20;

/// Reads rule files below the configured directories and compiles them, the configuration's changes applied. What is wrong with
/// which file comes back as sentences; one bad file stops no other.
#[must_use]
pub fn load(config: &Config) -> (RuleSet, Vec<String>) {
    let mut errors = Vec::new();
    let builder = RuleSet::builder().placeholders(config.rules.placeholders.clone());
    let mut builder = with_configured(builder, config);
    for directory in &config.rules.directories {
        let mut files = Vec::new();
        collect(directory, 0, &mut files, &mut errors);
        files.sort();
        for file in files {
            match read_bounded(&file) {
                Ok(bytes) => builder = builder.add_source(&file.display().to_string(), &bytes),
                Err(error) => errors.push(format!("{}: {error}", file.display())),
            }
        }
    }
    let overrides = config
        .rule
        .iter()
        .map(|rule| RuleOverride {
            id: rule.id.clone(),
            enabled: rule.enabled,
            level: rule.level.map(|level| level.0),
            response: rule.response.map(|response| response.0),
            count: rule.count,
            timespan_ms: rule.timespan_s.map(|seconds| seconds.saturating_mul(1000)),
        })
        .collect();
    // What is wrong with one of them was said when the configuration was read.
    let exceptions = config.exception.iter().filter_map(|exception| exception.spec().ok()).collect();
    let (rules, problems) = builder.overrides(overrides).exceptions(exceptions).build();
    errors.extend(problems.iter().map(ToString::to_string));
    (rules, errors)
}

/// With the rules that the configuration itself makes: custom alerts, and those about the learned profile, where that is enforced.
pub(crate) fn with_configured(builder: RuleSetBuilder, config: &Config) -> RuleSetBuilder {
    let builder = builder.alerts(config.alert.specs());
    match config.profile.enforce.0 {
        true => builder.profile(config.profile.level.0, config.profile.response.0),
        false => builder,
    }
}

impl RuleException {
    /// The exception as detection takes it.
    ///
    /// # Errors
    /// What it lacks, or which of its values is wrong.
    pub fn spec(&self) -> Result<ExceptionSpec, String> {
        for (key, value) in [("rule", &self.rule), ("reason", &self.reason)] {
            if value.trim().is_empty() {
                return Err(format!("an [[exception]] (rule `{}`) has no `{key}`", self.rule));
            }
        }
        let expires = match self.expires.as_str() {
            "" => None,
            day => {
                let midnight = Timestamp::from_day(day).ok_or_else(|| {
                    format!("the exception for `{}` expires on `{day}`; write a day as YYYY-MM-DD", self.rule)
                })?;
                // The last day belongs to it.
                Some(midnight + 86_400_000)
            }
        };
        Ok(ExceptionSpec {
            rule: self.rule.clone(),
            when: self.when.conditions(),
            reason: self.reason.clone(),
            owner: self.owner.clone(),
            expires,
        })
    }
}

/// How alerts are thinned out.
#[must_use]
pub fn suppression(config: &Config) -> Settings {
    let per_hour_of = config.rule.iter().filter_map(|rule| Some((rule.id.clone(), rule.max_per_hour?)));
    Settings {
        repeat_window: i64::try_from(config.suppression.repeat_window_s).unwrap_or(i64::MAX / 2000) * 1000,
        per_hour: config.suppression.max_per_hour,
        per_hour_of: per_hour_of.collect(),
    }
}

fn collect(directory: &Path, depth: usize, files: &mut Vec<PathBuf>, errors: &mut Vec<String>) {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        // A product without rules of its own has no directory for them.
        Err(error) if depth == 0 && error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return errors.push(format!("{}: cannot list the rules: {error}", directory.display())),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && depth < DEPTH {
            collect(&path, depth + 1, files, errors);
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            if files.len() == FILES {
                return errors.push(format!("{}: more than {FILES} rule files", directory.display()));
            }
            files.push(path);
        }
    }
}

fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES {
        return Err(io::Error::other(format!("longer than {BYTES} bytes")));
    }
    Ok(bytes)
}
