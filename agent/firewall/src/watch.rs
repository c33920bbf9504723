//! Table `inet defender_watch`: rules that judge nothing. They make the kernel track connections, and copy what the network sensor
//! reads to it by NFLOG.
//!
//! ```text
//! table inet defender_watch {
//!     chain input {
//!         type filter hook input priority 10; policy accept;
//!         ct state invalid counter
//!         iifname "excluded" return
//!         udp sport 53 log group 53 snaplen 1500 queue-threshold 1
//!         tcp sport 53 tcp flags psh log group 53 snaplen 1500 queue-threshold 1
//!     }
//!     chain output { the same by dport and oifname: questions, where input has the answers }
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
/// Its chains.
pub const CHAINS: [&str; 2] = ["input", "output"];
/// After the product's own filter chains (0).
const PRIORITY: i32 = 10;

/// Segments that carry the end of a message: of the handshake nothing is copied.
const PUSH: &str =
    r#"{"match":{"op":"in","left":{"payload":{"protocol":"tcp","field":"flags"}},"right":"psh"}},"#;

/// What the rules are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watch {
    /// Connections are tracked.
    pub connections: bool,
    /// Questions and answers of the domain name system are copied to this NFLOG group.
    pub dns_group: Option<u16>,
    /// Packets are copied from these interfaces alone; empty for all. A `*` at the end stands for any ending, as in nft.
    pub include: Vec<String>,
    /// Packets are not copied from these.
    pub exclude: Vec<String>,
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
        for (hook, interface, port) in [("input", "iifname", "sport"), ("output", "oifname", "dport")] {
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
            let Some(group) = self.dns_group else { continue };
            let on = |name: &String| {
                // Whatever a configuration holds is one string of JSON.
                let name = serde_json::Value::from(name.as_str());
                format!(
                    r#"{{"match":{{"op":"==","left":{{"meta":{{"key":"{interface}"}}}},"right":{name}}}}},"#
                )
            };
            for name in &self.exclude {
                rule(&format!(r#"{}{{"return":null}}"#, on(name)));
            }
            let included: Vec<String> = if self.include.is_empty() {
                vec![String::new()]
            } else {
                self.include.iter().map(on).collect()
            };
            for on in included {
                for (protocol, flags) in [("udp", ""), ("tcp", PUSH)] {
                    rule(&format!(
                        r#"{on}{{"match":{{"op":"==","left":{{"payload":{{"protocol":"{protocol}","field":"{port}"}}}},"right":53}}}},{flags}{{"log":{{"group":{group},"snaplen":1500,"queue-threshold":1}}}}"#
                    ));
                }
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
        let watch = Watch {
            connections: true,
            dns_group: Some(53),
            include: vec!["eth*".into(), "a\"b".into()],
            exclude: vec!["lo".into()],
        };
        let value: serde_json::Value = serde_json::from_str(&watch.document()).unwrap();
        let commands = value["nftables"].as_array().unwrap();
        assert_eq!(commands.len(), 3 + 2 * (1 + 1 + 1 + 4));
        assert_eq!(commands[1]["delete"]["table"]["name"], TABLE);
        let expr = |at: usize| &commands[at]["add"]["rule"]["expr"];
        assert_eq!(expr(4)[0]["match"]["left"]["ct"]["key"], "state");
        assert_eq!(expr(5)[0]["match"]["right"], "lo");
        assert_eq!(expr(8)[0]["match"]["right"], "a\"b");
        assert_eq!(expr(8)[2]["log"]["group"], 53);
        let none: serde_json::Value = serde_json::from_str(&Watch::default().document()).unwrap();
        assert_eq!(none["nftables"].as_array().unwrap().len(), 3 + 2);
    }
}
