//! From rule files to one compiled set of rules.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use defender_model::finding::{Responses, RuleInfo};
use defender_model::severity::Severity;

use crate::error::{At, Cause, RuleError};
use crate::exception::{Exception, ExceptionSpec, MAX_EXCEPTIONS};
use crate::field::{self, Class, Field};
use crate::matcher::{Matcher, MatcherBuilder};
use crate::predicate::Comparison;
use crate::sigma::correlation::{CorrelationKind, CorrelationSpec, MAX_THRESHOLD};
use crate::sigma::detection::Placeholders;
use crate::sigma::document::{self, Body, Document};
use crate::yaml;

/// Most rules in a set.
const MAX_RULES: usize = 20_000;
/// Most errors kept per file: a file of another kind would fill the log otherwise.
const MAX_ERRORS_PER_FILE: usize = 100;

/// What kind of rule it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleKind {
    /// Judges one event at a time.
    Event,
    /// Judges several events together.
    Correlation(CorrelationKind),
}

impl RuleKind {
    /// `event`, or the type of the correlation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Correlation(kind) => kind.name(),
        }
    }
}

/// A loaded rule, as lists show it.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What findings carry.
    pub info: Arc<RuleInfo>,
    /// How bad a finding of it is, overrides applied.
    pub level: Severity,
    /// What the agent does about a finding, overrides applied.
    pub response: Responses,
    /// What kind of rule.
    pub kind: RuleKind,
    /// Its log source, such as `linux/process_creation`; of a correlation, empty.
    pub logsource: String,
    /// The file it came from.
    pub file: String,
    /// Switched off by an override: it is listed and does nothing.
    pub enabled: bool,
    /// It yields findings itself. False for rules that only feed a correlation.
    pub alerts: bool,
    /// Sigma's `status`, where the rule has one.
    pub status: Option<String>,
}

/// A change to a rule from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleOverride {
    /// Id of the rule.
    pub id: String,
    /// Switch it on or off.
    pub enabled: Option<bool>,
    /// Another severity.
    pub level: Option<Severity>,
    /// Another response.
    pub response: Option<Responses>,
    /// Correlations: another number in the condition.
    pub count: Option<u32>,
    /// Correlations: another timespan, in milliseconds.
    pub timespan_ms: Option<u64>,
}

/// How a correlation gets a value: from a field of the event, or from the group of the correlation it refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Field(Field),
    Group(usize),
}

/// One rule a correlation refers to.
#[derive(Debug)]
pub(crate) struct Input {
    /// Positions of the rule in the correlation's list.
    pub(crate) positions: Vec<u8>,
    pub(crate) group: Vec<Key>,
    pub(crate) value: Option<Key>,
}

/// A compiled correlation.
#[derive(Debug)]
pub(crate) struct Correlation {
    pub(crate) rule: u32,
    pub(crate) kind: CorrelationKind,
    pub(crate) span: i64,
    pub(crate) bounds: Vec<(Comparison, u64)>,
    pub(crate) group_by: Vec<String>,
    pub(crate) counted: String,
    pub(crate) inputs: Vec<Input>,
    pub(crate) rules: usize,
    /// Position in the group of the address events came from. Only what every input takes from that field counts as one: a user may
    /// be called `192.0.2.1`.
    pub(crate) source_at: Option<usize>,
}

/// What a rule that held is told to: a correlation, and which of its inputs the rule is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Feed {
    pub(crate) correlation: u32,
    pub(crate) input: u32,
}

/// Compiled rules.
#[derive(Debug, Default)]
pub struct RuleSet {
    pub(crate) rules: Vec<Rule>,
    pub(crate) matchers: [Matcher; Class::COUNT],
    pub(crate) correlations: Vec<Correlation>,
    /// By rule: the correlations it feeds.
    pub(crate) feeds: Vec<Vec<Feed>>,
    pub(crate) exceptions: Vec<Exception>,
}

impl RuleSet {
    /// Starts a set.
    #[must_use]
    pub fn builder() -> RuleSetBuilder {
        RuleSetBuilder::default()
    }

    /// The rules, in the order they were added.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The exceptions, in the order they were given.
    pub fn exceptions(&self) -> impl ExactSizeIterator<Item = &Exception> {
        self.exceptions.iter()
    }

    /// Bytes of the automatons that find literals: most of what the set takes.
    #[must_use]
    pub fn automaton_bytes(&self) -> usize {
        self.matchers.iter().map(Matcher::automaton_bytes).sum()
    }

