//! Talking to the kernel's audit subsystem: status, settings, rules. Sources: linux/audit.h, kernel/audit.c, auditctl(8).

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::arch::{Arch, ATTACHES, LOADS};

use crate::netlink::{acknowledgement, Socket, AUDIT, DONE, ERROR, REQUEST_ACK};

/// The kernel answers at once; longer means that something holds audit's lock.
const TIMEOUT: Duration = Duration::from_millis(1000);

const AUDIT_GET: u16 = 1000;
const AUDIT_SET: u16 = 1001;
const AUDIT_ADD_RULE: u16 = 1011;
const AUDIT_DEL_RULE: u16 = 1012;
const AUDIT_LIST_RULES: u16 = 1013;
const REQUEST_DUMP: u16 = 0x01 | 0x300;

const AUDIT_STATUS_ENABLED: u32 = 0x01;
const AUDIT_STATUS_PID: u32 = 0x04;
const AUDIT_STATUS_BACKLOG_LIMIT: u32 = 0x10;
const AUDIT_STATUS_BACKLOG_WAIT_TIME: u32 = 0x20;

const AUDIT_FILTER_EXIT: u32 = 0x04;
const AUDIT_FILTER_EXCLUDE: u32 = 0x05;
const AUDIT_ALWAYS: u32 = 2;
const AUDIT_EQUAL: u32 = 0x4000_0000;
const AUDIT_ARCH: u32 = 11;
const AUDIT_MSGTYPE: u32 = 12;
const AUDIT_SUCCESS: u32 = 104;
const AUDIT_WATCH: u32 = 105;
const AUDIT_PERM: u32 = 106;
const AUDIT_DIR: u32 = 107;
/// `AUDIT_PERM_WRITE` and `AUDIT_PERM_ATTR`.
const WRITE_OR_ATTRIBUTES: u32 = 2 | 8;
/// `AUDIT_CLASS_DIR_WRITE`, `AUDIT_CLASS_CHATTR`, `AUDIT_CLASS_WRITE` and their 32-bit siblings: the kernel knows which calls those are.
/// A class stands in the mask as a bit counted from its end.
const CLASSES: [u32; 6] = [0, 1, 2, 3, 6, 7];
const AUDIT_ARG0: u32 = 200;
const AUDIT_FILTERKEY: u32 = 210;
const AUDIT_BITMASK_SIZE: usize = 64;
const AUDIT_MAX_FIELDS: usize = 64;

/// The key on every rule of ours: how they are told from those of others.
pub(crate) const KEY: &str = "defender";

/// `struct audit_status`, as far as every kernel since 3.14 fills it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Status {
    /// 0 off, 1 on, 2 on and locked until reboot.
    pub(crate) enabled: u32,
    /// Process id of the audit daemon, 0 without one.
    pub(crate) pid: u32,
    pub(crate) backlog_limit: u32,
    /// Records the kernel had to drop since boot.
    pub(crate) lost: u32,
    /// Records waiting now.
    pub(crate) backlog: u32,
    /// How long a process may be held up for a full backlog, in jiffies.
    pub(crate) backlog_wait_time: u32,
}

impl Status {
    fn parse(payload: &[u8]) -> Option<Self> {
        let mut words =
            payload.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        let _mask = words.next()?;
        let enabled = words.next()?;
        let _failure = words.next()?;
        let pid = words.next()?;
        let _rate_limit = words.next()?;
        let backlog_limit = words.next()?;
        let lost = words.next()?;
        let backlog = words.next()?;
        let _features = words.next();
        let backlog_wait_time = words.next().unwrap_or_default();
        Some(Self { enabled, pid, backlog_limit, lost, backlog, backlog_wait_time })
    }
}

/// A setting to change, one at a time as the kernel wants it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Setting {
    Enabled(u32),
    Pid(u32),
    BacklogLimit(u32),
    BacklogWaitTime(u32),
}

