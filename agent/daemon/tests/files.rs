//! Real changes of files, seen by the file sensor with the shipped paths and judged by the shipped rules: an ordinary hour is quiet, an
//! intruder's changes are not. The root is a temporary directory; its name is cut off before the rules see it.

#![allow(clippy::unwrap_used)] // A test whose set-up fails has failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use defender_daemon::config::Config;
use defender_daemon::posture::schedule::concerns;
use defender_daemon::{files, rules};
use defender_detect::{Detector, Limits};
use defender_model::event::{Event, EventKind};
use defender_model::file::FileChange;
use defender_model::severity::Severity;
use defender_sensors::process::Writers;
use defender_sensors::{Observation, Outlet};
use tokio::sync::mpsc;

struct Device {
    root: tempfile::TempDir,
    observations: mpsc::Receiver<Observation>,
    detector: Detector,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Device {
    async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().canonicalize().unwrap();
        for (file, text) in [
            ("etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
            ("etc/shadow", "root:!:1::::::\n"),
            ("etc/pam.d/sshd", "auth required pam_unix.so\n"),
            ("etc/defender/defender.toml", "\n"),
            ("boot/grub/grubenv", "a\n"),
            ("boot/zImage", "kernel\n"),
            ("home/alice/.ssh/authorized_keys", "ssh-ed25519 AAAA alice\n"),
            ("var/spool/cron/crontabs/root", "@daily true\n"),
            ("var/log/messages", "x\n"),
            ("var/lib/opkg/lists/base", "x\n"),
            ("run/utmp", ""),
            ("state/x", ""),
        ] {
            let path = at.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut config = Config::default();
        let below = |paths: &[PathBuf]| {
            paths.iter().map(|path| at.join(path.strip_prefix("/").unwrap())).collect::<Vec<_>>()
        };
        config.files.paths = below(&config.files.paths);
        config.files.exclude = below(&config.files.exclude);
        config.agent.state_dir = at.join("state");
        let shipped =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rootfs-overlay/usr/share/defender/rules");
        config.rules.directories = vec![shipped];
        let (set, problems) = rules::load(&config);
        assert!(problems.is_empty() && set.rules().count() > 200, "{problems:?}");

        let (sensor, handle) = files::open(&config, Writers::default()).unwrap();
        let (outlet, observations) = Outlet::channel(64);
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        tokio::spawn(sensor.run(outlet, async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }));
        let mut device = Self { root, observations, detector: Detector::new(set, Limits::default()), stop };
        for _ in 0..200 {
            assert!(device.changes(50).await.is_empty(), "the first baseline is no news");
            if handle.status.lock().unwrap().modes.iter().any(|mode| mode == "baseline with SHA-256") {
                return device;
            }
        }
        panic!("no baseline after ten seconds");
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The changes told within so many milliseconds, with paths as on a device.
    async fn changes(&mut self, milliseconds: u64) -> Vec<Event> {
        let root = self.root.path().canonicalize().unwrap();
        let end = tokio::time::Instant::now() + Duration::from_millis(milliseconds);
        let mut events = Vec::new();
        while let Ok(Some(observation)) = tokio::time::timeout_at(end, self.observations.recv()).await {
            let Observation::Event(mut event) = observation else { continue };
            if let EventKind::File(file) = &mut event.kind {
                for path in std::iter::once(&mut file.path).chain(&mut file.old_path) {
                    *path = path.strip_prefix(root.to_str().unwrap()).unwrap().to_owned();
                }
            }
            events.push(event);
        }
        events
    }

    /// Titles of the alerts of level medium and above about what happened within a second.
    async fn alerts(&mut self) -> (Vec<Event>, Vec<String>) {
        let events = self.changes(1000).await;
        let mut findings = Vec::new();
        for event in &events {
            self.detector.inspect(event, &mut findings);
        }
        let loud = findings.into_iter().filter(|finding| finding.severity >= Severity::Medium);
        (events, loud.map(|finding| finding.rule.title.clone()).collect())
    }
}

#[tokio::test]
async fn an_ordinary_hour_is_quiet() {
    let mut device = Device::start().await;
    let at = |file: &str| device.root.path().join(file);
    // logrotate.
    fs::rename(at("var/log/messages"), at("var/log/messages.1")).unwrap();
    device.write("var/log/messages", "y\n");
    // A login over SSH, and what a shell leaves behind.
    device.write("run/utmp", "record");
    device.write("var/log/wtmp", "record");
    device.write("home/alice/.ash_history", "ls\n");
    fs::read(at("home/alice/.ssh/authorized_keys")).unwrap();
    fs::read(at("etc/shadow")).unwrap();
    device.write("etc/.pwd.lock", "");
    // cron at work.
    device.write("var/spool/cron/cronstamps/root", "1");
    device.write("var/spool/cron/lastrun/cron.daily", "");
    // The list of packages; names and time from the network; the boot loader's memory.
    device.write("var/lib/opkg/lists/base", "y\n");
    device.write("etc/resolv.conf", "nameserver 192.0.2.1\n");
    device.write("etc/hostname", "device\n");
    device.write("etc/adjtime", "0\n");
    device.write("boot/grub/grubenv", "b\n");
    // A daemon that writes what was there already, and a new time.
    device.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    fs::File::open(at("etc/pam.d/sshd")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let (events, alerts) = device.alerts().await;
    assert!(events.is_empty() && alerts.is_empty(), "{events:?} {alerts:?}");
    let _ = device.stop.send(true);
}

#[tokio::test]
async fn what_an_intruder_changes_is_not() {
    let mut device = Device::start().await;
    for (file, title) in [
        ("etc/ld.so.preload", "Library preloaded by a file"),
        ("home/alice/.ssh/authorized_keys", "Keys that may log in changed"),
        ("home/bob/.ssh/authorized_keys", "Keys that may log in changed"),
        ("etc/cron.d/x", "Start-up file changed"),
        ("etc/init.d/S99x", "Start-up file changed"),
        ("etc/shadow", "Accounts changed by an unusual program"),
        ("etc/pam.d/sshd", "Configuration of login services changed"),
        ("boot/zImage", "File of a boot partition changed"),
        ("etc/defender/defender.toml", "Files of the security agent changed"),
    ] {
        device.write(file, "by an intruder\n");
        let (events, alerts) = device.alerts().await;
        assert!(alerts.iter().any(|alert| alert == title), "{file}: {alerts:?}");
        let looked_at = |path: &str| path.starts_with("/etc/") || path.starts_with("/boot/");
        for event in &events {
            let EventKind::File(changed) = &event.kind else { panic!("{event:?}") };
            assert_eq!(concerns(event), looked_at(&changed.path), "the posture is judged anew: {event:?}");
        }
        let digest = events.iter().any(|event| match &event.kind {
            EventKind::File(changed) => changed.path == format!("/{file}") && changed.sha256.is_some(),
            _ => false,
        });
        assert!(digest, "feeds go by it: {events:?}");
    }
    fs::remove_file(device.root.path().join("etc/defender/defender.toml")).unwrap();
    let (events, alerts) = device.alerts().await;
    assert!(alerts.iter().any(|alert| alert == "Files of the security agent deleted"), "{alerts:?}");
    assert!(matches!(&events[0].kind, EventKind::File(file) if file.change == FileChange::Deleted));
    let _ = device.stop.send(true);
}
