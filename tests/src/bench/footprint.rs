//! What the product weighs in an image: bytes by component, memory after boot, time added to the boot, for variants of the agent.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::architecture::Architecture;
use crate::command;
use crate::error::{Error, Result};
use crate::image::{self, Flavour, PACK};
use crate::lab::Lab;
use crate::packages;
use crate::progress;
use crate::qemu::{Machine, Setup};
use crate::workspace::Workspace;

use super::{size, table, Bench};

/// From armed until memory is looked at.
const SETTLE: Duration = Duration::from_secs(10);

/// Part of `rootfs-overlay/`, and what of its paths belongs there; the first that fits counts.
const OVERLAY: [(&str, &[&str]); 5] = [
    ("rules", &["usr/share/defender/rules/"]),
    ("posture policies", &["usr/share/defender/policies/"]),
    ("D-Bus policy and interface", &["usr/share/dbus-1/"]),
    ("base firewall", &["etc/defender/nftables/", "firewall"]),
    ("configuration, units, init scripts, hardening", &[""]),
];

/// Other programs that the agent works with, as the build machine has them.
const PROGRAMS: [(&str, &str); 2] = [("nft", "/usr/sbin/nft"), ("D-Bus daemon", "/usr/bin/dbus-daemon")];

/// Modules of a Debian kernel that stand for the options of `defender.cfg` which Debian builds as modules.
const MODULES: [(&str, &[&str]); 4] = [
    (
        "NF_TABLES, NF_TABLES_INET, NFT_CT, NFT_LIMIT, NFT_LOG",
        &["nf_tables", "nft_ct", "nft_limit", "nft_log"],
    ),
    ("NF_CONNTRACK, NF_CONNTRACK_EVENTS", &["nf_conntrack", "nf_defrag_ipv4", "nf_defrag_ipv6"]),
    ("NF_CT_NETLINK", &["nf_conntrack_netlink"]),
    ("NETFILTER_NETLINK_LOG, NETFILTER", &["nfnetlink_log", "nfnetlink", "nf_log_syslog"]),
];

/// Prints the tables. Builds the variants, assembles and boots an image with each.
///
/// # Errors
/// When a build, a tool or a boot fails.
pub fn run(workspace: &Workspace, bench: &Bench) -> Result<()> {
    let features = size::features(bench)?;
    let mut variants = Vec::new();
    let is_default = features.all.iter().all(|feature| features.default.contains(feature));
    for (name, chosen) in [("minimal", Vec::new()), ("default", features.default), ("full", features.all)] {
        let chosen: Vec<_> = chosen.iter().map(String::as_str).collect();
        if name == "full" && is_default {
            progress::say(format_args!("full is default: there is no feature beyond it"));
            continue;
        }
        let binary = progress::step(&format!("building the {name} agent"), || size::build(bench, &chosen))?;
        // The next build writes to the same place.
        let copy = bench.directory.join(format!("agent-{name}"));
        fs::copy(&binary, &copy).map_err(Error::io(format!("cannot copy {}", binary.display())))?;
        variants.push((name, copy));
    }
    flash(workspace, bench, &variants)?;
    kernel(workspace, bench)?;
    let mut rows = vec![[
        "variant",
        "PSS, agent, KiB",
        "PSS, second process, KiB",
        "scripts, s",
        "to armed, s",
        "boot, s",
    ]
    .map(String::from)
    .to_vec()];
    for (name, binary) in &variants {
        rows.push(boot(workspace, name, binary)?);
    }
    table::print(&rows);
    Ok(())
}

/// One thing in the image.
struct Component {
    name: String,
    files: Vec<PathBuf>,
}

fn flash(workspace: &Workspace, bench: &Bench, variants: &[(&str, PathBuf)]) -> Result<()> {
    let mut components = Vec::new();
    for (name, binary) in variants {
        let stripped = bench.directory.join(format!("defender-{name}"));
        command::run(Command::new("strip").arg("-o").arg(&stripped).arg(binary), PACK)?;
        components.push(Component { name: format!("agent, {name}"), files: vec![stripped] });
    }
    components.extend(overlay(workspace)?);
    // What every image with a C library has is nobody's.
    let mut seen: BTreeSet<PathBuf> = libraries(Path::new("/usr/bin/true"))?.into_iter().collect();
    let mut own = Component { name: "libraries of the agent (OpenSSL, libgcc)".into(), files: Vec::new() };
    own.files
        .extend(libraries(&variants[variants.len() - 1].1)?.into_iter().filter(|l| seen.insert(l.clone())));
    components.push(own);
    for (name, program) in PROGRAMS {
        let program = Path::new(program);
        let (mut files, mut shared) = (vec![program.to_path_buf()], seen.clone());
        files.extend(libraries(program)?.into_iter().filter(|library| shared.insert(library.clone())));
        components.push(Component { name: format!("{name} and its libraries"), files });
    }
    let mut rows = vec![["component", "files", "bytes", "in squashfs with xz"].map(String::from).to_vec()];
    for component in &components {
        let mut bytes = 0;
        for file in &component.files {
            bytes += length(file)?;
        }
        let packed = packed(bench, component)?;
        rows.push(vec![
            component.name.clone(),
            component.files.len().to_string(),
            bytes.to_string(),
            packed.to_string(),
        ]);
    }
    table::print(&rows);
    Ok(())
}