impl Setting {
    /// A `struct audit_status` with only this field and its mask bit set.
    pub(crate) fn payload(self) -> [u8; 44] {
        let (mask, word, value) = match self {
            Self::Enabled(value) => (AUDIT_STATUS_ENABLED, 1, value),
            Self::Pid(value) => (AUDIT_STATUS_PID, 3, value),
            Self::BacklogLimit(value) => (AUDIT_STATUS_BACKLOG_LIMIT, 5, value),
            Self::BacklogWaitTime(value) => (AUDIT_STATUS_BACKLOG_WAIT_TIME, 9, value),
        };
        let mut payload = [0; 44];
        payload[..4].copy_from_slice(&mask.to_ne_bytes());
        payload[word * 4..word * 4 + 4].copy_from_slice(&value.to_ne_bytes());
        payload
    }

    /// The request that carries it.
    pub(crate) const fn request() -> u16 {
        AUDIT_SET
    }
}

/// What the key of a rule about a path begins with; its number follows.
pub(crate) const WATCH_KEY: &str = "defender-f";
/// Where the mask of calls stands in a rule.
const MASK: std::ops::Range<usize> = 12..12 + AUDIT_BITMASK_SIZE * 4;

/// A `struct audit_rule_data` of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    bytes: Vec<u8>,
    /// The kernel lists the mask back as it was given; classes of calls it lists as the calls.
    literal: bool,
}

impl Rule {
    /// `-a always,exit -F arch=ARCH -S execve,execveat -F success=1 -k defender`
    pub(crate) fn exec(arch: Arch) -> Self {
        Self::new(
            AUDIT_FILTER_EXIT,
            &[arch.execve, arch.execveat],
            &[(AUDIT_ARCH, arch.audit_arch), (AUDIT_SUCCESS, 1)],
        )
    }

    /// `-a always,exit -F arch=ARCH -S exit_group -k defender`
    pub(crate) fn exit(arch: Arch) -> Self {
        Self::new(AUDIT_FILTER_EXIT, &[arch.exit_group], &[(AUDIT_ARCH, arch.audit_arch)])
    }

    /// `-a always,exclude -F msgtype=TYPE -k defender`: spares the kernel a record nobody reads.
    pub(crate) fn exclude(message_type: u16) -> Self {
        Self::new(AUDIT_FILTER_EXCLUDE, &[], &[(AUDIT_MSGTYPE, message_type.into())])
    }

    /// `-a always,exit -F arch=ARCH -S init_module,finit_module,delete_module -F success=1 -k defender`
    pub(crate) fn modules(arch: Arch) -> Self {
        let fields = [(AUDIT_ARCH, arch.audit_arch), (AUDIT_SUCCESS, 1)];
        Self::new(AUDIT_FILTER_EXIT, &arch.modules, &fields)
    }

    /// `-a always,exit -F arch=ARCH -S ptrace -F success=1 -F a0=REQUEST -k defender` for those that attach, and `-S bpf` for the
    /// command that loads a program. The kernel audits that one of itself since 5.6.
    pub(crate) fn deeds(arch: Arch, into: &mut Vec<Self>) {
        for (call, first) in [(arch.ptrace, ATTACHES[0]), (arch.ptrace, ATTACHES[1]), (arch.bpf, LOADS)] {
            let fields = [(AUDIT_ARCH, arch.audit_arch), (AUDIT_SUCCESS, 1), (AUDIT_ARG0, first)];
            into.push(Self::new(AUDIT_FILTER_EXIT, &[call], &fields));
        }
    }

    /// `-a always,exit -F perm=wa -F path=PATH -F success=1 -k defender-fNUMBER`, or `dir=PATH` with everything below it. Unlike what
    /// `auditctl -w` makes of it, it names the calls that can change a file: others are not held up by a look at the rule.
    pub(crate) fn watch(arches: &[Arch], path: &Path, directory: bool, number: usize) -> Self {
        let mut calls: Vec<u32> =
            CLASSES.iter().map(|class| AUDIT_BITMASK_SIZE as u32 * 32 - class - 1).collect();
        for arch in arches {
            calls.extend_from_slice(arch.opens);
        }
        let path = path.as_os_str().as_bytes();
        let place = (if directory { AUDIT_DIR } else { AUDIT_WATCH }, path.len() as u32);
        let fields = [(AUDIT_PERM, WRITE_OR_ATTRIBUTES), place, (AUDIT_SUCCESS, 1)];
        let key = format!("{WATCH_KEY}{number}");
        Self { literal: false, ..Self::with_strings(AUDIT_FILTER_EXIT, &calls, &fields, path, &key) }
    }

