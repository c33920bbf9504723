//! Processes by name, for devices where nothing tells of services: a look at `/proc` now and then.

use std::path::Path;
use std::time::{Duration, Instant};

use defender_model::time::Timestamp;
use defender_sensors::Outlet;

use super::state::{Now, Service};
use super::told;
use crate::tally::Tally;

/// Processes looked at in one round.
const MOST: usize = 8192;

/// One watched name.
struct Watched {
    name: String,
    pid: Option<u32>,
    service: Service,
}

/// Looks for ever.
pub(super) async fn watch(
    names: Vec<String>,
    every: Duration,
    clock: fn() -> Timestamp,
    outlet: Outlet,
    tally: Tally,
) {
    let words = format!("{} names looked for every {} s", names.len(), every.as_secs());
    tally.says("processes", Ok(&words));
    let mut watched: Vec<Watched> =
        names.into_iter().map(|name| Watched { name, pid: None, service: Service::default() }).collect();
    loop {
        for (name, change, detail) in look(Path::new("/proc"), &mut watched, Instant::now()) {
            tally.produced(|balance| balance.delivered += 1);
            if !outlet.send(told(clock(), &name, change, &detail)).await {
                return;
            }
        }
        tokio::time::sleep(every).await;
    }
}

type Told = (String, defender_model::service::ServiceChange, String);

/// One round: processes known are looked at by their id; only for one that is gone the table is searched.
fn look(proc: &Path, watched: &mut [Watched], now: Instant) -> Vec<Told> {
    let mut out = Vec::new();
    let gone = |one: &Watched| one.pid.is_none_or(|pid| !is_called(proc, pid, &one.name));
    let missing: Vec<bool> = watched.iter().map(gone).collect();
    let mut found: Vec<Option<u32>> = vec![None; watched.len()];
    if missing.contains(&true) {
        let entries = std::fs::read_dir(proc).into_iter().flatten().take(MOST).flatten();
        for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            let Ok(comm) = std::fs::read(proc.join(pid.to_string()).join("comm")) else { continue };
            for (at, one) in watched.iter().enumerate() {
                // The one that has been there longest: children of a connection bear the same name.
                if missing[at] && comm.trim_ascii_end() == one.name.as_bytes() {
                    found[at] = Some(found[at].map_or(pid, |other| other.min(pid)));
                }
            }
        }
    }
    for (at, one) in watched.iter_mut().enumerate() {
        let change = match (missing[at], found[at]) {
            (false, _) => one.service.is(Now::Active, now),
            (true, Some(pid)) => match one.pid.replace(pid) {
                Some(_) => one.service.replaced(),
                None => one.service.is(Now::Active, now),
            },
            (true, None) => {
                one.pid = None;
                one.service.is(Now::Inactive, now)
            }
        };
        let settled = one.service.settle(now);
        for change in change.into_iter().chain(settled) {
            let detail = one.pid.map(|pid| format!("process {pid}")).unwrap_or_default();
            out.push((format!("process:{}", one.name), change, detail));
        }
    }
    out
}

fn is_called(proc: &Path, pid: u32, name: &str) -> bool {
    let comm = std::fs::read(proc.join(pid.to_string()).join("comm"));
    comm.is_ok_and(|comm| comm.trim_ascii_end() == name.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use defender_model::service::ServiceChange;

    use super::*;

    #[test]
    fn a_process_that_vanishes_is_told_once() {
        let proc = tempfile::tempdir().unwrap();
        let run = |pid: &str, name: &str| {
            fs::create_dir_all(proc.path().join(pid)).unwrap();
            fs::write(proc.path().join(pid).join("comm"), format!("{name}\n")).unwrap();
        };
        let end = |pid: &str| fs::remove_dir_all(proc.path().join(pid)).unwrap();
        let start = Instant::now();
        let mut watched = ["dropbear", "syslogd"].map(|name| Watched {
            name: name.to_owned(),
            pid: None,
            service: Service::default(),
        });
        let mut look = |seconds| {
            let all = look(proc.path(), &mut watched, start + Duration::from_secs(seconds));
            all.into_iter().map(|(name, change, _)| (name, change)).collect::<Vec<_>>()
        };
        run("30", "dropbear");
        run("40", "dropbear");
        run("50", "sh");
        fs::create_dir(proc.path().join("self")).unwrap();
        assert_eq!(look(0), []);
        end("30");
        assert_eq!(look(5), [("process:dropbear".to_owned(), ServiceChange::Restarted)]);
        end("40");
        run("50", "dropbea");
        assert_eq!(look(10), []);
        assert_eq!(look(15), [("process:dropbear".to_owned(), ServiceChange::Stopped)]);
        assert_eq!(look(20), []);
        run("60", "syslogd");
        run("61", "dropbear");
        let both =
            ["process:dropbear", "process:syslogd"].map(|name| (name.to_owned(), ServiceChange::Started));
        assert_eq!(look(25), both);
    }
}
