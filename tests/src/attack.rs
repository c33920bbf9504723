//! What an attacker does from its own host.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
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
        let mut ssh = self.netns.command("ssh");
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
        ssh.arg("-l").arg(user).arg(target.to_string()).arg(remote);
        command::output(&mut ssh, limit)
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
    pub fn serve(&self, port: u16, content: &str) -> Result<HttpServer> {
        let address: SocketAddr = (std::net::Ipv6Addr::UNSPECIFIED, port).into();
        let listener = self.netns.within(|| {
            TcpListener::bind(address).map_err(Error::io(format!("cannot listen on port {port}")))
        })?;
        listener.set_nonblocking(true).map_err(Error::io("cannot prepare the HTTP server"))?;
        let server = HttpServer { stop: Arc::default(), requests: Arc::default() };
        let (stop, requests, content) = (server.stop.clone(), server.requests.clone(), content.to_owned());
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

fn answer(mut stream: TcpStream, content: &str) -> io::Result<String> {
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
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{content}",
        content.len()
    )?;
    stream.flush()?;
    Ok(String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned())
}

/// The program that tells the ssh client the password: one line of shell in a file of our own.
fn askpass() -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
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
