//! Rule files of the configured directories, read and compiled.

use std::path::Path;

use defender_detect::suppression::Settings;
use defender_detect::{ExceptionSpec, RuleOverride, RuleSet, RuleSetBuilder};
use defender_model::time::Timestamp;

use crate::config::{Config, RuleException};

pub(crate) mod files;

/// Reads rule files below the configured directories and compiles them, the configuration's changes applied. What is wrong with
/// which file comes back as sentences; one bad file stops no other.
#[must_use]
pub fn load(config: &Config) -> (RuleSet, Vec<String>) {
    let mut errors = Vec::new();
    let builder = RuleSet::builder().placeholders(config.rules.placeholders.clone());
    let mut builder = with_configured(builder, config);
    for directory in &config.rules.directories {
        // A product without rules of its own has no directory for them.
        if matches!(directory.try_exists(), Ok(false)) {
            continue;
        }
        let mut files = Vec::new();
        let mut problem = |file: &Path, what: String| errors.push(format!("{}: {what}", file.display()));
        files::below(directory, &mut files, &mut problem);
        for file in files {
            match files::read(&file) {
                Ok(bytes) => builder = builder.add_source(&file.display().to_string(), &bytes),
                Err(error) => problem(&file, format!("cannot be read: {error}")),
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
