//! All rules about one class of events, compiled together.
//!
//! 1. Every literal of every rule about a field goes into one [`Automaton`], so one pass over the field's value finds
//!    all of them, however many rules there are.
//! 2. Each rule has a *trigger*: a set of literals at least one of which must be found for the rule to hold. Only rules
//!    with a found trigger are looked at further; rules without one (nothing but negations, numbers, regular expressions) always are.
//! 3. A rule that is looked at evaluates its boolean program; each question is asked at most once per event, whoever asks.
//!
//! What was found in a field is kept until the field has another value, and what was asked about it with it: events in a row often share
//! their parent, directory and user.
//!
//! Answers are kept with the number of the event they belong to, so nothing is cleared between events and nothing is allocated.

use std::collections::HashMap;

use defender_model::order;

use crate::automaton::Automaton;
use crate::error::Cause;
use crate::expression::Expr;
use crate::field::{Class, Field, Value, Values};
use crate::pattern;
use crate::predicate::{Literal, Place, Predicate, Question, Test};
use crate::regular::rarity;
use crate::rows::Rows;

/// The compiled rules of one class.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    // Boxes, not vectors: their elements are reached without a call, which a build for size does not inline.
    predicates: Box<[Predicate]>,
    /// The predicate is answered by a pass: without a hit it is false.
    indexed: Box<[bool]>,
    passes: Box<[Pass]>,
    /// By predicate: the programs it triggers.
    triggers: Rows<u32>,
    /// Programs without a trigger.
    always: Box<[u32]>,
    ops: Box<[Op]>,
    children: Box<[u32]>,
    programs: Box<[Program]>,
}

/// One rule's program.
#[derive(Debug)]
struct Program {
    root: u32,
    /// The caller's number of the rule.
    rule: u32,
}

/// A node of a program; ranges are of `children`.
#[derive(Debug, Clone, Copy)]
enum Op {
    Ask(u32),
    Not(u32),
    All(u32, u32),
    Any(u32, u32),
    AtLeast(u32, u32, u32),
}

/// The automaton of one field.
#[derive(Debug)]
struct Pass {
    field: Field,
    automaton: Automaton,
    /// By pattern of the automaton: which predicates a hit speaks for.
    hits: Rows<Hit>,
}

#[derive(Debug, Clone, Copy)]
struct Hit {
    predicate: u32,
    /// Where the literal must stand; `None` when the hit only makes the predicate worth asking.
    place: Option<Place>,
    cased: bool,
}

/// Answers for the event at hand, and for none before.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    epoch: u32,
    predicates: Box<[u32]>,
    programs: Box<[u32]>,
    candidates: Vec<u32>,
    /// By pass.
    latest: Box<[Latest]>,
    /// Programs looked at so far, for statistics.
    pub(crate) evaluated: u64,
}

/// The text a pass went through last, and what it came to.
#[derive(Debug, Default)]
struct Latest {
    /// None was kept yet, or it was too long, when this is empty: then there is nothing to save.
    text: Vec<u8>,
    /// The event it came with first: what was asked about it since is still true.
    since: u32,
    /// Predicates and what is known of them, each once.
    answers: Vec<(u32, u32)>,
}

/// Longest text kept, in bytes.
const KEPT: usize = 512;

// An answer is the epoch in the upper thirty bits and one of these in the lower two.
const TRUE: u32 = 1;
const FALSE: u32 = 2;
const MAYBE: u32 = 3;

impl Answers {
    pub(crate) fn new(matcher: &Matcher) -> Self {
        Self {
            epoch: 0,
            predicates: vec![0; matcher.predicates.len()].into(),
            programs: vec![0; matcher.programs.len()].into(),
            candidates: Vec::with_capacity(matcher.programs.len()),
            latest: matcher.passes.iter().map(|_| Latest::default()).collect(),
            evaluated: 0,
        }
    }

    fn next_event(&mut self) {
        self.epoch += 1;
        if self.epoch >= 1 << 30 {
            self.predicates.fill(0);
            self.programs.fill(0);
            self.epoch = 1;
        }
        self.candidates.clear();
    }

    #[inline(always)]
    fn get(&self, predicate: u32) -> u32 {
        let mark = self.predicates[predicate as usize];
        if mark >> 2 == self.epoch {
            mark & 3
        } else {
            0
        }
    }

    #[inline(always)]
    fn set(&mut self, predicate: u32, answer: u32) {
        self.predicates[predicate as usize] = self.epoch << 2 | answer;
    }
}

