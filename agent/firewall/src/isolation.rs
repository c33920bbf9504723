//! Isolation: for a time the device speaks with itself and with named peers, and with nobody else.
//!
//! ```text
//! table inet defender_isolation {
//!     set active { type nf_proto; flags timeout; elements = { ipv4 timeout 900s, ipv6 timeout 900s } }
//!     set pause  { the same, for longer: no rule asks it }
//!     set peers4 { type ipv4_addr; flags interval; }            set peers6 { type ipv6_addr; flags interval; }
//!     counter dropped_input {}   counter dropped_output {}   counter dropped_forward {}
//!     chain input {
//!         type filter hook input priority -249; policy accept;
//!         meta nfproto != @active return
//!         iifname "lo" return
//!         ip saddr @peers4 return;  ip6 saddr @peers6 return
//!         (DHCP answers, neighbour discovery, errors on the path: at a bounded rate)
//!         counter name dropped_input drop
//!     }
//!     chain output  { the same by daddr }
//!     chain forward { meta nfproto != @active return;  counter name dropped_forward drop }
//! }
//! ```
//!
//! Why so:
//!
//! - Every rule stands behind the set `active`, whose elements time out in the kernel: the isolation ends by itself, whatever
//!   becomes of the agent, and at the latest with a reboot. Nobody has to drive to a device for a false alarm.
//! - Right behind table `inet defender` (-250) and before connection tracking (-200), so connections that stand are cut as
//!   well, and a kernel without connection tracking does. `return` only means that the other tables judge the packet.
//! - DHCP, or the device would lose its address for longer than the isolation; neighbour discovery, or peers of IPv6 could not
//!   be reached; "destination unreachable" and "packet too big" inwards for the path to a peer. No DNS: a name server carries
//!   whatever an intruder puts into names; who needs it names the server as a peer.
//! - Set `pause` outlives the isolation. It lets an agent that was restarted know that the last one is not long over.
//! - A table of its own, so that table `inet defender` is the same with and without it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use crate::address::Cidr;
use crate::allow::{outermost, MAX_PREFIXES};
use crate::config::Config;
use crate::error::Error;
use crate::nft::Nft;
use crate::ruleset::FAMILY;

/// Name of the table.
pub const TABLE: &str = "defender_isolation";
/// Longest isolation, a day: whatever is asked for is cut to it.
pub const MAX_ISOLATION: Duration = Duration::from_secs(24 * 3600);

const PRIORITY: i32 = -249;
/// Sets with peers, IPv4 and IPv6.
const PEERS: [&str; 2] = ["peers4", "peers6"];
const COUNTERS: [&str; 3] = ["dropped_input", "dropped_output", "dropped_forward"];
/// Seconds by which the kernel's time-out and ours may differ: both are read in whole seconds, at different moments.
const GRACE_S: u64 = 2;

/// Statements of a rule, as `nft -j` reads them.
mod statement {
    pub(super) const GATE: &str =
        r#"{"match":{"op":"!=","left":{"meta":{"key":"nfproto"}},"right":"@active"}},{"return":null}"#;
    pub(super) const FROM_LOOPBACK: &str =
        r#"{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"lo"}},{"return":null}"#;
    pub(super) const TO_LOOPBACK: &str =
        r#"{"match":{"op":"==","left":{"meta":{"key":"oifname"}},"right":"lo"}},{"return":null}"#;

    /// A field of a header has a value.
    pub(super) fn field(protocol: &str, field: &str, value: &str) -> String {
        format!(
            r#"{{"match":{{"op":"==","left":{{"payload":{{"protocol":"{protocol}","field":"{field}"}}}},"right":{value}}}}}"#
        )
    }

    /// UDP from one port to another.
    pub(super) fn udp(from: u16, to: u16) -> String {
        format!("{},{}", field("udp", "sport", &from.to_string()), field("udp", "dport", &to.to_string()))
    }

