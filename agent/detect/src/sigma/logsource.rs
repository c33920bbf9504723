//! Which class of our events a log source stands for.

use crate::error::{At, Cause};
use crate::expression::Expr;
use crate::field::{self, Class};
use crate::predicate::{Place, Question, Test};
use crate::yaml::{Kind, Node};

/// A log source that a sensor supplies.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogSource {
    pub(crate) class: Class,
    /// What else must hold of the event for it to be of this source.
    pub(crate) also: Option<Expr>,
    /// As the rule has it, for lists: `linux/process_creation`.
    pub(crate) text: String,
}

/// Services whose log lines the login sensor reads.
const LOGIN_SERVICES: [&str; 4] = ["sshd", "dropbear", "login", "su"];

/// Categories, and the class of events each names.
const CATEGORIES: [(&str, Class); 23] = [
    ("process_creation", Class::ProcessCreation),
    ("authentication", Class::Authentication),
    ("network_connection", Class::NetworkConnection),
    ("network_flow", Class::NetworkFlow),
    ("network_listen", Class::NetworkListen),
    ("dns_query", Class::DnsQuery),
    ("dns", Class::DnsQuery),
    ("file_event", Class::FileEvent),
    ("file_change", Class::FileChange),
    ("file_delete", Class::FileDelete),
    ("file_rename", Class::FileRename),
    ("file_access", Class::FileAccess),
    ("device_connection", Class::DeviceConnection),
    ("device_disconnection", Class::DeviceDisconnection),
    ("process_access", Class::ProcessAccess),
    ("privilege_change", Class::PrivilegeChange),
    ("ebpf_load", Class::EbpfLoad),
    ("driver_load", Class::DriverLoad),
    ("driver_unload", Class::DriverUnload),
    ("firewall_change", Class::FirewallChange),
    ("account_change", Class::AccountChange),
    ("service_change", Class::ServiceChange),
    ("submitted_event", Class::SubmittedEvent),
];

/// Reads `logsource`.
pub(crate) fn parse(node: &Node) -> Result<LogSource, At> {
    let Some(entries) = node.map() else {
        return Err(At::new(node.line, Cause::Structure("`logsource` must be a mapping".to_owned())));
    };
    let mut product = None;
    let mut category = None;
    let mut service = None;
    for (key, value) in entries {
        let slot = match key.as_str() {
            "product" => &mut product,
            "category" => &mut category,
            "service" => &mut service,
            // `definition` is prose; the specification lets authors add keys of their own.
            _ => continue,
        };
        let Some(text) = value.text() else {
            return Err(At::new(value.line, Cause::Structure(format!("`logsource.{key}` must be text"))));
        };
        *slot = Some(text.to_ascii_lowercase());
    }
    let (product, category, service) = (product.as_deref(), category.as_deref(), service.as_deref());
    let text = [product, category, service].into_iter().flatten().collect::<Vec<_>>().join("/");
    let unsupplied = |what: String| Err(At::new(node.line, Cause::Unsupplied(what)));
    if let Some(product @ ("windows" | "macos")) = product {
        return unsupplied(format!(
            "no sensor supplies the log source `{text}`: this device does not run {product}"
        ));
    }
    if product.is_some_and(|p| p != "linux") {
        return unsupplied(format!("no sensor supplies the log source `{text}`: the product is not linux"));
    }
    let is = |class: Class, field: &str, name: &str| {
        let field = field::resolve(class, field).map_err(|c| At::new(node.line, c))?;
        let test = Test::Literal { place: Place::Whole, bytes: name.as_bytes().to_vec(), cased: false };
        Ok(Some(Expr::Ask(Question { field, test })))
    };
    let (class, also) = match (category, service) {
        (None, Some("auth")) => (Class::Authentication, None),
        (None | Some("authentication"), Some(name)) if LOGIN_SERVICES.contains(&name) => {
            (Class::Authentication, is(Class::Authentication, "service", name)?)
        }
        (None, Some("auditd")) => (Class::Audit, None),
        (None, Some(name @ ("sudo" | "cron"))) => (Class::Log, is(Class::Log, "program", name)?),
        (None, None) => return unsupplied("the log source names neither category nor service".to_owned()),
        (Some(category), None) => match CATEGORIES.iter().find(|(name, _)| *name == category) {
            Some((_, class)) => (*class, None),
            None => return unsupplied(unknown(&text)),
        },
        (None, Some("syslog")) => {
            return unsupplied(
                "no sensor supplies the log source `linux/syslog`: of the system log only logins are kept; \
                 use the services auth, sshd, sudo or cron"
                    .to_owned(),
            )
        }
        _ => return unsupplied(unknown(&text)),
    };
    Ok(LogSource { class, also, text })
}

/// The log source of a category or a service of that name.
pub(crate) fn named(name: &str) -> Result<LogSource, At> {
    let is_category = CATEGORIES.iter().any(|(category, _)| *category == name);
    let key = if is_category { "category" } else { "service" };
    let text = |text: &str| Node { line: 0, kind: Kind::Text(text.to_owned()) };
    let entries = vec![("product".to_owned(), text("linux")), (key.to_owned(), text(name))];
    parse(&Node { line: 0, kind: Kind::Map(entries) })
}

/// The category of a class of events; empty for one that has none.
pub(crate) fn category(class: Class) -> &'static str {
    CATEGORIES.iter().find(|(_, of)| *of == class).map_or("", |(name, _)| *name)
}

fn unknown(text: &str) -> String {
    let categories = CATEGORIES.map(|(name, _)| name).join(", ");
    let services = LOGIN_SERVICES.join(", ");
    format!(
        "no sensor supplies the log source `{text}`; there are the categories {categories} and the services auth, auditd, cron, \
         sudo, {services}"
    )
}