impl Matcher {
    /// Appends the numbers of the rules that hold for an event with these values, in the order the rules were added.
    pub(crate) fn run(&self, values: &Values<'_>, answers: &mut Answers, found: &mut Vec<u32>) {
        answers.next_event();
        for (number, pass) in self.passes.iter().enumerate() {
            if let Value::Text(text) = values.get(pass.field) {
                let mut latest = std::mem::take(&mut answers.latest[number]);
                self.pass(pass, text.as_bytes(), &mut latest, answers);
                answers.latest[number] = latest;
            }
        }
        answers.candidates.extend_from_slice(&self.always);
        let mut candidates = std::mem::take(&mut answers.candidates);
        candidates.sort_unstable();
        answers.evaluated += candidates.len() as u64;
        for program in &candidates {
            let program = &self.programs[*program as usize];
            if program.rule != u32::MAX && self.eval(program.root, values, answers) {
                found.push(program.rule);
            }
        }
        answers.candidates = candidates;
    }

    fn pass(&self, pass: &Pass, text: &[u8], latest: &mut Latest, answers: &mut Answers) {
        if !latest.text.is_empty() && latest.text == text {
            for (predicate, answer) in &latest.answers {
                let mark = answers.predicates[*predicate as usize];
                let known = if mark >> 2 >= latest.since { mark & 3 } else { *answer };
                self.learn(*predicate, known, answers);
            }
            return;
        }
        latest.text.clear();
        latest.answers.clear();
        latest.since = answers.epoch;
        if text.len() <= KEPT {
            latest.text.extend_from_slice(text);
        }
        pass.automaton.find(text, |literal, start, end| {
            for h in pass.hits.of(literal) {
                let answer = match h.place {
                    Some(place) => {
                        if !place.accepts(start, end, text.len()) {
                            continue;
                        }
                        if h.cased && !self.same_case(h.predicate, &text[start..end]) {
                            continue;
                        }
                        TRUE
                    }
                    None => MAYBE,
                };
                if answers.get(h.predicate) == 0 {
                    latest.answers.push((h.predicate, answer));
                    self.learn(h.predicate, answer, answers);
                }
            }
        });
    }

    /// Takes an answer, and the programs that wait for it.
    fn learn(&self, predicate: u32, answer: u32, answers: &mut Answers) {
        answers.set(predicate, answer);
        for program in self.triggers.of(predicate as usize) {
            if answers.programs[*program as usize] != answers.epoch {
                answers.programs[*program as usize] = answers.epoch;
                answers.candidates.push(*program);
            }
        }
    }

    fn same_case(&self, predicate: u32, found: &[u8]) -> bool {
        match &self.predicates[predicate as usize].question.test {
            Test::Literal { bytes, .. } => pattern::equal(bytes, found, true),
            _ => false,
        }
    }

    fn ask(&self, predicate: u32, values: &Values<'_>, answers: &mut Answers) -> bool {
        match answers.get(predicate) {
            TRUE => true,
            FALSE => false,
            0 if self.indexed[predicate as usize] => false,
            _ => {
                let holds = self.predicates[predicate as usize].holds(values);
                answers.set(predicate, if holds { TRUE } else { FALSE });
                holds
            }
        }
    }

    /// Recursion is as deep as the condition, which its parser bounds.
    fn eval(&self, op: u32, values: &Values<'_>, answers: &mut Answers) -> bool {
        match self.ops[op as usize] {
            Op::Ask(predicate) => self.ask(predicate, values, answers),
            Op::Not(inner) => !self.eval(inner, values, answers),
            Op::All(from, to) => {
                self.children[from as usize..to as usize].iter().all(|c| self.eval(*c, values, answers))
            }
            Op::Any(from, to) => {
                self.children[from as usize..to as usize].iter().any(|c| self.eval(*c, values, answers))
            }
            Op::AtLeast(n, from, to) => {
                let mut missing = n;
                for child in &self.children[from as usize..to as usize] {
                    if self.eval(*child, values, answers) {
                        missing -= 1;
                        if missing == 0 {
                            return true;
                        }
                    }
                }
                false
            }
        }
    }

    /// Gives the rules new numbers; those without one are never reported.
    pub(crate) fn renumber(&mut self, numbers: &[Option<u32>]) {
        for program in &mut *self.programs {
            program.rule = numbers.get(program.rule as usize).copied().flatten().unwrap_or(u32::MAX);
        }
    }

    /// Rules that are looked at for every event, and rules in all.
    pub(crate) fn always_evaluated(&self) -> (usize, usize) {
        (self.always.len(), self.programs.len())
    }

