//! The control socket, both ends, over a real socket.

#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests; the functions they share are tests too.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use defender_daemon::control::{self, Error, Operators};
use defender_daemon::request::{Desk, Reply, Request, StatusReport};

/// Nobody on the machines the tests run on.
const STRANGER: u32 = 65534;

/// A server on a runtime of its own, with a pipeline that answers like an agent and writes down what it was asked.
struct Server {
    directory: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Request>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start(operators: Operators) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = control::bind(&directory.path().join("control.sock")).unwrap();
        let (desk, mut requests) = Desk::open();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        runtime.spawn(async move {
            while let Some((request, answer)) = requests.recv().await {
                notes.lock().unwrap().push(request.clone());
                let reply = match request {
                    Request::Status => {
                        Reply::Status(Box::new(StatusReport { armed: true, ..StatusReport::default() }))
                    }
                    Request::Events { limit } => Reply::Events {
                        lines: (0..limit).map(|at| format!("{{\"n\":{at}}}").into()).collect(),
                    },
                    Request::Unblock { .. } => Reply::Done { changed: false },
                    _ => Reply::Done { changed: true },
                };
                let _ = answer.send(reply);
            }
        });
        runtime.spawn(control::serve(listener, desk, operators));
        Self { directory, asked, _runtime: runtime }
    }

    /// We are root or the agent's own user, so an operator.
    fn ours() -> Self {
        Self::start(Operators { uid: own_uid(), gid: None })
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

fn own_uid() -> u32 {
    std::fs::metadata("/proc/self").unwrap().uid()
}

/// What comes back until the server closes.
fn rest(mut stream: &UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_socket_has_its_mode_before_its_name_and_replaces_a_left_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    let left_over = std::fs::metadata(&path).unwrap().ino();
    let _listener = control::bind(&path).unwrap();
    let made = std::fs::metadata(&path).unwrap();
    assert!(made.file_type().is_socket());
    assert_eq!(made.permissions().mode() & 0o7777, 0o660);
    assert_ne!(made.ino(), left_over);
    let names: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["control.sock"]);
    assert!(control::bind(&directory.path().join("missing/control.sock")).is_err());
}

#[test]
fn requests_and_replies_travel_whole() {
    let server = Server::ours();
    let ask = |request| control::ask(&server.socket(), &request).unwrap();
    assert!(matches!(ask(Request::Status), Reply::Status(report) if report.armed));
    // Larger than every buffer on the way.
    match ask(Request::Events { limit: 200_000 }) {
        Reply::Events { lines } => {
            assert_eq!(lines.len(), 200_000);
            assert_eq!(&*lines[199_999], "{\"n\":199999}");
        }
        other => panic!("{other:?}"),
    }
    let address: IpAddr = "2001:db8::7".parse().unwrap();
    let block = Request::Block { address, seconds: Some(60), reason: "noise \u{1b} \"".into() };
    assert_eq!(ask(block.clone()), Reply::Done { changed: true });
    assert_eq!(ask(Request::Unblock { address }), Reply::Done { changed: false });
    assert!(server.asked.lock().unwrap().contains(&block));
}

#[test]
fn one_connection_may_ask_several_times() {
    let server = Server::ours();
    let stream = server.raw();
    (&stream).write_all(b"{\"request\":\"status\"}\n{\"request\":\"blocked\"}\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let text = rest(&stream);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains("\"reply\":\"status\"") && lines[1].contains("\"reply\":\"done\""), "{text}");
}

#[test]
fn what_is_no_request_is_answered_and_what_is_out_of_range_is_not_passed_on() {
    let server = Server::ours();
    for (line, says) in [
        (&b"hello\n"[..], "not a request"),
        (b"\n", "not a request"),
        (b"\xff\xfe\n", "not a request"),
        (b"{\"request\":\"format_disk\"}\n", "`format_disk` is none"),
        (b"{\"request\":\"block\",\"address\":\"1.2.3\",\"reason\":\"\"}\n", "not a request"),
        (
            b"{\"request\":\"block\",\"address\":\"1.2.3.4\",\"seconds\":0,\"reason\":\"\"}\n",
            "from 1 to 2592000",
        ),
        (
            b"{\"request\":\"block\",\"address\":\"1.2.3.4\",\"seconds\":2592001,\"reason\":\"\"}\n",
            "from 1 to 2592000",
        ),
    ] {
        let stream = server.raw();
        (&stream).write_all(line).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let text = rest(&stream);
        assert!(text.contains("\"reply\":\"failed\"") && text.contains(says), "{line:?}: {text}");
    }
    assert_eq!(*server.asked.lock().unwrap(), []);
}