    /// Rules that have to be evaluated for every event because no literal rules them out, and single-event rules in all.
    #[must_use]
    pub fn always_evaluated(&self) -> (usize, usize) {
        self.matchers.iter().map(Matcher::always_evaluated).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }
}

/// Collects rule files, then compiles them.
#[derive(Debug, Default)]
pub struct RuleSetBuilder {
    placeholders: Placeholders,
    documents: Vec<(String, Document)>,
    overrides: Vec<RuleOverride>,
    exceptions: Vec<ExceptionSpec>,
    errors: Vec<RuleError>,
}

impl RuleSetBuilder {
    /// Values for the placeholders of the modifier `expand`. Give them before the sources.
    #[must_use]
    pub fn placeholders(mut self, placeholders: Placeholders) -> Self {
        self.placeholders = placeholders;
        self
    }

    /// Changes to rules, from the configuration.
    #[must_use]
    pub fn overrides(mut self, overrides: Vec<RuleOverride>) -> Self {
        self.overrides.extend(overrides);
        self
    }

    /// Events that rules are not to be held against, from the configuration.
    #[must_use]
    pub fn exceptions(mut self, exceptions: Vec<ExceptionSpec>) -> Self {
        self.exceptions.extend(exceptions);
        self
    }

    /// Takes in a rule file. What is wrong with it is kept for [`RuleSetBuilder::build`]; the rest of it, and of the others, loads.
    #[must_use]
    pub fn add_source(mut self, file_name: &str, bytes: &[u8]) -> Self {
        let mut errors = 0;
        for document in yaml::documents(bytes) {
            let (label, parsed) = match document {
                Ok(node) => (document::label(&node), document::parse(&node, &self.placeholders)),
                Err(at) => (None, Err(at)),
            };
            match parsed {
                Ok(_) if self.documents.len() >= MAX_RULES => {
                    let cause = Cause::TooLarge(format!("more than {MAX_RULES} rules"));
                    self.errors.push(RuleError {
                        file: file_name.to_owned(),
                        line: None,
                        rule: label,
                        cause,
                    });
                    break;
                }
                Ok(document) => self.documents.push((file_name.to_owned(), document)),
                Err(At { line, cause }) => {
                    errors += 1;
                    if errors <= MAX_ERRORS_PER_FILE {
                        let line = Some(line);
                        self.errors.push(RuleError { file: file_name.to_owned(), line, rule: label, cause });
                    }
                }
            }
        }
        self
    }

    /// Compiles what was taken in. The errors name everything that was left out and why.
    #[must_use]
    pub fn build(self) -> (RuleSet, Vec<RuleError>) {
        let Self { documents, overrides, exceptions, placeholders, mut errors } = self;
        let mut compiler = Compiler { entries: unique(documents, &mut errors), errors };
        compiler.apply(&overrides);
        let mut set = compiler.compile();
        compiler.except(&mut set, exceptions, &placeholders);
        (set, compiler.errors)
    }
}

/// A document on its way into the set.
struct Entry {
    file: String,
    document: Document,
    enabled: bool,
    /// It has an error and stays out.
    out: bool,
}

/// Leaves out documents whose id another one has already.
fn unique(documents: Vec<(String, Document)>, errors: &mut Vec<RuleError>) -> Vec<Entry> {
    let mut ids: HashMap<String, String> = HashMap::new();
    let mut entries = Vec::with_capacity(documents.len());
    for (file, document) in documents {
        if let Some(first) = ids.get(&document.id) {
            let cause =
                Cause::DuplicateId(format!("the id `{}` is already that of a rule in {first}", document.id));
            errors.push(RuleError { file, line: Some(document.line), rule: Some(document.title), cause });
            continue;
        }
        ids.insert(document.id.clone(), file.clone());
        entries.push(Entry { file, document, enabled: true, out: false });
    }
    entries
}

struct Compiler {
    entries: Vec<Entry>,
    errors: Vec<RuleError>,
}

impl Compiler {
    fn leave_out(&mut self, index: usize, line: Option<u32>, cause: Cause) {
        let entry = &mut self.entries[index];
        entry.out = true;
        self.errors.push(RuleError {
            file: entry.file.clone(),
            line: line.or(Some(entry.document.line)),
            rule: Some(entry.document.title.clone()),
            cause,
        });
    }

