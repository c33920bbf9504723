//! Runs inside the guest of a test boot and executes what the host asks for.
//!
//! `control-agent ROOT READY`: finds the control port, enters ROOT, writes to the file READY (named in the old root) and
//! then answers requests until the machine ends. It is started by the initramfs (see `image/initramfs/init`), before the
//! image's own init, and is no part of any image.
//!
//! Compiled by `rustc` alone as a static program; see `image::guest`.

#[allow(dead_code, unreachable_pub)]
#[path = "../control/wire.rs"]
mod wire;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use wire::Message;

/// How often a port without a host, or a running command, is looked at again.
const POLL: Duration = Duration::from_millis(5);

/// How long output is still collected after the command itself ended: a background process may hold the pipe for ever.
const LINGER: Duration = Duration::from_millis(200);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, root, ready] = &arguments[..] else {
        say("usage: control-agent ROOT READY");
        return;
    };
    let port = match open_port() {
        Ok(port) => port,
        Err(error) => {
            say(&format!("cannot open the control port: {error}"));
            return;
        }
    };
    // Created in the old root and written to from the new one: the initramfs waits until it is not empty.
    let ready = File::create(ready);
    if let Err(error) = enter(root).and_then(|()| ready?.write_all(b"ready\n")) {
        say(&format!("cannot enter {root}: {error}"));
        return;
    }
    if let Err(error) = serve(port) {
        say(&format!("control port failed: {error}"));
    }
}

/// To the console, which the harness keeps as the boot's log.
fn say(text: &str) {
    // Nobody is left to be told if the console is gone.
    let _ = writeln!(io::stderr(), "control-agent: {text}");
}

fn enter(root: &str) -> io::Result<()> {
    std::os::unix::fs::chroot(root)?;
    std::env::set_current_dir("/")
}

/// The port appears a moment after its driver is loaded.
fn open_port() -> io::Result<File> {
    let start = Instant::now();
    loop {
        for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            if fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == wire::PORT) {
                return OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(PathBuf::from("/dev").join(entry.file_name()));
            }
        }
        if start.elapsed() > Duration::from_secs(10) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no virtio port of that name"));
        }
        thread::sleep(POLL);
    }
}

fn serve(port: File) -> io::Result<()> {
    let mut to = port.try_clone()?;
    let mut from = BufReader::with_capacity(64 << 10, port);
    loop {
        match Message::read(&mut from) {
            Ok(Some(Message::Syn(nonce))) => Message::Ack(nonce).write(&mut to)?,
            Ok(Some(Message::Run { id, milliseconds, command, input })) => {
                let (status, output, error) = run(&command, input, Duration::from_millis(milliseconds));
                Message::End { id, status, output, error }.write(&mut to)?;
            }
            Ok(Some(_)) => {}
            // The host is not connected.
            Ok(None) => thread::sleep(POLL),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => thread::sleep(POLL),
            Err(error) => return Err(error),
        }
    }
}

fn run(command: &[u8], input: Vec<u8>, limit: Duration) -> (i32, Vec<u8>, Vec<u8>) {
    let shell = Command::new("/bin/sh")
        .arg("-c")
        .arg(String::from_utf8_lossy(command).as_ref())
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match shell {
        Ok(child) => child,
        Err(error) => return (127, Vec::new(), format!("cannot start /bin/sh: {error}").into_bytes()),
    };
    if let Some(mut pipe) = child.stdin.take() {
        thread::spawn(move || {
            // A command is free not to read its input.
            let _ = pipe.write_all(&input);
        });
    }
    let output = child.stdout.take().map(collect);
    let error = child.stderr.take().map(collect);
    let start = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            Ok(None) if start.elapsed() > limit => {
                // The whole group: what the command started must not outlive it and slow the tests that follow.
                let _ = Command::new("/bin/sh").arg("-c").arg(format!("kill -9 -{}", child.id())).status();
                let _ = child.kill();
                let _ = child.wait();
                break wire::STATUS_TIMED_OUT;
            }
            Ok(None) => {
                thread::sleep(if start.elapsed() < Duration::from_secs(1) { POLL } else { POLL * 10 });
            }
            Err(_) => break 127,
        }
    };
    let deadline = Instant::now() + LINGER;
    let gather = |chunks: Option<mpsc::Receiver<Vec<u8>>>| {
        let mut all = Vec::new();
        if let Some(chunks) = chunks {
            while let Ok(chunk) = chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                all.extend(chunk);
            }
        }
        all.truncate(wire::MAX_BODY);
        all
    };
    (status, gather(output), gather(error))
}

/// Reads a pipe in a thread of its own; the receiver ends when the pipe does.
fn collect(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut total = 0;
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length) = pipe.read(&mut buffer) {
            if length == 0 {
                break;
            }
            total += length;
            // Read on in silence: a full pipe would stop the command.
            if total <= wire::MAX_BODY && sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}
