//! `posture`, `posture list`, `posture explain`, `posture diff`.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use defender_model::identity::DeviceIdentity;
use defender_model::severity::Severity;
use defender_model::text::printable;
use defender_posture::report::{diff, html, junit, ocsf, sarif, text};
use defender_posture::result::{CheckResult, Report, Verdict};
use defender_posture::root::table::DeviceTable;
use defender_posture::{scan as judge, Inputs, Policy, Root};
use serde_json::{json, Value};

use super::arguments::Given;
use super::{complain, configuration, query, Failure, Outcome, Streams, CONFIGURATION};
use crate::clock::wall_clock;
use crate::config::load::{load, load_image, Loaded};
use crate::config::Config;
use crate::device::identify;
use crate::posture::live_inputs;
use crate::posture::policies::{self, Source};
use crate::small_file;

/// Longest file named on the command line that is read whole, in bytes.
const LIMIT: u64 = 64 << 20;
/// The formats of a report.
const FORMATS: [&str; 5] = ["text", "json", "junit", "sarif", "html"];
/// Severities a policy can give.
const LEVELS: [&str; 4] = ["low", "medium", "high", "critical"];

/// Judges a root directory.
pub(super) fn scan(given: &Given, streams: &mut Streams<'_>) -> Result<Outcome, Failure> {
    let options = &given.posture;
    let format = options.format.as_deref().unwrap_or("text");
    if !FORMATS.contains(&format) {
        return Err(Failure::usage(format!("--format is one of {}, not `{format}`", FORMATS.join(", "))));
    }
    let bar = options.fail_on.as_deref().map(level).transpose()?;
    if options.min_score.is_some_and(|score| score > 100) {
        return Err(Failure::usage("--min-score lies between 0 and 100"));
    }
    let place = options.root.clone().unwrap_or_else(|| PathBuf::from("/"));
    let mut root = Root::open(&place)
        .map_err(|error| Failure::failed(format!("cannot open the root {}: {error}", place.display())))?;
    let config = configured(given, &root, streams)?;
    let policies = policies_of(given, &config, Some(&root))?;
    let exceptions = config.posture.exceptions().map_err(Failure::usage)?;
    owners(given, &mut root, streams)?;
    let live = options.live || options.root.is_none();
    let mut inputs = match options.root.is_none() {
        true => live_inputs(&config, wall_clock()),
        false => Inputs {
            live,
            allowed_ports: config.posture.allowed_ports.clone(),
            time: wall_clock(),
            ..Inputs::default()
        },
    };
    inputs.kernel_config = options.kernel_config.as_deref().map(read).transpose()?;
    inputs.cmdline.clone_from(&options.cmdline);
    let report = judge(&root, &policies, &exceptions, &inputs);
    for exception in exceptions.all() {
        if !policies.iter().flat_map(Policy::checks).any(|check| check.id == exception.check) {
            complain(
                streams,
                &format!("the exception for `{}` names no check of these policies", exception.check),
            );
        }
    }
    write(given, format, &report, &config, streams)?;
    let minimum = options.min_score.unwrap_or(config.posture.minimum_score);
    verdict(&report, bar, minimum, options.strict, streams)
}

/// The configuration: named, the image's own, or this device's. A scan that would grade by half a configuration does not run.
fn configured(given: &Given, root: &Root, streams: &mut Streams<'_>) -> Result<Config, Failure> {
    let Loaded { config, problems, .. } = match (&given.config, &given.posture.root) {
        (None, Some(_)) => load_image(root, Path::new(CONFIGURATION)),
        _ => load(&configuration(given)),
    };
    // Without a file the defaults hold, unless it was named.
    let missing = |file: &Path| given.config.is_none() && !file.exists();
    let problems: Vec<_> = problems
        .into_iter()
        .filter(|problem| given.posture.root.is_some() || !missing(&problem.file))
        .collect();
    match problems.split_last() {
        None => Ok(config),
        Some((last, others)) => {
            for problem in others {
                complain(streams, &problem.to_string());
            }
            Err(Failure::usage(last.to_string()))
        }
    }
}

/// The policies: of a named directory, of this machine, or else of the image itself.
fn policies_of(given: &Given, config: &Config, root: Option<&Root>) -> Result<Vec<Policy>, Failure> {
    let wanted =
        if given.posture.policy.is_empty() { &config.posture.policies } else { &given.posture.policy };
    let named: Vec<PathBuf> = given.posture.policies.iter().cloned().collect();
    let directories = if named.is_empty() { &config.posture.directories } else { &named };
    let image =
        root.filter(|_| given.posture.root.is_some() && !directories.iter().any(|path| path.is_dir()));
    let source = match image {
        Some(root) => Source::Image(root, directories),
        None => Source::Directories(directories),
    };
    policies::load(&source, wanted).map_err(|mistakes| Failure::usage(mistakes.join("\n")))
}

