//! Assembles the filter's program in classic BPF (Documentation/networking/filter.rst, linux/filter.h).
//!
//! Numbers are searched by halves, as kernels before 5.11 run the whole program for every system call.

use defender_model::order;

use super::super::sys::Instruction;

/// The architecture a program is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// `AUDIT_ARCH_*` (linux/audit.h).
    pub(super) architecture: u32,
    /// Whether there is a second set of numbers with bit 30 set.
    pub(super) x32: bool,
    /// Whether sockets can also be made by `socketcall(2)`, whose arguments a filter cannot see.
    pub(super) multiplexed_sockets: bool,
}

/// What happens to a system call. Those without a rule are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// `EPERM`.
    Deny,
    /// `ENOSYS`.
    Unknown,
    /// `EAFNOSUPPORT` unless the first argument is one of [`FAMILIES`].
    Families,
    /// `EPERM` if the first argument has one of [`NAMESPACES`].
    NoNamespaces,
    /// `EPERM` if the third argument has both `PROT_WRITE` and `PROT_EXEC`.
    NotWritableAndExecutable,
    /// `EPERM` if the third argument has `PROT_EXEC`.
    NotExecutable,
    /// `EPERM` if the second argument is one of [`TERMINAL_INPUT`].
    NoTerminalInput,
}

/// Socket families the agent and nft use.
const FAMILIES: [u32; 4] =
    [libc::AF_UNIX as u32, libc::AF_INET as u32, libc::AF_INET6 as u32, libc::AF_NETLINK as u32];

/// `CLONE_NEW*` as far as clone(2) takes them: mount, cgroup, UTS, IPC, user, PID and network namespaces.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// `TIOCSTI` and `TIOCLINUX` (asm-generic/ioctls.h), the same on every [`Target`].
const TERMINAL_INPUT: [u32; 2] = [0x5412, 0x541c];

const X32_BIT: u32 = 0x4000_0000;

// linux/seccomp.h. The low 16 bits of SECCOMP_RET_ERRNO are the error.
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const fn errno(error: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | error as u32
}

// Offsets in struct seccomp_data. Of an argument only the low half is looked at, which on our little-endian targets comes
// first: the kernel takes all of these arguments as 32-bit values.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// The program; nothing if it would need a jump longer than BPF has, which the tests exclude for the policy.
pub(super) fn assemble(target: &Target, rules: &[(u32, Rule)]) -> Option<Vec<Instruction>> {
    let mut sorted = rules.to_vec();
    order::sort_by_key(&mut sorted, |(number, _)| *number);
    let mut program = Program::default();
    program.load(ARCHITECTURE);
    program.jump(libc::BPF_JEQ, target.architecture, 1, 0);
    program.answer(KILL);
    program.load(NUMBER);
    if target.x32 {
        program.jump(libc::BPF_JGE, X32_BIT, 0, 1);
        program.answer(errno(libc::ENOSYS));
    }
    program.search(&sorted)?;
    u16::try_from(program.code.len()).ok().map(|_| program.code)
}

#[derive(Default)]
struct Program {
    code: Vec<Instruction>,
}

impl Program {
    fn push(&mut self, code: u32, k: u32, jt: u8, jf: u8) {
        // Opcodes are below 256.
        self.code.push(Instruction { code: code as u16, jt, jf, k });
    }

    /// Accumulator = 32 bits of `struct seccomp_data` at that offset.
    fn load(&mut self, offset: u32) {
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    }

    fn answer(&mut self, action: u32) {
        self.push(libc::BPF_RET | libc::BPF_K, action, 0, 0);
    }

    /// Skips `jt` instructions if the comparison holds, else `jf`.
    fn jump(&mut self, comparison: u32, k: u32, jt: u8, jf: u8) {
        self.push(libc::BPF_JMP | comparison | libc::BPF_K, k, jt, jf);
    }

