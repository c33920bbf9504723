//! Process events by eBPF on the image's kernel: with its BTF, and with that hidden.

use std::time::Duration;

use crate::device::{class, Event};
use crate::error::{Error, Result};
use crate::image::Flavour;
use crate::qemu::{Machine, PROGRAMS};

use super::faults::source_becomes;
use super::{configuration, expect, World};

const REPORT: Duration = Duration::from_secs(15);
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// As docs/operations.md has it.
const DROP_IN: &str =
    "[Service]\nAmbientCapabilities=CAP_BPF CAP_PERFMON\nCapabilityBoundingSet=CAP_BPF CAP_PERFMON\n\
                       SystemCallFilter=bpf perf_event_open\n";
const DROP_IN_FILE: &str = "/run/systemd/system/defender.service.d/ebpf.conf";
/// `CAP_PERFMON` and `CAP_BPF` (linux/capability.h).
const LOADING: u64 = 1 << 38 | 1 << 39;

pub(super) fn ebpf_with_and_without_btf(world: &mut World<'_>) -> Result<()> {
    let file = "conf.d/99-validation.toml";
    let machine = world.machine()?;
    // A tracepoint's name is in the agent only with its programs.
    if machine.run("grep -q sched_process_exec \"$(readlink -f \"$(command -v defender)\")\"")?.status != 0 {
        return Err(Error::Skipped("the agent is built without the cargo feature ebpf".into()));
    }
    let systemd = machine.flavour() == Flavour::Systemd;
    if systemd {
        machine.ok(&format!("mkdir -p $(dirname {DROP_IN_FILE})"))?;
        machine.write_file(DROP_IN_FILE, 0o644, DROP_IN.as_bytes())?;
        // Debian's kernel asks for CAP_SYS_ADMIN above that.
        machine.ok("systemctl daemon-reload; sysctl -w kernel.perf_event_paranoid=2")?;
    }
    configuration::with(world, file, "[process]\nsource = \"ebpf\"\n", |world| {
        let machine = world.machine()?;
        source_becomes(machine, &["ebpf"])?;
        let pid = machine.agent_pid()?.unwrap_or_default();
        let held = machine.ok(&format!("sed -n 's/^Cap\\(Eff\\|Prm\\|Amb\\):.//p' /proc/{pid}/status"))?;
        let kept = held
            .lines()
            .any(|set| u64::from_str_radix(set.trim(), 16).map_or(true, |set| set & LOADING != 0));
        expect(!kept, || format!("what loads programs is not given up: {held}"))?;
        sees(machine, "seen-with-btf", "ebpf")?;
        machine.ok("modprobe raw_diag")?;
        machine.event("a module is told with who loaded it", "raw_diag", REPORT, |e| {
            e.class() == class::KERNEL_EXTENSION
                && e.at("/actor/process/cmd_line")
                    .as_str()
                    .is_some_and(|line| line.contains("modprobe raw_diag"))
        })?;
        // Debian's kernel has what all of it needs, but that for 64-bit ARM not before Linux 6.5.
        if machine.ok("uname -m")?.trim() == "x86_64" {
            let status = machine.ok("defender status")?;
            expect(!status.contains("not told"), || format!("something is not told: {status}"))?;
            deeds(machine)?;
            if systemd {
                loads(machine)?;
            }
        }
        machine.ok(&format!("mount --bind /dev/null {BTF}"))?;
        let hidden = without(machine);
        machine.ok(&format!("umount {BTF}"))?;
        if systemd {
            machine.ok(&format!("rm {DROP_IN_FILE} && systemctl daemon-reload"))?;
        }
        hidden
    })
}

/// What a process does to others and to the kernel without starting anything.
fn deeds(machine: &mut Machine) -> Result<()> {
    machine.install_programs()?;
    let by = |event: &Event, words: &str| {
        event.at("/actor/process/cmd_line").as_str().is_some_and(|line| line.contains(words))
    };
    machine.ok(&format!("busybox sleep 33 & {PROGRAMS}/deeds trace $!"))?;
    machine.event("who traces is told, and whom", "sleep 33", REPORT, |e| {
        e.class() == class::PROCESS
            && e.at("/activity_id") == 3
            && e.at("/process/cmd_line") == "busybox sleep 33"
            && by(e, "deeds trace")
    })?;
    machine.ok(&format!("{PROGRAMS}/deeds root 65534"))?;
    machine.event("who becomes root is told", "previous_uid", REPORT, |e| {
        e.class() == class::PROCESS
            && e.at("/activity_id") == 5
            && e.at("/unmapped/previous_uid") == 65534
            && by(e, " become")
    })?;
    machine.ok(&format!("{PROGRAMS}/deeds load"))?;
    machine.event("who loads a program is told, and of which type", "program_type", REPORT, |e| {
        e.class() == class::KERNEL_EXTENSION
            && e.at("/unmapped/program_type") == "socket_filter"
            && by(e, "deeds load")
    })?;
    Ok(())
}

/// systemd loads a program for a service that may talk to nobody.
fn loads(machine: &mut Machine) -> Result<()> {
    machine.ok("systemd-run --wait --quiet --property=IPAddressDeny=any true")?;
    machine.event("who loads an eBPF program is told", "program_type", REPORT, |e| {
        e.class() == class::KERNEL_EXTENSION
            && e.at("/unmapped/program_type") == "cgroup_skb"
            && e.at("/actor/process/file/name") == "systemd"
    })?;
    Ok(())
}

fn without(machine: &mut Machine) -> Result<()> {
    machine.agent_service("restart")?;
    machine.wait_armed()?;
    source_becomes(machine, &["ebpf_entry"])?;
    sees(machine, "seen-without-btf", "ebpf_entry")
}

fn sees(machine: &mut Machine, marker: &str, provider: &str) -> Result<()> {
    machine.run(&format!("busybox echo {marker}"))?;
    let what = format!("{provider} reports a program with its arguments");
    // The shell that runs it has the words among its own.
    let line = format!("busybox echo {marker}");
    machine.event(&what, marker, REPORT, |e| {
        e.class() == class::PROCESS
            && e.at("/metadata/log_provider") == provider
            && e.at("/process/cmd_line") == line.as_str()
    })?;
    // Refused at once: nobody who looks for its socket finds the process.
    let port = if provider == "ebpf" { 41 } else { 42 };
    machine.run(&format!("busybox nc 127.0.0.1 {port} </dev/null"))?;
    let line = format!("busybox nc 127.0.0.1 {port}");
    machine.event(&format!("{provider} tells who connected"), &line, REPORT, |e| {
        e.class() == class::NETWORK
            && e.at("/dst_endpoint/port") == port
            && e.at("/actor/process/cmd_line") == line.as_str()
    })?;
    Ok(())
}
