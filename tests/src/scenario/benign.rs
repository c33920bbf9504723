//! An hour of a device's ordinary life, compressed: nothing of it may be worth more than a low alert.

use std::collections::HashSet;
use std::time::Duration;

use crate::device::{class, Event};
use crate::error::Result;
use crate::image::{Flavour, DEVICE_PASSWORD, DEVICE_USER};
use crate::lab::GUEST_V4;
use crate::progress;
use crate::qemu::{Machine, PROGRAMS};

use super::{expect, World};

const LINE: Duration = Duration::from_secs(30);
const REPORT: Duration = Duration::from_secs(15);
/// cron looks at its table once a minute.
const CRON: Duration = Duration::from_secs(75);
/// `severity_id` of level medium (OCSF 1.8.0, attribute `severity_id`).
const MEDIUM: u64 = 3;

/// Where a product would have the tools the images lack: the package manager and the updaters are programs that do nothing
/// under their names, log rotation is a script that does what logrotate does.
const TOOLS: &str = "/var/lib/validation/benign";
const STAND_INS: &str = "opkg rauc swupdate fw_printenv";

/// Says in the events that a part of the hour was seen.
const CRON_MARK: &str = "benign-cron-ran";
const ROTATION_MARK: &str = "benign-app.log";
const UPDATE_MARK: &str = "bundle-2026.11.raucb";
const OPERATOR_MARK: &str = "benign-app.conf";

/// What cron starts.
const JOB: &str = "#!/bin/sh\n\
    find /var/log -name '*.gz' -mtime +30 -exec rm -f {} +\n\
    df /var | tail -n 1\n\
    wget -q http://{server}:8000/config.json -O {tools}/config.json\n\
    busybox logger -t app benign-cron-ran\n\
    busybox touch {tools}/cron-ran\n";

/// What logrotate does, with the command Debian's rsyslog gives it to run afterwards, or what BusyBox products do.
const LOGROTATE: &str = "#!/bin/sh\n\
    busybox mv /var/log/benign-app.log.1.gz /var/log/benign-app.log.2.gz\n\
    busybox mv /var/log/benign-app.log /var/log/benign-app.log.1\n\
    busybox gzip -f /var/log/benign-app.log.1\n\
    busybox rm -f /var/log/benign-app.log.7.gz\n\
    sh -c '{postrotate}' logrotate_script /var/log/benign-app.log\n";

/// An operator's evening, in one session.
const OPERATOR: &[&str] = &[
    "uptime",
    "ls -la /var/log",
    "ps",
    "top -b -n 1 | head -n 5",
    "dmesg | tail -n 5",
    "df -h",
    "ip addr",
    "cat /etc/os-release",
    "tail -n 3 /var/log/messages",
    "nft list ruleset",
    "ping -c 1 10.77.0.1",
    "echo interval=60 >/var/tmp/benign-app.conf",
];

const OPERATOR_SYSTEMD: &[&str] = &[
    "systemctl --no-pager status ssh.service",
    "systemctl --no-pager list-units --failed",
    "journalctl --no-pager -n 5",
];

/// Root's part: service scripts, the package manager, an update.
const MAINTENANCE: &[&str] = &[
    "dpkg -l",
    "opkg list-installed",
    "opkg update",
    "opkg upgrade app",
    "logrotate /etc/logrotate.conf",
    "rauc status",
    "fw_printenv BOOT_ORDER",
    "wget -q http://{server}:8000/{bundle} -O {tools}/{bundle}",
    "sha256sum {tools}/{bundle}",
    "rauc install {tools}/{bundle}",
    "swupdate -v -i {tools}/{bundle}",
    "busybox rm {tools}/{bundle}",
    "rauc status mark-good",
    "sync",
    "nft list table inet defender",
    "defender status",
];