/// Who owns the files of an image.
fn owners(given: &Given, root: &mut Root, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let options = &given.posture;
    if options.assume_root_owned {
        root.assume_root_owned();
    }
    for file in &options.device_tables {
        let bytes = read(file)?;
        let table = DeviceTable::parse(&bytes, |name| root.user_id(name), |name| root.group_id(name))
            .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
        root.apply(&table).map_err(|error| Failure::failed(error.to_string()))?;
    }
    let told = options.assume_root_owned || !options.device_tables.is_empty();
    if let (Some(directory), false) = (&options.root, told) {
        let owner = root.metadata("/").ok().flatten().map_or(0, |found| found.uid);
        if owner != 0 {
            complain(
                streams,
                &format!(
                    "{} belongs to user {owner}, not to root: run this under fakeroot or pseudo, or give --device-table or --assume-root-owned",
                    directory.display()
                ),
            );
        }
    }
    Ok(())
}

fn write(
    given: &Given,
    format: &str,
    report: &Report,
    config: &Config,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    let colour = streams.colour && given.posture.output.is_none();
    let width = if given.posture.output.is_none() { columns() } else { text::Layout::default().width };
    let written = match format {
        "json" => ocsf::write(report, &identity(report, config)),
        "junit" => junit::write(report),
        "sarif" => sarif::write(report),
        "html" => html::write(report),
        _ => text::write(report, text::Layout { width, colour, all: given.posture.all }),
    };
    match &given.posture.output {
        None => streams.output.write_all(written.as_bytes())?,
        Some(file) => {
            let put = File::create(file).and_then(|mut open| open.write_all(written.as_bytes()));
            put.map_err(|error| Failure::failed(format!("cannot write {}: {error}", file.display())))?;
            writeln!(streams.output, "{}; report in {}", summary(report), file.display())?;
        }
    }
    Ok(())
}

/// Who was judged: this device, or the image under its name.
fn identity(report: &Report, config: &Config) -> DeviceIdentity {
    let here = identify(Path::new("/"), &config.device.id);
    match report.live {
        true => here,
        false => DeviceIdentity {
            uid: printable(&report.root).into_owned(),
            boot_id: String::new(),
            hostname: String::new(),
            ..here
        },
    }
}

fn summary(report: &Report) -> String {
    let count = |name: &str| checks(report).filter(|result| result.verdict.name() == name).count();
    let score = report.score().map_or_else(|| "no score".to_owned(), |score| format!("score {score:.1}"));
    format!(
        "{score}: {} passed, {} failed, {} excepted, {} could not be told, {} not applicable",
        count("pass"),
        count("fail"),
        count("excepted"),
        count("unknown"),
        count("not_applicable")
    )
}

fn checks(report: &Report) -> impl Iterator<Item = &CheckResult> {
    report.policies.iter().flat_map(|policy| &policy.checks)
}

/// Whether it is good enough, and if not, why.
fn verdict(
    report: &Report,
    bar: Option<Severity>,
    minimum: u32,
    strict: bool,
    streams: &mut Streams<'_>,
) -> Result<Outcome, Failure> {
    let bad = |verdict: &Verdict| match verdict {
        Verdict::Fail => true,
        Verdict::Unknown(_) => strict,
        Verdict::Pass | Verdict::Excepted | Verdict::NotApplicable(_) => false,
    };
    let mut reasons = Vec::new();
    if let Some(bar) = bar {
        let ids: Vec<&str> = checks(report)
            .filter(|result| result.check.severity >= bar && bad(&result.verdict))
            .map(|result| result.check.id.as_str())
            .collect();
        if !ids.is_empty() {
            reasons.push(format!("{} checks of severity {bar} or above fail: {}", ids.len(), ids.join(", ")));
        }
    }
    if minimum > 0 {
        match report.score() {
            #[allow(clippy::cast_precision_loss, reason = "at most 100")]
            Some(score) if score >= minimum as f32 => {}
            Some(score) => reasons.push(format!("the score is {score:.1}, below {minimum}")),
            None => reasons.push(format!("nothing could be judged, so the score is below {minimum}")),
        }
    }
    streams.output.flush()?;
    for reason in &reasons {
        complain(streams, reason);
    }
    Ok(if reasons.is_empty() { Outcome::Fine } else { Outcome::No })
}

