//! Against rsyslog, the daemon most collectors are.

use std::process::{Child, Command, Stdio};

use super::tests::{start_with, wait_for};
use super::*;
use crate::record::Record;
use crate::sink::tests::record;

/// An rsyslogd of the distribution, ended with the test.
struct Daemon {
    child: Child,
    directory: tempfile::TempDir,
    port: u16,
}

impl Daemon {
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name).display().to_string();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let config = format!(
            r#"global(workDirectory="{directory}")
module(load="imuxsock" SysSock.Use="off")
module(load="imudp")
module(load="imtcp")
input(type="imuxsock" Socket="{socket}")
input(type="imudp" address="127.0.0.1" port="{port}")
input(type="imtcp" address="127.0.0.1" port="{port}")
template(name="parts" type="string" string="%inputname%|%syslogpriority-text%|%syslogfacility-text%|%hostname%|%app-name%|%structured-data%|%msg%|%timereported:::date-rfc3339%\n")
action(type="omfile" file="{output}" template="parts")
"#,
            directory = directory.path().display(),
            socket = path("log"),
            output = path("output"),
        );
        std::fs::write(path("rsyslog.conf"), config).expect("write");
        let arguments = ["-n", "-f", &path("rsyslog.conf"), "-i", &path("pid")];
        let child = ["rsyslogd", "/usr/sbin/rsyslogd"].into_iter().find_map(|program| {
            Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
        });
        let Some(child) = child else {
            println!("skipped: rsyslogd is not installed");
            return None;
        };
        Some(Self { child, directory, port })
    }

    async fn lines(&self, count: usize) -> Vec<String> {
        for _ in 0..1000 {
            let text = std::fs::read_to_string(self.directory.path().join("output")).unwrap_or_default();
            if text.lines().count() >= count {
                return text.lines().map(str::to_owned).collect();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("rsyslog did not write {count} lines");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "current_thread")]
async fn rsyslog_understands_every_transport() {
    let Some(daemon) = Daemon::start() else { return };
    let host = "127.0.0.1".to_owned();
    let port = daemon.port;
    let local = Transport::Local { path: daemon.directory.path().join("log") };
    let (tcp, udp) = (Transport::Tcp { host: host.clone(), port }, Transport::Udp { host, port });
    let mut expected = 0;
    for (transport, format) in [
        (local, Format::Rfc5424),
        (tcp.clone(), Format::Rfc5424),
        (udp, Format::Rfc5424),
        (tcp.clone(), Format::Rfc3164),
        (tcp, Format::Cef),
    ] {
        let (handle, task) = start_with(transport, format);
        for sequence in 0..50 {
            handle
                .push(Record {
                    summary: format!("bad [thing] \"{sequence}\"").into(),
                    ..record(sequence, true)
                })
                .await;
        }
        // Also waits for the daemon to listen, for the first.
        wait_for(&handle, "delivery", |stats| stats.written == 50).await;
        handle.close();
        task.await.expect("no panic");
        expected += 50;
        daemon.lines(expected).await;
    }
    let lines = daemon.lines(250).await;
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let own = own.trim().split('.').next().unwrap_or_default().to_owned();
    for sequence in 0..50 {
        let text = format!("bad [thing] \"{sequence}\"");
        let data = format!("[defender@32473 sequence=\"{sequence}\"]");
        for expected in [
            format!("imuxsock|err|authpriv|{own}|defender|-| {text}"),
            // The stamps are the record's: 1 700 000 000 seconds after 1970.
            format!("imtcp|err|authpriv|device|defender|{data}|{text}|2023-11-14T22:13:20.000"),
            format!("imudp|err|authpriv|device|defender|{data}|{text}|2023-11-14T22:13:20.000"),
            format!("imtcp|err|authpriv|device|defender|-| {text}|"),
            format!(
                "imtcp|err|authpriv|device|CEF|-|0|defender project|defender|{}|0|event|8|msg={text} cn1={sequence} cn1Label=sequence|",
                env!("CARGO_PKG_VERSION")
            ),
        ] {
            let found = lines.iter().filter(|line| line.starts_with(&expected)).count();
            assert_eq!(found, 1, "{expected} in {lines:#?}");
        }
    }
    assert_eq!(lines.len(), 250);
}