    fn apply(&mut self, overrides: &[RuleOverride]) {
        for change in overrides {
            let mut refuse = |why: String| {
                let rule = Some(change.id.clone());
                self.errors.push(RuleError {
                    file: String::new(),
                    line: None,
                    rule,
                    cause: Cause::Override(why),
                });
            };
            let Some(entry) = self.entries.iter_mut().find(|e| e.document.id == change.id) else {
                refuse(format!("no rule has the id `{}`", change.id));
                continue;
            };
            if let Some(enabled) = change.enabled {
                entry.enabled = enabled;
            }
            if let Some(level) = change.level {
                entry.document.level = level;
            }
            if let Some(response) = change.response {
                entry.document.own.response = response;
            }
            match &mut entry.document.body {
                Body::Correlation { spec, .. } => {
                    if let Some(count) = change.count {
                        match spec.bounds.as_mut_slice() {
                            [(_, bound)] if u64::from(count) <= MAX_THRESHOLD => *bound = count.into(),
                            [_] => refuse(format!("count {count} is above the bound {MAX_THRESHOLD}")),
                            _ => refuse(
                                "count: the condition of this correlation is not one number".to_owned(),
                            ),
                        }
                    }
                    match change.timespan_ms {
                        Some(0) => refuse("a timespan of 0".to_owned()),
                        Some(ms) => spec.timespan_ms = ms,
                        None => {}
                    }
                }
                Body::Events { .. } if change.count.is_some() || change.timespan_ms.is_some() => {
                    refuse("count and timespan_ms are for correlations, and this rule is none".to_owned());
                }
                Body::Events { .. } => {}
            }
        }
    }

    /// Compiles the exceptions for the rules of a finished set.
    fn except(&mut self, set: &mut RuleSet, specs: Vec<ExceptionSpec>, placeholders: &Placeholders) {
        for (number, spec) in specs.into_iter().enumerate() {
            let label = spec.rule.clone();
            let compiled = if number >= MAX_EXCEPTIONS {
                Err(Cause::TooLarge(format!("more than {MAX_EXCEPTIONS} exceptions")))
            } else if spec.rule == "*" {
                Exception::compile(spec, None, &Class::ALL, placeholders)
            } else {
                let found =
                    set.rules.iter().position(|r| r.info.id == spec.rule || r.info.title == spec.rule);
                match found {
                    None => Err(Cause::Exception(format!("no rule has the id or title `{label}`"))),
                    Some(rule) => {
                        let class = self.class_of(&set.rules[rule].info.id);
                        let classes = class.as_ref().map_or(Class::ALL.as_slice(), std::slice::from_ref);
                        Exception::compile(spec, Some(to_u32(rule)), classes, placeholders)
                    }
                }
            };
            match compiled {
                Ok(exception) => set.exceptions.push(exception),
                Err(cause) => {
                    self.errors.push(RuleError { file: String::new(), line: None, rule: Some(label), cause });
                }
            }
        }
    }

    /// The class a single-event rule is about; `None` for correlations.
    fn class_of(&self, id: &str) -> Option<Class> {
        self.entries.iter().find(|e| e.document.id == id).and_then(|e| match &e.document.body {
            Body::Events { source, .. } => Some(source.class),
            Body::Correlation { .. } => None,
        })
    }

