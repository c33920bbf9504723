//! Table `inet defender_watch`: rules that judge nothing. They make the kernel track connections, and copy what the network sensor
//! reads to it by NFLOG.
//!
//! ```text
//! table inet defender_watch {
//!     chain input  { type filter hook input priority 10; policy accept;  ct state invalid counter }
//!     chain output { type filter hook output priority 10; policy accept; ct state invalid counter }
//! }
//! ```
//!
//! A table of its own, so that table `inet defender` stays what it is when this one cannot be had: a kernel may lack what a rule
//! here asks for. Since Linux 4.11 nothing is tracked until some rule asks for a connection's state (net/netfilter/nf_conntrack_proto.c,
//! `nf_ct_netns_get`); a firewall that judges by state asks already, and then the rule is one comparison more for each packet.

use std::time::Duration;

use crate::config::Config;
use crate::error::Error;
use crate::nft::Nft;

/// Name of the table.
pub const TABLE: &str = "defender_watch";
/// After the product's own filter chains (0).
const PRIORITY: i32 = 10;

/// What the rules are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watch {
    /// Connections are tracked.
    pub connections: bool,
}

impl Watch {
    /// The transaction that puts the table in place of what is there by its name.
    fn document(&self) -> String {
        let table = format!(r#"{{"table":{{"family":"inet","name":"{TABLE}"}}}}"#);
        let mut commands = vec![
            format!(r#"{{"add":{table}}}"#),
            format!(r#"{{"delete":{table}}}"#),
            format!(r#"{{"add":{table}}}"#),
        ];
        for hook in ["input", "output"] {
            commands.push(format!(
                r#"{{"add":{{"chain":{{"family":"inet","table":"{TABLE}","name":"{hook}","type":"filter","hook":"{hook}","prio":{PRIORITY},"policy":"accept"}}}}}}"#
            ));
            let mut rule = |statements: &str| {
                commands.push(format!(
                    r#"{{"add":{{"rule":{{"family":"inet","table":"{TABLE}","chain":"{hook}","expr":[{statements}]}}}}}}"#
                ));
            };
            if self.connections {
                rule(
                    r#"{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":"invalid"}},{"counter":null}"#,
                );
            }
        }
        format!(r#"{{"nftables":[{}]}}"#, commands.join(","))
    }
}

/// Puts the table in place.
///
/// # Errors
///
/// What stands in the way of `nft`, or what of the rules the kernel does not know.
pub async fn install(config: &Config, watch: &Watch) -> Result<(), Error> {
    nft(config).apply(&watch.document(), "installing table inet defender_watch").await
}

fn nft(config: &Config) -> Nft {
    Nft::new(config.nft.clone(), config.nft_timeout.max(Duration::from_secs(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_json() {
        let text = Watch { connections: true }.document();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let commands = value["nftables"].as_array().unwrap();
        assert_eq!(commands.len(), 3 + 2 * 2);
        assert_eq!(commands[1]["delete"]["table"]["name"], TABLE);
        assert_eq!(commands[4]["add"]["rule"]["expr"][0]["match"]["left"]["ct"]["key"], "state");
    }
}
