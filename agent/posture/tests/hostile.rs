//! Root directories made to harm who scans them: every shipped policy is judged against each, in bounded time and memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use defender_posture::result::{Report, Verdict};
use defender_posture::{scan, Exceptions, Inputs, Policy, Root};

/// How long a scan of a small hostile tree may take in a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn policies() -> Vec<Policy> {
    let shipped =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rootfs-overlay/usr/share/defender/policies");
    let mut policies = Vec::new();
    for entry in fs::read_dir(shipped).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".toml") && !name.ends_with(".tests.toml") {
            policies.push(Policy::parse(&name, &fs::read(&path).unwrap()).unwrap());
        }
    }
    // What must not be told wrongly, whatever ships.
    let check = |id: &str, expect: &str| {
        format!("[[check]]\nid = \"{id}\"\ntitle = \"T\"\nsection = \"S\"\nseverity = \"high\"\nrationale = \"R\"\nremediation = \"M\"\nexpect = {expect}\n")
    };
    let own = [
        check("own-empty", "{ not = { account = \"any\", password = \"empty\" } }"),
        check("own-sshd", "{ sshd = \"permitrootlogin\", one_of = [\"no\", \"prohibit-password\"] }"),
        check("own-text", "{ text = \"/etc/ssh/sshd_config\", lacks = \"x\" }"),
        check("own-setuid", "{ find = \"setuid\" }"),
        check("own-elf", "{ elf = \"/bin/*\", pie = true, relro = \"full\", nx = true, canary = true }"),
        check("own-outside", "{ file = \"/outside/secret\", exists = false }"),
    ];
    let text = format!("[policy]\nid = \"own\"\ntitle = \"T\"\n{}", own.concat());
    policies.push(Policy::parse("own.toml", text.as_bytes()).unwrap());
    policies
}

fn judge(root: &Path, live: bool) -> Report {
    let began = Instant::now();
    let root = Root::open(root).unwrap();
    let report = scan(&root, &policies(), &Exceptions::default(), &Inputs { live, ..Inputs::default() });
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    report
}

fn verdict<'r>(report: &'r Report, id: &str) -> &'r Verdict {
    &report
        .policies
        .iter()
        .flat_map(|policy| &policy.checks)
        .find(|result| result.check.id == id)
        .unwrap()
        .verdict
}

fn reason(report: &Report, id: &str) -> String {
    match verdict(report, id) {
        Verdict::Unknown(reason) => reason.clone(),
        other => panic!("{id}: {other:?}"),
    }
}

struct Image(tempfile::TempDir);

impl Image {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn path(&self, below: &str) -> PathBuf {
        let path = self.0.path().join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }
    fn write(&self, below: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(below), bytes).unwrap();
    }
    fn fifo(&self, below: &str) {
        let name = CString::new(self.path(below).into_os_string().into_vec()).unwrap();
        // SAFETY: the name ends in NUL.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o644) }, 0);
    }
}

#[test]
fn fifos_and_devices_where_files_are_expected_block_nobody() {
    let image = Image::new();
    for path in [
        "etc/passwd",
        "etc/shadow",
        "etc/group",
        "etc/ssh/sshd_config",
        "etc/fstab",
        "etc/inittab",
        "etc/sysctl.d/a.conf",
        "etc/nftables.conf",
        "etc/pam.d/login",
        "proc/cmdline",
        "proc/self/mountinfo",
        "proc/net/tcp",
        "lib/modules/1/modules.dep",
        "boot/config-1",
    ] {
        image.fifo(path);
    }
    symlink("/dev/zero", image.path("etc/login.defs")).unwrap();
    for live in [false, true] {
        let report = judge(image.0.path(), live);
        assert!(reason(&report, "own-sshd").contains("a FIFO"));
        assert!(reason(&report, "own-empty").contains("a FIFO"));
        assert!(reason(&report, "own-text").contains("a FIFO"));
    }
}

#[test]
fn links_in_circles_and_out_of_the_root() {
    let image = Image::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "s").unwrap();
    symlink(outside.path(), image.path("outside")).unwrap();
    symlink("sshd_config", image.path("etc/ssh/sshd_config")).unwrap();
    symlink("/etc/b", image.path("etc/a")).unwrap();
    symlink("/etc/a", image.path("etc/b")).unwrap();
    symlink("..", image.path("usr/up")).unwrap();
    symlink("/", image.path("usr/bin")).unwrap();
    image.write("etc/passwd", "root:x:0:0::/:/bin/sh\n");
    let report = judge(image.0.path(), false);
    assert!(reason(&report, "own-text").contains("circle"));
    assert_eq!(verdict(&report, "own-outside"), &Verdict::Pass, "the link means the root's own path");
}

