//! Scans of the running device: at intervals spread by chance, and soon after something changed that they look at. Each runs in a thread
//! that yields to everything else; only what changed since the last one is sent.

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use defender_model::event::{Event, EventKind};
use defender_model::file::FileChange;
use defender_model::health::{Health, Kind};
use defender_model::process::{Change, Process};
use defender_model::time::Timestamp;
use defender_posture::{scan, Root};
use defender_sensors::{Observation, Outlet};
use tokio::sync::{oneshot, Notify};
use tokio::task::JoinHandle;

use super::conclusions::Conclusions;
use super::policies::{self, Source};
use super::{idle, live_inputs};
use crate::allocator;
use crate::config::Config;

/// No scan while the device still starts, in seconds.
const SETTLE: u64 = 60;
/// After a change, changes may go on for so long before the scan that looks at them.
const QUIET: Duration = Duration::from_secs(30);
/// Least time between two scans, whatever changes.
const PAUSE: Duration = Duration::from_secs(600);
/// Name of the file in the state directory.
const NAME: &str = "posture";

/// Starts the task. It ends when the pipeline is gone.
#[must_use]
pub fn start(
    config: &Config,
    clock: fn() -> Timestamp,
    outlet: Outlet,
    changed: Arc<Notify>,
) -> JoinHandle<()> {
    tokio::spawn(run(config.clone(), clock, outlet, changed))
}

async fn run(config: Config, clock: fn() -> Timestamp, outlet: Outlet, changed: Arc<Notify>) {
    let interval = Duration::from_secs(u64::from(config.posture.interval_hours) * 3600);
    let spread = u64::from(config.posture.spread_minutes) * 60;
    let file = config.agent.state_dir.join(NAME);
    let mut before = Conclusions::read(&file);
    let mut wait = Duration::from_secs(SETTLE + chance(spread));
    let mut degraded = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = changed.notified() => {
                tokio::time::sleep(QUIET).await;
            }
        }
        let outcome = in_thread(config.clone(), clock()).await;
        match outcome {
            Ok(Scanned { results, conclusions }) => {
                for event in conclusions.changes(before.as_ref(), results, clock()) {
                    if !outlet.send(Observation::Event(event)).await {
                        return;
                    }
                }
                if let Err(error) = conclusions.write(&file) {
                    tracing::warn!(%error, file = %file.display(), "conclusions about the posture are not kept");
                }
                if degraded {
                    degraded = false;
                    let health = Health::new(Kind::Recovered, "posture", "the posture can be judged again");
                    outlet.send(Observation::Health(health)).await;
                }
                before = Some(conclusions);
            }
            Err(reason) => {
                if !degraded {
                    degraded = true;
                    let words = format!("the posture is not judged: {reason}");
                    if !outlet.send(Observation::Health(Health::new(Kind::Degraded, "posture", words))).await
                    {
                        return;
                    }
                }
            }
        }
        // The sinks have most of the events by then.
        tokio::time::sleep(Duration::from_secs(2)).await;
        allocator::give_back();
        // What changed meanwhile is looked at after the pause.
        tokio::time::sleep(PAUSE.min(interval)).await;
        wait = interval.saturating_sub(PAUSE);
    }
}

/// What a scan found.
struct Scanned {
    results: Vec<(String, defender_posture::result::CheckResult)>,
    conclusions: Conclusions,
}

async fn in_thread(config: Config, time: Timestamp) -> Result<Scanned, String> {
    let (send, receive) = oneshot::channel();
    let work = move || {
        idle::yield_to_everybody();
        // The task may be gone already.
        let _ = send.send(scanned(&config, time));
    };
    let thread = std::thread::Builder::new().name("posture".to_owned()).spawn(work);
    thread.map_err(|error| format!("no thread for it: {error}"))?;
    receive.await.map_err(|_| "the scan ended without an answer".to_owned())?
}

fn scanned(config: &Config, time: Timestamp) -> Result<Scanned, String> {
    let root = Root::open("/".as_ref()).map_err(|error| format!("/: {error}"))?;
    let directories = Source::Directories(&config.posture.directories);
    let policies =
        policies::load(&directories, &config.posture.policies).map_err(|mistakes| mistakes.join("; "))?;
    let exceptions = config.posture.exceptions()?;
    let report = scan(&root, &policies, &exceptions, &live_inputs(config, time));
    let conclusions = Conclusions::of(&report);
    let results = report.policies.into_iter().flat_map(|policy| {
        let id = policy.id;
        policy.checks.into_iter().map(move |check| (id.clone(), check))
    });
    Ok(Scanned { results: results.collect(), conclusions })
}

