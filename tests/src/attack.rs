//! What an attacker does from its own host.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs, process};

use crate::command;
use crate::error::{Error, Result};
use crate::lab::Node;

/// What became of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// Established.
    Open,
    /// The other side sent a reset.
    Refused,
    /// No answer in time: dropped on the way.
    Silence,
}

/// How long an ssh client may take for one connection: the guest's processor is emulated.
const SSH: Duration = Duration::from_secs(60);

/// The same for a connection that only offers wrong passwords: servers answer each a few seconds late.
const GUESSES: Duration = Duration::from_secs(25);

impl Node {
    /// Tries a TCP connection to `port` of `target`, waiting at most `limit` for the answer.
    ///
    /// # Errors
    /// When the attempt fails for a reason that is neither of [`Reached`].
    pub fn connect(&self, target: IpAddr, port: u16, limit: Duration) -> Result<Reached> {
        self.netns.within(|| match TcpStream::connect_timeout(&SocketAddr::new(target, port), limit) {
            Ok(_) => Ok(Reached::Open),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Reached::Refused),
            // "No route to host" is what an unanswered neighbour request becomes: the host answers nothing at all.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable) =>
            {
                Ok(Reached::Silence)
            }
            Err(error) => Err(Error::io(format!("connect to {target} port {port}"))(error)),
        })
    }

    /// One ssh connection as `user` that offers `password` up to `prompts` times and then runs `remote`. Its status is
    /// that of `remote`, or 255.
    ///
    /// # Errors
    /// When the client cannot be run or takes too long.
    pub fn ssh(
        &self,
        target: IpAddr,
        user: &str,
        password: &str,
        prompts: u32,
        remote: &str,
    ) -> Result<Output> {
        self.ssh_within(SSH, target, user, password, prompts, remote)
    }

    fn ssh_within(
        &self,
        limit: Duration,
        target: IpAddr,
        user: &str,
        password: &str,
        prompts: u32,
        remote: &str,
    ) -> Result<Output> {
        let mut ssh = self.ssh_client("ssh", password, prompts)?;
        ssh.arg("-l").arg(user).arg(target.to_string()).arg(remote);
        command::output(&mut ssh, limit)
    }

    /// Logs in over ssh as `user` and leaves the shell, at a terminal of its own, open for [`Session::type_line`].
    ///
    /// # Errors
    /// When the client cannot be run.
    pub fn session(&self, target: IpAddr, user: &str, password: &str) -> Result<Session> {
        let mut ssh = self.ssh_client("ssh", password, 1)?;
        ssh.arg("-l").arg(user);
        // Twice: also without a terminal here.
        ssh.arg("-tt").arg(target.to_string());
        Session::start(&mut ssh)
    }

    /// Copies a file of the build machine to the target.
    ///
    /// # Errors
    /// When that fails.
    pub fn scp(&self, target: IpAddr, user: &str, password: &str, from: &str, to: &str) -> Result<()> {
        let mut scp = self.ssh_client("scp", password, 1)?;
        scp.arg(from).arg(format!("{user}@{target}:{to}"));
        command::run(&mut scp, SSH).map(drop)
    }

    /// `ssh` or `scp` that asks nobody; the target and what follows are still to be given.
    fn ssh_client(&self, program: &str, password: &str, prompts: u32) -> Result<Command> {
        let mut ssh = self.netns.command(program);
        // The client asks this program for the password, every time with the same answer.
        ssh.env("SSH_ASKPASS", askpass()?)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("VALIDATION_PASSWORD", password);
        ssh.env_remove("SSH_AUTH_SOCK");
        for option in [
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=no",
            "LogLevel=ERROR",
            "PubkeyAuthentication=no",
            "PreferredAuthentications=password,keyboard-interactive",
            "ConnectTimeout=20",
        ] {
            ssh.arg("-o").arg(option);
        }
        ssh.arg("-F").arg("/dev/null").arg("-o").arg(format!("NumberOfPasswordPrompts={prompts}"));
        Ok(ssh)
    }

    /// `count` wrong passwords for `user`, in as few connections as the client makes of it. Ends early, without an error,
    /// once the target no longer answers; returns how many connections were made.
    ///
    /// # Errors
    /// When the client cannot be run, or a wrong password opens the door.
    pub fn guess_passwords(&self, target: IpAddr, user: &str, count: u32) -> Result<u32> {
        // Clients ask up to three times by default, which also stays below every server's limit for one connection.
        let per_connection = 3;
        let mut left = count;
        let mut connections = 0;
        while left > 0 {
            let prompts = left.min(per_connection);
            if self.connect(target, 22, Duration::from_secs(2))? != Reached::Open {
                break;
            }
            // A block in the middle of a connection leaves the client without an answer.
            let output =
                match self.ssh_within(GUESSES, target, user, &format!("wrong-{left}"), prompts, "true") {
                    Err(Error::TimedOut { .. }) => return Ok(connections + 1),
                    other => other?,
                };
            if output.status.success() {
                return Err(Error::Unexpected(format!("{user} got in with a wrong password")));
            }
            connections += 1;
            left -= prompts;
        }
        Ok(connections)
    }

    /// Serves `content` at every path over HTTP on `port` of this host until the result is dropped.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub fn serve(&self, port: u16, content: impl Into<Vec<u8>>) -> Result<HttpServer> {
        let address: SocketAddr = (std::net::Ipv6Addr::UNSPECIFIED, port).into();
        let listener = self.netns.within(|| {
            TcpListener::bind(address).map_err(Error::io(format!("cannot listen on port {port}")))
        })?;
        listener.set_nonblocking(true).map_err(Error::io("cannot prepare the HTTP server"))?;
        let server = HttpServer { stop: Arc::default(), requests: Arc::default() };
        let (stop, requests, content) = (server.stop.clone(), server.requests.clone(), content.into());
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, from)) => match answer(stream, &content) {
                        Ok(request) => {
                            requests.lock().unwrap_or_else(PoisonError::into_inner).push((from, request));
                        }
                        // A client that went away: the next one counts.
                        Err(_) => continue,
                    },
                    Err(_) => thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Ok(server)
    }
}