pub(super) fn benign_hour(world: &mut World<'_>) -> Result<()> {
    let operator = world.node()?;
    let server = operator.serve(8000, "{\"interval\": 60}\n")?;
    let fill = |text: &str| {
        text.replace("{server}", &operator.v4.to_string())
            .replace("{tools}", TOOLS)
            .replace("{bundle}", UPDATE_MARK)
    };
    let machine = world.machine()?;
    let systemd = machine.flavour() == Flavour::Systemd;
    let before: HashSet<String> = findings(machine)?.iter().map(Event::identity).collect();

    install(machine, &fill(JOB))?;
    let cron = format!("crond -f -c {TOOLS}/crontabs -L /dev/null");
    machine.ok(&format!("busybox {cron} >/dev/null 2>&1 &"))?;

    let mut session = operator.session(GUEST_V4, DEVICE_USER, DEVICE_PASSWORD)?;
    for line in OPERATOR.iter().chain(if systemd { OPERATOR_SYSTEMD } else { &[] }) {
        session.complete(line, LINE)?;
    }
    session.type_line("vi /var/tmp/benign-app.conf")?;
    session.shows("interval=60", LINE)?;
    session.complete("Gddp:wq", LINE)?;
    session.type_line("exit")?;
    if systemd {
        // Over the server's sftp part; dropbear comes without one.
        operator.scp(GUEST_V4, DEVICE_USER, DEVICE_PASSWORD, "/etc/hostname", "/var/tmp/benign-hostname")?;
    }
    drop(session);

    let machine = world.machine()?;
    for line in MAINTENANCE {
        machine.type_as_root(&format!("PATH={TOOLS}:$PATH\n{}\n", fill(line)))?;
    }
    machine.wait("cron ran its job", CRON, |machine| {
        let ran = machine.run(&format!("test -e {TOOLS}/cron-ran"))?.status == 0;
        Ok(if ran { Ok(()) } else { Err(String::new()) })
    })?;
    machine.run(&format!("kill $(pgrep -f '^(busybox )?{cron}')"))?;

    // Silence would prove nothing if the agent had not seen all this.
    for mark in [CRON_MARK, ROTATION_MARK, UPDATE_MARK, OPERATOR_MARK] {
        machine.event("the hour's work is reported", mark, REPORT, |e| e.class() == class::PROCESS)?;
    }
    let source = operator.v4.to_string();
    machine.event("the operator's login is reported", &source, REPORT, |e| {
        e.class() == class::AUTHENTICATION && e.at("/status_id") == 1
    })?;
    machine.run(&format!("rm -rf {TOOLS} /var/log/benign-app.log* /var/tmp/benign-*"))?;
    drop(server);

    let new: Vec<Event> =
        findings(machine)?.into_iter().filter(|e| !before.contains(&e.identity())).collect();
    for finding in &new {
        progress::say(format_args!("     severity {}: {}", finding.severity(), finding.at("/message")));
    }
    let loud: Vec<String> = new
        .iter()
        .filter(|finding| finding.severity() >= MEDIUM)
        .map(|finding| format!("{}: {}", finding.at("/finding_info/title"), finding.at("/evidences")))
        .collect();
    progress::say(format_args!("     {} alerts, {} of level medium or above", new.len(), loud.len()));
    expect(loud.is_empty(), || format!("alerts about a benign hour: {}", loud.join("\n  ")))
}

fn findings(machine: &mut Machine) -> Result<Vec<Event>> {
    let mut events = machine.events("\"class_uid\":2004")?;
    events.retain(|e| e.class() == class::FINDING);
    Ok(events)
}

fn install(machine: &mut Machine, job: &str) -> Result<()> {
    machine.install_programs()?;
    machine.ok(&format!(
        "mkdir -p {TOOLS}/crontabs && echo started >/var/log/benign-app.log && \
         for t in {STAND_INS}; do cp {PROGRAMS}/noop {TOOLS}/$t; done"
    ))?;
    let postrotate = match machine.flavour() {
        Flavour::Busybox => "killall -HUP syslogd",
        Flavour::Systemd => "systemctl kill -s HUP rsyslog.service",
    };
    let rotation = LOGROTATE.replace("{postrotate}", postrotate);
    machine.write_file(&format!("{TOOLS}/logrotate"), 0o755, rotation.as_bytes())?;
    machine.write_file(&format!("{TOOLS}/job"), 0o755, job.as_bytes())?;
    let table = format!("* * * * * {TOOLS}/job\n");
    machine.write_file(&format!("{TOOLS}/crontabs/root"), 0o600, table.as_bytes())
}
