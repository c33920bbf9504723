use std::io::Write;

use super::*;

const GOLDEN: &[u8] = include_bytes!("testdata/wtmp-384");
const SIZE: usize = 384;

fn golden(index: usize) -> &'static [u8] {
    &GOLDEN[index * SIZE..][..SIZE]
}

fn read(accounting: &mut Accounting) -> Vec<String> {
    let mut reports = Vec::new();
    accounting.read(&mut reports);
    let shown = |Report { teller, login, since }: Report| {
        let what = match (login.activity, login.outcome) {
            (Activity::Logon, Outcome::Success) if since.is_some() => "present",
            (Activity::Logon, Outcome::Success) => "login",
            (Activity::Logon, Outcome::Failure) => "failure",
            _ => "end",
        };
        let tty = login.tty.unwrap_or_default();
        format!(
            "{teller:?} {what} {} {tty} {:?}",
            login.user.unwrap_or_default(),
            login.pid.unwrap_or_default()
        )
    };
    reports.into_iter().map(shown).collect()
}

async fn changed(accounting: &mut Accounting) {
    tokio::time::timeout(Duration::from_secs(20), accounting.changed()).await.expect("inotify tells in time");
}

#[cfg(target_endian = "little")]
#[tokio::test(flavor = "current_thread")]
async fn lists_are_read_from_their_ends_through_rotation_and_emptying() {
    let directory = tempfile::tempdir().expect("a directory");
    let [wtmp, btmp] = ["wtmp", "btmp"].map(|name| directory.path().join(name));
    std::fs::write(&wtmp, GOLDEN).expect("write");
    let mut accounting = Accounting::new(&[wtmp.clone(), btmp.clone()]).expect("inotify");
    assert_eq!(read(&mut accounting), [""; 0]);
    assert_eq!(accounting.open_files().collect::<Vec<_>>(), [wtmp.as_path()]);
    // Appended, half a record first.
    let mut file = OpenOptions::new().append(true).open(&wtmp).expect("open");
    file.write_all(&golden(3)[..100]).expect("write");
    changed(&mut accounting).await;
    assert_eq!(read(&mut accounting), [""; 0]);
    file.write_all(&golden(3)[100..]).expect("write");
    file.write_all(golden(5)).expect("write");
    changed(&mut accounting).await;
    assert_eq!(read(&mut accounting), ["Wtmp login admin pts/0 412", "Wtmp end  pts/0 412"]);
    // A file that appears is read from its beginning.
    std::fs::write(&btmp, golden(6)).expect("write");
    changed(&mut accounting).await;
    assert_eq!(read(&mut accounting), ["Btmp failure evil\\xff  500"]);
    // Rotated, with a last record in the old file.
    file.write_all(golden(2)).expect("write");
    std::fs::rename(&wtmp, directory.path().join("wtmp.1")).expect("rename");
    std::fs::write(&wtmp, golden(3)).expect("write");
    changed(&mut accounting).await;
    assert_eq!(read(&mut accounting), ["Wtmp login root ttyS0 310", "Wtmp login admin pts/0 412"]);
    // Emptied: noticed when it is shorter than before.
    std::fs::write(&wtmp, [golden(3), golden(3)].concat()).expect("write");
    assert_eq!(read(&mut accounting), ["Wtmp login admin pts/0 412"]);
    std::fs::write(&wtmp, golden(2)).expect("write");
    changed(&mut accounting).await;
    assert_eq!(read(&mut accounting), ["Wtmp login root ttyS0 310"]);
}

#[cfg(target_endian = "little")]
#[tokio::test(flavor = "current_thread")]
async fn a_table_is_compared_with_what_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let utmp = directory.path().join("utmp");
    std::fs::write(&utmp, &GOLDEN[..SIZE * 4]).expect("write");
    let mut accounting = Accounting::new(std::slice::from_ref(&utmp)).expect("inotify");
    assert_eq!(read(&mut accounting), ["Utmp present root ttyS0 310", "Utmp present admin pts/0 412"]);
    let file = OpenOptions::new().write(true).open(&utmp).expect("open");
    file.write_all_at(golden(5), 3 * SIZE as u64).expect("write");
    file.write_all_at(golden(4), 4 * SIZE as u64).expect("write");
    changed(&mut accounting).await;
    let name = "a".repeat(32);
    assert_eq!(
        read(&mut accounting),
        ["Utmp end  pts/0 412".to_owned(), format!("Utmp login {name} pts/1 413")]
    );
    // Getty takes the console again.
    file.write_all_at(golden(1), 2 * SIZE as u64).expect("write");
    assert_eq!(read(&mut accounting), ["Utmp end  ttyS0 310"]);
    assert_eq!(read(&mut accounting), [""; 0]);
}

#[cfg(target_endian = "little")]
#[tokio::test(flavor = "current_thread")]
async fn a_flood_is_read_in_turns() {
    let directory = tempfile::tempdir().expect("a directory");
    let btmp = directory.path().join("btmp");
    let mut accounting = Accounting::new(std::slice::from_ref(&btmp)).expect("inotify");
    assert_eq!(read(&mut accounting), [""; 0]);
    std::fs::write(&btmp, golden(6).repeat(1000)).expect("write");
    let (mut found, mut turns) = (0, 0);
    while found < 1000 {
        changed(&mut accounting).await;
        let read = read(&mut accounting).len();
        assert!(read <= TURN + CHUNK / SIZE, "{read}");
        (found, turns) = (found + read, turns + 1);
    }
    assert!(turns > 3, "{turns}");
}