/// A number below `limit` that differs from device to device.
fn chance(limit: u64) -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: the buffer has the length that is stated.
    let length = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    if limit == 0 || length != 8 {
        return limit / 2;
    }
    u64::from_ne_bytes(bytes) % limit
}

/// Programs whose run changes accounts, packages, services, parameters or mounts.
const CHANGING: &[&str] = &[
    "adduser",
    "addgroup",
    "apk",
    "apt",
    "apt-get",
    "chpasswd",
    "deluser",
    "dnf",
    "dpkg",
    "fw_setenv",
    "groupadd",
    "groupmod",
    "mount",
    "nft",
    "opkg",
    "passwd",
    "rpm",
    "setcap",
    "sysctl",
    "systemctl",
    "update-rc.d",
    "useradd",
    "userdel",
    "usermod",
    "visudo",
];

/// Where files are that checks look at.
const LOOKED_AT: &[&str] = &["/etc/", "/usr/", "/lib", "/bin/", "/sbin/", "/boot/", "/root/"];

/// Whether an event may have changed the posture.
#[must_use]
pub fn concerns(event: &Event) -> bool {
    match &event.kind {
        EventKind::File(file) => {
            file.change != FileChange::Read && LOOKED_AT.iter().any(|above| file.path.starts_with(above))
        }
        // The agent's own table changes with every block.
        EventKind::Firewall(change) => change.table != "defender",
        EventKind::Module(module) => module.program.is_none(),
        EventKind::Listener(_) => true,
        EventKind::Process(activity) => {
            matches!(activity.change, Change::Exec { .. }) && CHANGING.contains(&program(&activity.process))
        }
        _ => false,
    }
}

/// The name of the program that runs: of an applet, not of the BusyBox it is in.
fn program(process: &Process) -> &str {
    let words = iter::once(&*process.executable).chain(process.argv.iter().map(String::as_str));
    let mut names = words.map(|path| path.rsplit('/').next().unwrap_or_default()).take(3);
    names.find(|name| !name.starts_with("busybox")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_stays_below_its_limit() {
        assert_eq!(chance(0), 0);
        assert!((0..100).all(|_| chance(60) < 60));
    }

    #[test]
    fn an_applet_is_known_by_its_name() {
        let name = |executable: &str, argv: &[&str]| {
            let argv = argv.iter().map(|word| (*word).to_owned()).collect();
            program(&Process { executable: executable.into(), argv, ..Process::default() }).to_owned()
        };
        assert_eq!(name("/usr/sbin/sysctl", &["sh"]), "sysctl");
        assert_eq!(name("/bin/busybox", &["/sbin/sysctl", "-w"]), "sysctl");
        assert_eq!(name("/bin/busybox.nosuid", &["busybox", "passwd", "root"]), "passwd");
        assert_eq!(name("/bin/busybox", &["busybox"]), "");
    }

    #[test]
    fn what_checks_look_at_concerns_them() {
        use defender_model::file::{FileActivity, FileType};
        use defender_model::kernel::{FirewallChange, RuleChange};

        let event = |kind: EventKind| Event::new(Timestamp(0), kind);
        let file = |path: &str, change| {
            let activity = FileActivity {
                change,
                path: path.into(),
                old_path: None,
                file_type: FileType::Regular,
                mode: None,
                owner: None,
                sha256: None,
                process: None,
            };
            concerns(&event(EventKind::File(Box::new(activity))))
        };
        assert!(file("/etc/ssh/sshd_config", FileChange::Modified));
        assert!(!file("/etc/passwd", FileChange::Read) && !file("/var/log/messages", FileChange::Modified));
        let filter = |table: &str| {
            let change = FirewallChange {
                change: RuleChange::Added,
                family: "inet".into(),
                table: table.into(),
                operation: "nft_register_rule".into(),
                entries: None,
                effect: String::new(),
                summary: String::new(),
                process: None,
            };
            concerns(&event(EventKind::Firewall(Box::new(change))))
        };
        assert!(filter("filter") && !filter("defender"));
    }
}
