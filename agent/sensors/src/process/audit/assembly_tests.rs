//! Records of a real kernel (6.18, x86_64) in `testdata`, and what they mean. `i386.log` is `plain.log` with the other
//! architecture's numbers.

use proptest::prelude::*;

use super::super::record::log_line;
use super::*;

fn read(log: &[u8]) -> Vec<Audited> {
    let mut assembler = Assembler::default();
    let mut events = Vec::new();
    for line in log.split(|byte| *byte == b'\n') {
        if let Some((record, stamp, fields)) = log_line(line) {
            events.extend(assembler.push(record, stamp, fields));
        }
    }
    assembler.flush(u64::MAX, |event| events.push(event));
    assert_eq!(assembler.incomplete(), 0);
    // A log leaves the end-of-event records out, so an exec comes out at the end.
    events.sort_by_key(|event| event.stamp().serial);
    events
}

fn execs(log: &[u8]) -> Vec<Exec> {
    let only = |event| if let Audited::Exec(exec) = event { Some(*exec) } else { None };
    read(log).into_iter().filter_map(only).collect()
}

#[test]
fn an_exec_and_its_exit() {
    let events = read(include_bytes!("testdata/plain.log"));
    let [Audited::Exec(exec), Audited::Exit { pid, reason, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(exec.argv, ["/bin/echo", "plain"]);
    assert_eq!((&*exec.executable, &*exec.cwd), ("/usr/bin/echo", "/"));
    assert_eq!(
        (exec.pid, exec.ppid, exec.uid, exec.euid, exec.gid),
        (16749, 16005, Some(0), Some(0), Some(0))
    );
    assert_eq!((exec.auid, exec.session, exec.tty.as_deref(), exec.truncated), (None, None, None, false));
    assert_eq!(exec.stamp.time.millis(), 1_795_470_816_375);
    assert_eq!((*pid, *reason), (exec.pid, ExitReason::Code(0)));
}

#[test]
fn who_wrote_where() {
    let events = read(include_bytes!("testdata/write.log"));
    let told: Vec<_> = events
        .iter()
        .map(|event| match event {
            Audited::Wrote { watch, effect, by } => (*watch, *effect, by.pid, &*by.executable),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        told,
        [
            (1, Effect::Any, 26030, "/usr/bin/dash"),
            (1, Effect::Any, 26031, "/usr/bin/sed"),
            (2, Effect::Attributes, 26033, "/usr/bin/chmod"),
            (2, Effect::Removal, 26034, "/usr/bin/rm"),
            (2, Effect::Any, 26035, "/usr/bin/dash"),
        ]
    );
    // The same call for somebody else's rule, or one that failed, is none of ours.
    let line = std::str::from_utf8(include_bytes!("testdata/write.log")).unwrap().lines().next().unwrap();
    assert_eq!(read(line.as_bytes()).len(), 1);
    for (from, to) in [("defender-f1", "defender-g1"), ("success=yes", "success=no"), ("f1\"", "f\"")] {
        assert_eq!(read(line.replace(from, to).as_bytes()), [], "{to}");
    }
}

#[test]
fn who_loaded_and_removed_a_module() {
    let events = read(include_bytes!("testdata/module.log"));
    let told: Vec<_> = events
        .iter()
        .map(|event| match event {
            Audited::Module { loaded, name, by } => (*loaded, &**name, &*by.executable),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [(true, "dummy", "/usr/bin/kmod"), (false, "dummy", "/usr/bin/kmod")]);
}

#[test]
fn who_traced_whom_and_who_loaded_a_program() {
    let log = std::str::from_utf8(include_bytes!("testdata/deeds.log")).unwrap();
    let told = |log: &str| -> Vec<_> {
        let told = |event: &Audited| match event {
            Audited::Traced { target, by } => (Some(*target), by.executable.clone()),
            Audited::Program { by } => (None, by.executable.clone()),
            other => panic!("{other:?}"),
        };
        read(log.as_bytes()).iter().map(told).collect()
    };
    let [gdb, strace, bpftrace] = ["/usr/bin/gdb", "/usr/bin/strace", "/usr/bin/bpftrace"].map(str::to_owned);
    let all = [(Some(0x2384), gdb), (Some(0x2384), strace), (None, bpftrace)];
    assert_eq!(told(log), all);
    assert_eq!(told(&log.replace("arch=c000003e syscall=101", "arch=40000003 syscall=26")), all);
    assert_eq!(
        told(
            &log.replace("c000003e syscall=101", "c00000b7 syscall=117")
                .replace("c000003e syscall=321", "c00000b7 syscall=280")
        ),
        all
    );
    // The kernel looks at the lower half of a command and of a thread's id, and at all of a request.
    assert_eq!(told(&log.replace("a0=5 ", "a0=100000005 ").replace("a1=2384", "a1=ffffffff00002384")), all);
    assert_eq!(told(&log.replace("a0=10 ", "a0=100000010 ")), all[1..]);
    // What is not the one or the other, and what failed.
    for (from, to) in [("a0=", "a0=f"), ("success=yes", "success=no")] {
        assert_eq!(told(&log.replace(from, to)), []);
    }
}

#[test]
fn a_32_bit_program_on_a_64_bit_kernel() {
    let events = read(include_bytes!("testdata/i386.log"));
    assert!(
        matches!(&events[..], [Audited::Exec(exec), Audited::Exit { .. }] if exec.argv == ["/bin/echo", "plain"])
    );
}

#[test]
fn arguments_that_are_encoded() {
    let execs = execs(include_bytes!("testdata/encoded.log"));
    assert_eq!(execs[0].argv, ["/bin/echo", "two words", "tab\there", "\\xff\\xfe", "", "quote\"d"]);
}

#[test]
fn an_exec_by_a_thread_is_the_process_s() {
    let execs = execs(include_bytes!("testdata/thread.log"));
    assert_eq!(execs.iter().map(|exec| &*exec.argv[0]).collect::<Vec<_>>(), ["/opt/test/thr", "echo"]);
    assert_eq!(execs[0].pid, execs[1].pid);
}

#[test]
fn arguments_over_many_records() {
    let exec = &execs(include_bytes!("testdata/long.log"))[0];
    assert_eq!(exec.argv.len(), 4);
    assert_eq!(exec.argv[1], "x".repeat(20_000));
    assert_eq!(exec.argv[2], "y y".repeat(4_000));
    assert_eq!(exec.argv[3], "z");
    assert!(!exec.truncated);
}

#[test]
fn two_thousand_arguments() {
    let exec = &execs(include_bytes!("testdata/many.log"))[0];
    assert_eq!(exec.argv.len(), 2001);
    assert_eq!(exec.argv[2000], "a1999");
}

#[test]
fn the_exit_status_is_the_least_byte() {
    assert!(matches!(
        read(include_bytes!("testdata/exit.log"))[..],
        [Audited::Exit { reason: ExitReason::Code(7), .. }]
    ));
    let line = b"type=SYSCALL msg=audit(1.0:1): arch=c000003e syscall=231 a0=ffffffffffffff01 ppid=1 pid=2 exe=\"/x\"";
    assert!(matches!(read(line)[..], [Audited::Exit { reason: ExitReason::Code(1), pid: 2, .. }]));
}

#[test]
fn a_death_by_signal() {
    let line = b"type=ANOM_ABEND msg=audit(1.0:1): auid=1 uid=0 gid=0 ses=1 pid=77 comm=\"x\" exe=\"/x\" sig=11 res=1";
    assert!(matches!(read(line)[..], [Audited::Exit { reason: ExitReason::Signal(11), pid: 77, .. }]));
}

#[test]
fn a_failed_exec_is_none() {
    let line =
        b"type=SYSCALL msg=audit(1.0:1): arch=c000003e syscall=59 success=no exit=-2 ppid=1 pid=2 exe=\"/x\"";
    assert!(read(line).is_empty());
}

#[test]
fn events_that_interleave_come_apart() {
    let log =
        b"type=SYSCALL msg=audit(1.0:1): arch=c000003e syscall=59 success=yes ppid=1 pid=10 exe=\"/a\"\n\
        type=SYSCALL msg=audit(1.0:2): arch=c000003e syscall=59 success=yes ppid=1 pid=20 exe=\"/b\"\n\
        type=EXECVE msg=audit(1.0:2): argc=1 a0=\"b\"\n\
        type=EXECVE msg=audit(1.0:1): argc=1 a0=\"a\"\n\
        type=EOE msg=audit(1.0:2): \n\
        type=EOE msg=audit(1.0:1): ";
    let execs = execs(log);
    assert_eq!(
        execs.iter().map(|exec| (exec.pid, &*exec.argv[0])).collect::<Vec<_>>(),
        [(10, "a"), (20, "b")]
    );
}

#[test]
fn an_exec_is_complete_at_its_working_directory() {
    let mut assembler = Assembler::default();
    let log = include_bytes!("testdata/plain.log");
    let lines: Vec<_> = log.split(|byte| *byte == b'\n').filter_map(log_line).collect();
    let complete = lines.iter().find_map(|(record, stamp, fields)| {
        assembler.push(*record, *stamp, fields).map(|event| (*record, event))
    });
    let Some((kind::CWD, Audited::Exec(exec))) = complete else { panic!("{complete:?}") };
    assert_eq!((&*exec.cwd, exec.truncated), ("/", false));
}

#[test]
fn a_missing_record_is_counted_and_marked() {
    let mut assembler = Assembler::default();
    let mut events = Vec::new();
    for line in [
        &b"type=SYSCALL msg=audit(1.0:1): arch=c000003e syscall=59 success=yes ppid=1 pid=10 exe=\"/a\""[..],
        b"type=EXECVE msg=audit(1.0:1): argc=3 a0=\"a\"",
        b"type=EOE msg=audit(1.0:1): ",
        b"type=EXECVE msg=audit(1.0:2): argc=1 a0=\"orphan\"",
    ] {
        let (record, stamp, fields) = log_line(line).unwrap();
        events.extend(assembler.push(record, stamp, fields));
    }
    assert!(matches!(&events[..], [Audited::Exec(exec)] if exec.truncated));
    assert_eq!(assembler.incomplete(), 2);
}

#[test]
fn hostile_argument_counts_are_bounded() {
    let mut assembler = Assembler::default();
    let stamp = Stamp { time: defender_model::time::Timestamp(0), serial: 1 };
    let syscall = b"arch=c000003e syscall=59 success=yes ppid=1 pid=10 exe=\"/a\"";
    assembler.push(kind::SYSCALL, stamp, syscall);
    for start in (0..200_000).step_by(1000) {
        let fields: String = (start..start + 1000).map(|i| format!(" a{i}=\"\"")).collect();
        assembler.push(kind::EXECVE, stamp, fields.as_bytes());
    }
    let Some(Audited::Exec(exec)) = assembler.push(kind::EOE, stamp, b"") else { panic!("no exec") };
    assert!(exec.truncated && exec.argv.len() == ARGUMENTS);
}

proptest! {
    #[test]
    fn any_records_in_any_order_never_panic(
        records in prop::collection::vec((0usize..6, 1u64..5, "[ -~]{0,60}|( a[0-9]{1,2}(_len=9|\\[[0-9]\\]=[0-9A-F]{0,4}|=\"[a-z]{0,3}\")){0,5}"), 0..40)
    ) {
        let kinds = [kind::SYSCALL, kind::EXECVE, kind::CWD, kind::EOE, kind::ANOM_ABEND, kind::CONFIG_CHANGE];
        let mut assembler = Assembler::default();
        for (which, serial, text) in records {
            let stamp = Stamp { time: defender_model::time::Timestamp(0), serial };
            let fields = if which == 0 {
                format!("arch=c000003e syscall=59 success=yes ppid=1 pid=10 {text}")
            } else {
                text
            };
            let _ = assembler.push(kinds[which], stamp, fields.as_bytes());
            prop_assert!(assembler.pending.len() <= PENDING);
        }
    }
}

#[test]
fn what_programs_say_of_logins_is_handed_on_as_it_is() {
    let stamp = Stamp { time: defender_model::time::Timestamp(5), serial: 9 };
    let mut assembler = Assembler::default();
    let fields = b" pid=8 uid=0 msg='op=login acct=\"root\" res=success'";
    let told = assembler.push(1112, stamp, fields);
    assert_eq!(told, Some(Audited::Said { stamp, record: 1112, fields: fields.to_vec() }));
    assert_eq!(assembler.push(1123, stamp, fields), None);
}
