//! Mistakes are found with file, line and key, and never leave a device without a configuration.

use std::fs;

use proptest::prelude::*;

use super::*;

fn mistake(text: &str) -> String {
    check(Path::new("t.toml"), text).unwrap_err().to_string()
}

#[test]
fn mistakes_name_file_line_and_nearest_key() {
    assert_eq!(mistake("[process]\n\nexit = true\n"), "t.toml:3: unknown key `exit`; did you mean `exits`?");
    assert_eq!(mistake("[proces]\n"), "t.toml:1: unknown key `proces`; did you mean `process`?");
    assert_eq!(
        mistake("[process]\nsource = \"ptrace\"\n").split(';').next(),
        Some(
            "t.toml:2: unknown value `ptrace`, expected one of `auto`, `audit`, `ebpf`, `connector`, `poll`"
        )
    );
    assert_eq!(mistake("[process]\nexits = 1\n"), "t.toml:2: `exits` must be true or false, not 1");
    assert_eq!(
        mistake("[sink.mqtt]\nport = 65536\n"),
        "t.toml:2: `port` must be a whole number from 0 to 65535, not 65536"
    );
    assert_eq!(
        mistake("[login]\nfiles = [\"a\", { b = 1 }]\n"),
        "t.toml:2: `files` must be a text in quotes, not a value of type table"
    );
    assert_eq!(mistake("agent = 1\n"), "t.toml:1: `agent` must be a section, not 1");
    assert!(mistake("[response]\nallow = [\"10.0.0.0/33\"]\n").starts_with("t.toml:2: "));
    assert!(mistake("[[rule]]\nlevel = \"low\"\n").contains("has no `id`"));
    assert!(mistake("[agent]\nqueue = 1\n").contains("between"));
    assert!(mistake("[agent\n").starts_with("t.toml:1: "));
}

#[test]
fn drop_ins_win_key_by_key_and_a_bad_one_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("defender.toml");
    let drop_ins = directory.path().join("conf.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::write(&file, "[process]\nexits = false\ntable_capacity = 99\n").unwrap();
    fs::write(drop_ins.join("10-a.toml"), "[process]\ntable_capacity = 100\n").unwrap();
    fs::write(drop_ins.join("20-b.toml"), "[process]\ntable_capacity = 101\nexit = true\n").unwrap();
    fs::write(drop_ins.join("README"), "no").unwrap();
    let loaded = load(&file);
    assert_eq!((loaded.config.process.exits, loaded.config.process.table_capacity), (false, 100));
    assert_eq!(loaded.files.len(), 2);
    assert_eq!(loaded.problems.len(), 1);
    assert!(loaded.problems[0].to_string().contains("20-b.toml:3: unknown key `exit`"));
}

/// What the first text as the main file and the others as drop-ins make.
fn loaded(texts: &[&str]) -> (tempfile::TempDir, Loaded) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("defender.toml");
    fs::create_dir(directory.path().join("conf.d")).unwrap();
    for (number, text) in texts.iter().enumerate() {
        let drop_in = directory.path().join(format!("conf.d/{number}0.toml"));
        fs::write(if number == 0 { &file } else { &drop_in }, text).unwrap();
    }
    let loaded = load(&file);
    (directory, loaded)
}

#[test]
fn an_empty_list_replaces_and_sections_add_up() {
    let (_directory, loaded) = loaded(&[
        "[login]\nfiles = [\"/a\"]\n[response]\nallow = [\"192.0.2.0/24\"]\n[[rule]]\nid = \"a\"\n",
        "[login]\nfiles = []\n[response]\nallow = []\n[[rule]]\nid = \"b\"\n",
    ]);
    assert_eq!(loaded.problems, []);
    assert!(loaded.config.login.files.is_empty(), "{:?}", loaded.config.login.files);
    assert!(loaded.config.response.allow.is_empty(), "{:?}", loaded.config.response.allow);
    let ids: Vec<&str> = loaded.config.rule.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
}

