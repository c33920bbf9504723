//! A profile in force: what of an event it lacks.

use defender_model::event::Event;
use defender_model::order;

use super::document::{Document, Facts};
use super::endpoint::Endpoint;
use super::learn::written;
use super::observed::{observe, Fact, Observed, Scratch};
use super::pattern::{Name, Pattern};
use super::{document, generalise, Facet};
use crate::source::{DataSource, DataSources};

/// What a profile lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lack {
    /// A program that is not in it was started.
    Program,
    /// A program was started by another user.
    User,
    /// A program was started by another program.
    Parent,
    /// A program listens elsewhere.
    Listener,
    /// A program connected to something else.
    Peer,
    /// A program looked up another domain.
    Domain,
    /// A program wrote or read another watched file.
    File,
    /// Somebody else logged in.
    Login,
}

impl Lack {
    /// Everything a profile can lack.
    pub const ALL: [Self; 8] = [
        Self::Program,
        Self::User,
        Self::Parent,
        Self::Listener,
        Self::Peer,
        Self::Domain,
        Self::File,
        Self::Login,
    ];

    /// Id of the rule that says so.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Program => "profile.program",
            Self::User => "profile.user",
            Self::Parent => "profile.parent",
            Self::Listener => "profile.listener",
            Self::Peer => "profile.peer",
            Self::Domain => "profile.domain",
            Self::File => "profile.file",
            Self::Login => "profile.login",
        }
    }

    /// Title of that rule.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Program => "Program that is not in the profile",
            Self::User => "Program run by a user that is not in the profile",
            Self::Parent => "Program started by one that is not in the profile",
            Self::Listener => "Listening socket that is not in the profile",
            Self::Peer => "Connection that is not in the profile",
            Self::Domain => "Name look-up that is not in the profile",
            Self::File => "Use of a watched file that is not in the profile",
            Self::Login => "Login that is not in the profile",
        }
    }

    /// ATT&CK tactic, where one is certain.
    pub(crate) const fn tactic(self) -> Option<&'static str> {
        match self {
            Self::Program | Self::User | Self::Parent => Some("execution"),
            Self::Listener => Some("persistence"),
            Self::Peer | Self::Domain => Some("command-and-control"),
            Self::Login => Some("initial-access"),
            Self::File => None,
        }
    }

    /// What has to be observed.
    pub(crate) const fn needs(self) -> DataSources {
        DataSources::of(match self {
            Self::Program | Self::User | Self::Parent => DataSource::Process,
            Self::Listener => DataSource::Listener,
            Self::Peer => DataSource::Flow,
            Self::Domain => DataSource::Dns,
            Self::File => DataSource::File,
            Self::Login => DataSource::Login,
        })
    }

    fn of(facet: Facet) -> Self {
        match facet {
            Facet::Users => Self::User,
            Facet::Parents => Self::Parent,
            Facet::Listens => Self::Listener,
            Facet::Connects => Self::Peer,
            Facet::LooksUp => Self::Domain,
            Facet::Writes | Facet::Reads => Self::File,
            Facet::Logins => Self::Login,
        }
    }
}

/// Names, ready to be looked up.
#[derive(Debug, Default)]
struct Names {
    /// Sorted.
    exact: Box<[Box<str>]>,
    patterns: Box<[Pattern]>,
}

impl Names {
    fn contain(&self, name: &str) -> bool {
        self.exact.binary_search_by(|known| (**known).cmp(name)).is_ok()
            || self.patterns.iter().any(|pattern| pattern.matches(name))
    }
}

/// What a program may do.
#[derive(Debug, Default)]
struct Known {
    /// Those facets that say something.
    names: Box<[(Facet, Names)]>,
    ends: Box<[(Facet, Endpoint)]>,
}

impl Known {
    /// `None` where it says nothing about the matter.
    fn names(&self, facet: Facet) -> Option<&Names> {
        self.names.iter().find(|(of, _)| *of == facet).map(|(_, names)| names)
    }