    fn new(filter: u32, calls: &[u32], fields: &[(u32, u32)]) -> Self {
        Self::with_strings(filter, calls, fields, b"", KEY)
    }

    fn with_strings(filter: u32, calls: &[u32], fields: &[(u32, u32)], path: &[u8], key: &str) -> Self {
        let mut mask = [0u32; AUDIT_BITMASK_SIZE];
        for call in calls {
            // Every call number of `arch` is far below 64 * 32.
            mask[*call as usize / 32] |= 1 << (call % 32);
        }
        let last = (AUDIT_FILTERKEY, key.len() as u32);
        let fields: Vec<(u32, u32)> = fields.iter().copied().chain([last]).collect();
        let mut bytes = Vec::with_capacity(1040 + path.len() + key.len());
        let mut put = |word: u32| bytes.extend_from_slice(&word.to_ne_bytes());
        put(filter);
        put(AUDIT_ALWAYS);
        put(fields.len() as u32);
        mask.into_iter().for_each(&mut put);
        let padded = |each: fn(&(u32, u32)) -> u32| {
            let values: Vec<u32> = fields.iter().map(each).collect();
            values.into_iter().chain(std::iter::repeat(0)).take(AUDIT_MAX_FIELDS)
        };
        padded(|field| field.0).for_each(&mut put);
        padded(|field| field.1).for_each(&mut put);
        padded(|_| AUDIT_EQUAL)
            .take(fields.len())
            .chain(std::iter::repeat(0))
            .take(AUDIT_MAX_FIELDS)
            .for_each(&mut put);
        put((path.len() + key.len()) as u32);
        bytes.extend_from_slice(path);
        bytes.extend_from_slice(key.as_bytes());
        Self { bytes, literal: true }
    }

    /// The rule as the kernel lists it back is this one.
    fn matches(&self, listed: &[u8]) -> bool {
        // The kernel may pad the end; everything up to the key must be the same.
        if self.literal {
            return listed.starts_with(&self.bytes);
        }
        let ends = |bytes: &[u8]| Some((bytes.get(..MASK.start)?.to_vec(), bytes.get(MASK.end..)?.to_vec()));
        match (ends(listed), ends(&self.bytes)) {
            (Some((head, tail)), Some((own_head, own_tail))) => {
                head == own_head && tail.starts_with(&own_tail)
            }
            _ => false,
        }
    }
}

/// A socket for requests and their answers, apart from the stream of records.
pub(crate) struct Control {
    socket: Socket,
}

