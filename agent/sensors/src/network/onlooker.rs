//! Which process a socket belongs to, asked of a process of its own.
//!
//! The kernel tells whose socket it is only through `/proc/PID/fd`, and a Landlock domain, such as the agent lives in, closes that for
//! whatever capabilities a process holds. So a second process looks: it has no network, writes nothing, and answers the one question.
//!
//! Questions have a fixed size; an answer is its length in two bytes, then the answer. Both come from processes of ours, and are still
//! read as if they did not: a wrong length ends the conversation.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use defender_model::network::Protocol;
use defender_model::process::{Actor, Ancestor};
use defender_model::text::truncate;

use super::attribute::address;
use super::socket;
use crate::process::procfs;

/// Bytes of a question: ticket, protocol, and both ends as IPv6 addresses with ports.
const QUESTION: usize = 8 + 1 + 2 * (16 + 2);
/// Questions taken together: one walk through the file descriptors answers them all.
const TOGETHER: usize = 256;
/// Bytes of a program's path and of a command line in an answer.
const PATH: usize = 4096;
const COMMAND_LINE: usize = 1024;
/// The same of those further up than the parent.
const FURTHER_UP: usize = 256;
/// Longest answer: ticket, user, login user, and the programs.
const ANSWER: usize = 8
    + 2 * 4
    + (1 + Ancestor::LEVELS) * (4 + 2 + 2 + PATH)
    + 2 * COMMAND_LINE
    + (Ancestor::LEVELS - 1) * FURTHER_UP;
/// Owners remembered between walks.
const REMEMBERED: usize = 32;
/// Stands for an id that is not known.
const NONE: u32 = u32::MAX;

/// Whose socket is it?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) ticket: u64,
    pub(super) protocol: Protocol,
    pub(super) local: (IpAddr, u16),
    pub(super) remote: (IpAddr, u16),
}

impl Question {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.ticket.to_ne_bytes());
        out.push(self.protocol.0);
        for (address, port) in [self.local, self.remote] {
            let v6 = match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            out.extend_from_slice(&v6.octets());
            out.extend_from_slice(&port.to_ne_bytes());
        }
    }

    fn read(bytes: &[u8; QUESTION]) -> Self {
        let end = |at: usize| {
            let address = address(&bytes[at..at + 16]).unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
            (address, u16::from_ne_bytes([bytes[at + 16], bytes[at + 17]]))
        };
        let mut ticket = [0; 8];
        ticket.copy_from_slice(&bytes[..8]);
        Self {
            ticket: u64::from_ne_bytes(ticket),
            protocol: Protocol(bytes[8]),
            local: end(9),
            remote: end(27),
        }
    }
}

/// The looking process: answers until the other end is gone.
///
/// # Errors
/// When the conversation fails for another reason than its end.
pub fn look(mut stream: UnixStream, proc: &Path) -> io::Result<()> {
    let mut waiting = Vec::new();
    let mut buffer = vec![0; QUESTION * TOGETHER];
    let mut owners = VecDeque::new();
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let began = Instant::now();
        waiting.extend_from_slice(&buffer[..count]);
        let whole = waiting.len() - waiting.len() % QUESTION;
        let questions: Vec<Question> = waiting[..whole]
            .chunks_exact(QUESTION)
            .filter_map(|bytes| Some(Question::read(bytes.first_chunk()?)))
            .collect();
        waiting.drain(..whole);
        let mut out = Vec::new();
        answer(proc, &questions, &mut owners, &mut out);
        stream.write_all(&out)?;
        // At most a third of a processor: under a storm, more questions are answered by one walk.
        std::thread::sleep(began.elapsed() * 2);
    }
}