#[test]
fn a_section_may_be_split_over_files_in_any_order() {
    let (enabled, host) = ("[sink.mqtt]\nenabled = true\n", "[sink.mqtt]\nhost = \"broker\"\n");
    for texts in [[enabled, host], [host, enabled]] {
        let (_directory, loaded) = loaded(&texts);
        assert_eq!(loaded.problems, []);
        assert_eq!(loaded.files.len(), 2);
        assert!(loaded.config.sink.mqtt.enabled && loaded.config.sink.mqtt.host == "broker");
    }
}

#[test]
fn only_the_file_that_contradicts_is_left_out() {
    let hub = "[sink.mqtt]\nenabled = true\nconnection_string_file = \"/c.txt\"\n";
    let (_directory, alone) = loaded(&[hub]);
    assert!(alone.problems.is_empty() && alone.config.sink.mqtt.enabled);
    let (_directory, alone) = loaded(&[&format!("{hub}tls = false\n")]);
    assert!(alone.problems[0].to_string().ends_with("IoT Hub needs `tls = true`"));
    let key = "MCowBQYDK2VwAyEAFuUIDycA3upPJtlOIv6TXf28T9t7zdArGISs91PTcWs=";
    let keys = format!("[sink.mqtt]\nenabled = true\nhost = \"b\"\nconfiguration_keys = [\"{key}\"]\n");
    let (_directory, alone) = loaded(&[&keys]);
    assert!(alone.problems.is_empty() && alone.config.sink.mqtt.configuration_keys[0].0 == key);
    let (_directory, alone) = loaded(&[&format!("{keys}topic = \"t\"\n")]);
    assert!(alone.problems[0].to_string().contains("no `{kind}` in `topic`"));
    let (_directory, alone) = loaded(&[&keys.replace("MCow", "")]);
    assert!(alone.problems[0].to_string().contains("not an Ed25519 public key"));
    let provisioned = "[sink.mqtt]\nenabled = true\ndps_id_scope = \"0ne1\"\n";
    let (_directory, alone) = loaded(&[&format!("{provisioned}dps_key_file = \"/k\"\n")]);
    assert!(alone.problems.is_empty() && alone.config.sink.mqtt.enabled);
    let (_directory, alone) = loaded(&[provisioned]);
    assert!(alone.problems[0].to_string().ends_with("says who the device is"));
    let (_directory, alone) = loaded(&["[sink.mqtt]\nenabled = true\n"]);
    assert_eq!((alone.problems.len(), alone.files.len()), (1, 0));
    assert!(alone.problems[0]
        .to_string()
        .ends_with("defender.toml: [sink.mqtt] is enabled without a `host`"));
    assert_eq!(alone.config, Config::default());

    // The main file needs the first drop-in; the second is wrong; the third stands behind it.
    let (_directory, mixed) = loaded(&[
        "[process]\nexits = false\n[sink.mqtt]\nenabled = true\n",
        "[sink.mqtt]\nhost = \"broker\"\n",
        "[sink.remote_syslog]\nenabled = true\n[agent]\nqueue = 99\n",
        "[process]\ntable_capacity = 100\n",
    ]);
    assert_eq!(mixed.problems.len(), 1);
    let problem = mixed.problems[0].to_string();
    assert!(
        problem.ends_with("conf.d/20.toml: [sink.remote_syslog] is enabled without a `host`"),
        "{problem}"
    );
    assert_eq!(mixed.files.len(), 3);
    let config = mixed.config;
    assert!(config.sink.mqtt.enabled && !config.sink.remote_syslog.enabled && !config.process.exits);
    assert_eq!((config.process.table_capacity, config.agent.queue), (100, Config::default().agent.queue));

    // A drop-in that breaks what was right.
    let (_directory, broken) =
        loaded(&["[sink.mqtt]\nenabled = true\nhost = \"broker\"\n", "[sink.mqtt]\nhost = \"\"\n"]);
    assert_eq!(broken.files.len(), 1);
    assert!(broken.problems[0].file.ends_with("10.toml"));
    assert_eq!(broken.config.sink.mqtt.host, "broker");
}