    /// No rule is about this class.
    pub(crate) fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }

    /// Bytes of the automatons.
    pub(crate) fn automaton_bytes(&self) -> usize {
        self.passes.iter().map(|p| p.automaton.memory_usage()).sum()
    }
}

/// Collects the rules of one class.
#[derive(Debug)]
pub(crate) struct MatcherBuilder {
    class: Class,
    predicates: Vec<Predicate>,
    indexed: Vec<bool>,
    ops: Vec<Op>,
    children: Vec<u32>,
    programs: Vec<Program>,
    interned: HashMap<Question, u32>,
    /// By predicate: how often it will hold, very roughly.
    frequencies: Vec<f64>,
    /// Trigger of each program.
    chosen: Vec<Option<Vec<u32>>>,
}

impl MatcherBuilder {
    pub(crate) fn new(class: Class) -> Self {
        Self {
            class,
            predicates: Vec::new(),
            indexed: Vec::new(),
            ops: Vec::new(),
            children: Vec::new(),
            programs: Vec::new(),
            interned: HashMap::new(),
            frequencies: Vec::new(),
            chosen: Vec::new(),
        }
    }

    /// Adds a rule; on an error nothing of it is left but unused questions.
    pub(crate) fn add(&mut self, rule: u32, expr: &Expr) -> Result<(), Cause> {
        let (ops, children) = (self.ops.len(), self.children.len());
        match self.compile(expr) {
            Ok(root) => {
                let trigger = self.trigger(expr, false).map(|t| t.predicates);
                self.programs.push(Program { root, rule });
                self.chosen.push(trigger);
                Ok(())
            }
            Err(cause) => {
                self.ops.truncate(ops);
                self.children.truncate(children);
                Err(cause)
            }
        }
    }

    fn compile(&mut self, expr: &Expr) -> Result<u32, Cause> {
        let op = match expr {
            Expr::Ask(question) => Op::Ask(self.intern(question)?),
            Expr::Not(inner) => Op::Not(self.compile(inner)?),
            Expr::All(parts) => {
                let (from, to) = self.compile_parts(parts)?;
                Op::All(from, to)
            }
            Expr::Any(parts) => {
                let (from, to) = self.compile_parts(parts)?;
                Op::Any(from, to)
            }
            Expr::AtLeast(n, parts) => {
                let (from, to) = self.compile_parts(parts)?;
                Op::AtLeast(to_u32(*n), from, to)
            }
        };
        self.ops.push(op);
        Ok(to_u32(self.ops.len() - 1))
    }

    fn compile_parts(&mut self, parts: &[Expr]) -> Result<(u32, u32), Cause> {
        let mut compiled = Vec::with_capacity(parts.len());
        // What is answered already is asked first, what has to be computed last.
        let mut ordered: Vec<&Expr> = parts.iter().collect();
        order::sort_by_key(&mut ordered, |part| self.cost(part));
        for part in ordered {
            compiled.push(self.compile(part)?);
        }
        let from = to_u32(self.children.len());
        self.children.extend(compiled);
        Ok((from, to_u32(self.children.len())))
    }

    fn cost(&self, expr: &Expr) -> u32 {
        match expr {
            Expr::Ask(question) => match question.test {
                Test::Literal { .. } | Test::Exists => 1,
                Test::Number { .. } | Test::OtherField { .. } => 2,
                Test::Cidr(_) => 8,
                Test::Glob { .. } => 10,
                Test::Regex { .. } => 100,
            },
            Expr::Not(inner) => self.cost(inner),
            Expr::All(parts) | Expr::Any(parts) | Expr::AtLeast(_, parts) => {
                parts.iter().fold(1, |sum: u32, p| sum.saturating_add(self.cost(p)))
            }
        }
    }

    fn intern(&mut self, question: &Question) -> Result<u32, Cause> {
        if let Some(known) = self.interned.get(question) {
            return Ok(*known);
        }
        let predicate = Predicate::new(question.clone())?;
        let number = to_u32(self.predicates.len());
        let literals = if self.class.is_numeric(question.field) { Vec::new() } else { predicate.literals() };
        self.indexed.push(!literals.is_empty());
        self.frequencies.push(frequency(&literals));
        self.predicates.push(predicate);
        self.interned.insert(question.clone(), number);
        Ok(number)
    }