fn level(word: &str) -> Result<Severity, Failure> {
    let known = Severity::from_level(word).filter(|_| LEVELS.contains(&word));
    known.ok_or_else(|| Failure::usage(format!("--fail-on is one of {}, not `{word}`", LEVELS.join(", "))))
}

/// Columns of the terminal, or the default where there is none.
fn columns() -> usize {
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let asked = || {
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the request writes one `winsize`, which lives through the call.
        let done = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
        (done == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
    };
    told.or_else(asked).unwrap_or(text::Layout::default().width)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    small_file::read(file, LIMIT)
        .map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))
}

/// Policies for the commands that judge nothing.
fn named(given: &Given) -> Result<Vec<Policy>, Failure> {
    policies_of(given, &load(&configuration(given)).config, None)
}

/// Lists policies and checks.
pub(super) fn list(given: &Given, streams: &mut Streams<'_>) -> Result<Outcome, Failure> {
    let policies = named(given)?;
    if given.json {
        let of = |policy: &Policy| {
            let checks: Vec<Value> = policy
                .checks()
                .map(|check| {
                    json!({
                        "id": check.id, "title": check.title, "section": check.section,
                        "severity": check.severity.level(), "level": check.level,
                        "references": check.references.iter().map(|(catalogue, place)| json!({ "catalogue": catalogue, "place": place })).collect::<Vec<_>>(),
                        "finding": check.finding,
                    })
                })
                .collect();
            json!({ "id": policy.id, "title": policy.title, "version": policy.version, "checks": checks })
        };
        query::print(streams.output, &Value::Array(policies.iter().map(of).collect()))?;
        return Ok(Outcome::Fine);
    }
    for policy in &policies {
        writeln!(
            streams.output,
            "{}: {}, {} checks",
            policy.id,
            printable(&policy.title),
            policy.checks().count()
        )?;
        for check in policy.checks() {
            writeln!(
                streams.output,
                "  {:<9} {:<40} {}",
                check.severity.level(),
                check.id,
                printable(&check.title)
            )?;
        }
    }
    Ok(Outcome::Fine)
}

/// Explains one check.
pub(super) fn explain(given: &Given, streams: &mut Streams<'_>) -> Result<Outcome, Failure> {
    let policies = named(given)?;
    let id = given.arguments.first().map(|id| id.to_string_lossy().into_owned()).unwrap_or_default();
    let all = || policies.iter().flat_map(|policy| policy.checks().map(move |check| (policy, check)));
    let Some((policy, check)) = all().find(|(_, check)| check.id == id) else {
        let nearest = defender_model::text::nearest(&id, all().map(|(_, check)| check.id.as_str()));
        let hint = nearest.map_or_else(String::new, |known| format!("; did you mean `{known}`?"));
        return Err(Failure { outcome: Outcome::No, words: format!("no check is called `{id}`{hint}") });
    };
    let out = &mut streams.output;
    writeln!(out, "{}: {}", check.id, printable(&check.title))?;
    write!(out, "{}, {}, severity {}", printable(&policy.title), printable(&check.section), check.severity)?;
    match check.level {
        Some(level) => writeln!(out, ", level {level}")?,
        None => writeln!(out)?,
    }
    let parts = [
        ("Why", Some(&check.rationale)),
        ("What to do", Some(&check.remediation)),
        ("Yocto", check.yocto.as_ref()),
        ("Buildroot", check.buildroot.as_ref()),
    ];
    for (head, text) in parts {
        if let Some(text) = text {
            writeln!(out, "\n{head}: {}", printable(text.trim()).replace("\\n", "\n"))?;
        }
    }
    if !check.references.is_empty() {
        let places = check.references.iter().map(|(catalogue, place)| format!("{catalogue} {place}"));
        writeln!(out, "\nReferences: {}", places.collect::<Vec<_>>().join("; "))?;
    }
    if let Some(finding) = &check.finding {
        writeln!(out, "Recommendation: {finding}")?;
    }
    Ok(Outcome::Fine)
}

/// Compares two reports.
pub(super) fn diff(given: &Given, streams: &mut Streams<'_>) -> Result<Outcome, Failure> {
    let mut sides = Vec::new();
    for file in &given.arguments {
        let file = Path::new(file);
        let bytes = read(file)?;
        let side = diff::read(&bytes);
        sides.push(side.map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?);
    }
    let [before, after] = sides.as_slice() else {
        return Err(Failure::usage("two reports are compared"));
    };
    let difference = diff::compare(before, after);
    let text = if given.json { difference.json() } else { difference.text() };
    writeln!(streams.output, "{}", text.trim_end())?;
    Ok(if difference.is_no_worse() { Outcome::Fine } else { Outcome::No })
}
