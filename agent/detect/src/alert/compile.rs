//! From an alert to the rules it stands for.

use super::{allow, range, AlertError, AlertSpec, Watch};
use crate::error::Cause;
use crate::expression::Expr;
use crate::field::{self, Class};
use crate::predicate::{Place, Question, Test};
use crate::sigma::correlation::CorrelationSpec;
use crate::sigma::detection::Placeholders;
use crate::sigma::document::{Body, Document, Own};
use crate::sigma::logsource::{self, LogSource};

/// Longest name and id, in bytes.
const MAX_NAME: usize = 256;

/// The rules an alert stands for.
pub(crate) fn documents(spec: &AlertSpec, placeholders: &Placeholders) -> Result<Vec<Document>, AlertError> {
    if spec.name.trim().is_empty() || spec.name.len() > MAX_NAME {
        return Err(AlertError::new("name", format!("an alert has a name of 1 to {MAX_NAME} bytes")));
    }
    let id = spec.id();
    if id == "alert." {
        let why =
            format!("no id can be made of the name `{}`: it has no ASCII letter; give an `id`", spec.name);
        return Err(AlertError::new("id", why));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    if id.len() > MAX_NAME || !id.chars().all(plain) {
        let why = format!("`{id}` is no id: it has up to {MAX_NAME} letters, digits and any of _ - . :");
        return Err(AlertError::new("id", why));
    }
    let draft = Draft { spec, id };
    match &spec.watch {
        Watch::Users(users) => draft.list(Class::Authentication, allow::users(users), "LocalUserNotAllowed"),
        Watch::Outbound(peers) => {
            draft.list(Class::NetworkFlow, allow::outbound(peers), "ConnectionToIpNotAllowed")
        }
        Watch::Inbound(peers) => {
            draft.list(Class::NetworkFlow, allow::inbound(peers), "ConnectionFromIpNotAllowed")
        }
        Watch::Dns(names) => draft.list(Class::DnsQuery, allow::names(names), ""),
        Watch::Processes(programs) => {
            let mut documents =
                draft.list(Class::ProcessCreation, allow::programs(programs), "ProcessNotAllowed")?;
            if let Some(expr) = allow::contents(programs)? {
                let title = format!("{} (content)", spec.name);
                documents.push(draft.events("content", &title, source(Class::FileEvent), expr, true));
            }
            Ok(documents)
        }
        Watch::Count(range) => range::documents(&draft, range, placeholders),
    }
}

/// The events of a class, without a word of the rule's own for it.
fn source(class: Class) -> LogSource {
    LogSource { class, also: None, text: format!("linux/{}", logsource::category(class)) }
}

/// An alert whose name and id are in order.
pub(super) struct Draft<'a> {
    spec: &'a AlertSpec,
    id: String,
}

impl Draft<'_> {
    /// The id of the rule that is this part of the alert; of the whole where `part` is empty.
    pub(super) fn id(&self, part: &str) -> String {
        if part.is_empty() {
            self.id.clone()
        } else {
            format!("{}.{part}", self.id)
        }
    }

    /// The name of the alert.
    pub(super) fn name(&self) -> &str {
        &self.spec.name
    }

    fn list(
        &self,
        class: Class,
        expr: Result<Expr, AlertError>,
        replaces: &str,
    ) -> Result<Vec<Document>, AlertError> {
        let mut document = self.events("", &self.spec.name, source(class), expr?, true);
        if !replaces.is_empty() {
            document.own.replaces.push(replaces.to_owned());
        }
        Ok(vec![document])
    }

    /// A rule about single events.
    pub(super) fn events(
        &self,
        part: &str,
        title: &str,
        source: LogSource,
        expr: Expr,
        alert: bool,
    ) -> Document {
        let mut document = self.document(part, title, Body::Events { source, expr });
        document.own.alert = alert;
        document
    }

    /// A rule about several.
    pub(super) fn correlation(&self, part: &str, title: &str, spec: CorrelationSpec) -> Document {
        self.document(part, title, Body::Correlation { spec, line: 0 })
    }

    fn document(&self, part: &str, title: &str, body: Body) -> Document {
        Document {
            line: 0,
            title: title.to_owned(),
            id: self.id(part),
            name: None,
            description: self.spec.description.clone(),
            level: self.spec.level,
            status: None,
            techniques: Vec::new(),
            tactics: Vec::new(),
            own: Own { response: self.spec.response, ..Own::default() },
            body,
        }
    }
}

/// A question about a field of that name.
pub(super) fn ask(class: Class, name: &str, test: Test) -> Result<Expr, Cause> {
    Ok(Expr::Ask(Question { field: field::resolve(class, name)?, test }))
}

/// Whether a field is one of these words.
pub(super) fn one_of(class: Class, name: &str, words: &[&str]) -> Result<Expr, Cause> {
    words
        .iter()
        .map(|word| ask(class, name, literal(Place::Whole, word, false)))
        .collect::<Result<Vec<_>, _>>()
        .map(Expr::any)
}

/// The text is, starts or ends with this.
pub(super) fn literal(place: Place, text: &str, cased: bool) -> Test {
    Test::Literal { place, bytes: text.as_bytes().to_vec(), cased }
}
