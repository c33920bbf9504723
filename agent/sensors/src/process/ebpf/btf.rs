//! Where the members of kernel structures lie and which functions there are, read from the BTF of the running kernel. Source: Documentation/bpf/btf.rst.
//!
//! Only as much as that needs: the list of types is walked once, and members of unnamed structures and unions are looked through.

use super::function::{Found, FUNCTIONS};

/// Largest BTF read, in bytes; those of distributions' kernels have 5 to 10 MiB.
pub(crate) const LIMIT: u64 = 32 << 20;
/// Value of a member that the kernel does not have.
pub(crate) const ABSENT: u32 = u32::MAX;
/// Unnamed structures within each other that are looked through.
const DEPTH: u8 = 8;

const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNCTION: u32 = 12;

/// Structure, member, and whether there are kernels to do without it. In the order of `struct offsets` in `programs.c`.
pub(crate) const MEMBERS: [(&str, &str, bool); 46] = [
    ("task_struct", "real_parent", true),
    ("task_struct", "tgid", true),
    ("task_struct", "mm", true),
    ("task_struct", "fs", true),
    ("task_struct", "signal", true),
    ("task_struct", "group_leader", true),
    ("task_struct", "exit_code", true),
    ("task_struct", "cred", true),
    ("cred", "uid", true),
    ("cred", "euid", true),
    ("cred", "gid", true),
    ("mm_struct", "arg_start", true),
    ("mm_struct", "arg_end", true),
    ("mm_struct", "exe_file", true),
    ("fs_struct", "root", true),
    ("fs_struct", "pwd", true),
    ("path", "mnt", true),
    ("path", "dentry", true),
    ("file", "f_path", true),
    ("dentry", "d_parent", true),
    ("dentry", "d_name", true),
    ("qstr", "name", true),
    ("dentry", "d_hash", true),
    ("hlist_bl_node", "pprev", true),
    ("vfsmount", "mnt_root", true),
    ("mount", "mnt", true),
    ("mount", "mnt_parent", true),
    ("mount", "mnt_mountpoint", true),
    ("signal_struct", "live", true),
    ("signal_struct", "group_exit_code", true),
    ("signal_struct", "flags", true),
    ("signal_struct", "tty", true),
    ("tty_struct", "name", true),
    ("task_struct", "loginuid", false),
    ("task_struct", "sessionid", false),
    ("sock_common", "skc_daddr", false),
    ("sock_common", "skc_dport", false),
    ("inet_sock", "inet_sport", false),
    ("sock_common", "skc_family", false),
    ("sock", "sk_protocol", false),
    ("sock_common", "skc_v6_daddr", false),
    ("sock_common", "skc_v6_rcv_saddr", false),
    ("module", "name", false),
    ("bpf_prog", "type", false),
    ("bpf_prog", "aux", false),
    ("bpf_prog_aux", "name", false),
];

/// Where the members are that every socket has.
pub(crate) const SOCKET: std::ops::Range<usize> = 35..40;
/// Two pointers of which one lies behind the other.
pub(crate) const PATH: [usize; 2] = [16, 17];
/// Index of the member of modules.
pub(crate) const MODULE: usize = 42;

/// Byte offsets of [`MEMBERS`], [`ABSENT`] where one may be missing and is, and the ids of [`FUNCTIONS`].
///
/// # Errors
/// What is wrong with the data, or which member the kernel does not have, in words.
pub(crate) fn read(data: &[u8]) -> Result<([u32; MEMBERS.len()], Found), String> {
    let btf = Btf::new(data).ok_or("its BTF is not in a form known here")?;
    let mut found = [ABSENT; MEMBERS.len()];
    let mut functions = Found::default();
    btf.each(|id, at, kind, name| {
        if kind == FUNCTION {
            for (function, place) in FUNCTIONS.iter().zip(&mut functions) {
                if function.name.as_bytes() == name {
                    *place = (id, btf.parameters(at).unwrap_or_default());
                }
            }
        }
        if kind != STRUCT {
            return;
        }
        for ((structure, member, _), offset) in MEMBERS.iter().zip(&mut found) {
            if *offset == ABSENT && structure.as_bytes() == name {
                if let Some(bits) = btf.member(at, member.as_bytes(), DEPTH) {
                    *offset = bits / 8;
                }
            }
        }
    });
    match MEMBERS.iter().zip(found).find(|((.., needed), offset)| *needed && *offset == ABSENT) {
        Some(((structure, member, _), _)) => Err(format!("its BTF has no member {member} of {structure}")),
        None => Ok((found, functions)),
    }
}

struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins in `types`; the first has the id 1.
    index: Vec<u32>,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

