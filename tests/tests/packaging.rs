//! The image side of the product: one overlay and two installers, one set of kernel options, generated lists that are not stale,
//! scripts, units, firewall ruleset and bus policy that do what they say. A step whose tool is missing says so and is skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The repository's top.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests crate is in the repository")
        .to_path_buf()
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("defender-packaging-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("temporary directory");
        // Other users' processes of these tests reach into it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("temporary directory");
        Self(path)
    }

    fn join(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that goes away with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// True when the program can be started; otherwise says what is skipped.
fn have(program: &str, skipped: &str) -> bool {
    let found = Command::new(program).arg("--version").stdin(Stdio::null()).output().is_ok();
    if !found {
        println!("skipped: {skipped}: no {program} on this machine");
    }
    found
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Waits, at most ten seconds, until the condition holds.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

// ---- generated lists

/// Name, version and checksum of every locked package that comes from a registry.
fn locked_crates() -> BTreeSet<(String, String, String)> {
    let lock = read("Cargo.lock");
    let mut crates = BTreeSet::new();
    for block in lock.split("[[package]]").skip(1) {
        let field = |key: &str| {
            let start = format!("{key} = \"");
            let line = block.lines().find_map(|line| line.strip_prefix(&start))?;
            Some(line.trim_end_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (field("name"), field("version"), field("checksum"))
        {
            crates.insert((name, version, checksum));
        }
    }
    crates
}

#[test]
fn yocto_crates_are_those_of_the_lock_file() {
    let inc = read("meta-defender/recipes-security/defender/defender-crates.inc");
    let mut uris = BTreeSet::new();
    let mut sums = BTreeSet::new();
    for line in inc.lines().map(str::trim) {
        if let Some(uri) = line.strip_prefix("crate://crates.io/") {
            uris.insert(uri.trim_end_matches(" \\").replace('/', "-"));
        } else if let Some(sum) = line.strip_prefix("SRC_URI[") {
            sums.insert(sum.replace(".sha256sum] = \"", " ").trim_end_matches('"').to_owned());
        }
    }
    let crates = locked_crates();
    assert!(crates.len() > 50, "Cargo.lock was not understood: {} crates", crates.len());
    let wanted_uris: BTreeSet<_> =
        crates.iter().map(|(name, version, _)| format!("{name}-{version}")).collect();
    let wanted_sums: BTreeSet<_> =
        crates.iter().map(|(name, version, sum)| format!("{name}-{version} {sum}")).collect();
    let differ: Vec<_> =
        uris.symmetric_difference(&wanted_uris).chain(sums.symmetric_difference(&wanted_sums)).collect();
    assert!(
        differ.is_empty(),
        "run meta-defender/scripts/update-crates; in only one of the two: {differ:#?}"
    );
}

#[test]
fn every_direct_dependency_has_its_reason() {
    let manifest = read("Cargo.toml");
    let section = manifest
        .split("[workspace.dependencies]")
        .nth(1)
        .expect("section")
        .split("\n[")
        .next()
        .expect("section");
    let names: Vec<_> = section
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("path ="))
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name.trim()))
        .collect();
    assert!(names.len() > 10, "section was not understood: {names:?}");
    let documented = read("docs/dependencies.md");
    for name in names {
        let line = documented.lines().find(|line| line.starts_with(&format!("| `{name}` | ")));
        assert!(
            line.is_some_and(|line| line.len() > name.len() + 30),
            "docs/dependencies.md: no reason for {name}"
        );
    }
}

#[test]
fn kernel_options_are_one_set() {
    let yocto: BTreeSet<String> = read("meta-defender/recipes-kernel/linux/files/defender.cfg")
        .lines()
        .filter_map(|line| line.strip_suffix("=y").map(str::to_owned))
        .collect();
    let buildroot: BTreeSet<String> = read("buildroot-package/package/defender/defender.mk")
        .lines()
        .filter_map(|line| {
            line.trim().strip_prefix("$(call KCONFIG_ENABLE_OPT,")?.strip_suffix(')').map(str::to_owned)
        })
        .collect();
    let documented: BTreeSet<String> = read("docs/yocto.md")
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| `CONFIG_")?.split_once('`').map(|(name, _)| format!("CONFIG_{name}"))
        })
        .collect();
    assert!(yocto.len() > 10, "defender.cfg was not understood: {yocto:?}");
    assert_eq!(yocto, buildroot, "defender.cfg and defender.mk differ");
    assert_eq!(yocto, documented, "defender.cfg and the table of docs/yocto.md differ");
}

