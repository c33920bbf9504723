//! `defender pam` as pam_exec(8) calls it: what it sends, and that it never stands in anybody's way.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use defender_daemon::request::Request;
use defender_sensors::login::pam::Items;

/// Far more than its own 200 ms, for slow machines; far less than "hangs".
const PATIENCE: Duration = Duration::from_secs(20);

fn call(arguments: &[&str]) -> ExitStatus {
    let mut child = Command::new(env!("CARGO_BIN_EXE_defender"))
        .arg("pam")
        .args(arguments)
        .envs([("PAM_TYPE", "open_session"), ("PAM_USER", "root"), ("PAM_RHOST", "192.0.2.7")])
        .envs([("PAM_TTY", "ssh"), ("PAM_SERVICE", "sshd")])
        .spawn()
        .expect("it starts");
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a status") {
            return status;
        }
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("it hangs with {arguments:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn it_sends_what_pam_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("control.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    assert!(call(&["--socket", text(&path)]).success());
    // It has ended; what it sent waits.
    let (stream, _) = listener.accept().expect("a connection");
    let mut line = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut line).expect("a line");
    let items = Items {
        kind: "open_session".into(),
        user: "root".into(),
        rhost: "192.0.2.7".into(),
        tty: "ssh".into(),
        service: "sshd".into(),
        pid: std::process::id(),
    };
    assert_eq!(Request::from_json(&line), Ok(Request::pam(items)));
}

#[test]
fn it_succeeds_whatever_the_agent_does() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("missing.sock");
    assert!(call(&["--socket", text(&missing)]).success(), "no socket");
    fs::write(directory.path().join("file"), "").expect("write");
    assert!(call(&["--socket", text(&directory.path().join("file"))]).success(), "not a socket");
    let stale = directory.path().join("stale.sock");
    drop(UnixListener::bind(&stale).expect("bind"));
    assert!(call(&["--socket", text(&stale)]).success(), "nobody listens");
    for wrong in [&["--socket"][..], &["--sokcet", "x"], &["nonsense", ""]] {
        assert!(call(wrong).success(), "{wrong:?}");
    }
}

#[test]
fn it_succeeds_when_the_agent_hangs() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("control.sock");
    let _listener = UnixListener::bind(&path).expect("bind");
    // Nobody accepts, and the queue is full: the next connection blocks.
    let mut waiting: Vec<UnixStream> = Vec::new();
    let socket = path.clone();
    let (full, filled) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Ok(stream) = UnixStream::connect(&socket) {
            if full.send(stream).is_err() {
                break;
            }
        }
    });
    while let Ok(stream) = filled.recv_timeout(Duration::from_secs(2)) {
        waiting.push(stream);
    }
    assert!(!waiting.is_empty());
    assert!(call(&["--socket", text(&path)]).success());
}

/// Linux-PAM's own module and the setuid su(1): what the documented line comes to when a user who is not root begins a session. pam_exec(8)
/// leaves the real user as it is, and the effective one, whom the kernel names to the agent, is root.
#[test]
fn a_users_su_is_told_by_root() {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: only root can put another PAM configuration in su's place");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    // As the agent's own socket: nobody but root gets to it.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).expect("chmod");
    let path = directory.path().join("control.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    listener.set_nonblocking(true).expect("nonblocking");
    let shipped = include_str!("../../../rootfs-overlay/usr/share/defender/examples/pam-session");
    let session = shipped.lines().last().expect("a line").replace(
        "/usr/bin/defender pam",
        &format!("{} pam --socket {}", env!("CARGO_BIN_EXE_defender"), text(&path)),
    );
    assert!(session.contains("--socket"), "the example calls /usr/bin/defender");
    let stack = directory.path().join("su");
    fs::write(
        &stack,
        format!("auth sufficient pam_permit.so\naccount sufficient pam_permit.so\n{session}\n"),
    )
    .expect("write");
    let script = format!(
        "mount --bind {} /etc/pam.d/su && exec setpriv --reuid 65534 --regid 65534 --clear-groups su root -c true",
        text(&stack)
    );
    let status =
        Command::new("timeout").args(["20", "unshare", "-m", "sh", "-c", &script]).status().expect("it runs");
    assert!(status.success(), "su says {status}");
    // It has ended; what was sent waits.
    for kind in ["open_session", "close_session"] {
        let (stream, _) = listener.accept().unwrap_or_else(|error| panic!("{kind}: {error}"));
        stream.set_nonblocking(false).expect("blocking");
        let mut line = Vec::new();
        BufReader::new(stream).read_until(b'\n', &mut line).expect("a line");
        let Ok(Request::Pam { kind: told, user, service, .. }) = Request::from_json(&line) else {
            panic!("{}", String::from_utf8_lossy(&line))
        };
        assert_eq!((told.as_str(), user.as_str(), service.as_str()), (kind, "root", "su"));
    }
}