#[test]
fn giants_and_a_million_accounts() {
    let image = Image::new();
    fs::File::create(image.path("etc/ssh/sshd_config")).unwrap().set_len(1 << 30).unwrap();
    fs::File::create(image.path("etc/fstab")).unwrap().set_len(1 << 40).unwrap();
    let line = |n: u32| format!("u{n}:x:{n}:{n}::/home/u{n}:/bin/sh\n");
    image.write("etc/passwd", (0..1_000_000).map(line).collect::<String>());
    image.write("etc/group", (0..1_000_000).map(|n| format!("g{n}:x:{n}:\n")).collect::<String>());
    image.write("etc/shadow", "x:".repeat(1 << 20));
    let report = judge(image.0.path(), false);
    assert!(reason(&report, "own-sshd").contains("longer than 4 MiB"));
    assert!(reason(&report, "own-empty").contains("/etc/passwd: longer than 4 MiB"));
}

#[test]
fn as_many_accounts_as_are_read() {
    let image = Image::new();
    let line = |n: u32| format!("u{n}:x:{n}:{n}::/h:/bin/sh\n");
    image.write("etc/passwd", (0..100_000).map(line).collect::<String>());
    image.write("etc/shadow", (0..100_000).map(|n| format!("u{n}::::\n")).collect::<String>());
    let report = judge(image.0.path(), false);
    assert_eq!(verdict(&report, "own-empty"), &Verdict::Fail);
    let of = |id: &str| {
        report.policies.iter().flat_map(|policy| &policy.checks).find(|r| r.check.id == id).unwrap()
    };
    assert!(of("own-empty").evidence.len() <= 20);
}

#[test]
fn bytes_that_are_no_text() {
    let image = Image::new();
    let noise: Vec<u8> =
        (0..60_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    for path in [
        "etc/passwd",
        "etc/shadow",
        "etc/group",
        "etc/ssh/sshd_config",
        "etc/fstab",
        "etc/inittab",
        "etc/sysctl.conf",
        "etc/nftables.conf",
        "etc/pam.d/login",
        "etc/inetd.conf",
        "etc/default/dropbear",
        "etc/ssl/certs/a.pem",
        "etc/login.defs",
        "proc/net/tcp",
        "proc/self/mountinfo",
        "proc/cmdline",
        "lib/modules/1/modules.dep",
        "lib/modules/1/modules.builtin",
        "boot/config-1",
        "boot/vmlinuz-1",
        "var/lib/dpkg/status",
        "etc/modprobe.d/a.conf",
        "etc/audit/rules.d/a.rules",
    ] {
        image.write(path, &noise);
    }
    let name = std::ffi::OsString::from_vec(b"\xff\xfe\x1b[2J".to_vec());
    fs::write(image.path("etc/cron.d/x").with_file_name(&name), "x").unwrap();
    fs::write(image.path("bin/x").with_file_name(&name), &noise).unwrap();
    let report = judge(image.0.path(), false);
    for result in report.policies.iter().flat_map(|policy| &policy.checks) {
        assert!(result.evidence.iter().all(|line| line.len() <= 300));
    }
    judge(image.0.path(), true);
}

#[test]
fn programs_that_lie_about_themselves() {
    let image = Image::new();
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(64, 0xff);
    for (number, byte) in (0..40_usize).zip([0, 1, 2, 0x7f, 0xff].into_iter().cycle()) {
        let mut file = header.clone();
        file[16 + number] = byte;
        file.extend(vec![byte; 300]);
        image.write(&format!("bin/lie{number}"), file);
    }
    let report = judge(image.0.path(), false);
    assert!(!matches!(verdict(&report, "own-elf"), Verdict::Pass), "{:?}", verdict(&report, "own-elf"));
}

#[test]
fn trees_without_end() {
    let image = Image::new();
    // Deeper than a path may be long.
    let mut here = fs::File::open(image.0.path()).unwrap();
    let name = CString::new("d".repeat(200)).unwrap();
    for _ in 0..60 {
        use std::os::fd::{AsRawFd as _, FromRawFd as _};
        // SAFETY: the descriptor is open and the name ends in NUL.
        assert_eq!(unsafe { libc::mkdirat(here.as_raw_fd(), name.as_ptr(), 0o755) }, 0);
        // SAFETY: as above.
        let fd = unsafe { libc::openat(here.as_raw_fd(), name.as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY) };
        assert!(fd >= 0);
        // SAFETY: the descriptor is new and ours.
        here = unsafe { fs::File::from_raw_fd(fd) };
    }
    for n in 0..3000 {
        fs::create_dir_all(image.path(&format!("wide/{n}/x"))).unwrap();
    }
    let report = judge(image.0.path(), false);
    assert!(
        reason(&report, "own-setuid").contains("not searched to its end"),
        "{:?}",
        verdict(&report, "own-setuid")
    );
    assert!(image.0.path().as_os_str().as_bytes().len() < 4096);
}

#[test]
fn what_may_not_be_read() {
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        println!("skipped: root may read everything");
        return;
    }
    use std::os::unix::fs::PermissionsExt as _;
    let image = Image::new();
    image.write("etc/passwd", "root:x:0:0::/:/bin/sh\n");
    image.write("etc/shadow", "root::::\n");
    fs::set_permissions(image.path("etc/shadow"), fs::Permissions::from_mode(0o000)).unwrap();
    assert!(reason(&judge(image.0.path(), false), "own-empty").contains("permission denied"));
}