impl Control {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(AUDIT, 0)? })
    }

    pub(crate) fn status(&mut self) -> io::Result<Status> {
        let mut status = None;
        self.socket.request(AUDIT_GET, REQUEST_ACK, &[], TIMEOUT, |message| {
            match message.kind {
                AUDIT_GET => status = Status::parse(message.payload),
                ERROR => acknowledgement(message.payload)?,
                _ => {}
            }
            Ok(status.is_some())
        })?;
        status.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    pub(crate) fn set(&mut self, setting: Setting) -> io::Result<()> {
        self.acknowledged(AUDIT_SET, &setting.payload())
    }

    /// Adds a rule; one that is there already is as good as added.
    pub(crate) fn add(&mut self, rule: &Rule) -> io::Result<()> {
        match self.acknowledged(AUDIT_ADD_RULE, &rule.bytes) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Removes a rule; one that is not there is as good as removed.
    pub(crate) fn remove(&mut self, rule: &Rule) -> io::Result<()> {
        match self.acknowledged(AUDIT_DEL_RULE, &rule.bytes) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// How many of the given rules the kernel has.
    pub(crate) fn present(&mut self, rules: &[Rule]) -> io::Result<usize> {
        let mut found = vec![false; rules.len()];
        self.socket.request(AUDIT_LIST_RULES, REQUEST_DUMP, &[], TIMEOUT, |message| match message.kind {
            AUDIT_LIST_RULES => {
                for (found, rule) in found.iter_mut().zip(rules) {
                    *found |= rule.matches(message.payload);
                }
                Ok(false)
            }
            DONE => Ok(true),
            ERROR => acknowledgement(message.payload).map(|()| false),
            _ => Ok(false),
        })?;
        Ok(found.into_iter().filter(|found| *found).count())
    }

    fn acknowledged(&mut self, request: u16, payload: &[u8]) -> io::Result<()> {
        self.socket.request(request, REQUEST_ACK, payload, TIMEOUT, |message| match message.kind {
            ERROR => acknowledgement(message.payload).map(|()| true),
            _ => Ok(false),
        })
    }
}

/// Record types the sensor never reads, excluded while it is the only reader: `AUDIT_PATH`, `AUDIT_EOE`, `AUDIT_BPRM_FCAPS` and
/// `AUDIT_PROCTITLE`. Each costs the kernel, inside the exec, about as much as a record that is read.
pub(crate) const UNREAD: &[u16] = &[1302, 1320, 1321, 1327];

#[cfg(test)]
mod tests {
    use super::super::arch::X86_64;
    use super::*;

    #[test]
    fn rules_have_the_kernel_s_layout() {
        let Rule { bytes, .. } = Rule::exec(X86_64);
        assert_eq!(bytes.len(), 4 * (3 + 64 + 64 + 64 + 64 + 1) + KEY.len());
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at * 4], bytes[at * 4 + 1], bytes[at * 4 + 2], bytes[at * 4 + 3]])
        };
        assert_eq!((word(0), word(1), word(2)), (4, 2, 3));
        // execve is 59: word 1, bit 27; execveat 322: word 10, bit 2.
        assert_eq!((word(3 + 1), word(3 + 10)), (1 << 27, 1 << 2));
        assert_eq!((word(67), word(131), word(195)), (AUDIT_ARCH, 0xc000_003e, AUDIT_EQUAL));
        assert_eq!((word(69), word(133), word(197), word(198)), (AUDIT_FILTERKEY, 8, AUDIT_EQUAL, 0));
        assert_eq!(&bytes[1040..], b"defender");
    }

    #[test]
    fn a_rule_about_a_path_is_found_though_the_kernel_spells_its_classes_out() {
        let rule = Rule::watch(&[X86_64], Path::new("/etc/cron.d"), true, 7);
        let word = |at: usize| u32::from_ne_bytes(rule.bytes[at * 4..at * 4 + 4].try_into().unwrap());
        assert_eq!(
            (word(67), word(68), word(69), word(70)),
            (AUDIT_PERM, AUDIT_DIR, AUDIT_SUCCESS, AUDIT_FILTERKEY)
        );
        assert_eq!((word(131), word(132), word(133), word(134), word(259)), (10, 11, 1, 11, 22));
        assert_eq!(&rule.bytes[1040..], b"/etc/cron.ddefender-f7");
        // Classes 0 to 3, 6 and 7 from the end; open is 2, creat 85.
        assert_eq!((word(3 + 63), word(3), word(3 + 2)), (0xf300_0000, 1 << 2, 1 << 21));
        let mut listed = rule.bytes.clone();
        listed[MASK].fill(0x5a);
        listed.push(0);
        assert!(rule.matches(&listed));
        assert!(!Rule::watch(&[X86_64], Path::new("/etc/cron.d"), true, 8).matches(&listed));
        assert!(!rule.matches(&listed[..200]));
    }

    #[test]
    fn rules_about_one_request_name_it() {
        let mut rules = Vec::new();
        Rule::deeds(X86_64, &mut rules);
        let meant = [(101, 16), (101, 0x4206), (321, 5)];
        assert_eq!(rules.len(), meant.len());
        for (Rule { bytes, .. }, (call, first)) in rules.into_iter().zip(meant) {
            let word = |at: usize| u32::from_ne_bytes(bytes[at * 4..at * 4 + 4].try_into().unwrap());
            assert_eq!((word(2), word(3 + call / 32)), (4, 1 << (call % 32)));
            assert_eq!((word(67), word(68), word(69)), (AUDIT_ARCH, AUDIT_SUCCESS, AUDIT_ARG0));
            assert_eq!((word(131), word(132), word(133), word(197)), (0xc000_003e, 1, first, AUDIT_EQUAL));
        }
    }

    #[test]
    fn short_status_is_refused() {
        assert_eq!(Status::parse(&[0; 12]), None);
    }
}