    fn covers(&self, fact: &Fact<'_>) -> bool {
        match fact {
            Fact::Name(facet, name) => match self.names(*facet) {
                Some(names) => names.contain(name),
                // A program of which nobody knows who starts it may be started by anyone; what it does it does not do unsaid.
                None => matches!(facet, Facet::Users | Facet::Parents),
            },
            Fact::End(facet, seen) => self.ends.iter().any(|(of, end)| of == facet && end.covers(seen)),
        }
    }
}

/// A profile in force.
#[derive(Debug, Default)]
pub struct Profile {
    /// By path, sorted.
    programs: Box<[(Box<str>, Known)]>,
    patterns: Box<[(Pattern, Known)]>,
    any: Known,
    scratch: Scratch,
}

impl From<&Document> for Profile {
    fn from(document: &Document) -> Self {
        let mut profile = Self::default();
        let (mut programs, mut patterns) = (Vec::new(), Vec::new());
        for (program, facts) in &document.programs {
            let known = known(facts);
            match document::path(program) {
                _ if program.is_empty() => profile.any = known,
                Ok(Name::Exact(path)) => programs.push((path, known)),
                Ok(Name::Pattern(pattern)) => patterns.push((pattern, known)),
                // A document holds only what it has checked.
                Err(_) => {}
            }
        }
        // Escapes sort otherwise than what they stand for.
        order::sort_by(&mut programs, |a, b| a.0.cmp(&b.0));
        (profile.programs, profile.patterns) = (programs.into(), patterns.into());
        profile
    }
}

fn known(facts: &Facts) -> Known {
    let (mut names, mut ends) = (Vec::new(), Vec::new());
    for facet in Facet::ALL {
        let (mut exact, mut patterns) = (Vec::new(), Vec::new());
        for text in &facts.0[facet as usize] {
            match facet.name(text) {
                None => ends.extend(facet.endpoint(text).ok().map(|end| (facet, end))),
                Some(Ok(Name::Exact(name))) => exact.push(name),
                Some(Ok(Name::Pattern(pattern))) => patterns.push(pattern),
                Some(Err(_)) => {}
            }
        }
        if !exact.is_empty() || !patterns.is_empty() {
            order::sort(&mut exact);
            names.push((facet, Names { exact: exact.into(), patterns: patterns.into() }));
        }
    }
    Known { names: names.into(), ends: ends.into() }
}

impl Profile {
    /// How many programs it knows.
    #[must_use]
    pub fn programs(&self) -> usize {
        self.programs.len() + self.patterns.len()
    }

    /// What of this event it lacks, and the entry that would have allowed it, which is only made where something is lacking.
    pub fn inspect(&mut self, event: &Event, lacks: &mut dyn FnMut(Lack, &str, String)) {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(observed) = observe(event, &mut scratch) {
            self.judge(&observed, lacks);
        }
        self.scratch = scratch;
    }

    fn judge(&self, observed: &Observed<'_>, lacks: &mut dyn FnMut(Lack, &str, String)) {
        let program = observed.program;
        let exact = self.programs.binary_search_by(|(path, _)| (**path).cmp(program)).ok();
        let exact = exact.map(|at| &self.programs[at].1);
        let alike =
            || self.patterns.iter().filter(|(pattern, _)| pattern.matches(program)).map(|(_, known)| known);
        if observed.started && !program.is_empty() && exact.is_none() && alike().next().is_none() {
            return lacks(Lack::Program, program, generalise::executable(program));
        }
        for fact in observed.facts.iter().flatten() {
            let covered = self.any_covers(fact)
                || exact.is_some_and(|known| known.covers(fact))
                || alike().any(|known| known.covers(fact))
                // It is not known who did it: whoever may do it may have.
                || (program.is_empty() && self.all().any(|known| known.covers(fact)));
            if !covered {
                let (facet, text) = written(fact);
                lacks(Lack::of(facet), program, format!("{} {text}", facet.key()));
            }
        }
    }

    /// Who starts a program is a matter of that program alone.
    fn any_covers(&self, fact: &Fact<'_>) -> bool {
        !matches!(fact, Fact::Name(Facet::Users | Facet::Parents, _)) && self.any.covers(fact)
    }

    fn all(&self) -> impl Iterator<Item = &Known> {
        self.programs.iter().map(|(_, known)| known).chain(self.patterns.iter().map(|(_, known)| known))
    }
}
