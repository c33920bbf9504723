//! `posture` and its kin.

use std::process::Command;

use serde_json::Value;

use super::defender;

/// An image with one planted fault, and a policy of two checks.
fn image() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("root/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    write("root/etc/shadow", "root::::::::\n");
    write("root/etc/os-release", "PRETTY_NAME=\"Test image\"\n");
    let check = |id: &str, severity: &str, expect: &str| {
        format!("[[check]]\nid = \"{id}\"\ntitle = \"Title of {id}\"\nsection = \"S\"\nseverity = \"{severity}\"\nrationale = \"Rationale.\"\nremediation = \"Remedy.\"\nexpect = {expect}\n")
    };
    let checks = [
        check("no-empty-password", "critical", "{ not = { account = \"any\", password = \"empty\" } }"),
        check("passwd-mode", "low", "{ file = \"/etc/passwd\", owner = \"root\", mode_max = \"0644\" }"),
        check("kernel", "high", "{ kconfig = \"X\", is = \"y\" }"),
    ];
    write("policies/p.toml", &format!("[policy]\nid = \"p\"\ntitle = \"P\"\n{}", checks.concat()));
    directory
}

#[test]
fn the_gate_names_what_fails_and_ends_with_one() {
    let image = image();
    let path = |below: &str| image.path().join(below).display().to_string();
    let (root, policies) = (path("root"), path("policies"));
    let gate = |more: &[&str]| {
        let mut arguments = vec!["posture", "--root", &root, "--policies", &policies, "--assume-root-owned"];
        arguments.extend(more);
        defender(&arguments)
    };
    assert_eq!(gate(&[]).status, 0, "no bar");
    let failed = gate(&["--fail-on", "high"]);
    assert_eq!(failed.status, 1, "{failed:?}");
    assert!(
        failed.errors.contains("1 checks of severity high or above fail: no-empty-password"),
        "{failed:?}"
    );
    assert!(failed.output.contains("root: the password is empty"), "{failed:?}");
    let low = gate(&["--min-score", "50"]);
    assert_eq!(low.status, 1);
    assert!(low.errors.contains("the score is 9.1, below 50"), "{low:?}");
    assert!(gate(&["--fail-on", "high", "--strict"]).errors.contains("kernel"));
    // Mistakes of usage, of a policy, of a configuration, and a root that is not there.
    assert_eq!(gate(&["--fail-on", "severe"]).status, 2);
    assert_eq!(gate(&["--format", "pdf"]).status, 2);
    assert_eq!(gate(&["--policy", "q"]).status, 2);
    std::fs::write(image.path().join("policies/q.toml"), "[policy]\nid = \"q\"\n").unwrap();
    let broken = gate(&[]);
    assert_eq!(broken.status, 2);
    assert!(broken.errors.contains("q.toml:1: `title` is missing"), "{broken:?}");
    assert_eq!(gate(&["--policy", "p"]).status, 0, "another policy's mistakes do not matter");
    assert_eq!(defender(&["posture", "--root", "/nowhere", "--policies", &policies]).status, 3);
    // Every format is written.
    for (format, start) in [("json", "{"), ("junit", "<?xml"), ("sarif", "{"), ("html", "<!")] {
        let file = path("report");
        let ended = gate(&["--policy", "p", "--format", format, "--output", &file]);
        assert_eq!(ended.status, 0, "{ended:?}");
        assert!(ended.output.contains("1 passed, 1 failed, 0 excepted, 1 could not be told"), "{ended:?}");
        assert!(std::fs::read_to_string(&file).unwrap().trim_start().starts_with(start), "{format}");
    }
}

#[test]
fn exceptions_of_the_image_are_in_force_until_their_day() {
    let image = image();
    let path = |below: &str| image.path().join(below).display().to_string();
    let (root, policies) = (path("root"), path("policies"));
    std::fs::create_dir_all(image.path().join("root/etc/defender")).unwrap();
    let scan = |expires: &str| {
        let text = format!("[[posture.exception]]\ncheck = \"no-empty-password\"\nreason = \"bench\"\nowner = \"jane\"\nexpires = \"{expires}\"\n");
        std::fs::write(image.path().join("root/etc/defender/defender.toml"), text).unwrap();
        defender(&[
            "posture",
            "--root",
            &root,
            "--policies",
            &policies,
            "--assume-root-owned",
            "--fail-on",
            "high",
        ])
    };
    assert_eq!(scan("2999-12-31").status, 0);
    let over = scan("2020-01-01");
    assert_eq!(over.status, 1, "{over:?}");
    assert!(over.output.contains("2020-01-01"), "{over:?}");
    assert_eq!(scan("soon").status, 2);
}