#[test]
fn a_wrong_alert_takes_nothing_else_with_it() {
    let first = "[process]\nexits = false\n\n[[alert]]\nname = \"Users\"\nallow_users = [\"root\"]\n\n[[alert]]\nname = \"Peers\"\n\
                 allow_outbound = [\"tcp 192.0.2.0/33 443\"]\n\n[[alert]]\nname = \"Typo\"\nallow_user = []\n\n[[alert]]\n\
                 name = \"Two\"\nallow_dns = []\nallow_users = []\n\n[[alert]]\nallow_dns = [7]\n\n[[alert]]\nname = \"None\"\n\n\
                 [[alert]]\nname = \"List\"\nallow_dns = []\nmaximum = 3\n";
    let second = "[[alert]]\nname = \"Users!\"\nallow_users = []\n\n[[alert]]\nname = \"Gone\"\ncount = \"failed_logins\"\nmaximum = 5\n\
                  select = { Nonsense = 1 }\n";
    let (_directory, loaded) = loaded(&[first, second, "[[alert]]\nname = \"Names\"\nallow_dns = []\n"]);
    let told: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    let expected = [
        (
            "defender.toml:10: ",
            "\"Peers\": `allow_outbound`: `tcp 192.0.2.0/33 443`: `192.0.2.0/33` is not a network",
        ),
        ("defender.toml:14: ", "\"Typo\": unknown key `allow_user`; did you mean `allow_users`?"),
        (
            "defender.toml:18: ",
            "\"Two\": `allow_dns`: an alert is of one kind, and this has `allow_users` too",
        ),
        ("defender.toml:22: ", "number 5: `allow_dns` must be a text"),
        ("defender.toml:24: ", "\"None\": it has none of `allow_users`"),
        ("defender.toml:30: ", "\"List\": `maximum`: it belongs to `count`"),
        ("10.toml:2: ", "\"Users!\": `name`: its id `alert.users` is that of another in "),
        ("10.toml:9: ", "\"Gone\": `select`: no sensor supplies the field `Nonsense`"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, (place, words)) in told.iter().zip(expected) {
        assert!(told.contains(&format!("{place}[[alert]] {words}")), "{told}");
    }
    assert!(loaded.problems.iter().all(|problem| problem.section));
    assert_eq!(loaded.files.len(), 3, "all of them are in force");
    assert!(!loaded.config.process.exits);
    let names: Vec<&str> = loaded.config.alert.0.iter().map(|alert| alert.name.as_str()).collect();
    assert_eq!(names, ["Users", "Names"]);
    let (_directory, loaded) = self::loaded(&[first, "alert = []\n"]);
    assert!(loaded.config.alert.0.is_empty());
}

#[test]
fn no_file_at_all_is_a_problem_and_the_defaults() {
    let loaded = load(Path::new("/nonexistent/defender.toml"));
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.problems.len(), 1);
}

#[test]
fn the_shipped_file_is_the_defaults_and_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rootfs-overlay/etc/defender/defender.toml");
    let shipped = fs::read_to_string(&path).unwrap();
    assert!(
        shipped == super::super::reference::default_file(),
        "stale; run: defender config default > {}",
        path.display()
    );
    let table = check(&path, &shipped).unwrap();
    assert_eq!(Config::try_from(table).unwrap(), Config::default());
    // Every key uncommented is still the defaults.
    let spelt_out: String = shipped
        .lines()
        .filter_map(|line| {
            line.strip_prefix('#').map(str::trim_start).filter(|l| l.contains(" = ")).or(Some(line))
        })
        .filter(|line| !line.starts_with("[[") && !line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();
    let table = check(&path, &spelt_out).unwrap();
    assert_eq!(Config::try_from(table).unwrap(), Config::default());
}

#[test]
fn the_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let written = fs::read_to_string(&path).unwrap();
    assert!(
        written == super::super::reference::markdown(),
        "stale; run: defender config reference > {}",
        path.display()
    );
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,80}|(\\[[a-z.]{1,9}\\]|[a-z_]{1,9} = [0-9\"\\[\\]]{1,4}|\n){0,9}") {
        let _ = check(Path::new("t"), &text);
    }
}