    /// Decides by the number in the accumulator. Every path ends in an answer.
    fn search(&mut self, rules: &[(u32, Rule)]) -> Option<()> {
        match rules {
            [] => self.answer(ALLOW),
            [(number, rule)] => {
                self.jump(libc::BPF_JEQ, *number, 1, 0);
                self.answer(ALLOW);
                self.apply(*rule);
            }
            _ => {
                let (low, high) = rules.split_at(rules.len() / 2);
                let at = self.code.len();
                self.jump(libc::BPF_JGE, high.first()?.0, 0, 0);
                self.search(low)?;
                // Counted from the next instruction, in 8 bits.
                self.code[at].jt = u8::try_from(self.code.len() - at - 1).ok()?;
                self.search(high)?;
            }
        }
        Some(())
    }

    fn apply(&mut self, rule: Rule) {
        const EPERM: u32 = errno(libc::EPERM);
        match rule {
            Rule::Deny => self.answer(EPERM),
            Rule::Unknown => self.answer(errno(libc::ENOSYS)),
            Rule::Families => {
                self.load(argument(0));
                self.one_of(&FAMILIES, ALLOW, errno(libc::EAFNOSUPPORT));
            }
            Rule::NoTerminalInput => {
                self.load(argument(1));
                self.one_of(&TERMINAL_INPUT, EPERM, ALLOW);
            }
            Rule::NoNamespaces => {
                self.load(argument(0));
                self.jump(libc::BPF_JSET, NAMESPACES, 0, 1);
                self.answer(EPERM);
                self.answer(ALLOW);
            }
            Rule::NotExecutable => {
                self.load(argument(2));
                self.jump(libc::BPF_JSET, libc::PROT_EXEC as u32, 0, 1);
                self.answer(EPERM);
                self.answer(ALLOW);
            }
            Rule::NotWritableAndExecutable => {
                self.load(argument(2));
                self.jump(libc::BPF_JSET, libc::PROT_EXEC as u32, 0, 2);
                self.jump(libc::BPF_JSET, libc::PROT_WRITE as u32, 0, 1);
                self.answer(EPERM);
                self.answer(ALLOW);
            }
        }
    }