/// A shell on the target, at the other end of an ssh connection. Dropping it closes the connection.
#[derive(Debug)]
pub struct Session {
    client: Child,
    keyboard: Option<ChildStdin>,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Session {
    fn start(ssh: &mut Command) -> Result<Self> {
        let mut client = ssh
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::io("cannot start ssh"))?;
        let keyboard = client.stdin.take();
        let screen: Arc<Mutex<Vec<u8>>> = Arc::default();
        if let Some(mut output) = client.stdout.take() {
            let screen = Arc::clone(&screen);
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                // Ends with the connection.
                while let Ok(length @ 1..) = output.read(&mut buffer) {
                    screen
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .extend_from_slice(&buffer[..length]);
                }
            });
        }
        Ok(Self { client, keyboard, screen })
    }

    /// Types a line, as a person would; does not wait for anything to come of it.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        let keyboard = self
            .keyboard
            .as_mut()
            .ok_or_else(|| Error::Unexpected("the ssh session has no standard input".into()))?;
        keyboard
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| keyboard.flush())
            .map_err(Error::io(format!("cannot type `{line}` into the ssh session")))
    }

    /// Types a line and waits until the shell has done it.
    ///
    /// # Errors
    /// When the connection is gone, or `limit` passes first; then with what the screen shows.
    pub fn complete(&mut self, line: &str, limit: Duration) -> Result<()> {
        self.type_line(line)?;
        // The terminal echoes the line with the quotes; what the shell prints has none.
        self.type_line("echo session-'is'-ready")?;
        self.shows("session-is-ready", limit)
    }

    /// Waits until the screen shows `text`, and clears it.
    ///
    /// # Errors
    /// When `limit` passes first; then with what the screen shows.
    pub fn shows(&self, text: &str, limit: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.take_screen(text) {
                Ok(()) => return Ok(()),
                Err(seen) if start.elapsed() > limit => {
                    return Err(Error::TimedOut {
                        what: format!("`{text}` on the ssh session's screen"),
                        after: limit,
                        seen,
                    });
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Clears the screen if it shows `text`; otherwise says what it shows.
    fn take_screen(&self, text: &str) -> std::result::Result<(), String> {
        let mut screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = String::from_utf8_lossy(&screen).into_owned();
        if shown.contains(text) {
            screen.clear();
            return Ok(());
        }
        Err(shown)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.keyboard.take());
        // It may have ended by itself.
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// A running HTTP server; ends when dropped.
#[derive(Debug)]
pub struct HttpServer {
    stop: Arc<AtomicBool>,
    requests: Arc<Mutex<Vec<(SocketAddr, String)>>>,
}

impl HttpServer {
    /// Who asked for what so far: the peer and its request line.
    #[must_use]
    pub fn requests(&self) -> Vec<(SocketAddr, String)> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn answer(mut stream: TcpStream, content: &[u8]) -> io::Result<String> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < 16 << 10 {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        request.extend_from_slice(&buffer[..length]);
    }
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len())?;
    stream.write_all(content)?;
    stream.flush()?;
    Ok(String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned())
}

/// The program that tells the ssh client the password: one line of shell in a file of our own.
fn askpass() -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    // Several machines are attacked at once: whoever comes second waits until it is whole.
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = env::temp_dir().join(format!("defender-validation-askpass-{}", process::id()));
    if !path.exists() {
        let failed = format!("cannot write {}", path.display());
        fs::write(&path, "#!/bin/sh\nprintf '%s\\n' \"$VALIDATION_PASSWORD\"\n")
            .map_err(Error::io(failed.clone()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(Error::io(failed))?;
    }
    Ok(path)
}

/// Removes what the ssh client needed.
pub fn clean_up() {
    let path: &Path = &env::temp_dir().join(format!("defender-validation-askpass-{}", process::id()));
    // It may never have been needed.
    let _ = fs::remove_file(path);
}
