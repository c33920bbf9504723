//! Correlations find the rules they refer to.

use std::collections::HashMap;

use defender_model::order;

use super::compile::{to_u32, Compiler};
use super::{Correlation, Input, Key};
use crate::error::{At, Cause};
use crate::field;
use crate::sigma::correlation::{CorrelationKind, CorrelationSpec};
use crate::sigma::document::Body;

impl Compiler {
    /// Resolves what correlations refer to. Yields them in an order in which each comes after those it refers to, and for each
    /// entry the entries it refers to, in its own order.
    pub(super) fn link(&mut self) -> (Vec<usize>, Vec<Vec<usize>>) {
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

    /// The correlation that is the entry `index` and refers to the entries `targets`.
    pub(super) fn correlation(
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
        order::sort(&mut sources);
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
            floor: spec.floor,
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