    fn one_of(&mut self, values: &[u32], yes: u32, no: u32) {
        for value in values {
            self.jump(libc::BPF_JEQ, *value, 0, 1);
            self.answer(yes);
        }
        self.answer(no);
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy;
    use super::*;

    const EPERM: u32 = errno(libc::EPERM);

    /// What the kernel would do: runs a program on one system call, checking what the kernel's verifier checks.
    fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u32; 3]) -> u32 {
        let mut accumulator = 0;
        let mut at = 0;
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            let code = u32::from(code);
            at += 1;
            let holds = match code {
                c if c == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    accumulator = match k {
                        0 => number,
                        4 => architecture,
                        16 => arguments[0],
                        24 => arguments[1],
                        32 => arguments[2],
                        _ => panic!("load from {k}"),
                    };
                    continue;
                }
                c if c == libc::BPF_RET | libc::BPF_K => return k,
                c if c == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => accumulator == k,
                c if c == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => accumulator >= k,
                c if c == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K => accumulator & k != 0,
                _ => panic!("opcode {code:#x}"),
            };
            at += usize::from(if holds { jt } else { jf });
        }
    }

    /// The rules' meaning, written down a second time and without BPF.
    fn expected(rules: &[(u32, Rule)], number: u32, arguments: [u32; 3]) -> u32 {
        let Some((_, rule)) = rules.iter().find(|(n, _)| *n == number) else { return ALLOW };
        let denied = match rule {
            Rule::Deny => true,
            Rule::Unknown => return errno(libc::ENOSYS),
            // AF_UNIX, AF_INET, AF_INET6, AF_NETLINK (linux/socket.h).
            Rule::Families if [1, 2, 10, 16].contains(&arguments[0]) => false,
            Rule::Families => return errno(libc::EAFNOSUPPORT),
            Rule::NoNamespaces => arguments[0] & 0x7e02_0000 != 0,
            Rule::NotWritableAndExecutable => arguments[2] & 6 == 6,
            Rule::NotExecutable => arguments[2] & 4 == 4,
            Rule::NoTerminalInput => [0x5412, 0x541c].contains(&arguments[1]),
        };
        if denied {
            EPERM
        } else {
            ALLOW
        }
    }

    #[test]
    fn every_number_with_every_kind_of_argument_is_decided_as_the_policy_says() {
        let target = policy::TARGET.unwrap();
        let rules = policy::rules();
        let program = assemble(&target, &rules).unwrap();
        assert!(program.len() <= 4096, "BPF_MAXINSNS, and it is {}", program.len());
        let values =
            [0, 1, 2, 3, 4, 5, 6, 7, 10, 16, 17, 38, 0x11, 0x5412, 0x5413, 0x541c, 0x0001_0000, 0x0002_0000];
        let clone = [0x0080_0000, 0x0200_0000, 0x1000_0000, 0x4000_0000, 0x8000_0000, 0x0100_0000, u32::MAX];
        // Far beyond the last system call, private calls of ARM (0x0f0000 and up) included.
        let numbers = (0..1000).chain([0x000f_0001, 0x000f_0005, 0x3fff_ffff]);
        for number in numbers {
            for value in values.into_iter().chain(clone) {
                for arguments in [[value, 0, 0], [0, value, 0], [0, 0, value], [value; 3]] {
                    assert_eq!(
                        run(&program, target.architecture, number, arguments),
                        expected(&rules, number, arguments),
                        "system call {number} with {arguments:x?}"
                    );
                }
            }
        }
    }

    #[test]
    fn few_steps_lead_to_an_answer() {
        let target = policy::TARGET.unwrap();
        let program = assemble(&target, &policy::rules()).unwrap();
        // The loads, the architecture and x32 tests, then one comparison for every halving, and one more.
        let halvings = policy::rules().len().next_power_of_two().ilog2() as usize;
        let depth = |number: u32| {
            let (mut at, mut steps) = (0, 0);
            while u32::from(program[at].code) & 7 != libc::BPF_RET {
                let Instruction { code, jt, jf, k } = program[at];
                let holds = match u32::from(code) & 0xf0 {
                    c if c == libc::BPF_JGE => number >= k,
                    // The architecture's comparison is the first one.
                    c if c == libc::BPF_JEQ => number == k || at == 1,
                    _ => false,
                };
                at += 1 + usize::from(if holds { jt } else { jf });
                steps += 1;
            }
            steps
        };
        let deepest = (0..1000).map(depth).max().unwrap();
        assert!(deepest <= 4 + halvings + 8, "{deepest}");
    }

    #[test]
    fn another_architecture_is_killed_before_its_number_is_looked_at() {
        let target = policy::TARGET.unwrap();
        let program = assemble(&target, &policy::rules()).unwrap();
        for number in [0, 1, 39, 60, u32::MAX] {
            assert_eq!(run(&program, target.architecture ^ 0x8000_0000, number, [0; 3]), KILL);
        }
    }

    #[test]
    fn the_second_numbers_of_x86_64_do_not_exist() {
        let target = Target { architecture: 7, x32: true, multiplexed_sockets: false };
        let program = assemble(&target, &[(101, Rule::Deny)]).unwrap();
        assert_eq!(run(&program, 7, 0x4000_0000 | 101, [0; 3]), errno(libc::ENOSYS));
        assert_eq!(run(&program, 7, u32::MAX, [0; 3]), errno(libc::ENOSYS));
        assert_eq!(run(&program, 7, 101, [0; 3]), EPERM);
        assert_eq!(run(&program, 7, 100, [0; 3]), ALLOW);
    }

    #[test]
    fn no_number_has_two_rules() {
        let mut numbers: Vec<u32> = policy::rules().iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "{numbers:?}");
    }

    #[test]
    fn a_list_too_long_for_the_jumps_is_refused_and_not_cut() {
        let rules: Vec<(u32, Rule)> = (0..500).map(|number| (number, Rule::Deny)).collect();
        assert!(assemble(&policy::TARGET.unwrap(), &rules).is_none());
    }
}
