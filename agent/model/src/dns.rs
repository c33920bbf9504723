//! Names looked up.

use crate::network::Endpoint;
use crate::process::Actor;

/// One record of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Answer {
    /// Record type, such as `A`, `AAAA`, `CNAME`, `TXT`.
    pub record_type: String,
    /// Its data as a zone file writes it: an address, a name, text. Whoever answered chose it: it may be anything.
    pub data: String,
}

/// A question to the domain name system, or the response to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// The name asked for, without the dot at its end.
    pub name: String,
    /// Record type asked for, such as `A`.
    pub record_type: String,
    /// Response code (RFC 1035 section 4.1.1, RFC 6895): 0 no error, 3 no such name. `None`: the question, not yet answered.
    pub rcode: Option<u16>,
    /// Answers of the response.
    pub answers: Vec<Answer>,
    /// The server asked.
    pub server: Option<Endpoint>,
    /// The device's process that asked.
    pub process: Option<Actor>,
}

impl Dns {
    /// IANA's name of a response code, for those a resolver meets.
    #[must_use]
    pub const fn rcode_name(rcode: u16) -> Option<&'static str> {
        Some(match rcode {
            0 => "NoError",
            1 => "FormErr",
            2 => "ServFail",
            3 => "NXDomain",
            4 => "NotImp",
            5 => "Refused",
            _ => return None,
        })
    }
}