    fn compile(&mut self) -> RuleSet {
        let mut builders = Class::ALL.map(MatcherBuilder::new);
        for index in 0..self.entries.len() {
            let entry = &self.entries[index];
            let Body::Events { source, expr } = &entry.document.body else { continue };
            if !entry.enabled {
                continue;
            }
            let expr = match &source.also {
                Some(also) => crate::expression::Expr::all(vec![also.clone(), expr.clone()]),
                None => expr.clone(),
            };
            if let Err(cause) = builders[source.class as usize].add(to_u32(index), &expr) {
                self.leave_out(index, None, cause);
            }
        }
        let (order, inputs_of) = self.link();
        let mut referred: HashSet<usize> = HashSet::new();
        let mut generated: HashSet<usize> = HashSet::new();
        for (index, targets) in inputs_of.iter().enumerate() {
            if let Body::Correlation { spec, .. } = &self.entries[index].document.body {
                referred.extend(targets);
                if spec.generate {
                    generated.extend(targets);
                }
            }
        }
        let mut set = RuleSet { feeds: vec![Vec::new(); self.entries.len()], ..RuleSet::default() };
        let mut source_at: HashMap<usize, Option<usize>> = HashMap::new();
        for index in order {
            match self.correlation(index, &inputs_of[index], &source_at) {
                Ok(correlation) => {
                    source_at.insert(index, correlation.source_at);
                    let number = to_u32(set.correlations.len());
                    let mut sources: Vec<usize> = inputs_of[index].clone();
                    sources.sort_unstable();
                    sources.dedup();
                    for (input, source) in (0u32..).zip(sources) {
                        set.feeds[source].push(Feed { correlation: number, input });
                    }
                    set.correlations.push(correlation);
                }
                Err(at) => self.leave_out(index, Some(at.line), at.cause),
            }
        }
        for (slot, builder) in set.matchers.iter_mut().zip(builders) {
            match builder.build() {
                Ok(matcher) => *slot = matcher,
                Err(cause) => {
                    self.errors.push(RuleError { file: String::new(), line: None, rule: None, cause });
                }
            }
        }
        // Numbers of rules are positions among the entries; those left out stay as silent places.
        set.rules = self
            .entries
            .iter()
            .enumerate()
            .map(|(index, entry)| {
                let d = &entry.document;
                let (kind, logsource) = match &d.body {
                    Body::Events { source, .. } => (RuleKind::Event, source.text.clone()),
                    Body::Correlation { spec, .. } => (RuleKind::Correlation(spec.kind), String::new()),
                };
                Rule {
                    info: Arc::new(RuleInfo {
                        id: d.id.clone(),
                        title: d.title.clone(),
                        description: d.description.clone(),
                        techniques: d.techniques.clone(),
                        tactics: d.tactics.clone(),
                        correlation: kind != RuleKind::Event,
                        replaces: d.own.replaces.clone(),
                    }),
                    level: d.level,
                    response: d.own.response,
                    kind,
                    logsource,
                    file: entry.file.clone(),
                    enabled: entry.enabled && !entry.out,
                    alerts: entry.enabled
                        && !entry.out
                        && d.own.alert
                        && (!referred.contains(&index) || generated.contains(&index)),
                    status: d.status.clone(),
                }
            })
            .collect();
        self.without_left_out(set)
    }

    /// Takes the rules that were left out from the list, renumbering the rest.
    fn without_left_out(&self, mut set: RuleSet) -> RuleSet {
        let mut number = 0;
        let renumbered: Vec<Option<u32>> = self
            .entries
            .iter()
            .map(|e| {
                (!e.out).then(|| {
                    number += 1;
                    number - 1
                })
            })
            .collect();
        let keep = |index: &mut usize| {
            *index += 1;
            renumbered[*index - 1].is_some()
        };
        let mut index = 0;
        set.rules.retain(|_| keep(&mut index));
        let mut index = 0;
        set.feeds.retain(|_| keep(&mut index));
        for matcher in &mut set.matchers {
            matcher.renumber(&renumbered);
        }
        for correlation in &mut set.correlations {
            correlation.rule = renumbered[correlation.rule as usize].unwrap_or(u32::MAX);
        }
        set
    }