// ---- one overlay, two installers

/// Every file below a directory, with its permissions.
fn tree(root: &Path) -> BTreeMap<String, u32> {
    let mut files = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(directory) = left.pop() {
        for entry in
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        {
            let path = entry.expect("directory entry").path();
            if path.is_dir() {
                left.push(path);
            } else {
                let mode = fs::metadata(&path).expect("installed file").permissions().mode() & 0o7777;
                files.insert(path.strip_prefix(root).expect("below root").display().to_string(), mode);
            }
        }
    }
    files
}

/// What the Yocto recipe's install function puts into an image.
fn yocto_installs(source: &Path, scratch: &Scratch, init: &str, dbus: bool) -> BTreeMap<String, u32> {
    let recipe = read("meta-defender/recipes-security/defender/defender_0.1.0.bb");
    let body = recipe.split("defender_install_overlay () {\n").nth(1).expect("install function");
    let body = body.split("\n}\n").next().expect("end of install function");
    let target = scratch.join(&format!("yocto-{init}-{dbus}"));
    fs::create_dir_all(&target).expect("target directory");
    // bitbake would put these variables' values in; to the shell they look the same.
    run(Command::new("sh")
        .args(["-euc", body])
        .env("S", source)
        .env("D", &target)
        .env("DEFENDER_INIT", init)
        .env("PACKAGECONFIG", if dbus { "dbus mqtt tls" } else { "mqtt tls" }));
    tree(&target)
}

/// What the Buildroot package's install hooks put into an image.
fn buildroot_installs(
    source: &Path,
    scratch: &Scratch,
    init: &str,
    dbus: bool,
    firewall: bool,
) -> BTreeMap<String, u32> {
    let target = scratch.join(&format!("buildroot-{init}-{dbus}-{firewall}"));
    fs::create_dir_all(&target).expect("target directory");
    let makefile = format!(
        "INSTALL = install\nTARGET_DIR = {target}\nBR2_EXTERNAL_DEFENDER_PATH = {external}\n\
         BR2_PACKAGE_DEFENDER_DBUS = {dbus}\nBR2_PACKAGE_DEFENDER_FIREWALL = {firewall}\n\
         cargo-package =\ninclude {external}/package/defender/defender.mk\n\
         {source}/install:\n\t$(DEFENDER_INSTALL_OVERLAY)\n\t$(DEFENDER_INSTALL_INIT_{init})\n",
        target = target.display(),
        external = top().join("buildroot-package").display(),
        source = source.display(),
        dbus = if dbus { "y" } else { "" },
        firewall = if firewall { "y" } else { "" },
        init = if init == "systemd" { "SYSTEMD" } else { "SYSV" },
    );
    let file = scratch.join("Makefile");
    fs::write(&file, makefile).expect("makefile");
    run(Command::new("make").args(["-s", "-f"]).arg(&file).arg(source.join("install")));
    tree(&target)
}

/// Buildroot orders init scripts by name, Yocto by links.
fn without_start_order(files: BTreeMap<String, u32>) -> BTreeMap<String, u32> {
    let name = |path: String| match path.strip_prefix("etc/init.d/S") {
        Some(script) => format!("etc/init.d/{}", script.trim_start_matches(|c: char| c.is_ascii_digit())),
        None => path,
    };
    files.into_iter().map(|(path, mode)| (name(path), mode)).collect()
}

