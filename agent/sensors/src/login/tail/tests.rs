use std::fs;
use std::io::Write;
use std::os::unix::fs::{symlink, PermissionsExt};

use super::*;

struct Log {
    directory: tempfile::TempDir,
}

impl Log {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(name)).expect("a file");
        file.write_all(text.as_bytes()).expect("write");
    }

    fn tail(&self, positions: &[Position]) -> Tail {
        Tail::new(&[self.path("auth.log")], positions).expect("inotify")
    }
}

/// The next line, long before any time limit of the tail itself.
async fn line(tail: &mut Tail) -> String {
    line_within(tail, Duration::from_millis(900)).await
}

async fn line_within(tail: &mut Tail, limit: Duration) -> String {
    let line = async {
        loop {
            if let Item::Line(line) = tail.next().await {
                return String::from_utf8(line.bytes).expect("text");
            }
        }
    };
    tokio::time::timeout(limit, line).await.expect("a line in time")
}

async fn note(tail: &mut Tail) -> Health {
    let note = async {
        loop {
            if let Item::Note(note) = tail.next().await {
                return note;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), note).await.expect("a note in time")
}

async fn silence(tail: &mut Tail) {
    let item = tokio::time::timeout(Duration::from_millis(150), tail.next()).await;
    assert!(item.is_err(), "unexpected: {item:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn from_the_end_and_on() {
    let log = Log::new();
    log.append("auth.log", "old\n");
    let mut tail = log.tail(&[]);
    silence(&mut tail).await;
    log.append("auth.log", "one\ntwo\n");
    assert_eq!(line(&mut tail).await, "one");
    assert_eq!(line(&mut tail).await, "two");
    silence(&mut tail).await;
}

#[tokio::test(flavor = "current_thread")]
async fn rotation_by_renaming_reads_both_files() {
    let log = Log::new();
    log.append("auth.log", "");
    let mut tail = log.tail(&[]);
    log.append("auth.log", "before\n");
    fs::rename(log.path("auth.log"), log.path("auth.log.1")).expect("rename");
    assert_eq!(line(&mut tail).await, "before");
    log.append("auth.log.1", "after the renaming\n");
    assert_eq!(line(&mut tail).await, "after the renaming");
    log.append("auth.log", "new file\n");
    assert_eq!(line(&mut tail).await, "new file");
    // Its daemon has not been told yet.
    log.append("auth.log.1", "late\n");
    assert_eq!(line(&mut tail).await, "late");
    log.append("auth.log", "new again\n");
    assert_eq!(line(&mut tail).await, "new again");
}

#[tokio::test(flavor = "current_thread")]
async fn many_rotations_lose_nothing_and_end_watches() {
    let log = Log::new();
    log.append("auth.log", "");
    let mut tail = log.tail(&[]);
    for round in 0..20 {
        log.append("auth.log", &format!("{round}\n"));
        assert_eq!(line(&mut tail).await, round.to_string());
        let _ = fs::remove_file(log.path("auth.log.1"));
        fs::rename(log.path("auth.log"), log.path("auth.log.1")).expect("rename");
        log.append("auth.log", &format!("{round} new\n"));
        assert_eq!(line(&mut tail).await, format!("{round} new"));
    }
    assert!(tail.files[0].old.len() <= OLD_FILES);
    assert!(tail.watched.len() <= OLD_FILES + 1, "{}", tail.watched.len());
}

#[tokio::test(flavor = "current_thread")]
async fn a_file_that_is_moved_away_and_back_is_not_read_twice() {
    let log = Log::new();
    log.append("auth.log", "");
    let mut tail = log.tail(&[]);
    log.append("auth.log", "one\n");
    assert_eq!(line(&mut tail).await, "one");
    fs::rename(log.path("auth.log"), log.path("kept")).expect("rename");
    log.append("auth.log", "other\n");
    assert_eq!(line(&mut tail).await, "other");
    fs::rename(log.path("kept"), log.path("auth.log")).expect("rename");
    log.append("auth.log", "two\n");
    assert_eq!(line(&mut tail).await, "two");
    silence(&mut tail).await;
}

#[tokio::test(flavor = "current_thread")]
async fn copytruncate_and_truncation() {
    let log = Log::new();
    log.append("auth.log", "");
    let mut tail = log.tail(&[]);
    log.append("auth.log", "a long first line\n");
    assert_eq!(line(&mut tail).await, "a long first line");
    fs::copy(log.path("auth.log"), log.path("auth.log.1")).expect("copy");
    fs::write(log.path("auth.log"), "").expect("truncate");
    log.append("auth.log", "short\n");
    assert_eq!(line(&mut tail).await, "short");
    fs::write(log.path("auth.log"), "longer than what it replaces\n").expect("rewrite");
    assert!(note(&mut tail).await.message.contains("emptied or rewritten"));
    assert_eq!(line(&mut tail).await, "longer than what it replaces");
}

#[tokio::test(flavor = "current_thread")]
async fn file_and_directory_appear_later() {
    let log = Log::new();
    let path = log.path("volatile/log/auth.log");
    let mut tail = Tail::new(std::slice::from_ref(&path), &[]).expect("inotify");
    silence(&mut tail).await;
    fs::create_dir(log.path("volatile")).expect("mkdir");
    silence(&mut tail).await;
    fs::create_dir(log.path("volatile/log")).expect("mkdir");
    silence(&mut tail).await;
    fs::write(&path, "first\n").expect("write");
    assert_eq!(line(&mut tail).await, "first");
    fs::remove_dir_all(log.path("volatile")).expect("remove");
    fs::create_dir_all(log.path("volatile/log")).expect("mkdir");
    fs::write(&path, "second\n").expect("write");
    assert_eq!(line(&mut tail).await, "second");
}

#[tokio::test(flavor = "current_thread")]
async fn links_to_directories_and_files_and_two_paths_to_one_file() {
    let log = Log::new();
    symlink("volatile", log.path("log")).expect("link");
    symlink("messages", log.path("auth.log")).expect("link");
    let paths = [log.path("log/syslog"), log.path("auth.log"), log.path("messages")];
    let mut tail = Tail::new(&paths, &[]).expect("inotify");
    silence(&mut tail).await;
    fs::create_dir(log.path("volatile")).expect("mkdir");
    log.append("volatile/syslog", "through a directory\n");
    assert_eq!(line(&mut tail).await, "through a directory");
    log.append("messages", "once\n");
    assert_eq!(line(&mut tail).await, "once");
    silence(&mut tail).await;
    // The link leads elsewhere; the other path goes on with the old file.
    log.append("other", "elsewhere\n");
    fs::remove_file(log.path("auth.log")).expect("remove");
    symlink("other", log.path("auth.log")).expect("link");
    assert_eq!(line(&mut tail).await, "elsewhere");
}

#[tokio::test(flavor = "current_thread")]
async fn an_unfinished_line_is_held_for_a_second() {
    let log = Log::new();
    log.append("auth.log", "");
    let mut tail = log.tail(&[]);
    log.append("auth.log", "half");
    silence(&mut tail).await;
    log.append("auth.log", " and half\n");
    assert_eq!(line(&mut tail).await, "half and half");
    log.append("auth.log", "never fin");
    let begun = Instant::now();
    let item = tokio::time::timeout(Duration::from_secs(5), tail.next()).await.expect("in time");
    let Item::Line(cut) = item else { panic!("{item:?}") };
    assert_eq!(cut, Line { bytes: b"never fin".to_vec(), whole: false });
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    log.append("auth.log", "ished\nnext\n");
    assert_eq!(line(&mut tail).await, "next");
}

#[tokio::test(flavor = "current_thread")]
async fn what_cannot_be_read_is_reported_and_tried_again() {
    let log = Log::new();
    // A directory stands for any file that cannot be read, also when the tests run as root.
    fs::create_dir(log.path("auth.log")).expect("mkdir");
    let mut tail = log.tail(&[]);
    let first = note(&mut tail).await;
    assert_eq!(first.kind, Kind::Degraded);
    assert!(first.message.contains("not a regular file"), "{}", first.message);
    fs::remove_dir(log.path("auth.log")).expect("remove");
    let over = note(&mut tail).await;
    assert_eq!((over.kind, &over.component), (Kind::Recovered, &first.component));
    silence(&mut tail).await;
    log.append("auth.log", "now\n");
    assert_eq!(line(&mut tail).await, "now");
}

#[tokio::test(flavor = "current_thread")]
async fn faults_of_two_files_are_two_components() {
    let log = Log::new();
    let paths = [log.path("a.log"), log.path("b.log")];
    paths.iter().for_each(|path| fs::create_dir(path).expect("mkdir"));
    let mut tail = Tail::new(&paths, &[]).expect("inotify");
    let component = |path: &Path| format!("login {}", path.display());
    for path in &paths {
        let begun = note(&mut tail).await;
        assert_eq!((begun.kind, begun.component), (Kind::Degraded, component(path)));
    }
    // Replaced at once, so that the path is never seen missing.
    log.append("new", "");
    fs::remove_dir(&paths[0]).expect("remove");
    fs::rename(log.path("new"), &paths[0]).expect("rename");
    let over = note(&mut tail).await;
    assert_eq!((over.kind, over.component), (Kind::Recovered, component(&paths[0])));
    fs::remove_dir(&paths[1]).expect("remove");
    symlink("a.log", &paths[1]).expect("link");
    let over = note(&mut tail).await;
    assert_eq!((over.kind, over.component), (Kind::Recovered, component(&paths[1])));
    assert!(over.message.contains("under another name"), "{}", over.message);
    // What is over is not tried again.
    assert!(tail.wake() > Instant::now() + Duration::from_secs(5));
}

#[tokio::test(flavor = "current_thread")]
async fn one_fault_that_ends_does_not_hide_another_of_the_same_file() {
    let log = Log::new();
    log.append("auth.log", "");
    let mut tail = log.tail(&[]);
    tail.trouble(0, "no way".to_owned(), Instant::now());
    tail.files[0].unwatched = true;
    assert_eq!(note(&mut tail).await.kind, Kind::Degraded);
    tail.no_trouble(0, AGAIN);
    assert!(tail.notes.is_empty(), "{:?}", tail.notes);
    // The next look finds the watch in place.
    tail.check_paths(Instant::now());
    let over = note(&mut tail).await;
    assert_eq!((over.kind, over.component), (Kind::Recovered, tail.files[0].component()));
}

#[tokio::test(flavor = "current_thread")]
async fn inotify_fails_and_recovers_once_each() {
    let log = Log::new();
    log.append("auth.log", "");
    let mut tail = log.tail(&[]);
    let failed = || Err(io::Error::from_raw_os_error(libc::EIO));
    assert!(tail.waited(failed()) && tail.waited(failed()));
    assert!(tail.recheck <= Instant::now() + FAILING_RECHECK);
    // It is over when it is opened again, and not before.
    assert!(tail.waited(Ok(())));
    tail.renew(Instant::now());
    assert!(!tail.waited(Ok(())));
    let said: Vec<(Kind, &str)> =
        tail.notes.iter().map(|note| (note.kind, note.component.as_str())).collect();
    assert_eq!(said, [(Kind::Degraded, INOTIFY), (Kind::Recovered, INOTIFY)]);
}

#[tokio::test(flavor = "current_thread")]
async fn an_inotify_that_is_taken_away_is_opened_again() {
    let log = Log::new();
    log.append("auth.log", "");
    let mut tail = log.tail(&[]);
    assert!(tail.take().is_none());
    tail.inotify.injure();
    tail.recheck = Instant::now() + Duration::from_millis(50);
    assert_eq!(note(&mut tail).await.kind, Kind::Degraded);
    log.append("auth.log", "meanwhile\n");
    let (mut kinds, mut lines) = (Vec::new(), Vec::new());
    while kinds.is_empty() || lines.is_empty() {
        match tokio::time::timeout(Duration::from_secs(60), tail.next()).await.expect("in time") {
            Item::Note(health) => kinds.push(health.kind),
            Item::Line(line) => lines.push(line.bytes),
            Item::Opened => {}
        }
    }
    assert_eq!((kinds, lines), (vec![Kind::Recovered], vec![b"meanwhile".to_vec()]));
    // Changes are announced again.
    log.append("auth.log", "after\n");
    tail.recheck = Instant::now() + Duration::from_secs(3600);
    let item = tokio::time::timeout(Duration::from_secs(60), tail.next()).await.expect("in time");
    assert!(matches!(item, Item::Line(line) if line.bytes == b"after"));
}

#[tokio::test(flavor = "current_thread")]
async fn permission_that_comes_later() {
    let log = Log::new();
    log.append("auth.log", "old\n");
    let set =
        |mode| fs::set_permissions(log.path("auth.log"), fs::Permissions::from_mode(mode)).expect("chmod");
    set(0);
    fs::set_permissions(log.directory.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    // Root reads everything: be somebody else for the file system, on this thread only (setfsuid(2)).
    // SAFETY: setfsuid has no preconditions.
    let me = unsafe { libc::setfsuid(65534) };
    if File::open(log.path("auth.log")).is_ok() {
        println!("skipped: these tests may read everything and cannot give that up");
        return;
    }
    let mut tail = log.tail(&[]);
    assert_eq!(note(&mut tail).await.kind, Kind::Degraded);
    // SAFETY: as above.
    unsafe { libc::setfsuid(me as u32) };
    set(0o644);
    // SAFETY: as above.
    unsafe { libc::setfsuid(65534) };
    assert_eq!(note(&mut tail).await.kind, Kind::Recovered);
    // SAFETY: as above.
    unsafe { libc::setfsuid(me as u32) };
    log.append("auth.log", "new\n");
    assert_eq!(line(&mut tail).await, "new");
}

#[tokio::test(flavor = "current_thread")]
async fn a_restart_neither_misses_nor_doubles() {
    let log = Log::new();
    log.append("auth.log", "");
    let mut tail = log.tail(&[]);
    log.append("auth.log", "one\ntwo\nhalf");
    assert_eq!(line(&mut tail).await, "one");
    assert_eq!(line(&mut tail).await, "two");
    silence(&mut tail).await;
    let positions: Vec<Position> =
        tail.positions().iter().map(|p| p.to_string().parse().expect("a position")).collect();
    drop(tail);

    // Nothing happened but more lines.
    log.append("auth.log", " line\nthree\n");
    let mut tail = log.tail(&positions);
    assert_eq!(line(&mut tail).await, "half line");
    assert_eq!(line(&mut tail).await, "three");
    drop(tail);

    // Rotated meanwhile.
    fs::rename(log.path("auth.log"), log.path("auth.log.1")).expect("rename");
    log.append("auth.log", "four\n");
    let mut tail = log.tail(&positions);
    for expected in ["half line", "three", "four"] {
        assert_eq!(line(&mut tail).await, expected);
    }
    drop(tail);

    // The old file is gone.
    fs::remove_file(log.path("auth.log.1")).expect("remove");
    let mut tail = log.tail(&positions);
    assert!(note(&mut tail).await.message.contains("not the file that was read before"));
    assert_eq!(line(&mut tail).await, "four");
    silence(&mut tail).await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_position_of_rewritten_content_is_not_believed() {
    let log = Log::new();
    log.append("auth.log", "");
    let mut tail = log.tail(&[]);
    log.append("auth.log", "one\n");
    assert_eq!(line(&mut tail).await, "one");
    silence(&mut tail).await;
    let positions = tail.positions();
    drop(tail);
    fs::write(log.path("auth.log"), "other content in the same inode\n").expect("rewrite");
    let mut tail = log.tail(&positions);
    assert_eq!(line(&mut tail).await, "other content in the same inode");
}

#[tokio::test(flavor = "current_thread")]
async fn an_overflow_of_events_loses_no_line() {
    let log = Log::new();
    log.append("auth.log", "");
    let mut tail = log.tail(&[]);
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(16_384);
    if limit > 200_000 {
        println!("skipped: fs.inotify.max_queued_events is {limit}, too much to fill in a test");
        return;
    }
    assert!(tail.take().is_none());
    // Names that differ, since equal events in a row become one.
    for round in 0..=limit / 2 {
        let name = log.path(&format!("x{round}"));
        File::create(&name).expect("create");
        fs::remove_file(&name).expect("remove");
    }
    log.append("auth.log", "after the overflow\n");
    let seen = tokio::time::timeout(Duration::from_secs(20), async {
        let mut overflow = false;
        loop {
            match tail.next().await {
                Item::Note(note) => overflow |= note.message.contains("overflowed"),
                Item::Line(line) => return (overflow, line.bytes),
                Item::Opened => {}
            }
        }
    });
    assert_eq!(seen.await.expect("in time"), (true, b"after the overflow".to_vec()));
}

#[tokio::test(flavor = "current_thread")]
async fn every_line_of_a_fast_writer_arrives_once_through_rotations() {
    let log = Log::new();
    log.append("auth.log", "");
    let mut tail = log.tail(&[]);
    let (current, rotated) = (log.path("auth.log"), log.path("auth.log.1"));
    let writer = std::thread::spawn(move || {
        for part in 0..5 {
            let mut file = OpenOptions::new().append(true).create(true).open(&current).expect("a file");
            for number in 0..4000 {
                file.write_all(format!("{}\n", part * 4000 + number).as_bytes()).expect("write");
            }
            if part < 4 {
                fs::rename(&current, &rotated).expect("rename");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    for expected in 0..20_000 {
        assert_eq!(line_within(&mut tail, Duration::from_secs(10)).await, expected.to_string());
    }
    writer.join().expect("the writer");
    silence(&mut tail).await;
}
