use std::sync::Arc;

use defender_model::compliance::Verdict as Concluded;
use defender_model::identity::DeviceIdentity;
use defender_model::severity::Severity;
use defender_model::time::Timestamp;

use super::text::Layout;
use super::{diff, html, junit, ocsf, sarif, text};
use crate::policy::{Check, Excluded};
use crate::result::{score, AppliedException, CheckResult, PolicyResult, Report, Verdict};

/// What a hostile image may call a file: markup, a terminal escape, a control character.
const HOSTILE: &str = "/tmp/<script>alert('x')</script>&\u{1b}[31m\u{0}: mode 4777";

fn result(id: &str, section: &str, severity: Severity, verdict: Verdict) -> CheckResult {
    let check = Check {
        id: id.to_owned(),
        title: format!("Title of {id}"),
        section: section.to_owned(),
        severity,
        level: Some(1),
        rationale: "Because <it> matters.".to_owned(),
        remediation: "Do & see.".to_owned(),
        yocto: Some("IMAGE_FEATURES".to_owned()),
        buildroot: None,
        references: vec![("cis".to_owned(), "1.2.3".to_owned())],
        finding: None,
    };
    CheckResult { check: Arc::new(check), verdict, evidence: Vec::new(), exception: None }
}

fn report() -> Report {
    let mut failed = result("a-1", "Files", Severity::Critical, Verdict::Fail);
    failed.evidence = vec!["/etc/shadow: mode 0644, wanted at most 0640".to_owned(), HOSTILE.to_owned()];
    let mut excepted = result("a-2", "Accounts", Severity::High, Verdict::Excepted);
    excepted.exception = Some(AppliedException {
        reason: "factory line".to_owned(),
        owner: "ops".to_owned(),
        expires: "2030-01-01".to_owned(),
        expired: false,
    });
    let checks = vec![
        failed,
        excepted,
        result("a-3", "Files", Severity::Low, Verdict::Pass),
        result("a-4", "Files", Severity::Low, Verdict::Unknown("cannot read /etc/x".to_owned())),
        result("a-5", "Files", Severity::Low, Verdict::NotApplicable("no sshd".to_owned())),
    ];
    let policy = PolicyResult {
        id: "a".to_owned(),
        title: "Policy A".to_owned(),
        version: "1".to_owned(),
        score: score(&checks),
        checks,
        excluded: vec![Excluded {
            reference: "9.9".to_owned(),
            title: "People".to_owned(),
            reason: "not on a device".to_owned(),
        }],
    };
    Report {
        root: "/image".to_owned(),
        live: false,
        time: Timestamp::from_secs(1_764_230_400),
        host: "Example <OS> 1".to_owned(),
        policies: vec![policy],
    }
}

#[test]
fn weights_make_the_score() {
    // Critical 10 fails; high 6 excepted and low 1 pass: 7 of 17. Unknown and not applicable count neither way.
    let score = report().score().unwrap();
    assert!((score - 41.176_47).abs() < 0.001, "{score}");
}

#[test]
fn text_names_what_failed_by_section_and_nothing_that_passed() {
    let page = text::write(&report(), Layout::default());
    assert!(page.contains("FAIL critical: Title of a-1 [a-1]"), "{page}");
    assert!(page.contains("cannot read /etc/x"), "{page}");
    assert!(page.contains("exception until 2030-01-01 (ops): factory line"), "{page}");
    assert!(!page.contains("a-3") && !page.contains("a-5"), "{page}");
    assert!(page.contains("1 passed, 1 failed, 1 excepted, 1 not applicable, 1 cannot be told"), "{page}");
    assert!(!page.contains('\u{1b}') && !page.contains('\u{0}'), "{page:?}");
    assert!(text::write(&report(), Layout { all: true, ..Layout::default() }).contains("a-5"));
}

#[test]
fn text_keeps_to_the_width_and_colours_only_when_told() {
    let narrow = text::write(&report(), Layout { width: 40, ..Layout::default() });
    let words = |line: &str| line.split_whitespace().count();
    for line in narrow.lines() {
        assert!(line.chars().count() <= 40 || words(line) == 1, "{line:?}");
    }
    assert!(text::write(&report(), Layout { colour: true, ..Layout::default() }).contains("\u{1b}[1;31mFAIL"));
}