#[test]
fn both_installers_install_the_whole_overlay() {
    if !have("make", "Buildroot's install hooks") {
        return;
    }
    let scratch = Scratch::new("install");
    let source = scratch.join("source");
    fs::create_dir_all(&source).expect("source directory");
    run(Command::new("cp").arg("-a").arg(top().join("rootfs-overlay")).arg(&source));
    // A file nobody has heard of, as a new rule would be, in a place with a space in its name.
    fs::create_dir_all(source.join("rootfs-overlay/usr/share/defender/rules/new rules")).expect("directory");
    fs::write(source.join("rootfs-overlay/usr/share/defender/rules/new rules/a.yml"), "title: a\n")
        .expect("file");

    let mut installed = BTreeSet::new();
    for init in ["systemd", "sysvinit"] {
        let yocto = yocto_installs(&source, &scratch, init, true);
        let buildroot = buildroot_installs(&source, &scratch, init, true, true);
        installed.extend(buildroot.keys().cloned());
        assert_eq!(
            yocto,
            without_start_order(buildroot),
            "{init}: Yocto (left) and Buildroot (right) install differently"
        );
        assert!(yocto.contains_key("usr/share/defender/rules/new rules/a.yml"));
        let (unit, script) = ("usr/lib/systemd/system/defender.service", "etc/init.d/defender");
        assert_eq!(yocto.contains_key(unit), init == "systemd");
        assert_eq!(yocto.contains_key(script), init == "sysvinit");

        let yocto = yocto_installs(&source, &scratch, init, false);
        let buildroot = without_start_order(buildroot_installs(&source, &scratch, init, false, true));
        assert_eq!(yocto, buildroot, "{init} without D-Bus");
        assert!(!yocto.keys().any(|path| path.contains("dbus-1")), "{init}: D-Bus files without D-Bus");
        let bare = buildroot_installs(&source, &scratch, init, true, false);
        let left: Vec<_> =
            bare.keys().filter(|path| path.contains("firewall") || path.contains("nftables")).collect();
        assert!(left.is_empty(), "{init}: left without the firewall option: {left:?}");
    }
    let overlay: BTreeSet<_> = tree(&source.join("rootfs-overlay")).into_keys().collect();
    assert_eq!(installed, overlay, "files of rootfs-overlay/ that no image gets, or the other way round");
}

#[test]
fn modes_are_what_the_device_needs() {
    for (path, mode) in tree(&top().join("rootfs-overlay")) {
        let program = read_bytes(&path).starts_with(b"#!");
        assert_eq!(
            mode & 0o111 != 0,
            program,
            "{path}: mode {mode:o}; programs are executable and nothing else is"
        );
    }
}

fn read_bytes(overlay_path: &str) -> Vec<u8> {
    fs::read(top().join("rootfs-overlay").join(overlay_path))
        .unwrap_or_else(|error| panic!("{overlay_path}: {error}"))
}

// ---- scripts and units

fn shell_scripts() -> Vec<PathBuf> {
    let mut scripts: Vec<_> = tree(&top().join("rootfs-overlay"))
        .into_keys()
        .filter(|path| read_bytes(path).starts_with(b"#!/bin/sh"))
        .map(|path| top().join("rootfs-overlay").join(path))
        .collect();
    scripts.push(top().join("buildroot-package/scripts/vendor"));
    assert!(scripts.len() >= 5, "{scripts:?}");
    scripts
}

#[test]
fn scripts_parse_and_are_clean() {
    for script in shell_scripts() {
        run(Command::new("sh").arg("-n").arg(&script));
        if have("busybox", "parsing with BusyBox's shell") {
            run(Command::new("busybox").args(["sh", "-n"]).arg(&script));
        }
        if have("shellcheck", "shellcheck of the scripts") {
            run(Command::new("shellcheck").arg(&script));
        }
    }
}