#[test]
fn a_line_without_end_is_not_collected_for_ever() {
    let server = Server::ours();
    let stream = server.raw();
    // The server may close while we still write: that is its right.
    let _ = (&stream).write_all(&vec![b'x'; 200 * 1024]);
    let mut text = Vec::new();
    let _ = (&stream).read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    assert!(text.is_empty() || text.contains("at most 65536 bytes"), "{text}");
    assert!(control::ask(&server.socket(), &Request::Status).is_ok());
}

#[test]
fn clients_that_say_nothing_keep_others_waiting_only_for_a_while() {
    let server = Server::ours();
    let silent: Vec<UnixStream> = (0..20).map(|_| server.raw()).collect();
    let began = Instant::now();
    // 20 silent clients, 8 places, 5 s each: a place is free after 15 s at most. The client itself waits long enough.
    assert!(control::ask(&server.socket(), &Request::Status).is_ok());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    for stream in &silent[..8] {
        assert_eq!(rest(stream), "");
    }
}

/// Runs this test binary's `asks_as_somebody_else` under another user and group.
fn ask_as(uid: u32, gid: u32, socket: &Path, what: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "asks_as_somebody_else", "--nocapture"])
        .env("CONTROL_TEST_SOCKET", socket)
        .env("CONTROL_TEST_REQUEST", what)
        .uid(uid)
        .gid(gid)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The other half of the tests below; does nothing when it is not called by them.
#[test]
fn asks_as_somebody_else() {
    let Some(socket) = std::env::var_os("CONTROL_TEST_SOCKET") else { return };
    let request = match std::env::var("CONTROL_TEST_REQUEST").unwrap().as_str() {
        "status" => Request::Status,
        _ => Request::Blocked,
    };
    match control::ask(Path::new(&socket), &request) {
        Ok(reply) => println!("got {reply:?}"),
        Err(error) => println!("got {error:?}: {error}"),
    }
}

#[test]
fn strangers_get_the_status_at_most() {
    if own_uid() != 0 {
        println!("skipped: needs root, to ask as another user");
        return;
    }
    let server = Server::start(Operators { uid: 990, gid: Some(4242) });
    let open = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    // The test binary has to be within reach of the other user.
    let binary = std::env::current_exe().unwrap();
    let reach = Command::new("test").arg("-x").arg(&binary).uid(STRANGER).gid(STRANGER).status().unwrap();
    if !reach.success() {
        println!("skipped: another user cannot execute {}", binary.display());
        return;
    }
    let socket = server.socket();
    open(server.directory.path(), 0o755);
    let said = ask_as(STRANGER, STRANGER, &socket, "status");
    assert!(said.contains("got Denied") && said.contains("members of group defender"), "{said}");
    // A mode somebody changed by hand lets strangers connect, and still not ask everything.
    open(&socket, 0o666);
    let said = ask_as(STRANGER, STRANGER, &socket, "status");
    assert!(said.contains("got Status"), "{said}");
    let said = ask_as(STRANGER, STRANGER, &socket, "blocked");
    assert!(said.contains("got Refused"), "{said}");
    let said = ask_as(STRANGER, 4242, &socket, "blocked");
    assert!(said.contains("got Done"), "{said}");
    let said = ask_as(990, 990, &socket, "blocked");
    assert!(said.contains("got Done"), "{said}");
}

#[test]
fn an_agent_that_does_not_run_is_said_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let not_running = |path: &Path| match control::ask(path, &Request::Status) {
        Err(error @ Error::NotRunning { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let said = not_running(&path);
    assert!(said.contains("not running") && said.contains(path.to_str().unwrap()), "{said}");
    drop(UnixListener::bind(&path).unwrap());
    not_running(&path);
}

#[test]
fn an_agent_that_breaks_off_or_talks_nonsense_is_said_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        for answer in [&b""[..], b"{\"reply\":", b"{\"reply\":\"no such\"}\n", b"\xff\n"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
        }
    });
    let ask = || control::ask(&path, &Request::Status).unwrap_err();
    assert!(matches!(ask(), Error::Broken { .. }));
    assert!(matches!(ask(), Error::Broken { .. }));
    assert!(matches!(ask(), Error::NotAReply { .. }));
    assert!(matches!(ask(), Error::NotAReply { .. }));
    server.join().unwrap();
}