    /// The cheapest set of indexed predicates one of which must hold for `expr` (or its negation) to hold.
    fn trigger(&self, expr: &Expr, negated: bool) -> Option<Trigger> {
        match expr {
            Expr::Ask(question) => {
                let number = *self.interned.get(question)?;
                (!negated && self.indexed[number as usize])
                    .then(|| Trigger { cost: self.frequencies[number as usize], predicates: vec![number] })
            }
            Expr::Not(inner) => self.trigger(inner, !negated),
            Expr::All(parts) if !negated => self.cheapest(parts, negated),
            Expr::Any(parts) if negated => self.cheapest(parts, negated),
            Expr::All(parts) | Expr::Any(parts) => {
                let triggers = parts.iter().map(|p| self.trigger(p, negated)).collect::<Option<Vec<_>>>()?;
                Some(Trigger::union(triggers))
            }
            Expr::AtLeast(_, _) if negated => None,
            Expr::AtLeast(n, parts) => {
                // When n of k hold, at least one of any k - n + 1 holds.
                let mut triggers: Vec<Trigger> =
                    parts.iter().filter_map(|p| self.trigger(p, false)).collect();
                let needed = parts.len() + 1 - n;
                if triggers.len() < needed {
                    return None;
                }
                order::sort_by(&mut triggers, |a, b| a.cost.total_cmp(&b.cost));
                triggers.truncate(needed);
                Some(Trigger::union(triggers))
            }
        }
    }

    fn cheapest(&self, parts: &[Expr], negated: bool) -> Option<Trigger> {
        parts.iter().filter_map(|p| self.trigger(p, negated)).min_by(|a, b| a.cost.total_cmp(&b.cost))
    }

    /// Builds the automatons.
    pub(crate) fn build(self) -> Result<Matcher, Cause> {
        let mut by_field: HashMap<Field, Vec<(Vec<u8>, Hit)>> = HashMap::new();
        for (number, predicate) in (0u32..).zip(&self.predicates) {
            if !self.indexed[number as usize] {
                continue;
            }
            for Literal { bytes, place, cased } in predicate.literals() {
                let hit = Hit { predicate: number, place, cased };
                by_field.entry(predicate.question.field).or_default().push((bytes.to_ascii_lowercase(), hit));
            }
        }
        let mut passes = Vec::new();
        let mut fields: Vec<_> = by_field.into_iter().collect();
        order::sort_by_key(&mut fields, |(field, _)| *field);
        for (field, mut literals) in fields {
            order::sort_by(&mut literals, |a, b| a.0.cmp(&b.0));
            let mut patterns: Vec<Vec<u8>> = Vec::new();
            let mut hits: Vec<Vec<Hit>> = Vec::new();
            for (bytes, hit) in literals {
                if patterns.last() == Some(&bytes) {
                    if let Some(last) = hits.last_mut() {
                        last.push(hit);
                    }
                } else {
                    patterns.push(bytes);
                    hits.push(vec![hit]);
                }
            }
            let automaton = Automaton::new(&patterns)
                .ok_or_else(|| Cause::TooLarge("the literals of all rules together".to_owned()))?;
            passes.push(Pass { field, automaton, hits: Rows::new(hits) });
        }
        let mut triggers = vec![Vec::new(); self.predicates.len()];
        let mut always = Vec::new();
        for (program, chosen) in (0u32..).zip(self.chosen) {
            match chosen {
                Some(predicates) => {
                    for predicate in predicates {
                        triggers[predicate as usize].push(program);
                    }
                }
                None => always.push(program),
            }
        }
        Ok(Matcher {
            predicates: self.predicates.into(),
            indexed: self.indexed.into(),
            passes: passes.into(),
            triggers: Rows::new(triggers),
            always: always.into(),
            ops: self.ops.into(),
            children: self.children.into(),
            programs: self.programs.into(),
        })
    }
}

struct Trigger {
    cost: f64,
    predicates: Vec<u32>,
}

impl Trigger {
    fn union(triggers: Vec<Self>) -> Self {
        let mut all = Self { cost: 0.0, predicates: Vec::new() };
        for t in triggers {
            all.cost += t.cost;
            all.predicates.extend(t.predicates);
        }
        order::sort(&mut all.predicates);
        all.predicates.dedup();
        all
    }
}

/// How often a predicate will hold, very roughly: only the order matters.
fn frequency(literals: &[Literal]) -> f64 {
    literals
        .iter()
        .map(|l| {
            let weight = match l.place {
                Some(Place::Whole) => 0.1,
                Some(Place::Start | Place::End) => 0.3,
                Some(Place::Anywhere) => 1.0,
                // Finding it is not the answer yet.
                None => 2.0,
            };
            weight * rarity(std::slice::from_ref(&l.bytes))
        })
        .sum()
}

fn to_u32(n: usize) -> u32 {
    // Rules are bounded in number and size far below this.
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
