//! Who calls, as the bus says.
//!
//! The bus's policy (`system.d/org.defender.Agent1.conf`) keeps everybody but root and members of group `defender` from the
//! restricted members. Should it be missing or have been widened, the agent still asks the bus for the caller's user and groups and
//! refuses those who are no operators. A bus that does not tell groups (dbus-daemon before 1.13.16) leaves users other than root
//! and the agent's own to its policy alone.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::timeout;
use zbus::fdo::Error;
use zbus::message::Header;
use zbus::zvariant::Value;
use zbus::Connection;

use super::texts;
use crate::control::{Operators, GROUP};

/// How long the bus may take.
const ANSWER: Duration = Duration::from_secs(5);
const BUS: &str = "org.freedesktop.DBus";

/// Who calls.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) uid: u32,
    /// `None` where the bus does not know it.
    pub(super) pid: Option<u32>,
    /// `None` where the bus does not tell them.
    pub(super) groups: Option<Vec<u32>>,
}

/// Refuses a caller who is no operator.
///
/// # Errors
/// `AccessDenied` for such a caller and for one who cannot be identified, who may be gone already.
pub(super) async fn admit(
    connection: &Connection,
    header: &Header<'_>,
    operators: Operators,
) -> Result<(), Error> {
    let caller = identify(connection, header).await?;
    if is_admitted(operators, caller.uid, caller.groups.as_deref()) {
        return Ok(());
    }
    Err(Error::AccessDenied(format!("only root and members of group {GROUP} may call this")))
}

/// Asks the bus who calls.
///
/// # Errors
/// `AccessDenied` for one who cannot be identified, who may be gone already.
pub(super) async fn identify(connection: &Connection, header: &Header<'_>) -> Result<Caller, Error> {
    let unknown = |why: &str| Error::AccessDenied(format!("the bus does not say who calls: {why}"));
    let sender = header.sender().ok_or_else(|| unknown("no sender"))?;
    let path = "/org/freedesktop/DBus";
    let body = texts(&[sender.as_str()]).map_err(|error| unknown(&error))?;
    let asked = connection.call_method(Some(BUS), path, Some(BUS), "GetConnectionCredentials", &body);
    let reply = timeout(ANSWER, asked)
        .await
        .map_err(|_| unknown("no answer"))?
        .map_err(|error| unknown(&error.to_string()))?;
    let body = reply.body();
    let credentials: HashMap<&str, Value<'_>> =
        body.deserialize().map_err(|error| unknown(&error.to_string()))?;
    let Some(Value::U32(uid)) = credentials.get("UnixUserID") else { return Err(unknown("no user id")) };
    let groups = credentials.get("UnixGroupIDs").and_then(|groups| match groups {
        Value::Array(groups) => {
            groups.iter().map(|group| u32::try_from(group).ok()).collect::<Option<Vec<_>>>()
        }
        _ => None,
    });
    let pid = match credentials.get("ProcessID") {
        Some(Value::U32(pid)) => Some(*pid),
        _ => None,
    };
    Ok(Caller { uid: *uid, pid, groups })
}

/// `groups` is `None` where the bus does not tell them.
fn is_admitted(operators: Operators, uid: u32, groups: Option<&[u32]>) -> bool {
    groups.is_none_or(|groups| operators.include(uid, groups))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_decide_where_the_bus_tells_them() {
        let operators = Operators { uid: 990, gid: Some(991) };
        assert!(is_admitted(operators, 0, Some(&[])));
        assert!(is_admitted(operators, 1000, Some(&[991])));
        assert!(!is_admitted(operators, 1000, Some(&[1000])));
        assert!(is_admitted(operators, 1000, None));
    }
}