#[test]
fn checks_are_listed_explained_and_compared() {
    let image = image();
    let path = |below: &str| image.path().join(below).display().to_string();
    let (root, policies) = (path("root"), path("policies"));
    let listed = defender(&["posture", "list", "--policies", &policies]);
    assert!(listed.output.contains("critical  no-empty-password"), "{listed:?}");
    let json: Value =
        serde_json::from_str(&defender(&["posture", "list", "--policies", &policies, "--json"]).output)
            .unwrap();
    assert_eq!(json[0]["checks"].as_array().unwrap().len(), 3);
    let explained = defender(&["posture", "explain", "passwd-mode", "--policies", &policies]);
    assert!(explained.output.contains("What to do: Remedy."), "{explained:?}");
    let unknown = defender(&["posture", "explain", "passwd-mod", "--policies", &policies]);
    assert_eq!(unknown.status, 1);
    assert!(unknown.errors.contains("did you mean `passwd-mode`"), "{unknown:?}");
    let scan = |file: &str| {
        defender(&[
            "posture",
            "--root",
            &root,
            "--policies",
            &policies,
            "--assume-root-owned",
            "--format",
            "json",
            "--output",
            file,
        ])
    };
    let (before, after) = (path("before"), path("after"));
    scan(&before);
    std::fs::write(image.path().join("root/etc/shadow"), "root:!:::::::\n").unwrap();
    scan(&after);
    let better = defender(&["posture", "diff", &before, &after]);
    assert_eq!(better.status, 0, "{better:?}");
    assert!(better.output.contains("score 9.1 -> 100.0"), "{better:?}");
    assert_eq!(defender(&["posture", "diff", &after, &before]).status, 1);
    assert_eq!(defender(&["posture", "diff", &before, &root]).status, 3);
}

/// An unprivileged build: owners and devices are those of the environment, of a table, or taken for root's.
#[test]
fn owners_come_from_fakeroot_from_a_table_or_are_taken_for_roots() {
    let image = image();
    let path = |below: &str| image.path().join(below).display().to_string();
    let check = |id: &str, expect: &str| {
        format!("[[check]]\nid = \"{id}\"\ntitle = \"T\"\nsection = \"S\"\nseverity = \"high\"\nrationale = \"R\"\nremediation = \"M\"\nexpect = {expect}\n")
    };
    let policy = [
        "[policy]\nid = \"o\"\ntitle = \"O\"\n".to_owned(),
        check("owner", "{ file = [\"/etc/passwd\", \"/bin/su\"], owner = \"root\" }"),
        check("setuid", "{ find = \"setuid\" }"),
        check("node", "{ find = \"device_node\" }"),
        check("capability", "{ find = \"capability\" }"),
    ];
    std::fs::write(path("o.toml"), policy.concat()).unwrap();
    std::fs::create_dir_all(image.path().join("root/bin")).unwrap();
    std::fs::write(path("root/bin/su"), "x").unwrap();
    let failing = |output: &str| -> Vec<String> {
        let ids = ["owner", "setuid", "node", "capability"].into_iter();
        ids.filter(|id| output.lines().any(|line| line.contains("FAIL") && line.contains(&format!("[{id}]"))))
            .map(str::to_owned)
            .collect()
    };
    let (root, policy) = (path("root"), path("o.toml"));
    let plain = defender(&["posture", "--root", &root, "--policy", &policy, "--assume-root-owned"]);
    assert_eq!(failing(&plain.output), Vec::<String>::new(), "{plain:?}");
    std::fs::write(
        path("table"),
        "/etc/passwd f 644 5 5\n/bin/su f 4755 0 0\n|xattr cap_net_raw+ep\n/opt/mem c 600 0 0 1 1\n",
    )
    .unwrap();
    let told = defender(&["posture", "--root", &root, "--policy", &policy, "--device-table", &path("table")]);
    assert_eq!(failing(&told.output), ["owner", "setuid", "node", "capability"], "{told:?}");
    std::fs::write(path("table"), "/etc/passwd q\n").unwrap();
    let wrong =
        defender(&["posture", "--root", &root, "--policy", &policy, "--device-table", &path("table")]);
    assert_eq!(wrong.status, 2, "{wrong:?}");
    // A build's own environment, which stands between the scan and the kernel.
    let script = format!(
        "chown 5:5 {root}/etc/passwd && chown 0:0 {root}/bin/su && chmod 4755 {root}/bin/su && mknod {root}/bin/mem c 1 1 && exec {} posture --root {root} --policy {policy}",
        env!("CARGO_BIN_EXE_defender")
    );
    match Command::new("fakeroot").args(["sh", "-c", &script]).output() {
        Ok(ended) => {
            let output = String::from_utf8(ended.stdout).unwrap();
            assert_eq!(
                failing(&output),
                ["owner", "setuid", "node"],
                "{output} {}",
                String::from_utf8_lossy(&ended.stderr)
            );
        }
        Err(_) => println!("skipped: no fakeroot"),
    }
}