    /// So many packets a second leave the chain.
    pub(super) fn at_most(rate: u32) -> String {
        format!(r#"{{"limit":{{"rate":{rate},"burst":{rate},"per":"second"}}}},{{"return":null}}"#)
    }

    pub(super) fn drop(counter: &str) -> String {
        format!(r#"{{"counter":"{counter}"}},{{"drop":null}}"#)
    }
}

/// The rules of a chain: 0 input, 1 output, 2 forward.
fn rules(chain: usize) -> Vec<String> {
    use statement::{at_most, drop, field, udp, FROM_LOOPBACK, GATE, TO_LOOPBACK};
    let ipv4 = r#"{"match":{"op":"==","left":{"meta":{"key":"nfproto"}},"right":"ipv4"}}"#;
    let link_local = r#"{"prefix":{"addr":"fe80::","len":10}}"#;
    let mut rules = vec![GATE.to_owned()];
    let end = if chain == 0 { "saddr" } else { "daddr" };
    let peer = |protocol: &str, set: &str| {
        format!(r#"{},{{"return":null}}"#, field(protocol, end, &format!(r#""@{set}""#)))
    };
    match chain {
        0 => rules.extend([
            FROM_LOOPBACK.to_owned(),
            peer("ip", PEERS[0]),
            peer("ip6", PEERS[1]),
            // DHCP (RFC 2131 section 4.1), DHCPv6 (RFC 8415 section 7.2): to a client.
            format!("{ipv4},{},{}", udp(67, 68), at_most(5)),
            format!("{},{},{}", field("ip6", "saddr", link_local), udp(547, 546), at_most(5)),
            format!(
                "{},{},{}",
                field(
                    "icmpv6",
                    "type",
                    r#"{"set":["nd-router-advert","nd-neighbor-solicit","nd-neighbor-advert"]}"#
                ),
                // Genuine neighbour discovery was not forwarded (RFC 4861 section 7.1).
                field("ip6", "hoplimit", "255"),
                at_most(50)
            ),
            format!("{},{}", field("icmp", "type", r#""destination-unreachable""#), at_most(10)),
            format!(
                "{},{}",
                field("icmpv6", "type", r#"{"set":["destination-unreachable","packet-too-big"]}"#),
                at_most(10)
            ),
        ]),
        1 => rules.extend([
            TO_LOOPBACK.to_owned(),
            peer("ip", PEERS[0]),
            peer("ip6", PEERS[1]),
            format!("{ipv4},{},{}", udp(68, 67), at_most(5)),
            // To servers and relays on the link: ff02::1:2.
            format!("{},{},{}", field("ip6", "daddr", r#""ff02::1:2""#), udp(546, 547), at_most(5)),
            format!(
                "{},{},{}",
                field(
                    "icmpv6",
                    "type",
                    r#"{"set":["nd-router-solicit","nd-neighbor-solicit","nd-neighbor-advert"]}"#
                ),
                field("ip6", "hoplimit", "255"),
                at_most(50)
            ),
            // Without MLD (RFC 3810) a switch that snoops does not hand on what neighbour discovery asks us.
            format!("{},{}", field("icmpv6", "type", r#""mld2-listener-report""#), at_most(10)),
        ]),
        _ => {}
    }
    rules.push(drop(COUNTERS[chain]));
    rules
}

/// One transaction that makes the table anew. Elements with a time-out of nothing are left out.
fn document(peers: &[Cidr], active: Duration, pause: Duration) -> String {
    let table = format!(r#"{{"table":{{"family":"{FAMILY}","name":"{TABLE}"}}}}"#);
    let of_table = format!(r#""family":"{FAMILY}","table":"{TABLE}""#);
    let mut commands = vec![
        format!(r#"{{"add":{table}}}"#),
        format!(r#"{{"delete":{table}}}"#),
        format!(r#"{{"add":{table}}}"#),
    ];
    for name in COUNTERS {
        commands.push(format!(r#"{{"add":{{"counter":{{{of_table},"name":"{name}"}}}}}}"#));
    }
    for (name, key, flag) in [
        ("active", "nf_proto", "timeout"),
        ("pause", "nf_proto", "timeout"),
        (PEERS[0], "ipv4_addr", "interval"),
        (PEERS[1], "ipv6_addr", "interval"),
    ] {
        commands.push(format!(
            r#"{{"add":{{"set":{{{of_table},"name":"{name}","type":"{key}","flags":["{flag}"]}}}}}}"#
        ));
    }
    let mut elements = |name: &str, elements: Vec<Value>| {
        if !elements.is_empty() {
            commands.push(format!(
                r#"{{"add":{{"element":{{{of_table},"name":"{name}","elem":{}}}}}}}"#,
                Value::from(elements)
            ));
        }
    };
    for (name, time) in [("active", active), ("pause", pause)] {
        // Rounded up: the kernel takes a time-out of nothing for none.
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        if seconds > 0 {
            let both = ["ipv4", "ipv6"].map(|family| json!({"elem": {"val": family, "timeout": seconds}}));
            elements(name, both.to_vec());
        }
    }
    for (n, name) in PEERS.into_iter().enumerate() {
        // Only addresses this crate has parsed: nft would resolve any other text as a host name.
        let prefixes = outermost(peers.iter().copied().filter(|peer| peer.first().is_ipv4() == (n == 0)));
        let prefix = |cidr: Cidr| json!({"prefix": {"addr": cidr.first().to_string(), "len": cidr.length()}});
        elements(name, prefixes.into_iter().map(prefix).collect());
    }
    for (n, hook) in ["input", "output", "forward"].into_iter().enumerate() {
        commands.push(format!(
            r#"{{"add":{{"chain":{{{of_table},"name":"{hook}","type":"filter","hook":"{hook}","prio":{PRIORITY},"policy":"accept"}}}}}}"#
        ));
        for rule in rules(n) {
            commands.push(format!(r#"{{"add":{{"rule":{{{of_table},"chain":"{hook}","expr":[{rule}]}}}}}}"#));
        }
    }
    format!(r#"{{"nftables":[{}]}}"#, commands.join(","))
}

/// The table as it was in the kernel.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    /// Seconds left of each element of set `active`; `None` for one that never ends.
    active: Vec<Option<u64>>,
    /// The same of set `pause`.
    pause: Vec<Option<u64>>,
    peers: Vec<Cidr>,
    /// Changes when anything but time and counts changes. Comparable within one process.
    shape: u64,
    rules: usize,
}

impl Seen {
    /// Both families are isolated, for about so many seconds.
    fn lasts(&self, seconds: RangeInclusive<u64>) -> bool {
        let (least, most) = (seconds.start().saturating_sub(GRACE_S), seconds.end() + GRACE_S);
        let about = |left: &Option<u64>| left.is_some_and(|left| (least..=most).contains(&left));
        self.active.len() == 2 && self.active.iter().all(about)
    }

    /// Seconds left at most.
    fn left(times: &[Option<u64>]) -> u64 {
        times.iter().map(|left| left.unwrap_or(u64::MAX)).max().unwrap_or_default()
    }
}

/// Reads a listing; the error says what is wrong with it.
fn read(bytes: &[u8]) -> Result<Seen, String> {
    let listing: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let objects = listing["nftables"].as_array().ok_or("no `nftables`")?;
    let (mut seen, mut hasher) = (Seen::default(), DefaultHasher::new());
    for object in objects {
        let Some((kind, body)) = object.as_object().and_then(|object| object.iter().next()) else { continue };
        let name = body["name"].as_str().unwrap_or_default();
        match kind.as_str() {
            "metainfo" => {}
            "counter" if COUNTERS.contains(&name) => {}
            "set" if name == "active" || name == "pause" => {
                let times = body["elem"].as_array().into_iter().flatten();
                let times = times.map(|element| element["elem"]["expires"].as_u64()).collect();
                if name == "active" {
                    seen.active = times;
                } else {
                    seen.pause = times;
                }
                (name, body["type"].to_string(), body["flags"].to_string()).hash(&mut hasher);
            }
            _ => {
                if kind == "set" && PEERS.contains(&name) {
                    let elements = body["elem"].as_array().into_iter().flatten().take(MAX_PREFIXES);
                    seen.peers.extend(elements.filter_map(peer));
                }
                seen.rules += usize::from(kind == "rule");
                object.to_string().hash(&mut hasher);
            }
        }
    }
    seen.shape = hasher.finish();
    Ok(seen)
}

/// An element of a set of peers.
fn peer(element: &Value) -> Option<Cidr> {
    match element.as_str() {
        Some(address) => address.parse().ok(),
        None => {
            let prefix = &element["prefix"];
            let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
            Cidr::new(prefix["addr"].as_str()?.parse().ok()?, length)
        }
    }
}

/// What a look at the table came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Nothing is isolated, and nothing had to be done.
    Idle,
    /// The device is isolated as it should be.
    Holds,
    /// The table had been deleted or changed by another hand and was put right.
    Repaired,
    /// The time was over.
    Ended,
}

/// Owner of table `inet defender_isolation`.
#[derive(Debug)]
pub struct Isolation {
    nft: Nft,
    peers: Vec<Cidr>,
    ends: Option<Instant>,
    pause_ends: Option<Instant>,
    /// Shape of the table as we wrote it.
    baseline: u64,
    /// How long writing it took. The kernel's time-outs begin when that is done, ours when it is asked for.
    written_in: Duration,
}

impl Isolation {
    /// Touches nothing yet; see [`adopt`](Self::adopt). Of the configuration only what concerns `nft` counts.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            nft: Nft::new(config.nft.clone(), config.nft_timeout),
            peers: Vec::new(),
            ends: None,
            pause_ends: None,
            baseline: 0,
            written_in: Duration::ZERO,
        }
    }

    /// Time left of the isolation.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        left(self.ends)
    }

    /// Time left of the pause behind an isolation, the isolation's own time included.
    #[must_use]
    pub fn pause_left(&self) -> Option<Duration> {
        left(self.pause_ends)
    }

    /// Takes over what an earlier run of the agent left in the kernel; `peers` are added to those it let through. True when
    /// the device is isolated.
    ///
    /// # Errors
    /// Whatever stands in the way of `nft`.
    pub async fn adopt(&mut self, peers: &[Cidr]) -> Result<bool, Error> {
        let Some(seen) = self.look().await? else { return Ok(false) };
        let now = Instant::now();
        let until = |times: &[Option<u64>]| {
            let seconds = Seen::left(times).min(2 * MAX_ISOLATION.as_secs());
            (seconds > 0).then(|| now + Duration::from_secs(seconds))
        };
        self.pause_ends = until(&seen.pause);
        self.ends = until(&seen.active).map(|ends| ends.min(now + MAX_ISOLATION));
        self.peers = peers.iter().copied().chain(seen.peers).collect();
        if self.ends.is_some() || self.pause_ends.is_some() {
            self.install().await?;
        } else {
            self.remove().await?;
        }
        Ok(self.ends.is_some())
    }

    /// Isolates the device and reads back that it is; the time left. An isolation in force is made longer, never shorter.
    ///
    /// For `pause` after its end [`pause_left`](Self::pause_left) tells of it. `peers` (the first 1,024) and `duration` (a
    /// second to a day) are cut.
    ///
    /// # Errors
    /// Whatever stands in the way of `nft`, or [`Error::NotIsolated`].
    pub async fn isolate(
        &mut self,
        peers: &[Cidr],
        duration: Duration,
        pause: Duration,
    ) -> Result<Duration, Error> {
        let now = Instant::now();
        let duration = duration.clamp(Duration::from_secs(1), MAX_ISOLATION);
        let before = (std::mem::take(&mut self.peers), self.ends, self.pause_ends);
        self.peers = peers.to_vec();
        self.ends = before.1.max(Some(now + duration));
        let pause = pause.min(MAX_ISOLATION);
        self.pause_ends = before.2.max((!pause.is_zero()).then(|| now + duration + pause));
        match self.install().await {
            Ok(()) => Ok(self.left().unwrap_or_default()),
            Err(error) => {
                // A transaction that was refused has done nothing; one that cannot be proved may have.
                if !matches!(error, Error::NotIsolated | Error::Timeout { .. } | Error::BadOutput { .. }) {
                    (self.peers, self.ends, self.pause_ends) = before;
                }
                Err(error)
            }
        }
    }

    /// Ends the isolation early; false when there was none. The pause goes on.
    ///
    /// # Errors
    /// Whatever stands in the way of `nft`; the isolation then ends when its time is over.
    pub async fn end(&mut self) -> Result<bool, Error> {
        let isolated = self.look().await?.is_some_and(|seen| !seen.active.is_empty());
        let before = self.ends.take();
        let done = if self.pause_left().is_some() { self.install().await } else { self.remove().await };
        if let Err(error) = done {
            self.ends = before;
            return Err(error);
        }
        Ok(isolated)
    }

    /// Puts the table right if another hand has changed it, and clears up behind an isolation that is over.
    ///
    /// # Errors
    /// Whatever stands in the way of `nft`.
    pub async fn check(&mut self) -> Result<Check, Error> {
        if self.left().is_none() {
            let ended = self.ends.take().is_some();
            if self.pause_left().is_none() && self.pause_ends.is_some() {
                self.remove().await?;
                self.pause_ends = None;
            }
            return Ok(if ended { Check::Ended } else { Check::Idle });
        }
        let before = self.left();
        if self.look().await?.is_some_and(|seen| self.is_right(&seen, before)) {
            return Ok(Check::Holds);
        }
        tracing::warn!(
            "table inet defender_isolation was deleted or changed by another hand; it is put right"
        );
        self.install().await?;
        Ok(Check::Repaired)
    }

    /// What was seen is what we wrote. The kernel was read between `before`, the time left then, and now: on a slow device
    /// that is seconds.
    fn is_right(&self, seen: &Seen, before: Option<Duration>) -> bool {
        let lasts = |left: Duration| {
            seen.lasts(left.as_secs()..=(before.unwrap_or(left) + self.written_in).as_secs())
        };
        seen.shape == self.baseline && self.left().is_none_or(lasts)
    }

    /// Writes the table as it should be and reads it back.
    async fn install(&mut self) -> Result<(), Error> {
        self.peers.truncate(MAX_PREFIXES);
        let (active, pause) = (self.left().unwrap_or_default(), self.pause_left().unwrap_or_default());
        let asked = Instant::now();
        self.nft.apply(&document(&self.peers, active, pause), "isolating the device").await?;
        self.written_in = asked.elapsed();
        let before = self.left();
        let seen = self.look().await?.ok_or(Error::NotIsolated)?;
        self.baseline = seen.shape;
        let whole = seen.rules == (0..3).map(|chain| rules(chain).len()).sum::<usize>();
        let ended = self.ends.is_none() && seen.active.is_empty();
        if whole && (ended || self.is_right(&seen, before)) {
            Ok(())
        } else {
            Err(Error::NotIsolated)
        }
    }

    async fn remove(&mut self) -> Result<(), Error> {
        let table = format!(r#"{{"table":{{"family":"{FAMILY}","name":"{TABLE}"}}}}"#);
        let document = format!(r#"{{"nftables":[{{"add":{table}}},{{"delete":{table}}}]}}"#);
        self.nft.apply(&document, "ending the isolation").await
    }

    async fn look(&self) -> Result<Option<Seen>, Error> {
        let Some(bytes) = self.nft.list(TABLE).await? else { return Ok(None) };
        match read(&bytes) {
            Ok(seen) => Ok(Some(seen)),
            Err(cause) => {
                // nft 1.0.6 prints a line feed for a table that somebody made dormant: nothing of it is right.
                tracing::warn!(cause, "table inet defender_isolation cannot be read");
                Ok(Some(Seen::default()))
            }
        }
    }
}

fn left(ends: Option<Instant>) -> Option<Duration> {
    ends.map(|ends| ends.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_our_table_is_named_and_every_rule_stands_behind_the_gate() {
        let peers = ["192.0.2.0/24", "192.0.2.7", "2001:db8::/32"].map(|text| text.parse().unwrap());
        let text = document(&peers, Duration::from_millis(1500), Duration::ZERO);
        let value: Value = serde_json::from_str(&text).unwrap();
        let mut first = std::collections::BTreeMap::new();
        for command in value["nftables"].as_array().unwrap() {
            let (_, object) = command.as_object().unwrap().iter().next().unwrap();
            let (kind, body) = object.as_object().unwrap().iter().next().unwrap();
            let named = if kind == "table" { &body["name"] } else { &body["table"] };
            assert_eq!((named.as_str(), body["family"].as_str()), (Some(TABLE), Some("inet")), "{command}");
            if kind == "rule" {
                first.entry(body["chain"].to_string()).or_insert_with(|| body["expr"][0].to_string());
            }
        }
        assert_eq!(first.len(), 3);
        assert!(first.values().all(|rule| rule.contains("@active")), "{first:?}");
        assert!(text.contains(r#""timeout":2"#), "{text}");
        // What lies in another prefix would be refused by an interval set.
        assert!(!text.contains("192.0.2.7"), "{text}");
        assert!(!text.contains(r#""name":"pause","elem""#));
    }

    const LISTING: &str = r#"{"nftables":[{"metainfo":{"version":"1.0.6"}},
        {"table":{"family":"inet","name":"defender_isolation","handle":1}},
        {"counter":{"family":"inet","name":"dropped_input","table":"defender_isolation","handle":2,"packets":7,"bytes":9}},
        {"set":{"family":"inet","name":"active","table":"defender_isolation","type":"nf_proto","handle":3,"flags":["timeout"],
          "elem":[{"elem":{"val":"ipv4","timeout":900,"expires":899}},{"elem":{"val":"ipv6","timeout":900,"expires":898}}]}},
        {"set":{"family":"inet","name":"peers4","table":"defender_isolation","type":"ipv4_addr","handle":5,"flags":["interval"],
          "elem":["198.51.100.7",{"prefix":{"addr":"192.0.2.0","len":24}},{"range":["1.2.3.4","1.2.3.6"]}]}},
        {"rule":{"family":"inet","table":"defender_isolation","chain":"input","handle":6,"expr":[{"drop":null}]}}]}"#;

    #[test]
    fn a_listing_tells_time_peers_and_shape() {
        let seen = read(LISTING.as_bytes()).unwrap();
        assert_eq!((seen.active.clone(), seen.rules), (vec![Some(899), Some(898)], 1));
        let peers: Vec<String> = seen.peers.iter().map(ToString::to_string).collect();
        assert_eq!(peers, ["198.51.100.7/32", "192.0.2.0/24"]);
        assert!(seen.lasts(900..=900) && !seen.lasts(902..=902) && !seen.lasts(890..=890));
        // Reading or writing took its time.
        assert!(seen.lasts(890..=899) && seen.lasts(895..=920) && !seen.lasts(890..=895));
        let changed = |from: &str, to: &str| read(LISTING.replacen(from, to, 1).as_bytes()).unwrap();
        assert_eq!(changed("899", "12").shape, seen.shape);
        assert_eq!(changed(r#""packets":7"#, r#""packets":8"#).shape, seen.shape);
        assert_ne!(changed("drop\"", "accept\"").shape, seen.shape);
        assert_ne!(changed("198.51.100.7", "198.51.100.8").shape, seen.shape);
        // One that never ends, and one family alone.
        assert!(!changed(r#","timeout":900,"expires":899"#, "").lasts(899..=899));
        assert!(!changed(r#"{"elem":{"val":"ipv4","timeout":900,"expires":899}},"#, "").lasts(898..=898));
    }

    proptest! {
        #[test]
        fn a_damaged_listing_never_panics(at in 0..LISTING.len(), byte: u8, cut in 0..LISTING.len()) {
            let mut bytes = LISTING.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = read(&bytes);
            let _ = read(&bytes[..cut]);
        }
    }
}
