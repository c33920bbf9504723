//! `rules check` and `rules list`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use defender_detect::{DataSource, Rule, RuleError, RuleSet, RuleSetBuilder};
use defender_model::text::printable;
use serde_json::{json, Value};

use super::arguments::Given;
use super::summary::{Standing, Summary};
use super::{complain, configuration, query, Failure, Outcome, Streams};
use crate::config::load::load;
use crate::config::Config;
use crate::rules::files;
use crate::supply;

/// What is wrong with a file: with a rule in it, or with reading it.
#[derive(Debug)]
enum Mistake {
    Rule(RuleError),
    File { file: PathBuf, message: String },
}

impl core::fmt::Display for Mistake {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Rule(error) => error.fmt(f),
            Self::File { file, message } => write!(f, "{}: {message}", file.display()),
        }
    }
}

impl Mistake {
    fn file(file: &Path, message: impl Into<String>) -> Self {
        Self::File { file: file.to_owned(), message: message.into() }
    }

    fn json(&self) -> Value {
        match self {
            Self::Rule(error) => json!({
                "file": error.file,
                "line": error.line,
                "rule": error.rule,
                "cause": error.cause.name(),
                "message": error.to_string(),
            }),
            Self::File { file, message } => {
                json!({ "file": file, "cause": "unreadable", "message": message })
            }
        }
    }
}

/// Checks named files and directories.
pub(super) fn check(given: &Given, streams: &mut Streams<'_>) -> Result<Outcome, Failure> {
    let paths: Vec<PathBuf> = given.arguments.iter().map(PathBuf::from).collect();
    let config = configured(given, streams);
    let Named { rules, files, mistakes } =
        named(&paths, RuleSet::builder().placeholders(config.rules.placeholders.clone()));
    let loaded = rules.rules().len();
    let idle: Vec<(&Rule, String)> =
        rules.rules().filter_map(|rule| supply::idle(rule.needs, &config).map(|why| (rule, why))).collect();
    if given.json {
        let errors: Vec<Value> = mistakes.iter().map(Mistake::json).collect();
        let idle: Vec<Value> = idle
            .iter()
            .map(|(rule, why)| {
                let needs: Vec<&str> = rule.needs.iter().map(DataSource::name).collect();
                json!({ "file": rule.file, "rule": rule.info.title, "needs": needs, "reason": why })
            })
            .collect();
        let answer = json!({ "files": files, "rules": loaded, "errors": errors, "idle": idle });
        query::print(streams.output, &answer)?;
    } else {
        for mistake in &mistakes {
            complain(streams, &mistake.to_string());
        }
        for (rule, why) in &idle {
            let (file, title) = (printable(&rule.file), printable(&rule.info.title));
            writeln!(streams.output, "{file}: rule \"{title}\" is idle: {why}")?;
        }
        let (mistakes, idle) = (mistakes.len(), idle.len());
        writeln!(
            streams.output,
            "{files} files, {loaded} rules in order ({idle} of them idle), {mistakes} mistakes"
        )?;
    }
    Ok(if mistakes.is_empty() { Outcome::Fine } else { Outcome::No })
}

/// Lists the rules that are in force, or those of named paths.
pub(super) fn list(given: &Given, streams: &mut Streams<'_>) -> Result<Outcome, Failure> {
    let InForce { rules, errors, config } = in_force(given, streams);
    let summary = Summary::of(&rules, &config);
    match (given.json, given.summary) {
        (true, true) => query::print(streams.output, &summary.json())?,
        (true, false) => {
            let rules: Vec<Value> = rules
                .rules()
                .map(|rule| {
                    json!({
                        "id": rule.info.id,
                        "title": rule.info.title,
                        "level": rule.level.level(),
                        "kind": rule.kind.name(),
                        "logsource": rule.logsource,
                        "needs": rule.needs.iter().map(DataSource::name).collect::<Vec<_>>(),
                        "idle": supply::idle(rule.needs, &config),
                        "tactics": rule.info.tactics,
                        "techniques": rule.info.techniques,
                        "replaces": rule.info.replaces,
                        "response": rule.response.to_string(),
                        "enabled": rule.enabled,
                        "alerts": rule.alerts,
                        "status": rule.status,
                        "file": rule.file,
                    })
                })
                .collect();
            query::print(streams.output, &Value::Array(rules))?;
        }
        (false, true) => summary.print(streams.output)?,
        (false, false) => {
            let rows: Vec<[String; 5]> = rules
                .rules()
                .map(|rule| {
                    let level = match Standing::of(rule, &config) {
                        Standing::Alerts => rule.level.level(),
                        other => other.name(),
                    };
                    let tactics = rule.info.tactics.join(",");
                    [
                        rule.info.id.clone(),
                        level.to_owned(),
                        tactics,
                        rule.response.to_string(),
                        rule.info.title.clone(),
                    ]
                })
                .collect();
            columns(streams.output, &["ID", "LEVEL", "TACTIC", "RESPONSE", "TITLE"], &rows)?;
            writeln!(streams.output)?;
            summary.print(streams.output)?;
        }
    }
    for error in &errors {
        complain(streams, error);
    }
    Ok(if errors.is_empty() { Outcome::Fine } else { Outcome::No })
}