#[test]
fn junit_counts_and_escapes() {
    let xml = junit::write(&report());
    assert!(
        xml.contains("<testsuite name=\"Policy A\" tests=\"5\" failures=\"1\" errors=\"1\" skipped=\"2\">"),
        "{xml}"
    );
    assert!(xml.contains("<failure message=\"Title of a-1\" type=\"critical\">"), "{xml}");
    assert!(
        xml.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;\u{fffd}[31m\u{fffd}"),
        "{xml}"
    );
    assert_eq!(xml.matches("<testcase").count(), 5);
}

#[test]
fn sarif_points_at_files_and_marks_exceptions_as_suppressed() {
    let log: serde_json::Value = serde_json::from_str(&sarif::write(&report())).unwrap();
    let run = &log["runs"][0];
    assert_eq!(run["tool"]["driver"]["rules"].as_array().unwrap().len(), 5);
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 3);
    let place = &results[0]["locations"][0]["physicalLocation"]["artifactLocation"];
    assert_eq!(place["uri"], "etc/shadow");
    assert_eq!(results[0]["level"], "error");
    assert_eq!(results[1]["suppressions"][0]["status"], "accepted");
    assert_eq!((&results[2]["kind"], &results[2]["level"]), (&"open".into(), &"none".into()));
}

#[test]
fn html_escapes_what_the_image_says_and_asks_the_network_for_nothing() {
    let page = html::write(&report());
    assert!(page.contains("Posture of Example &lt;OS&gt; 1"), "{page}");
    assert!(!page.contains("<script>alert"), "{page}");
    assert!(!page.contains("http://") && !page.contains("https://"), "{page}");
    assert_eq!(page.matches("<details data-verdict=").count(), 5);
    assert!(page.contains("1 items of the benchmark"), "{page}");
}

fn lines(report: &Report) -> String {
    let device = DeviceIdentity {
        uid: "image".to_owned(),
        boot_id: String::new(),
        hostname: String::new(),
        agent_version: "0".to_owned(),
    };
    ocsf::write(report, &device)
}

#[test]
fn json_lines_read_back_and_give_the_same_score() {
    let report = report();
    let read = diff::read(lines(&report).as_bytes()).unwrap();
    assert_eq!(read.len(), 5);
    assert_eq!(read["a-2"].verdict, Concluded::Excepted);
    assert_eq!(read["a-1"].details.len(), 2);
    let same = diff::compare(&read, &read);
    assert!(same.changes.is_empty() && same.is_no_worse());
    assert_eq!(same.scores.0, report.score());
}

#[test]
fn a_difference_names_what_became_worse_first() {
    let before = diff::read(lines(&report()).as_bytes()).unwrap();
    let mut worse = report();
    worse.policies[0].checks.remove(4);
    worse.policies[0].checks[2].verdict = Verdict::Fail;
    worse.policies[0].checks[0].verdict = Verdict::Pass;
    let after = diff::read(lines(&worse).as_bytes()).unwrap();
    let difference = diff::compare(&before, &after);
    let names: Vec<_> = difference.changes.iter().map(|(id, ..)| id.as_str()).collect();
    assert_eq!(names, ["a-1", "a-3", "a-5"]);
    assert!(!difference.is_no_worse());
    let text = difference.text();
    assert!(text.starts_with("pass -> fail  low Title of a-3 [a-3]\n"), "{text}");
    assert!(text.contains("fail -> pass  critical") && text.contains("not_applicable -> absent"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let json: serde_json::Value = serde_json::from_str(&difference.json()).unwrap();
    assert_eq!(json["changes"][2]["after"], serde_json::Value::Null);
}

#[test]
fn what_is_no_report_is_refused_with_its_line() {
    let error = |bytes: &[u8]| diff::read(bytes).unwrap_err().to_string();
    assert!(error(b"").contains("no compliance finding"));
    assert!(error(b"{}\n{").starts_with("line 2: not JSON"));
    assert!(error(br#"{"class_uid":2003}"#).contains("`verdict` is missing"));
}