fn answer(proc: &Path, questions: &[Question], owners: &mut VecDeque<u32>, out: &mut Vec<u8>) {
    let mut lists: Vec<(Protocol, Vec<socket::Socket>)> = Vec::new();
    let mut inodes = Vec::with_capacity(questions.len());
    for question in questions {
        let known = lists.iter().position(|(protocol, _)| *protocol == question.protocol);
        let at = known.unwrap_or_else(|| {
            // What was read is right for the questions that came before it was.
            lists.push((question.protocol, socket::read(proc, question.protocol)));
            lists.len() - 1
        });
        let found = socket::find(&lists[at].1, question.protocol, question.local, question.remote);
        inodes.push(found.map(|socket| (socket.inode, socket.waits(question.protocol))));
    }
    drop(lists);
    // A connection belongs to the youngest process that holds it, which is also the one that may be gone soon; a socket that waits
    // for connections to the oldest, which opened it and passed it on.
    let mut wanted = HashMap::new();
    for waits in [false, true] {
        let mut some: HashMap<u64, Option<u32>> =
            inodes.iter().flatten().filter(|inode| inode.1 == waits).map(|inode| (inode.0, None)).collect();
        walk(proc, waits, &mut some, owners);
        wanted.extend(some);
    }
    let mut actors: HashMap<u32, Option<Actor>> = HashMap::new();
    for (question, inode) in questions.iter().zip(inodes) {
        let pid = inode.and_then(|(inode, _)| wanted.get(&inode).copied().flatten());
        let actor = pid.and_then(|pid| actors.entry(pid).or_insert_with(|| describe(proc, pid)).as_ref());
        write_answer(question.ticket, actor, out);
    }
}

/// Finds the processes that hold the sockets: those that held the last ones first, then all.
fn walk(proc: &Path, oldest_first: bool, wanted: &mut HashMap<u64, Option<u32>>, owners: &mut VecDeque<u32>) {
    let mut missing = wanted.len();
    let mut visited = Vec::new();
    for pid in owners.clone().into_iter().chain(Pids { proc, oldest_first, rest: None }) {
        if missing == 0 {
            break;
        }
        if visited.contains(&pid) {
            continue;
        }
        if visited.len() < REMEMBERED {
            visited.push(pid);
        }
        let Ok(descriptors) = fs::read_dir(proc.join(pid.to_string()).join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(owner @ None) = inode.and_then(|inode: u64| wanted.get_mut(&inode)) {
                *owner = Some(pid);
                missing -= 1;
                owners.retain(|owner| *owner != pid);
                owners.push_front(pid);
                owners.truncate(REMEMBERED);
            }
        }
    }
}

/// Process ids, listed only when the first is asked for.
struct Pids<'a> {
    proc: &'a Path,
    oldest_first: bool,
    rest: Option<Vec<u32>>,
}

impl Iterator for Pids<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let rest = self.rest.get_or_insert_with(|| {
            // The kernel lists them by number.
            let mut pids = procfs::pids(self.proc);
            if self.oldest_first {
                pids.reverse();
            }
            pids
        });
        rest.pop()
    }
}

/// The process and those above it, as far as they are there.
fn describe(proc: &Path, pid: u32) -> Option<Actor> {
    let entry = procfs::read(proc, pid)?;
    let process = entry.process;
    let mut above = Vec::new();
    let mut next = entry.ppid;
    while next != 0 && above.len() < Ancestor::LEVELS {
        let Some(entry) = procfs::read(proc, next) else { break };
        above.push((next, entry.process));
        next = entry.ppid;
    }
    let parent = above.into_iter().enumerate().rev().fold(None, |parent, (level, (pid, process))| {
        let line = if level == 0 { COMMAND_LINE } else { FURTHER_UP };
        Some(Arc::new(Ancestor {
            pid,
            executable: truncate(&process.executable, PATH).into(),
            command_line: truncate(&process.command_line(), line).into(),
            parent,
        }))
    });
    Some(Actor {
        pid,
        command_line: truncate(&process.command_line(), COMMAND_LINE).into(),
        executable: truncate(&process.executable, PATH).into(),
        uid: process.uid,
        auid: process.auid,
        user: None,
        parent,
    })
}

