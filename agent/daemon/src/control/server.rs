//! The agent's end of the control socket.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::peer::{supplementary_groups, Operators};
use crate::request::{Desk, Reply, Request};

/// Connections served at once; more wait in the kernel's queue.
const CLIENTS: usize = 8;
/// Longest request line, in bytes.
const MAX_LINE: u64 = 64 * 1024;
/// How long a client may take to send one request.
const READ: Duration = Duration::from_secs(5);
/// How long a client may take to fetch one reply.
const WRITE: Duration = Duration::from_secs(10);
/// How long the pipeline may take; nft(8) on a slow device takes some seconds.
const ANSWER: Duration = Duration::from_secs(30);
/// How long one client may hold its place, whatever it does.
const VISIT: Duration = Duration::from_secs(60);
/// Pause after a failed accept: out of descriptors, for instance.
const PAUSE: Duration = Duration::from_millis(200);

/// Makes the socket: mode 0660, owned by whoever the agent is by then.
///
/// It takes the place of a socket that an earlier agent left. It gets its mode before its name, so that at no time somebody
/// else can connect. The caller holds the process id lock, so the name cannot belong to an agent that runs.
///
/// # Errors
/// What the kernel says; among others when the directory is not there, or the path is longer than a socket's name can be.
pub fn bind(path: &Path) -> io::Result<StdListener> {
    let unfinished = path.with_extension("new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdListener::bind(&unfinished)?;
    fs::set_permissions(&unfinished, Permissions::from_mode(0o660))?;
    fs::rename(&unfinished, path)?;
    Ok(listener)
}

/// Serves clients until the task is dropped.
///
/// # Errors
/// When the listener cannot be watched; nothing was served then.
pub async fn serve(listener: StdListener, desk: Desk, operators: Operators) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let mut clients = JoinSet::new();
    loop {
        if clients.len() >= CLIENTS {
            clients.join_next().await;
            continue;
        }
        tokio::select! {
            Some(_) = clients.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let desk = desk.clone();
                    clients.spawn(async move {
                        // A client that overstays or breaks off needs no answer.
                        let _ = timeout(VISIT, attend(stream, &desk, operators)).await;
                    });
                }
                Err(error) => {
                    tracing::warn!("control socket: cannot accept a client: {error}");
                    sleep(PAUSE).await;
                }
            },
        }
    }
}

/// Answers one client until it leaves.
async fn attend(stream: UnixStream, desk: &Desk, operators: Operators) -> io::Result<()> {
    let operator = is_operator(&stream, operators);
    let root = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0);
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(1024, reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        match timeout(READ, read_line(&mut reader, &mut line)).await {
            Ok(Ok(Line::End)) => return Ok(()),
            Ok(Ok(Line::Whole)) => {}
            Ok(Ok(Line::TooLong)) => {
                let error = format!("a request is one line of at most {MAX_LINE} bytes");
                return write(&mut writer, &Reply::Failed { error }).await;
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        }
        let reply = answer(&line, desk, operator, root).await;
        write(&mut writer, &reply).await?;
    }
}

/// Fails towards "no": who cannot be identified is not an operator.
fn is_operator(stream: &UnixStream, operators: Operators) -> bool {
    let Ok(peer) = stream.peer_cred() else { return false };
    // Before Linux 4.13 there is only the primary group; the socket's mode has let the peer in already.
    let mut groups = supplementary_groups(stream.as_fd()).unwrap_or_default();
    groups.push(peer.gid());
    operators.include(peer.uid(), &groups)
}

enum Line {
    Whole,
    TooLong,
    End,
}

async fn read_line(reader: &mut BufReader<OwnedReadHalf>, line: &mut Vec<u8>) -> io::Result<Line> {
    let read = reader.take(MAX_LINE).read_until(b'\n', line).await?;
    Ok(match line.last() {
        Some(b'\n') => Line::Whole,
        Some(_) if read as u64 == MAX_LINE => Line::TooLong,
        // A half line and nothing after it: the client broke off.
        _ => Line::End,
    })
}

async fn answer(line: &[u8], desk: &Desk, operator: bool, root: bool) -> Reply {
    let request = match Request::from_json(line) {
        Ok(request) => request,
        Err(error) => return Reply::Failed { error: format!("not a request this agent knows: {error}") },
    };
    if request.is_privileged() && !operator {
        let error = format!("only root and members of group {} may ask this", super::GROUP);
        return Reply::Refused { error };
    }
    if matches!(request, Request::Pam { .. }) && !root {
        // Whose sessions begin is for those to say who open them.
        return Reply::Refused { error: "only root may say this".to_owned() };
    }
    if let Err(error) = request.check() {
        return Reply::Failed { error };
    }
    match timeout(ANSWER, desk.ask(request)).await {
        Ok(reply) => reply,
        Err(_) => {
            Reply::Failed { error: format!("the agent has not answered within {} s", ANSWER.as_secs()) }
        }
    }
}

async fn write(writer: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let mut text = serde_json::to_vec(reply)?;
    text.push(b'\n');
    timeout(WRITE, writer.write_all(&text)).await?
}
