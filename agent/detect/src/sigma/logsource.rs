//! Which class of our events a log source stands for.

use crate::error::{At, Cause};
use crate::expression::Expr;
use crate::field::{self, Class};
use crate::predicate::{Place, Question, Test};
use crate::yaml::Node;

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
    match (category, service) {
        (Some("process_creation"), None) => Ok(LogSource { class: Class::ProcessCreation, also: None, text }),
        (Some("authentication"), None) | (None, Some("auth")) => {
            Ok(LogSource { class: Class::Authentication, also: None, text })
        }
        (None | Some("authentication"), Some(name)) if LOGIN_SERVICES.contains(&name) => {
            let field = field::resolve(Class::Authentication, "service").map_err(|c| At::new(node.line, c))?;
            let test = Test::Literal { place: Place::Whole, bytes: name.as_bytes().to_vec(), cased: false };
            let also = Some(Expr::Ask(Question { field, test }));
            Ok(LogSource { class: Class::Authentication, also, text })
        }
        (None, None) => unsupplied("the log source names neither category nor service".to_owned()),
        _ => unsupplied(format!(
            "no sensor supplies the log source `{text}`; there are linux/process_creation, linux/auth, linux/authentication and \
             the services {}",
            LOGIN_SERVICES.join(", ")
        )),
    }
}