fn write_answer(ticket: u64, actor: Option<&Actor>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&ticket.to_ne_bytes());
    if let Some(actor) = actor {
        for id in [actor.uid.unwrap_or(NONE), actor.auid.unwrap_or(NONE)] {
            out.extend_from_slice(&id.to_ne_bytes());
        }
        write_program(actor.pid, &actor.executable, &actor.command_line, out);
        for ancestor in actor.parent.iter().flat_map(|parent| parent.chain()) {
            write_program(ancestor.pid, &ancestor.executable, &ancestor.command_line, out);
        }
    }
    let length = (out.len() - start - 2) as u16;
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
}

/// What is told of every process: its id, and path and command line with their lengths before them.
fn write_program(pid: u32, executable: &str, command_line: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&pid.to_ne_bytes());
    for text in [executable, command_line] {
        out.extend_from_slice(&(text.len() as u16).to_ne_bytes());
        out.extend_from_slice(text.as_bytes());
    }
}

fn read_program(bytes: &mut &[u8]) -> Option<(u32, Arc<str>, Arc<str>)> {
    let (pid, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    let mut text = || {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (text, rest) = rest.split_at_checked(u16::from_ne_bytes(*length).into())?;
        *bytes = rest;
        Some(Arc::from(std::str::from_utf8(text).ok()?))
    };
    Some((u32::from_ne_bytes(*pid), text()?, text()?))
}

/// An answer: its ticket, and the process if it was found. `None` for what is none.
fn read_answer(bytes: &[u8]) -> Option<(u64, Option<Actor>)> {
    let (ticket, rest) = bytes.split_first_chunk::<8>()?;
    let ticket = u64::from_ne_bytes(*ticket);
    if rest.is_empty() {
        return Some((ticket, None));
    }
    let (uid, rest) = rest.split_first_chunk::<4>()?;
    let (auid, mut rest) = rest.split_first_chunk::<4>()?;
    let (pid, executable, command_line) = read_program(&mut rest)?;
    let mut above = Vec::new();
    while !rest.is_empty() && above.len() < Ancestor::LEVELS {
        above.push(read_program(&mut rest)?);
    }
    let parent = above.into_iter().rev().fold(None, |parent, (pid, executable, command_line)| {
        Some(Arc::new(Ancestor { pid, executable, command_line, parent }))
    });
    let id = |bytes: &[u8; 4]| Some(u32::from_ne_bytes(*bytes)).filter(|id| *id != NONE);
    let actor = Actor { pid, executable, command_line, uid: id(uid), auid: id(auid), user: None, parent };
    Some((ticket, Some(actor)))
}

/// The asking end.
#[derive(Debug)]
pub struct Onlooker {
    stream: tokio::net::UnixStream,
    /// The same, for writing without asking the runtime whether there is room.
    questions: UnixStream,
    received: Vec<u8>,
    waiting: usize,
}

/// Questions that may wait for their answers.
const WAITING: usize = 1024;

impl Onlooker {
    /// Talks to a process that [`look`]s. Needs a runtime.
    ///
    /// # Errors
    /// When the stream cannot be registered with the runtime.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let questions = stream.try_clone()?;
        Ok(Self {
            stream: tokio::net::UnixStream::from_std(stream)?,
            questions,
            received: Vec::new(),
            waiting: 0,
        })
    }

    /// Asks; false when too many questions wait already.
    pub(super) fn ask(&mut self, question: &Question) -> bool {
        if self.waiting >= WAITING {
            return false;
        }
        let mut bytes = Vec::with_capacity(QUESTION);
        question.write(&mut bytes);
        // A stream socket of the kernel takes all of so small a message or nothing.
        let asked = self.questions.write(&bytes).is_ok_and(|count| count == QUESTION);
        self.waiting += usize::from(asked);
        asked
    }

    /// Ready when there may be answers.
    pub(super) async fn readable(&self) {
        // An error shows when the answers are read.
        let _ = self.stream.readable().await;
    }

    /// Appends the answers that have come.
    ///
    /// # Errors
    /// When the looking process is gone.
    pub(super) fn answers(&mut self, out: &mut Vec<(u64, Option<Actor>)>) -> io::Result<()> {
        let mut buffer = [0; 8192];
        loop {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            let mut rest = &self.received[..];
            while let Some((length, after)) = rest.split_first_chunk::<2>() {
                let length = usize::from(u16::from_ne_bytes(*length));
                if length > ANSWER {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                let Some((bytes, after)) = after.split_at_checked(length) else { break };
                out.push(read_answer(bytes).ok_or(io::ErrorKind::InvalidData)?);
                self.waiting = self.waiting.saturating_sub(1);
                rest = after;
            }
            let used = self.received.len() - rest.len();
            self.received.drain(..used);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;

    fn end(address: SocketAddr) -> (IpAddr, u16) {
        (address.ip(), address.port())
    }

    #[test]
    fn our_own_sockets_are_ours() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let looking = std::thread::spawn(move || look(far, Path::new("/proc")));
        runtime.block_on(async {
            let mut onlooker = Onlooker::new(near).unwrap();
            let own = Question {
                ticket: 7,
                protocol: Protocol::TCP,
                local: end(client.local_addr().unwrap()),
                remote: end(server),
            };
            let nobody = Question { ticket: 8, local: ("192.0.2.1".parse().unwrap(), 1), ..own };
            assert!(onlooker.ask(&own) && onlooker.ask(&nobody));
            let mut answers = Vec::new();
            while answers.len() < 2 {
                onlooker.readable().await;
                onlooker.answers(&mut answers).unwrap();
            }
            assert_eq!((answers[0].0, answers[1].0), (7, 8));
            assert_eq!(answers[1].1, None);
            let actor = answers[0].1.clone().unwrap();
            assert_eq!(actor.pid, std::process::id());
            assert_eq!(*actor.executable, *std::env::current_exe().unwrap().to_str().unwrap());
            assert!(actor.uid.is_some() && !actor.command_line.is_empty());
            assert_eq!(actor.parent.unwrap().pid, std::os::unix::process::parent_id());
        });
        looking.join().unwrap().unwrap();
    }

    #[test]
    fn an_end_is_noticed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (near, far) = UnixStream::pair().unwrap();
            let mut onlooker = Onlooker::new(near).unwrap();
            drop(far);
            onlooker.readable().await;
            onlooker.answers(&mut Vec::new()).unwrap_err();
        });
    }

    proptest! {
        #[test]
        fn questions_are_read_as_written(ticket: u64, protocol: u8, local: (IpAddr, u16), remote: (IpAddr, u16)) {
            // Mapped addresses are IPv4 everywhere in the agent.
            let plain = |(address, port): (IpAddr, u16)| (address.to_canonical(), port);
            let question = Question { ticket, protocol: Protocol(protocol), local: plain(local), remote: plain(remote) };
            let mut bytes = Vec::new();
            question.write(&mut bytes);
            prop_assert_eq!(Question::read(bytes.first_chunk().unwrap()), question);
        }

        #[test]
        fn answers_are_read_as_written(pid: u32, uid: Option<u16>, path in ".{0,40}", line in ".{0,40}", levels in 0u32..8) {
            let parent = (0..levels).fold(None, |parent, pid| {
                Some(Arc::new(Ancestor { pid, executable: "/bin/sh".into(), command_line: "sh".into(), parent }))
            });
            let actor = Actor {
                pid,
                executable: path.into(),
                command_line: line.into(),
                uid: uid.map(u32::from),
                parent,
                ..Actor::default()
            };
            let mut bytes = Vec::new();
            write_answer(5, Some(&actor), &mut bytes);
            prop_assert_eq!(read_answer(&bytes[2..]), Some((5, Some(actor))));
        }

        #[test]
        fn arbitrary_answers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = read_answer(&bytes);
        }
    }
}
