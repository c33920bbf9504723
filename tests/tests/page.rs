//! The HTML report of a posture scan in a real browser: it renders, its filters work, it fits a phone, it asks for nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use defender_model::severity::Severity;
use defender_model::time::Timestamp;
use defender_posture::policy::Check;
use defender_posture::report::html;
use defender_posture::result::{score, CheckResult, PolicyResult, Report, Verdict};
use defender_validation::command;

/// Driven in the page: chooses filters as a person would and writes what is to be seen then at the end of the page.
const DRIVER: &str = r#"<script>
window.addEventListener("error", e => say("script error", e.message));
function say(what, value) { const p = document.createElement("p"); p.className = "said"; p.textContent = what + "=" + value; document.body.append(p); }
function seen() { return Array.from(document.querySelectorAll("details[data-verdict]")).filter(c => c.getClientRects().length).length; }
function choose(name, value) { const f = document.querySelector("form"); f[name].value = value; f[name].dispatchEvent(new Event("input", { bubbles: true })); }
say("all", seen());
choose("verdict", "fail"); say("failed", seen());
choose("severity", "critical"); say("failed critical", seen());
choose("section", "Section 3"); say("failed critical section", seen());
choose("verdict", ""); choose("severity", ""); choose("section", ""); choose("words", "check number 17 "); say("words", seen());
choose("words", "");
document.querySelectorAll("details").forEach(d => { d.open = true; });
say("too wide", document.documentElement.scrollWidth > document.documentElement.clientWidth);
say("scripts and styles from elsewhere", document.querySelectorAll("script[src],link[rel=stylesheet],img").length);
say("alert ran", window.hostile === true);
</script>"#;

/// 120 checks in six sections; every third fails, every second of those critical, and what they say is hostile.
fn report() -> Report {
    let checks: Vec<CheckResult> = (0..120)
        .map(|n| {
            let verdict = match n % 3 {
                0 => Verdict::Fail,
                1 => Verdict::Pass,
                _ => Verdict::Unknown("cannot read".into()),
            };
            let check = Check {
                id: format!("policy-{n}"),
                title: format!("Check number {n} holds"),
                section: format!("Section {}", n % 6),
                severity: if n % 2 == 0 { Severity::Critical } else { Severity::Low },
                level: None,
                rationale: "Why".into(),
                remediation: "x".repeat(300),
                yocto: None,
                buildroot: None,
                references: vec![("cis".into(), "1.1".into())],
                finding: None,
            };
            let evidence = vec![
                "</pre><script>window.hostile = true</script><img src=x onerror=window.hostile=true>".into(),
                format!("/{}: mode 0777", "long".repeat(80)),
            ];
            CheckResult { check: Arc::new(check), verdict, evidence, exception: None }
        })
        .collect();
    let policy = PolicyResult {
        id: "policy".into(),
        title: "Policy".into(),
        version: "1".into(),
        score: score(&checks),
        checks,
        excluded: Vec::new(),
    };
    Report {
        root: "/image".into(),
        live: false,
        time: Timestamp::from_secs(1_764_230_400),
        host: "</title><script>window.hostile = true</script>".into(),
        policies: vec![policy],
    }
}

#[test]
fn the_page_works_in_a_browser_and_on_a_phone() {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    }) else {
        println!("skipped: no Chromium is installed");
        return;
    };
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    let page = html::write(&report()).replace("</body>", &format!("{DRIVER}</body>"));
    fs::write(directory.join("page.html"), page).unwrap();
    // A browser without a window is never narrower than 500 pixels; a frame is as narrow as a phone.
    let frame = "<body style='margin:0'><iframe id=f src=page.html style='width:360px;height:800px;border:0'></iframe>\
        <script>f.onload=()=>{const said=f.contentDocument.querySelectorAll('.said');document.body.append(...Array.from(said).map(e=>\
        {const p=document.createElement('p');p.textContent='narrow '+e.textContent;return p}))}</script></body>";
    fs::write(directory.join("frame.html"), frame).unwrap();
    for (file, prefix) in [("page.html", ""), ("frame.html", "narrow ")] {
        let mut command = Command::new(browser);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        command.args([
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
            "--virtual-time-budget=5000",
        ]);
        command.arg(format!("--user-data-dir={}", directory.join("profile").display()));
        command.arg("--dump-dom").arg(format!("file://{}", directory.join(file).display()));
        let output = command::output(&mut command, Duration::from_secs(120)).unwrap();
        let dom = String::from_utf8_lossy(&output.stdout);
        let log = String::from_utf8_lossy(&output.stderr);
        let console: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
        assert!(console.is_empty(), "{console:#?}");
        for said in [
            "all=120",
            "failed=40",
            "failed critical=20",
            "failed critical section=0",
            "words=1",
            "too wide=false",
            "scripts and styles from elsewhere=0",
            "alert ran=false",
        ] {
            assert!(dom.contains(&format!(">{prefix}{said}<")), "{file}: not {said}\n{}\n{log}", tail(&dom));
        }
        assert!(!dom.contains("script error="), "{}", tail(&dom));
    }
}

fn tail(text: &str) -> &str {
    defender_model::text::truncate(
        &text[text.rfind("class=\"said\"").unwrap_or(0).saturating_sub(1500)..],
        3000,
    )
}
