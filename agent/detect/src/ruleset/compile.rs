//! Documents, with the configuration's changes to them, become matchers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use defender_model::finding::RuleInfo;
use defender_model::order;

use super::{Feed, Rule, RuleKind, RuleOverride, RuleSet};
use crate::error::{Cause, RuleError};
use crate::exception::{Exception, ExceptionSpec, MAX_EXCEPTIONS};
use crate::field::Class;
use crate::matcher::{Matcher, MatcherBuilder};
use crate::sigma::correlation::{CorrelationKind, MAX_THRESHOLD};
use crate::sigma::detection::Placeholders;
use crate::sigma::document::{Body, Document};
use crate::source::DataSources;

/// A document on its way into the set.
pub(super) struct Entry {
    file: String,
    pub(super) document: Document,
    pub(super) enabled: bool,
    /// It has an error and stays out.
    pub(super) out: bool,
}

/// Leaves out documents whose id another one has already.
pub(super) fn unique(documents: Vec<(String, Document)>, errors: &mut Vec<RuleError>) -> Vec<Entry> {
    let mut ids: HashMap<String, String> = HashMap::new();
    let mut entries = Vec::with_capacity(documents.len());
    for (file, document) in documents {
        if let Some(first) = ids.get(&document.id) {
            let cause =
                Cause::DuplicateId(format!("the id `{}` is already that of a rule in {first}", document.id));
            errors.push(RuleError {
                file,
                line: Some(document.line).filter(|line| *line > 0),
                rule: Some(document.title),
                cause,
            });
            continue;
        }
        ids.insert(document.id.clone(), file.clone());
        entries.push(Entry { file, document, enabled: true, out: false });
    }
    entries
}

/// Makes a set of the documents taken in.
pub(super) struct Compiler {
    pub(super) entries: Vec<Entry>,
    pub(super) errors: Vec<RuleError>,
}

impl Compiler {
    pub(super) fn leave_out(&mut self, index: usize, line: Option<u32>, cause: Cause) {
        let entry = &mut self.entries[index];
        entry.out = true;
        self.errors.push(RuleError {
            file: entry.file.clone(),
            // What the configuration makes has no line.
            line: line.or(Some(entry.document.line)).filter(|line| *line > 0),
            rule: Some(entry.document.title.clone()),
            cause,
        });
    }

    pub(super) fn apply(&mut self, overrides: &[RuleOverride]) {
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
    pub(super) fn except(
        &mut self,
        set: &mut RuleSet,
        specs: Vec<ExceptionSpec>,
        placeholders: &Placeholders,
    ) {
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

    pub(super) fn compile(&mut self) -> RuleSet {
        // A list: an array is built and moved member by member, in code for each.
        let mut builders: Vec<MatcherBuilder> = Vec::with_capacity(Class::COUNT);
        for class in Class::ALL {
            builders.push(MatcherBuilder::new(class));
        }
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
        let mut needs: Vec<DataSources> = self.entries.iter().map(own_needs).collect();
        for index in order {
            match self.correlation(index, &inputs_of[index], &source_at) {
                Ok(correlation) => {
                    source_at.insert(index, correlation.source_at);
                    needs[index] =
                        joint_needs(correlation.kind, inputs_of[index].iter().map(|at| needs[*at]));
                    let number = to_u32(set.correlations.len());
                    let mut sources: Vec<usize> = inputs_of[index].clone();
                    order::sort(&mut sources);
                    sources.dedup();
                    for (input, source) in (0u32..).zip(sources) {
                        set.feeds[source].push(Feed { correlation: number, input });
                    }
                    set.correlations.push(correlation);
                }
                Err(at) => self.leave_out(index, Some(at.line), at.cause),
            }
        }
        for builder in builders {
            match builder.build() {
                Ok(matcher) => set.matchers.push(matcher),
                Err(cause) => {
                    set.matchers.push(Matcher::default());
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
                    needs: needs[index],
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
}

/// What a rule about single events needs; of correlations nothing yet.
fn own_needs(entry: &Entry) -> DataSources {
    match &entry.document.body {
        Body::Events { source, .. } => DataSources::of(source.class.data_source()),
        Body::Correlation { .. } => DataSources::NONE,
    }
}

/// What a correlation needs of what its rules need: one that counts can do with any of them.
fn joint_needs(kind: CorrelationKind, rules: impl Iterator<Item = DataSources>) -> DataSources {
    let join = match kind {
        CorrelationKind::EventCount | CorrelationKind::ValueCount | CorrelationKind::ActiveCount => {
            DataSources::intersection
        }
        CorrelationKind::Temporal | CorrelationKind::TemporalOrdered => DataSources::union,
    };
    rules.reduce(join).unwrap_or_default()
}

/// The number of a rule.
pub(super) fn to_u32(n: usize) -> u32 {
    // Bounded by MAX_RULES.
    u32::try_from(n).unwrap_or(u32::MAX)
}
