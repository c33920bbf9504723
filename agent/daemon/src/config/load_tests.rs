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
        mistake("[process]\nsource = \"ebpf\"\n").split(';').next(),
        Some("t.toml:2: unknown value `ebpf`, expected one of `auto`, `audit`, `connector`, `poll`")
    );
    assert!(mistake("[process]\nexits = 1\n").starts_with("t.toml:2: invalid type"));
    assert!(mistake("[response]\nallow = [\"10.0.0.0/33\"]\n").starts_with("t.toml:2: "));
    assert!(mistake("[sink.mqtt]\nenabled = true\n").contains("without a `host`"));
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
    assert_eq!(
        shipped,
        super::super::reference::default_file(),
        "run: defender config default > {}",
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
    assert_eq!(
        written,
        super::super::reference::markdown(),
        "run: defender config reference > {}",
        path.display()
    );
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,80}|(\\[[a-z.]{1,9}\\]|[a-z_]{1,9} = [0-9\"\\[\\]]{1,4}|\n){0,9}") {
        let _ = check(Path::new("t"), &text);
    }
}
