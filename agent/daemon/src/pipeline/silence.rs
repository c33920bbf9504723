//! Sensors that should have spoken and did not: what they tell is held against counters of the kernel that nobody reads for it.
//!
//! | Sensor | Counter | What is expected |
//! |---|---|---|
//! | process | `processes` of `/proc/stat`: tasks made since boot | a start, an end or a loss; threads count too, so before anything is said the agent runs a program itself |
//! | network | `PassiveOpens` of `/proc/net/snmp`: connections taken in | a message of connection tracking |
//!
//! A device where nothing happens is not silent: the counters stand still too. Polling of `/proc` is left out, as it misses
//! short-lived processes by its nature.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use defender_model::health::{Health, Kind};

/// How often the counters are read.
const EVERY: Duration = Duration::from_secs(30);
/// What the kernel has to count before silence is strange.
const PROCESSES: u64 = 10;
const CONNECTIONS: u64 = 10;
/// Longest counter file that is read, in bytes: `/proc/stat` has a line for each processor and a number for each interrupt.
const LIMIT: u64 = 256 << 10;

/// The watch over the sensors.
#[derive(Debug)]
pub(super) struct Silence {
    window: Duration,
    next: Instant,
    process: Quiet,
    network: Quiet,
}

/// What sensors have told since they started; `None` for those that are not there, or cannot be held to it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    pub(super) process: Option<u64>,
    pub(super) network: Option<u64>,
}

impl Silence {
    /// `window`: how long a sensor may be silent while its counter moves; zero for ever.
    pub(super) fn new(window: Duration, now: Instant) -> Self {
        Self { window, next: now, process: Quiet::new(now), network: Quiet::new(now) }
    }

    /// Looks when it is time to, and says what is to be said. `told` is asked only then; `nft` is the program that is run as a trial.
    pub(super) fn turn(&mut self, now: Instant, told: impl FnOnce() -> Told, nft: &Path) -> Vec<Health> {
        let mut out = Vec::new();
        if self.window.is_zero() || now < self.next {
            return out;
        }
        self.next = now + EVERY.min(self.window / 2).max(Duration::from_secs(1));
        let told = told();
        if let (Some(told), Some(count)) = (told.process, counted("/proc/stat", processes)) {
            match self.process.look(told, count, now, self.window, PROCESSES) {
                // Whether this one is seen decides at the next look.
                News::Suspect if !run(nft) => self.process = Quiet::new(now),
                news => {
                    let words = "processes were made, one of them by the agent to make sure, and no sensor told of any";
                    out.extend(news.health("process.silent", words, "made"));
                }
            }
        }
        if let (Some(told), Some(count)) = (told.network, counted("/proc/net/snmp", passive_opens)) {
            let news = self.network.look(told, count, now, self.window, CONNECTIONS);
            let words =
                "connections were taken in, and connection tracking told of none; another rule may exempt them (notrack)";
            out.extend(news.health("network.silent", words, "taken_in"));
        }
        out
    }
}

/// Starts a program that ends at once; false where it cannot be. Tokio collects it when it has ended.
fn run(program: &Path) -> bool {
    tokio::process::Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .is_ok()
}

fn counted(file: &str, read: fn(&[u8]) -> Option<u64>) -> Option<u64> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(file).ok()?.take(LIMIT).read_to_end(&mut bytes).ok()?;
    read(&bytes)
}

/// `processes` of `/proc/stat` (proc_stat(5)).
fn processes(stat: &[u8]) -> Option<u64> {
    let line = stat.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"processes "))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

/// `PassiveOpens` of `/proc/net/snmp` (RFC 4022): a line of names and a line of values begin with `Tcp:`.
fn passive_opens(snmp: &[u8]) -> Option<u64> {
    let mut lines = snmp.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"Tcp: "));
    let names = std::str::from_utf8(lines.next()?).ok()?;
    let at = names.split(' ').position(|name| name == "PassiveOpens")?;
    std::str::from_utf8(lines.next()?).ok()?.split(' ').nth(at)?.parse().ok()
}

/// What is known of one sensor.
#[derive(Debug)]
struct Quiet {
    /// What the sensor had told and the kernel counted when it last spoke; `None` before the first look.
    before: Option<(u64, u64)>,
    since: Instant,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fine,
    Suspected,
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Nothing,
    /// Silent for the whole window; the next look decides.
    Suspect,
    /// Silent, while so many happened.
    Silent(u64),
    /// It speaks again.
    Speaks,
}

impl Quiet {
    const fn new(now: Instant) -> Self {
        Self { before: None, since: now, state: State::Fine }
    }

    fn look(&mut self, told: u64, count: u64, now: Instant, window: Duration, least: u64) -> News {
        let spoke = self.before.is_none_or(|(before, _)| told != before);
        let (_, start) = *self.before.get_or_insert((told, count));
        if spoke {
            self.before = Some((told, count));
            self.since = now;
            let was = std::mem::replace(&mut self.state, State::Fine);
            return if was == State::Silent { News::Speaks } else { News::Nothing };
        }
        let happened = count.saturating_sub(start);
        let strange = now.saturating_duration_since(self.since) >= window && happened >= least;
        match self.state {
            State::Fine if strange => {
                self.state = State::Suspected;
                News::Suspect
            }
            State::Suspected => {
                self.state = State::Silent;
                News::Silent(happened)
            }
            State::Fine | State::Silent => News::Nothing,
        }
    }
}

impl News {
    fn health(self, component: &str, words: &str, counter: &str) -> Option<Health> {
        match self {
            Self::Nothing | Self::Suspect => None,
            Self::Silent(count) => Some(Health::new(Kind::Degraded, component, words).with(counter, count)),
            Self::Speaks => Some(Health::new(Kind::Recovered, component, "the sensor speaks again")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(600);

    #[test]
    fn a_sensor_is_silent_only_while_something_happens() {
        let start = Instant::now();
        let mut quiet = Quiet::new(start);
        let mut look =
            |told, count, seconds| quiet.look(told, count, start + Duration::from_secs(seconds), WINDOW, 10);
        assert_eq!(look(0, 1000, 0), News::Nothing);
        // Nothing happens: nothing is missed.
        assert_eq!(look(0, 1009, 5000), News::Nothing);
        assert_eq!(look(0, 1010, 5030), News::Suspect);
        // The trial was seen.
        assert_eq!(look(1, 1011, 5060), News::Nothing);
        assert_eq!(look(1, 1050, 5600), News::Nothing);
        assert_eq!(look(1, 1051, 5670), News::Suspect);
        assert_eq!(look(1, 1052, 5700), News::Silent(41));
        assert_eq!(look(1, 2000, 9000), News::Nothing);
        assert_eq!(look(2, 2001, 9030), News::Speaks);
        assert_eq!(look(2, 2002, 9060), News::Nothing);
    }

    #[test]
    fn the_kernel_s_own_files_are_read() {
        assert!(counted("/proc/stat", processes).is_some_and(|count| count > 0));
        assert!(counted("/proc/net/snmp", passive_opens).is_some());
        let snmp = b"Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm ActiveOpens PassiveOpens\nTcp: 1 22 333\n";
        assert_eq!(passive_opens(snmp), Some(333));
        assert_eq!(processes(b"cpu 1 2\nprocesses 77\nprocs_running 1\n"), Some(77));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), tail in "(Tcp: |processes |[0-9]{1,30}|PassiveOpens|\n){0,9}") {
            for text in [&bytes[..], tail.as_bytes()] {
                let _ = (processes(text), passive_opens(text));
            }
        }
    }
}
