//! Our verdicts beside those of OpenSCAP with scap-security-guide and of Lynis, on the same two Debian roots: as installed, and
//! hardened. Every check that another tool knows too is a row of `lib/posture_differential.toml`; where verdicts differ the row says why.
//!
//! Needs root, a Debian mirror and the packages of [`PROGRAMS`]. `DEFENDER_BLESS=1` writes the table into docs/posture-differential.md;
//! `DEFENDER_KEEP=1` keeps the roots and what the tools said, and uses what is kept.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use defender_model::time::Timestamp;
use defender_posture::result::Verdict;
use defender_posture::{scan, Exceptions, Inputs, Policy, Root};
use defender_validation::command;

/// Programs and the packages they are in.
const PROGRAMS: [(&str, &str); 3] = [
    ("/usr/bin/mmdebstrap", "mmdebstrap"),
    ("/usr/bin/oscap", "openscap-scanner"),
    ("/usr/sbin/lynis", "lynis"),
];
/// The checks of scap-security-guide: of its Debian-like contents the one with a CIS profile.
const DATASTREAM: &str = "/usr/share/xml/scap/ssg/content/ssg-ubuntu2204-ds.xml";
/// What the root holds: the services of a device, and what the checks are about.
const PACKAGES: &str = "openssh-server,cron,rsyslog,systemd-sysv,login,passwd,nftables,auditd,sudo,logrotate,libpam-pwquality,procps,udev,chrony";
/// Most a step may take.
const LIMIT: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Pass,
    Fail,
    /// Nothing to judge, or not judged.
    Nothing,
    /// We could not tell.
    Unknown,
}

impl Said {
    fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Nothing => "–",
            Self::Unknown => "?",
        }
    }

    /// Two tools agree unless one of them sees a fault the other does not. That there is nothing to judge, and that what is not there
    /// is in order, are the same. What we cannot tell agrees with nothing.
    fn agrees(self, other: Self) -> bool {
        self != Self::Unknown && (self == Self::Fail) == (other == Self::Fail)
    }
}

struct Row {
    check: String,
    openscap: Vec<String>,
    lynis: Vec<String>,
    differs: BTreeMap<String, String>,
}