/// What events are judged by.
pub(super) struct InForce {
    pub(super) rules: RuleSet,
    /// What had to be left out.
    pub(super) errors: Vec<String>,
    /// The configuration. Without feeds when rules are named and a configuration is not: the named rules are all there is then.
    pub(super) config: Config,
}

/// The rules of `--rules`, or else of the configuration with its changes to them. What is wrong with the configuration goes to
/// standard error.
pub(super) fn in_force(given: &Given, streams: &mut Streams<'_>) -> InForce {
    let mut config = configured(given, streams);
    if given.rules.is_empty() {
        let (rules, errors) = crate::rules::load(&config);
        return InForce { rules, errors, config };
    }
    let builder = RuleSet::builder().placeholders(config.rules.placeholders.clone());
    if given.config.is_none() {
        config = Config::default();
        config.feeds.directories.clear();
    }
    let Named { rules, mistakes, .. } = named(&given.rules, crate::rules::with_configured(builder, &config));
    InForce { rules, errors: mistakes.iter().map(ToString::to_string).collect(), config }
}

/// The configuration: the one named, the device's, or else the built-in one. What is wrong with it goes to standard error.
fn configured(given: &Given, streams: &mut Streams<'_>) -> Config {
    let file = configuration(given);
    // A build host has no configuration of a device: the built-in one is meant then.
    if given.config.is_none() && !file.exists() {
        return Config::default();
    }
    let loaded = load(&file);
    for problem in &loaded.problems {
        complain(streams, &problem.to_string());
    }
    loaded.config
}

/// Rules of named files and directories.
struct Named {
    rules: RuleSet,
    /// Files read.
    files: usize,
    mistakes: Vec<Mistake>,
}

/// Whoever names a path means it, so one that is missing or holds no rule is a mistake too.
fn named(paths: &[PathBuf], mut builder: RuleSetBuilder) -> Named {
    let mut mistakes = Vec::new();
    let mut files = Vec::new();
    for path in paths {
        let before = (files.len(), mistakes.len());
        if path.is_dir() {
            let mut problem = |file: &Path, what: String| mistakes.push(Mistake::file(file, what));
            files::below(path, &mut files, &mut problem);
            if before == (files.len(), mistakes.len()) {
                mistakes.push(Mistake::file(path, "no rule file (*.yml) in this directory"));
            }
        } else {
            files.push(path.to_owned());
        }
    }
    for file in &files {
        match files::read(file) {
            Ok(bytes) => builder = builder.add_source(&file.to_string_lossy(), &bytes),
            Err(error) => mistakes.push(Mistake::file(file, format!("cannot be read: {error}"))),
        }
    }
    let (rules, errors) = builder.build();
    mistakes.extend(errors.into_iter().map(Mistake::Rule));
    Named { rules, files: files.len(), mistakes }
}

/// Left-aligned columns, the last one ragged.
fn columns<const N: usize>(out: &mut dyn Write, titles: &[&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let mut widths = titles.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(printable(cell).chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            text.push_str(&format!("{:<width$}  ", printable(cell)));
        }
        text.truncate(text.trim_end().len());
        text
    };
    writeln!(out, "{}", line(*titles))?;
    for row in rows {
        writeln!(out, "{}", line(std::array::from_fn(|at| row[at].as_str())))?;
    }
    Ok(())
}