#[test]
fn units_verify_and_are_hardened() {
    if !have("systemd-analyze", "verification of the systemd units") {
        return;
    }
    let scratch = Scratch::new("units");
    for unit in ["defender.service", "defender-firewall.service"] {
        let text = read(&format!("rootfs-overlay/usr/lib/systemd/system/{unit}"));
        // What is started is not on this machine.
        let text: String = text
            .lines()
            .map(|line| match line.split_once('=') {
                Some((key @ ("ExecStart" | "ExecReload"), _)) => format!("{key}=/bin/true\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let path = scratch.join(unit);
        fs::write(&path, text).expect("unit");
        run(Command::new("systemd-analyze").arg("verify").arg(&path));
        // 25 means an exposure of 2.5.
        run(Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=25"])
            .arg(&path));
    }
}

#[test]
fn the_supervisor_never_gives_up_and_ends_when_told() {
    let scratch = Scratch::new("supervise");
    let agent = scratch.join("agent");
    let runs = scratch.join("runs");
    fs::write(&agent, format!("#!/bin/sh\necho \"$*\" >>{}\nexec sleep 100\n", runs.display()))
        .expect("agent");
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).expect("agent");
    let pid_file = scratch.join("agent.pid");
    let shell = if have("busybox", "BusyBox's shell as supervisor; taking sh") {
        vec!["busybox", "sh"]
    } else {
        vec!["sh"]
    };
    let mut supervisor = Running(
        Command::new(shell[0])
            .args(&shell[1..])
            .arg(top().join("rootfs-overlay/usr/libexec/defender/supervise"))
            .args(["--config", "x"])
            .env("DEFENDER_BINARY", &agent)
            .env("DEFENDER_AGENT_PIDFILE", &pid_file)
            .env("DEFENDER_AGENT_LOG", scratch.join("agent.log"))
            .stdin(Stdio::null())
            .spawn()
            .expect("supervisor"),
    );
    let started = || fs::read_to_string(&runs).unwrap_or_default().lines().count();
    let pid = || fs::read_to_string(&pid_file).unwrap_or_default().trim().to_owned();
    for times in 1..=3 {
        eventually("the agent is started again", || started() == times && !pid().is_empty());
        run(Command::new("kill").args(["-KILL", &pid()]));
    }
    eventually("the agent is started a fourth time", || started() == 4);
    assert_eq!(fs::read_to_string(&runs).expect("runs").lines().next(), Some("run --config x"));
    let last = pid();
    run(Command::new("kill").args(["-TERM", &supervisor.0.id().to_string()]));
    eventually("the supervisor ends", || supervisor.0.try_wait().expect("supervisor").is_some());
    assert!(!Path::new("/proc").join(&last).exists(), "the agent outlived its supervisor");
    assert!(!pid_file.exists(), "a pid file was left");
}

// ---- firewall

#[test]
fn the_base_ruleset_loads_again_and_survives_a_typo() {
    let unshare = if is_root() { vec!["-n"] } else { vec!["-r", "-n"] };
    let probe = Command::new("unshare")
        .args(&unshare)
        .args(["nft", "add table inet x"])
        .stdin(Stdio::null())
        .output();
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: loading the base ruleset: no nft in a network namespace of our own: {probe:?}");
        return;
    }
    let scratch = Scratch::new("nft");
    run(Command::new("cp").arg("-a").arg(top().join("rootfs-overlay/etc/defender/nftables")).arg(&scratch.0));
    let script = r#"
        set -eu
        in_set() { nft list set inet defender_base "$1" | grep -qw "$2"; }
        not() { if "$@"; then echo "unexpected: $*" >&2; exit 1; fi; }
        nft add table inet foreign
        "$LOADER" check
        "$LOADER" load
        nft add element inet defender_base tcp_open '{ 1 }'
        "$LOADER" load                                       # again: the same, not twice
        in_set tcp_open 22
        not in_set tcp_open 1
        nft list table inet foreign >/dev/null               # nobody else's table is touched
        test "$(nft list ruleset | grep -c 'policy drop')" = 2

        conf="$DEFENDER_NFTABLES/conf.d"
        echo 'add element inet defender_base tcp_open { 8883 }' >"$conf/10-product.nft"
        echo 'delete element inet defender_base tcp_open { 22 }' >>"$conf/10-product.nft"
        echo 'add rule inet defender_base product_input udp dport 5353 accept' >>"$conf/10-product.nft"
        "$LOADER" load
        in_set tcp_open 8883
        not in_set tcp_open 22

        echo 'add rule inet defender_base nonsense' >"$conf/20-typo.nft"
        not "$LOADER" check
        not "$LOADER" load                                   # refused, and what was in force still is
        in_set tcp_open 8883
        nft delete table inet defender_base                  # as at boot
        "$LOADER" load
        in_set tcp_open 22
    "#;
    run(Command::new("unshare")
        .args(&unshare)
        .args(["sh", "-c", script])
        .env("LOADER", top().join("rootfs-overlay/usr/libexec/defender/firewall"))
        .env("DEFENDER_NFTABLES", scratch.join("nftables")));
}

// ---- D-Bus: contract and policy

const INTERFACE: &str = "org.defender.Agent1";

/// An opening tag of an XML file and the comment before it.
struct Tag {
    name: String,
    attributes: BTreeMap<String, String>,
    comment: String,
}

/// Opening tags in document order. Panics where the file is not well formed.
fn tags(file: &str) -> Vec<Tag> {
    let text = read(file);
    let (mut rest, mut open, mut tags, mut comment) =
        (text.as_str(), Vec::<String>::new(), Vec::new(), String::new());
    while let Some(start) = rest.find('<') {
        assert!(
            open.is_empty() || rest[..start].trim().is_empty(),
            "{file}: stray text {:?}",
            &rest[..start]
        );
        rest = &rest[start..];
        if let Some(body) = rest.strip_prefix("<!--") {
            let end = body.find("-->").unwrap_or_else(|| panic!("{file}: comment without end"));
            assert!(!body[..end].contains("--"), "{file}: -- inside a comment");
            comment = body[..end].trim().to_owned();
            rest = &body[end + 3..];
            continue;
        }
        let end = rest.find('>').unwrap_or_else(|| panic!("{file}: tag without end"));
        let tag = &rest[1..end];
        rest = &rest[end + 1..];
        if tag.starts_with('!') {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "{file}: </{name}> closes another tag");
            continue;
        }
        let closed = tag.ends_with('/');
        let tag = tag.trim_end_matches('/');
        let (name, mut attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        let mut found = BTreeMap::new();
        while let Some((key, value)) = attributes.split_once("=\"") {
            let (value, after) =
                value.split_once('"').unwrap_or_else(|| panic!("{file}: quote without end in <{tag}>"));
            found.insert(key.trim().to_owned(), value.to_owned());
            attributes = after;
        }
        assert!(attributes.trim().is_empty(), "{file}: <{tag}>: {attributes:?} is no attribute");
        if !closed {
            open.push(name.to_owned());
        }
        tags.push(Tag { name: name.to_owned(), attributes: found, comment: std::mem::take(&mut comment) });
    }
    assert!(open.is_empty(), "{file}: not closed: {open:?}");
    tags
}

#[test]
fn the_bus_policy_matches_the_interface() {
    let (mut open, mut restricted) = (BTreeSet::new(), BTreeSet::new());
    for tag in tags(&format!("rootfs-overlay/usr/share/dbus-1/interfaces/{INTERFACE}.xml")) {
        let kind = match tag.name.as_str() {
            kind @ ("method" | "signal" | "property") => kind.to_owned(),
            _ => continue,
        };
        let member = (kind, tag.attributes["name"].clone());
        match (tag.comment.ends_with("Open."), tag.comment.ends_with("Restricted.")) {
            (true, false) => open.insert(member),
            (false, true) => restricted.insert(member),
            _ => panic!("{member:?}: its comment must end with Open. or Restricted.: {:?}", tag.comment),
        };
    }
    assert!(!restricted.iter().any(|(kind, _)| kind == "property"), "the bus cannot restrict one property");

    let (mut context, mut allowed, mut denied) = (String::new(), BTreeSet::new(), BTreeSet::new());
    for tag in tags(&format!("rootfs-overlay/usr/share/dbus-1/system.d/{INTERFACE}.conf")) {
        let attribute = |key: &str| tag.attributes.get(key).cloned().unwrap_or_default();
        match tag.name.as_str() {
            "policy" => context = attribute("context"),
            "allow" if context == "default" && attribute("send_interface") == INTERFACE => {
                allowed.insert(attribute("send_member"));
            }
            "deny" if context == "default" && attribute("receive_sender") == INTERFACE => {
                denied.insert(attribute("receive_member"));
            }
            _ => {}
        }
    }
    let named = |members: &BTreeSet<(String, String)>, kind: &str| -> BTreeSet<String> {
        members.iter().filter(|(k, _)| k == kind).map(|(_, name)| name.clone()).collect()
    };
    assert_eq!(
        allowed,
        named(&open, "method"),
        "methods open to everybody: policy (left), interface (right)"
    );
    assert_eq!(
        denied,
        named(&restricted, "signal"),
        "signals kept from others: policy (left), interface (right)"
    );
}

/// A connection to the bus that owns the agent's name and emits its signals; answers nothing.
struct Owner {
    socket: UnixStream,
    serial: u32,
}

impl Owner {
    fn connect(path: &Path) -> Self {
        let mut socket = UnixStream::connect(path).expect("bus");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        // EXTERNAL with the user id, 0, in hexadecimal digits of its decimal text.
        socket.write_all(b"\0AUTH EXTERNAL 30\r\n").expect("bus");
        let mut answer = [0; 256];
        let length = socket.read(&mut answer).expect("bus");
        assert!(answer[..length].starts_with(b"OK "), "{:?}", String::from_utf8_lossy(&answer[..length]));
        socket.write_all(b"BEGIN\r\n").expect("bus");
        let mut owner = Self { socket, serial: 0 };
        let bus = ("/org/freedesktop/DBus", "org.freedesktop.DBus");
        owner.send(1, bus.0, bus.1, "Hello", Some(bus.1), None);
        owner.send(1, bus.0, bus.1, "RequestName", Some(bus.1), Some(INTERFACE));
        owner
    }

    /// Sends a message as the D-Bus specification marshals it, little-endian. name: arguments of RequestName.
    fn send(
        &mut self,
        kind: u8,
        path: &str,
        interface: &str,
        member: &str,
        destination: Option<&str>,
        name: Option<&str>,
    ) {
        fn pad(bytes: &mut Vec<u8>, to: usize) {
            bytes.resize(bytes.len().next_multiple_of(to), 0);
        }
        fn string(bytes: &mut Vec<u8>, text: &str) {
            pad(bytes, 4);
            bytes.extend(u32::try_from(text.len()).expect("short").to_le_bytes());
            bytes.extend(text.as_bytes());
            bytes.push(0);
        }
        let mut body = Vec::new();
        if let Some(name) = name {
            string(&mut body, name);
            pad(&mut body, 4);
            body.extend(4_u32.to_le_bytes()); // DBUS_NAME_FLAG_DO_NOT_QUEUE
        }
        let mut fields = Vec::new();
        let texts = [
            (1_u8, b'o', Some(path)),
            (2, b's', Some(interface)),
            (3, b's', Some(member)),
            (6, b's', destination),
        ];
        for (code, kind, text) in texts {
            if let Some(text) = text {
                pad(&mut fields, 8);
                fields.extend([code, 1, kind, 0]);
                string(&mut fields, text);
            }
        }
        if name.is_some() {
            pad(&mut fields, 8);
            fields.extend([8, 1, b'g', 0, 2, b's', b'u', 0]);
        }
        self.serial += 1;
        let mut message = vec![b'l', kind, 0, 1];
        message.extend(u32::try_from(body.len()).expect("short").to_le_bytes());
        message.extend(self.serial.to_le_bytes());
        message.extend(u32::try_from(fields.len()).expect("short").to_le_bytes());
        message.extend(fields);
        pad(&mut message, 8);
        message.extend(body);
        self.socket.write_all(&message).expect("bus");
    }
}

/// Runs as: user and group.
const STRANGER: (u32, u32) = (65534, 65534);
/// In the policy under test the group defender is group daemon, since the former does not exist on a build machine.
const MEMBER: (u32, u32) = (65534, 1);

fn as_user(program: &str, (uid, gid): (u32, u32)) -> Command {
    let mut command = Command::new(program);
    command.uid(uid).gid(gid).current_dir("/").stdin(Stdio::null());
    command
}

#[test]
fn the_bus_enforces_the_policy() {
    if !is_root() {
        println!("skipped: the policy on a real bus: needs root, to call as other users");
        return;
    }
    if !(have("dbus-daemon", "the policy on a real bus") && have("dbus-send", "the policy on a real bus")) {
        return;
    }
    let scratch = Scratch::new("bus");
    let policy = read(&format!("rootfs-overlay/usr/share/dbus-1/system.d/{INTERFACE}.conf"));
    let policy = policy
        .replace("group=\"defender\"", "group=\"daemon\"")
        .replace("user=\"defender\"", "user=\"daemon\"");
    fs::write(scratch.join("policy.conf"), policy).expect("policy");
    let socket = scratch.join("socket");
    // The decisive lines of the reference implementation's own system.conf.
    let config = format!(
        r#"<busconfig><type>system</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
        <policy context="default"><allow user="*"/><deny own="*"/><deny send_type="method_call"/>
        <allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/>
        <allow send_requested_reply="true" send_type="error"/><allow receive_type="method_call"/>
        <allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/>
        <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/></policy>
        <include>{policy}</include></busconfig>"#,
        socket = socket.display(),
        policy = scratch.join("policy.conf").display()
    );
    fs::write(scratch.join("bus.conf"), config).expect("configuration");
    let _bus = Running(
        Command::new("dbus-daemon")
            .arg(format!("--config-file={}", scratch.join("bus.conf").display()))
            .arg("--nofork")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon"),
    );
    eventually("the bus listens", || UnixStream::connect(&socket).is_ok());
    let address = format!("unix:path={}", socket.display());
    let mut owner = Owner::connect(&socket);

    // Nobody answers, so an allowed call ends with a time-out and a denied one at once.
    let call = |who, interface: &str, member: &str| {
        let output = as_user("dbus-send", who)
            .args([&format!("--bus={address}"), "--print-reply", "--reply-timeout=300"])
            .args([&format!("--dest={INTERFACE}"), "/org/defender/Agent1", &format!("{interface}.{member}")])
            .output()
            .expect("dbus-send");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        match (error.contains("AccessDenied"), error.contains("NoReply")) {
            (true, false) => false,
            (false, true) => true,
            _ => panic!("{member}: {error}"),
        }
    };
    eventually("the name is owned", || {
        let output = as_user("dbus-send", STRANGER)
            .args([
                &format!("--bus={address}"),
                "--print-reply",
                "--dest=org.freedesktop.DBus",
                "/org/freedesktop/DBus",
            ])
            .args(["org.freedesktop.DBus.NameHasOwner", &format!("string:{INTERFACE}")])
            .output()
            .expect("dbus-send");
        String::from_utf8_lossy(&output.stdout).contains("boolean true")
    });
    assert!(call(STRANGER, INTERFACE, "GetHealth"));
    assert!(call(STRANGER, "org.freedesktop.DBus.Properties", "GetAll"));
    assert!(call(STRANGER, "org.freedesktop.DBus.Introspectable", "Introspect"));
    assert!(!call(STRANGER, "org.freedesktop.DBus.Properties", "Set"));
    for member in ["GetStatus", "GetAlerts", "GetEvents", "Block", "Unblock", "ListBlocked", "NotYetInvented"]
    {
        assert!(!call(STRANGER, INTERFACE, member), "{member}: open to strangers");
        assert!(call(MEMBER, INTERFACE, member), "{member}: closed to the group");
    }

    if !have("gdbus", "who receives which signal") {
        return;
    }
    let signals = ["AlertRaised", "AddressBlocked", "AddressUnblocked", "HealthChanged"];
    for (who, expected) in [(STRANGER, vec!["HealthChanged"]), (MEMBER, signals.to_vec())] {
        let log = scratch.join(&format!("signals-{}", who.1));
        let _monitor = Running(
            as_user("gdbus", who)
                .args(["monitor", "--address", &address, "--dest", INTERFACE])
                .stdout(fs::File::create(&log).expect("log"))
                .spawn()
                .expect("gdbus"),
        );
        let heard = || fs::read_to_string(&log).unwrap_or_default();
        // HealthChanged goes out last: when it has arrived, so has everything else that ever will.
        eventually("a signal arrives", || {
            for signal in signals {
                owner.send(4, "/org/defender/Agent1", INTERFACE, signal, None, None);
            }
            heard().matches("HealthChanged").count() > 1
        });
        let heard = heard();
        let heard: Vec<_> =
            signals.into_iter().filter(|signal| heard.contains(&format!("{INTERFACE}.{signal} "))).collect();
        assert_eq!(heard, expected, "as user {} and group {}", who.0, who.1);
    }
}