fn rows(directory: &Path) -> Vec<Row> {
    let text = fs::read_to_string(directory.join("lib/posture_differential.toml")).unwrap();
    let table: toml::Table = toml::from_str(&text).unwrap();
    let strings = |value: Option<&toml::Value>| -> Vec<String> {
        let list = value.and_then(toml::Value::as_array).cloned().unwrap_or_default();
        list.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let row = |row: &toml::Value| Row {
        check: row["check"].as_str().unwrap().to_owned(),
        openscap: strings(row.get("openscap")),
        lynis: strings(row.get("lynis")),
        differs: row.get("differs").and_then(toml::Value::as_table).map_or_else(BTreeMap::new, |table| {
            table.iter().map(|(tool, why)| (tool.clone(), why.as_str().unwrap().to_owned())).collect()
        }),
    };
    table["row"].as_array().unwrap().iter().map(row).collect()
}

/// The data stream with every rule of the rows selected, and without the condition that the system is Ubuntu, has a kernel and a boot
/// loader.
fn datastream(rows: &[Row], place: &Path) -> PathBuf {
    let mut text = fs::read_to_string(DATASTREAM).unwrap();
    for rule in rows.iter().flat_map(|row| &row.openscap) {
        let id = format!("id=\"xccdf_org.ssgproject.content_rule_{rule}\"");
        text = text.replace(&format!("selected=\"false\" {id}"), &format!("selected=\"true\" {id}"));
    }
    for platform in
        ["cpe:/o:canonical:ubuntu_linux:22.04::~~lts~~~", "#machine", "#grub2", "#audit", "#non-uefi"]
    {
        text = text.replace(&format!("<xccdf-1.2:platform idref=\"{platform}\"/>"), "");
    }
    let path = place.join("datastream.xml");
    fs::write(&path, text).unwrap();
    path
}

/// Result of every rule in what `oscap xccdf eval` prints.
fn openscap(output: &str) -> HashMap<String, Said> {
    let mut results = HashMap::new();
    let mut rule = String::new();
    for line in output.lines() {
        if let Some(id) = line.strip_prefix("Rule") {
            rule = id.trim().trim_start_matches("xccdf_org.ssgproject.content_rule_").to_owned();
        } else if let Some(result) = line.strip_prefix("Result") {
            let said = match result.trim() {
                "pass" => Said::Pass,
                "fail" => Said::Fail,
                _ => Said::Nothing,
            };
            results.insert(rule.clone(), said);
        }
    }
    results
}

struct Verdicts {
    ours: HashMap<String, Said>,
    openscap: HashMap<String, Said>,
    lynis: String,
}

impl Verdicts {
    fn of(&self, row: &Row, tool: &str) -> Option<Said> {
        match tool {
            "openscap" if !row.openscap.is_empty() => {
                let results: Vec<Said> =
                    row.openscap.iter().filter_map(|rule| self.openscap.get(rule)).copied().collect();
                assert!(!results.is_empty(), "{}: OpenSCAP knows none of {:?}", row.check, row.openscap);
                let any = |said| results.contains(&said);
                Some(if any(Said::Fail) {
                    Said::Fail
                } else if any(Said::Pass) {
                    Said::Pass
                } else {
                    Said::Nothing
                })
            }
            "lynis" if !row.lynis.is_empty() => {
                let says = |text: &str| self.lynis.contains(text);
                Some(if says(&row.lynis[0]) {
                    Said::Fail
                } else if says(&row.lynis[1]) {
                    Said::Pass
                } else {
                    Said::Nothing
                })
            }
            _ => None,
        }
    }
}

fn policy() -> Policy {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../rootfs-overlay/usr/share/defender/policies/cis-dil.toml");
    Policy::parse("cis-dil.toml", &fs::read(file).unwrap()).unwrap()
}

/// The list of modules of a kernel, so that checks about modules have an object; the root has none of its own.
fn modules(root: &Path) {
    let directory = root.join("lib/modules/6.1.0");
    fs::create_dir_all(&directory).unwrap();
    let names = [
        "cramfs",
        "freevxfs",
        "jffs2",
        "hfs",
        "hfsplus",
        "udf",
        "usb-storage",
        "dccp",
        "sctp",
        "rds",
        "tipc",
    ];
    let lines: String = names.iter().map(|name| format!("kernel/{name}.ko:\n")).collect();
    fs::write(directory.join("modules.dep"), lines).unwrap();
    fs::write(directory.join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
}

/// Judges a root with all three.
fn judge(root: &Path, datastream: &Path, place: &Path) -> Verdicts {
    let opened = Root::open(root).unwrap();
    let exceptions = Exceptions::new(Vec::new()).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let now = Timestamp::from_secs(i64::try_from(now).unwrap());
    let inputs = Inputs { time: now, cmdline: Some("root=/dev/vda1 quiet".to_owned()), ..Inputs::default() };
    let report = scan(&opened, &[policy()], &exceptions, &inputs);
    let ours = report.policies[0].checks.iter().map(|result| {
        let said = match result.verdict {
            Verdict::Pass => Said::Pass,
            Verdict::Fail => Said::Fail,
            Verdict::Unknown(_) => Said::Unknown,
            _ => Said::Nothing,
        };
        (result.check.id.clone(), said)
    });
    let ours = ours.collect();
    if !place.join("lynis.log").exists() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lib/posture_tools.sh");
        let mut tools = Command::new("unshare");
        tools.args(["-n", "-m", "-p", "-f"]).arg(script).arg(root).arg(datastream).arg(place);
        command::run(&mut tools, LIMIT).unwrap();
    }
    Verdicts {
        ours,
        openscap: openscap(&fs::read_to_string(place.join("openscap.txt")).unwrap()),
        lynis: String::from_utf8_lossy(&fs::read(place.join("lynis.log")).unwrap()).into_owned(),
    }
}

/// Why this test cannot run here.
fn obstacle() -> Option<String> {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !Path::new(program).exists())
        .map(|(_, package)| *package)
        .collect();
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Some("it needs root for a chroot and namespaces".to_owned());
    }
    if !missing.is_empty() {
        return Some(format!("install {}", missing.join(", ")));
    }
    (!Path::new(DATASTREAM).exists()).then(|| "install ssg-debderived".to_owned())
}