impl<'a> Btf<'a> {
    fn new(data: &'a [u8]) -> Option<Self> {
        if data.get(..2)? != MAGIC.to_ne_bytes() {
            return None;
        }
        let section = |offset: usize| -> Option<&'a [u8]> {
            let start = (word(data, 4)? as usize).checked_add(word(data, offset)? as usize)?;
            data.get(start..start.checked_add(word(data, offset + 4)? as usize)?)
        };
        let mut this = Self { types: section(8)?, strings: section(16)?, index: Vec::new() };
        let mut at = 0;
        while at < this.types.len() {
            this.index.push(u32::try_from(at).ok()?);
            let info = word(this.types, at + 4)?;
            let entries = (info & 0xffff) as usize;
            at += 12
                + match info >> 24 & 0x1f {
                    // Integer, variable, declaration tag.
                    1 | 14 | 17 => 4,
                    // Array.
                    3 => 12,
                    // Structure, union, section, 64-bit enumeration.
                    STRUCT | UNION | 15 | 19 => 12 * entries,
                    // Enumeration, function prototype.
                    6 | 13 => 8 * entries,
                    // Pointer, forward declaration, typedef, qualifiers, function, float, type tag.
                    2 | 7..=12 | 16 | 18 => 0,
                    // A kind newer than this: its length is not known.
                    _ => return None,
                };
        }
        Some(this)
    }

    fn name(&self, offset: u32) -> &'a [u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or_default();
        &rest[..end]
    }

    fn each(&self, mut take: impl FnMut(u32, usize, u32, &[u8])) {
        for (id, at) in (1..).zip(&self.index) {
            let at = *at as usize;
            if let (Some(name), Some(info)) = (word(self.types, at), word(self.types, at + 4)) {
                take(id, at, info >> 24 & 0x1f, self.name(name));
            }
        }
    }

    /// How many arguments the function at `at` takes: those of its prototype.
    fn parameters(&self, at: usize) -> Option<u32> {
        let prototype = (word(self.types, at + 8)? as usize).checked_sub(1)?;
        Some(word(self.types, *self.index.get(prototype)? as usize + 4)? & 0xffff)
    }

    /// Offset in bits of a member of the structure or union that begins at `at`.
    fn member(&self, at: usize, wanted: &[u8], depth: u8) -> Option<u32> {
        let info = word(self.types, at + 4)?;
        if !matches!(info >> 24 & 0x1f, STRUCT | UNION) {
            return None;
        }
        // With the flag, the top byte is the size of a bit field.
        let mask = if info >> 31 == 1 { 0x00ff_ffff } else { u32::MAX };
        for entry in 0..(info & 0xffff) as usize {
            let entry = at + 12 + 12 * entry;
            let (name, kind) = (word(self.types, entry)?, word(self.types, entry + 4)?);
            let offset = word(self.types, entry + 8)? & mask;
            let name = self.name(name);
            if name == wanted {
                return Some(offset);
            }
            if name.is_empty() && depth > 0 {
                let inner = (kind as usize).checked_sub(1).and_then(|id| self.index.get(id));
                let inner = inner.and_then(|at| self.member(*at as usize, wanted, depth - 1));
                if let Some(inner) = inner {
                    return offset.checked_add(inner);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `struct mount { union { int a; int mnt_parent; } }`, the union unnamed and at bit 64.
    fn sample() -> Vec<u8> {
        let strings = b"\0mount\0mnt_parent\0a\0int\0";
        let types: &[u32] = &[
            1,
            0x0400_0001,
            16,
            0,
            2,
            64, // struct mount
            0,
            0x0500_0002,
            4,
            18,
            3,
            0,
            7,
            3,
            0, // union
            20,
            0x0100_0000,
            4,
            32, // int
        ];
        let mut data = vec![0x9f, 0xeb, 1, 0];
        for header in [24u32, 0, types.len() as u32 * 4, types.len() as u32 * 4, strings.len() as u32] {
            data.extend_from_slice(&header.to_ne_bytes());
        }
        data.extend(types.iter().flat_map(|word| word.to_ne_bytes()));
        data.extend_from_slice(strings);
        data
    }

    #[test]
    fn members_are_where_they_are_looked_for() {
        assert_eq!((MEMBERS[SOCKET.start].1, MEMBERS[SOCKET.end - 1].1), ("skc_daddr", "sk_protocol"));
        assert_eq!(MEMBERS[MODULE], ("module", "name", false));
        assert_eq!(PATH.map(|index| MEMBERS[index].1), ["mnt", "dentry"]);
    }

    #[test]
    fn looks_through_unnamed_unions() {
        let data = sample();
        let btf = Btf::new(&data).unwrap();
        assert_eq!(btf.index.len(), 3);
        assert_eq!(btf.member(0, b"mnt_parent", DEPTH), Some(64));
        assert_eq!(btf.member(0, b"mnt_parent", 0), None);
        assert_eq!(btf.member(0, b"else", DEPTH), None);
        assert_eq!(read(&data), Err("its BTF has no member real_parent of task_struct".into()));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(flips in prop::collection::vec((0usize..124, any::<u8>()), 0..8), cut in 0usize..124) {
            let mut data = sample();
            for (at, byte) in flips {
                if let Some(place) = data.get_mut(at) {
                    *place = byte;
                }
            }
            let _ = read(&data);
            let _ = read(&data[..cut.min(data.len())]);
        }
    }
}
