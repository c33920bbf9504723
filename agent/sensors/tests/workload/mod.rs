//! What is done while several sources watch: [`odd`] is what they could see differently, [`everyday`] what devices and their makers do.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::*;

/// Starts what differs between the sources; returns the processes in order. All of them have ended.
pub(crate) fn odd(directory: &Path) -> Vec<u32> {
    let inner = directory.join("a/b");
    fs::create_dir_all(&inner).unwrap();
    let link = directory.join("link");
    symlink("/bin/true", &link).unwrap();
    let script = directory.join("script");
    fs::write(&script, "#!/bin/sh\nexit 3\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();

    // The longest argument there may be, `MAX_ARG_STRLEN` less its end.
    let long = "x".repeat((128 << 10) - 1);
    let many: Vec<String> = (0..2000).map(|i| format!("many-{i}")).collect();
    let mut commands = vec![Command::new("/bin/true"), Command::new(&link), Command::new(&script)];
    commands[0].arg(&long).arg("a b").arg("");
    commands[1].current_dir(&inner).arg(OsStr::from_bytes(b"\xff\"\n"));
    let mut command = Command::new("/bin/true");
    command.args(&many);
    commands.push(command);
    let mut command = Command::new("/bin/sh");
    command.uid(12345).gid(54321).args(["-c", "exit 9"]).current_dir("/");
    commands.push(command);
    commands.push(again("thread"));
    commands.push(again("execveat"));
    commands.push(again("memfd"));
    // What brings a program, hides it and removes it.
    let mut command = Command::new("/bin/sh");
    let dropper = "cp /bin/true .x && chmod 700 .x && ./.x one & wait; ./.x two; exec 3<.x; rm .x; exec /proc/self/fd/3 three";
    command.args(["-c", dropper]).current_dir(directory);
    commands.push(command);
    if cfg!(target_arch = "x86_64") {
        commands.push(again("compat"));
    }
    if runs_32_bit_programs() {
        let program = directory.join("narrow");
        fs::write(&program, narrow_program()).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(program);
        command.args(["in 32 bits", "", "last"]);
        commands.push(command);
    }
    commands.iter_mut().map(|command| finished(command.stderr(Stdio::null()).spawn().unwrap())).collect()
}

/// Many processors of 64-bit ARM have no 32-bit programs.
fn runs_32_bit_programs() -> bool {
    if cfg!(target_arch = "aarch64") {
        // Which the kernel says by refusing PER_LINUX32. All ones ask what it is now.
        // SAFETY: takes a number.
        let personality = |number: libc::c_ulong| unsafe { libc::personality(number) };
        let before = personality(0xffff_ffff);
        let runs = personality(8) >= 0;
        personality(before as libc::c_ulong);
        if !runs {
            println!("skipped: no 32-bit programs here");
        }
        return runs;
    }
    cfg!(target_arch = "x86_64")
}

/// A static program of the 32-bit sibling of this architecture that becomes /bin/true, with its own arguments: one segment of an ELF
/// header, a program header, the code and the path.
fn narrow_program() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const CODE: u32 = BASE + 52 + 32;
    const PATH: u32 = CODE + 32;
    // e_machine, e_flags.
    let (machine, flags, mut code): (u16, u32, Vec<u8>) = if cfg!(target_arch = "aarch64") {
        let code: [u32; 7] = [
            0xe28f_0018, // add r0, pc, #24: the path
            0xe28d_1004, // add r1, sp, #4
            0xe3a0_2000, // mov r2, #0
            0xe3a0_700b, // mov r7, #11: execve
            0xef00_0000, // svc 0
            0xe3a0_7001, // mov r7, #1: exit
            0xef00_0000, // svc 0
        ];
        (40, 0x0500_0000, code.iter().flat_map(|word| word.to_le_bytes()).collect())
    } else {
        let code: &[&[u8]] = &[
            b"\xbb",
            &PATH.to_le_bytes(),       // mov ebx, path
            b"\x8d\x4c\x24\x04",       // lea ecx, [esp + 4]
            b"\x31\xd2",               // xor edx, edx
            b"\xb8\x0b\0\0\0\xcd\x80", // mov eax, execve; int 0x80
            b"\xb8\x01\0\0\0\xcd\x80", // mov eax, exit; int 0x80
        ];
        (3, 0, code.concat())
    };
    code.resize((PATH - CODE) as usize, 0);
    code.extend_from_slice(b"/bin/true\0");
    let size = CODE - BASE + code.len() as u32;
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    // Executable, for that machine, version.
    file.extend([2, machine, 1, 0].iter().flat_map(|half| half.to_le_bytes()));
    file.extend([CODE, 52, 0, flags].iter().flat_map(|word| word.to_le_bytes()));
    // Sizes of the header, of a program header, how many; no sections.
    file.extend([52u16, 32, 1, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    // Load, from the beginning, readable and executable.
    file.extend([1, 0, BASE, BASE, size, size, 5, 4096].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(code);
    file
}

/// Several objects, compiled side by side, and a program of them.
const BUILD: &str = "
printf 'int two(void); int main(void) { return two() - 2; }' > main.c
printf 'int two(void) { return 2; }' > two.c
printf 'program: main.o two.o\n\tcc -o $@ main.o two.o\n' > Makefile
make -j2 && ./program built";

/// A package with scripts, made and unpacked into a directory.
const PACKAGE: &str = "
mkdir -p package/DEBIAN package/opt root/var/lib/dpkg/info root/var/lib/dpkg/updates && touch root/var/lib/dpkg/status
printf 'Package: probe\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: probe\n' > package/DEBIAN/control
printf '#!/bin/sh\n/bin/true set up\n' > package/DEBIAN/postinst && chmod 755 package/DEBIAN/postinst
echo content > package/opt/file
dpkg-deb --build package probe.deb &&
PATH=$PATH:/usr/sbin:/sbin dpkg --instdir=$PWD/root --admindir=$PWD/root/var/lib/dpkg --log=/dev/null --force-script-chrootless -i probe.deb";

/// A session over SSH, with the home directory hidden behind an empty one that only these processes have.
const SESSION: &str = "
mount -t tmpfs -o mode=700 tmpfs /root && mkdir -m 700 /root/.ssh && export HOME=/root || exit 1
dropbearkey -t ed25519 -f host
dropbearkey -t ed25519 -f key | grep ^ssh- > /root/.ssh/authorized_keys
dropbear -F -E -r host -p 127.0.0.1:$PORT & server=$!
for again in 0 1 2 3 4 5 6 7 8 9; do
    dbclient -y -y -i key -p $PORT root@127.0.0.1 '/bin/true in the session; exit 3'
    [ $? = 3 ] && break
    sleep 0.5
done
kill $server; wait $server";

/// A build, the installation of a package, a session over SSH, as far as there are tools for it.
pub(crate) fn everyday(directory: &Path) -> Vec<u32> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let tools = |needed: &[&str]| {
        let path = std::env::var("PATH").unwrap();
        let there = |tool: &&str| path.split(':').any(|at| Path::new(at).join(tool).exists());
        needed
            .iter()
            .find(|tool| !there(tool))
            .map(|missing| println!("skipped {needed:?}: no {missing}"))
            .is_none()
    };
    let mut pids = Vec::new();
    let works: [(&[&str], &str); 3] = [
        (&["make", "cc"], BUILD),
        (&["dpkg-deb", "dpkg"], PACKAGE),
        (&["dropbear", "dropbearkey", "dbclient", "unshare"], SESSION),
    ];
    for (needed, script) in works {
        if tools(needed) {
            let mut command = Command::new("unshare");
            command.args(["--mount", "/bin/sh", "-c", script]).current_dir(directory).env("PORT", &port);
            pids.push(finished(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()));
        }
    }
    pids
}

/// What was done as meant, by what was seen.
pub(crate) fn everyday_was_done(seen: &Seen) {
    for (tool, line) in
        [("cc", "./program built"), ("dpkg", "/bin/true set up"), ("dropbear", "/bin/true in the session")]
    {
        if execs(seen)
            .any(|process| process.name() == tool || process.argv.first().is_some_and(|first| first == tool))
        {
            assert!(execs(seen).any(|process| process.command_line() == line), "{line}");
        }
    }
}

/// The same of [`odd`].
pub(crate) fn odd_was_done(seen: &Seen) {
    let named = |line: &str| execs(seen).filter(|process| process.command_line() == line).count();
    assert_eq!((named("./.x one"), named("./.x two"), named("/proc/self/fd/3 three")), (1, 1, 1));
    if runs_32_bit_programs() {
        // The program, and what it became by a 32-bit call of its own.
        let of_32_bits = execs(seen).filter(|p| p.argv.get(1).is_some_and(|one| one == "in 32 bits"));
        assert_eq!(of_32_bits.filter(|p| p.argv[2..] == ["", "last"]).count(), 2);
    }
}