#[test]
fn verdicts_agree_with_openscap_and_lynis_or_the_difference_is_explained() {
    if let Some(obstacle) = obstacle() {
        println!("skipped: {obstacle}");
        return;
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("posture");
    let keep = std::env::var_os("DEFENDER_KEEP").is_some();
    if !keep {
        let _ = fs::remove_dir_all(&place);
    }
    fs::create_dir_all(&place).unwrap();
    let rows = rows(directory);
    let datastream = datastream(&rows, &place);
    let (plain, hardened) = (place.join("plain"), place.join("hardened"));
    if !hardened.exists() {
        let mut build = Command::new("mmdebstrap");
        build.args(["--quiet", "--variant=minbase", "--include", PACKAGES, "bookworm"]).arg(&plain);
        if let Err(error) = command::run(&mut build, LIMIT) {
            println!("skipped: no Debian root could be made: {error}");
            return;
        }
        modules(&plain);
        command::run(Command::new("cp").arg("-a").args([&plain, &hardened]), LIMIT).unwrap();
        command::run(Command::new(directory.join("lib/posture_harden.sh")).arg(&hardened), LIMIT).unwrap();
    }

    let verdicts: Vec<Verdicts> = [(&plain, "plain-out"), (&hardened, "hardened-out")]
        .map(|(root, out)| {
            let out = place.join(out);
            fs::create_dir_all(&out).unwrap();
            judge(root, &datastream, &out)
        })
        .into();

    let mut table =
        String::from("| Check | Ours | OpenSCAP | Lynis | Why they differ |\n|---|---|---|---|---|\n");
    let (mut faults, mut agreeing, mut explained) = (Vec::new(), 0, 0);
    for row in &rows {
        let ours: Vec<Said> = verdicts.iter().filter_map(|v| v.ours.get(&row.check)).copied().collect();
        if ours.len() != verdicts.len() {
            faults.push(format!("{}: no such check", row.check));
            continue;
        }
        let pair = |said: &[Said]| format!("{} / {}", said[0].word(), said[1].word());
        let mut cells = Vec::new();
        let mut reasons = Vec::new();
        for tool in ["openscap", "lynis"] {
            let theirs: Vec<Said> = verdicts.iter().filter_map(|v| v.of(row, tool)).collect();
            if theirs.is_empty() {
                cells.push(String::new());
                continue;
            }
            cells.push(pair(&theirs));
            let agrees = ours.iter().zip(&theirs).all(|(a, b)| a.agrees(*b));
            match (agrees, row.differs.get(tool)) {
                (true, None) => agreeing += 1,
                (false, Some(why)) => {
                    explained += 1;
                    reasons.push(why.clone());
                }
                (true, Some(_)) => {
                    faults.push(format!("{}: {tool} agrees, yet a difference is explained", row.check));
                }
                (false, None) => {
                    faults.push(format!("{}: ours {}, {tool} {}", row.check, pair(&ours), pair(&theirs)));
                }
            }
        }
        reasons.dedup();
        writeln!(
            table,
            "| `{}` | {} | {} | {} | {} |",
            row.check,
            pair(&ours),
            cells[0],
            cells[1],
            reasons.join(" ")
        )
        .unwrap();
    }
    println!("{agreeing} verdicts agree, {explained} differ for a reason");
    let page = directory.join("../docs/posture-differential.md");
    let mut text = fs::read_to_string(&page).unwrap();
    let at = text.find("| Check | Ours |").expect("the page has the table");
    if std::env::var_os("DEFENDER_BLESS").is_some() {
        text.replace_range(at.., &table);
        fs::write(&page, &text).unwrap();
    }
    for row in &rows {
        if !text.contains(&format!("`{}`", row.check)) {
            faults.push(format!(
                "{}: not in docs/posture-differential.md; DEFENDER_BLESS=1 writes the table",
                row.check
            ));
        }
    }
    if !keep {
        let _ = fs::remove_dir_all(&place);
    }
    assert!(faults.is_empty(), "{} unexplained:\n{}", faults.len(), faults.join("\n"));
}