/// `rootfs-overlay/` as an image gets it, part by part.
fn overlay(workspace: &Workspace) -> Result<Vec<Component>> {
    let root = workspace.overlay();
    let mut components: Vec<Component> =
        OVERLAY.iter().map(|(name, _)| Component { name: (*name).into(), files: Vec::new() }).collect();
    for file in files(&root)? {
        let path = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().into_owned();
        if image::left_out(&path) {
            continue;
        }
        let part = OVERLAY.iter().position(|(_, marks)| marks.iter().any(|mark| path.contains(mark)));
        if let Some(component) = part.and_then(|part| components.get_mut(part)) {
            component.files.push(file);
        }
    }
    Ok(components)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in
        fs::read_dir(directory).map_err(Error::io(format!("cannot list {}", directory.display())))?.flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// What the program is linked to, with what that is linked to.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    image::libraries(program).map(|libraries| {
        libraries.into_iter().map(|library| library.canonicalize().unwrap_or(library)).collect()
    })
}

fn length(file: &Path) -> Result<u64> {
    fs::metadata(file).map(|data| data.len()).map_err(Error::io(format!("cannot look at {}", file.display())))
}

/// Bytes of a file system with the component alone.
fn packed(bench: &Bench, component: &Component) -> Result<u64> {
    let to = bench.directory.join("component.squashfs");
    let mut pack = Command::new("mksquashfs");
    // Whole paths, since names in different directories are the same.
    pack.args(&component.files).arg(&to);
    pack.args(["-noappend", "-quiet", "-no-progress", "-no-xattrs", "-comp", "xz", "-nopad", "-no-strip"]);
    command::run(&mut pack, PACK)?;
    length(&to)
}

/// Bytes of code and data of Debian's modules: what options weigh that Debian did not build in.
fn kernel(workspace: &Workspace, bench: &Bench) -> Result<()> {
    let tree = packages::kernel(workspace, Architecture::X86_64, "kernel")?;
    let modules = files(&tree)?;
    let mut rows = vec![["options", "text, data, bss"].map(String::from).to_vec()];
    for (options, names) in MODULES {
        let mut bytes = 0;
        for name in names {
            let wanted = format!("{name}.ko");
            let found = modules.iter().find(|path| {
                path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&wanted))
            });
            let found = found.ok_or_else(|| Error::Missing {
                what: format!("module {name} in {}", tree.display()),
                next: "a kernel that has it built in cannot be measured this way".into(),
            })?;
            let plain = bench.directory.join("module.ko");
            image::unpack_module(found, &plain)?;
            let text = command::run(Command::new("size").arg(&plain), PACK)?;
            let total = String::from_utf8_lossy(&text)
                .lines()
                .nth(1)
                .and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
            bytes += total.ok_or_else(|| Error::Unexpected(format!("size of {name} said nothing")))?;
        }
        rows.push(vec![options.to_owned(), bytes.to_string()]);
    }
    table::print(&rows);
    Ok(())
}

/// Boots the BusyBox image with this agent. Times are the emulated machine's own.
fn boot(workspace: &Workspace, name: &str, agent: &Path) -> Result<Vec<String>> {
    let image = image::assemble(workspace, Architecture::X86_64, Flavour::Busybox, Some(agent))?;
    let lab = Lab::new()?;
    let mut machine = Machine::boot(Setup::new(workspace, &image, "footprint")?, &lab)?;
    machine.wait_armed()?;
    let booted = uptime(&mut machine)?;
    thread::sleep(SETTLE);
    let text = machine.ok("for p in $(pidof defender); do \
         echo $(tr '\\0' ' ' </proc/$p/cmdline) $(grep ^Pss: /proc/$p/smaps_rollup); done")?;
    let pss = |word: &str| {
        let line = text.lines().find(|line| line.split(' ').nth(1) == Some(word));
        line.and_then(|line| line.split_whitespace().rev().nth(1)).unwrap_or("-").to_owned()
    };
    let (agent, second) = (pss("run"), pss("onlooker"));
    machine.agent_service("stop")?;
    let before = uptime(&mut machine)?;
    machine.ok("/etc/init.d/S35defender-firewall restart && /etc/init.d/S60defender start")?;
    let started = uptime(&mut machine)?;
    machine.wait_armed()?;
    let armed = uptime(&mut machine)?;
    machine.shut_down()?;
    let seconds = |value: f64| format!("{value:.2}");
    Ok(vec![
        name.to_owned(),
        agent,
        second,
        seconds(started - before),
        seconds(armed - started),
        seconds(booted),
    ])
}

fn uptime(machine: &mut Machine) -> Result<f64> {
    let text = machine.ok("cut -d' ' -f1 /proc/uptime")?;
    text.trim().parse().map_err(|_| Error::Unexpected(format!("/proc/uptime: {text}")))
}
