//! `defender profile`: recordings of ordinary days become a profile, which is checked, compared and kept the same.

#![allow(clippy::unwrap_used)] // A test that cannot read its input has failed.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn story(name: &str) -> String {
    format!("{}/tests/stories/{name}.log", env!("CARGO_MANIFEST_DIR"))
}

fn defender(arguments: &[&str]) -> (i32, String, String) {
    told(Command::new(env!("CARGO_BIN_EXE_defender")).args(arguments).output().unwrap())
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_day_is_learned_the_same_however_it_is_read() {
    let day = story("benign-day-busybox");
    let (code, once, words) = defender(&["profile", "learn", &day]);
    assert_eq!(code, 0, "{words}");
    assert!(words.contains("48 programs"), "{words}");
    for part in
        ["[program.\"/bin/busybox/crond\"]", "\"operator dropbear\"", "parents = [\n  \"/bin/busybox/sh\","]
    {
        assert!(once.contains(part), "{part}: {once}");
    }
    assert_eq!(defender(&["profile", "learn", "--events", &day, &day]).1, once, "twice the same");
    let stdin = std::fs::File::open(&day).unwrap();
    let mut piped = Command::new(env!("CARGO_BIN_EXE_defender"));
    let piped = piped.args(["profile", "learn", "-"]).stdin(Stdio::from(stdin)).output().unwrap();
    assert_eq!(told(piped).1, once, "from standard input");
}

#[test]
fn profiles_are_checked_and_compared() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (one, two) = (file("one.toml"), file("two.toml"));
    let (code, out, _) =
        defender(&["profile", "learn", &story("benign-day-systemd"), "--output", &one, "--json"]);
    let sizes: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, sizes["programs"].as_u64()), (0, Some(39)));
    assert_eq!(defender(&["profile", "check", &one]).0, 0);
    assert_eq!(defender(&["profile", "diff", &one, &one]), (0, String::new(), String::new()));

    let text = std::fs::read_to_string(&one).unwrap();
    std::fs::write(
        &two,
        format!("{text}\n[program.\"/srv/\u{1b}[2J\"]\nconnects = [\"tcp any 443\"]\n")
            .replace('\u{1b}', "\\u001b"),
    )
    .unwrap();
    let (code, out, _) = defender(&["profile", "diff", &one, &two]);
    assert_eq!(code, 1);
    assert_eq!(out, "+ \"/srv/\\u001B[2J\"\n+ \"/srv/\\u001B[2J\" connects \"tcp any 443\"\n");
    let (code, out, _) = defender(&["profile", "diff", &two, &one, "--json"]);
    let changes: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, changes["changes"][1]["change"].as_str()), (1, Some("removed")));
    let (code, out, _) = defender(&["profile", "check", &two]);
    assert!(code == 1 && out.contains("any host") && out.contains("1 too wide"), "{out}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let bad = directory.path().join("bad.toml");
    std::fs::write(&bad, "version = 1\n[programs]\n").unwrap();
    let bad = bad.to_str().unwrap();
    let missing = Path::new(bad).with_file_name("missing").to_str().unwrap().to_owned();
    for (arguments, code, says) in [
        (&["profile", "check", bad][..], 2, "bad.toml:2: unknown key `programs`; did you mean `program`?"),
        (&["profile", "check", &missing], 3, "cannot be read"),
        (&["profile", "diff", bad, &missing], 2, "bad.toml:2:"),
        (&["profile", "learn", &missing], 3, "cannot be read"),
        (&["profile", "learn"], 2, "no recording"),
        (&["profile", "learn", "/dev/null"], 1, "0 of 0 events"),
    ] {
        let (ended, _, errors) = defender(arguments);
        assert!(ended == code && errors.contains(says), "{arguments:?}: {ended} {errors}");
    }
}

/// What was learned from a day is held against another recording.
#[test]
fn what_the_profile_lacks_is_an_alert_in_a_replay() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (profile, config) = (file("profile.toml"), file("defender.toml"));
    let day = story("benign-day-busybox");
    assert_eq!(defender(&["profile", "learn", &day, "--output", &profile]).0, 0);
    let nothing = format!("rules.directories = []\nfeeds.directories = []\nprofile.path = {profile:?}\n");
    std::fs::write(&config, format!("{nothing}profile.enforce = \"alert\"\nprofile.level = \"low\"\n"))
        .unwrap();
    let (code, out, words) = defender(&["replay", &day, "--config", &config]);
    assert_eq!((code, out.as_str()), (0, ""), "{words}");

    let (code, out, _) = defender(&["replay", &story("telnet-worm"), "--config", &config]);
    assert_eq!(code, 0);
    for part in [
        "low            Program that is not in the profile: ",
        "Connection that is not in the profile: ",
        "Login that is not in the profile: ",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }

    let (_, rules, _) = defender(&["rules", "list", "--config", &config]);
    assert!(rules.contains("profile.parent") && rules.contains("execution"), "{rules}");
    std::fs::write(&profile, "version = 1\n[any\n").unwrap();
    let (_, out, words) = defender(&["replay", &day, "--config", &config]);
    assert!(
        out.is_empty() && words.contains("profile.toml:2:") && words.contains("goes on without a profile"),
        "{words}"
    );
}