    /// Resolves what correlations refer to. Yields them in an order in which each comes after those it refers to, and for each
    /// entry the entries it refers to, in its own order.
    fn link(&mut self) -> (Vec<usize>, Vec<Vec<usize>>) {
        let mut names: HashMap<String, usize> = HashMap::new();
        for (index, entry) in self.entries.iter().enumerate() {
            names.insert(entry.document.id.clone(), index);
        }
        for (index, entry) in self.entries.iter().enumerate() {
            if let Some(name) = &entry.document.name {
                names.entry(name.clone()).or_insert(index);
            }
        }
        let mut targets: Vec<Vec<usize>> = vec![Vec::new(); self.entries.len()];
        let mut unknown = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            let Body::Correlation { spec, line } = &entry.document.body else { continue };
            for name in &spec.rules {
                match names.get(name) {
                    Some(target) => targets[index].push(*target),
                    None => unknown.push((index, *line, name.clone())),
                }
            }
        }
        for (index, line, name) in unknown {
            let cause = Cause::UnknownRule(format!("no rule is called `{name}`"));
            self.leave_out(index, Some(line), cause);
        }
        // Take those whose targets are all done, until nothing changes; what is left is in, or behind, a circle.
        let mut order = Vec::new();
        let mut done: Vec<bool> =
            self.entries.iter().map(|e| matches!(e.document.body, Body::Events { .. })).collect();
        loop {
            let mut changed = false;
            for index in 0..self.entries.len() {
                if done[index] || self.entries[index].out {
                    continue;
                }
                if let Some(bad) = targets[index].iter().copied().find(|t| self.entries[*t].out) {
                    let title = self.entries[bad].document.title.clone();
                    let cause = Cause::UnknownRule(format!("the rule \"{title}\" it refers to was left out"));
                    self.leave_out(index, None, cause);
                    changed = true;
                } else if targets[index].iter().all(|t| done[*t]) {
                    done[index] = true;
                    changed = true;
                    if !self.entries[index].enabled {
                        continue;
                    }
                    if let Some(off) = targets[index].iter().copied().find(|t| !self.entries[*t].enabled) {
                        let title = self.entries[off].document.title.clone();
                        let cause =
                            Cause::UnknownRule(format!("the rule \"{title}\" it refers to is switched off"));
                        self.leave_out(index, None, cause);
                    } else {
                        order.push(index);
                    }
                }
            }
            if !changed {
                break;
            }
        }
        for (index, done) in done.iter().enumerate() {
            if !done && !self.entries[index].out {
                let cause = Cause::Cycle("the correlation refers, over others, to itself".to_owned());
                self.leave_out(index, None, cause);
            }
        }
        (order, targets)
    }

    fn correlation(
        &self,
        index: usize,
        targets: &[usize],
        source_at: &HashMap<usize, Option<usize>>,
    ) -> Result<Correlation, At> {
        let Body::Correlation { spec, line } = &self.entries[index].document.body else {
            let cause = Cause::Structure("not a correlation".to_owned());
            return Err(At::new(self.entries[index].document.line, cause));
        };
        let mut sources = targets.to_vec();
        sources.sort_unstable();
        sources.dedup();
        let inputs: Vec<Input> = sources
            .iter()
            .map(|source| {
                let positions =
                    (0u8..).zip(targets).filter(|(_, target)| *target == source).map(|(at, _)| at).collect();
                let key = |name: &str| self.key(spec, *source, name);
                let group = spec.group_by.iter().map(|name| key(name)).collect::<Result<_, _>>()?;
                let value = match (&spec.field, spec.kind) {
                    (Some(name), CorrelationKind::ValueCount) => Some(key(name)?),
                    _ => None,
                };
                Ok(Input { positions, group, value })
            })
            .collect::<Result<_, Cause>>()
            .map_err(|cause| At::new(*line, cause))?;
        let is_source = |at: usize| {
            sources.iter().zip(&inputs).all(|(source, input)| {
                match (&self.entries[*source].document.body, input.group[at]) {
                    (Body::Events { source, .. }, Key::Field(field)) => {
                        source.class.source_address() == Some(field)
                    }
                    (Body::Correlation { .. }, Key::Group(inner)) => {
                        source_at.get(source) == Some(&Some(inner))
                    }
                    _ => false,
                }
            })
        };
        let source_at = (0..spec.group_by.len()).find(|at| is_source(*at));
        Ok(Correlation {
            rule: to_u32(index),
            kind: spec.kind,
            span: i64::try_from(spec.timespan_ms).unwrap_or(i64::MAX),
            bounds: spec.bounds.clone(),
            group_by: spec.group_by.clone(),
            counted: spec.field.clone().unwrap_or_default(),
            inputs,
            rules: targets.len(),
            source_at,
        })
    }

    /// Where a correlation finds the value of `name` when the rule `source` fired.
    fn key(&self, spec: &CorrelationSpec, source: usize, name: &str) -> Result<Key, Cause> {
        let document = &self.entries[source].document;
        let mut field = name;
        if let Some((_, fields)) = spec.aliases.iter().find(|(alias, _)| alias == name) {
            field = fields
                .iter()
                .find(|(rule, _)| *rule == document.id || Some(rule) == document.name.as_ref())
                .map(|(_, field)| field.as_str())
                .ok_or_else(|| {
                    Cause::Structure(format!(
                        "the alias `{name}` names no field for the rule \"{}\"",
                        document.title
                    ))
                })?;
        }
        match &document.body {
            Body::Events { source, .. } => field::resolve(source.class, field).map(Key::Field),
            Body::Correlation { spec: inner, .. } => {
                inner.group_by.iter().position(|g| g == field).map(Key::Group).ok_or_else(|| {
                    Cause::Structure(format!(
                        "the correlation \"{}\" does not group by `{field}`",
                        document.title
                    ))
                })
            }
        }
    }
}

fn to_u32(n: usize) -> u32 {
    // Bounded by MAX_RULES.
    u32::try_from(n).unwrap_or(u32::MAX)
}
