//! rsyslogd and syslog-ng on loopback, ended with the test.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use defender_validation::architecture::Architecture;
use defender_validation::packages;
use defender_validation::workspace::Workspace;

use super::authority::{Authority, Pair};

/// How long anything may take on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Rsyslog,
    SyslogNg,
}

pub(crate) struct Collector {
    child: Child,
    directory: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Collector {
    /// Shows `own`, takes clients of `clients` only, looks for them in its revocation list where it can. `None`, with the reason
    /// printed, if there is no such daemon.
    pub(crate) fn start(kind: Kind, own: &Pair, clients: &Authority) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = match kind {
            Kind::Rsyslog => rsyslog(directory.path(), port, own, clients)?,
            Kind::SyslogNg => syslog_ng(directory.path(), port, own, clients)?,
        };
        let log = fs::File::create(directory.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                println!("skipped: {kind:?}: {error}");
                return None;
            }
        };
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < until,
                "{kind:?} does not listen ({ended:?}): {}",
                fs::read_to_string(directory.path().join("log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, directory, port })
    }

    /// What it has written so far: `HOST|PROGRAM|MESSAGE`.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join("output")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rsyslog(directory: &Path, port: u16, own: &Pair, clients: &Authority) -> Option<Command> {
    if !Path::new("/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_ossl.so").exists() {
        println!("skipped: rsyslog-openssl is not installed");
        return None;
    }
    let text = format!(
        r#"global(workDirectory="{work}" defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="{ca}"
  defaultNetstreamDriverCertFile="{certificate}" defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
input(type="imtcp" address="127.0.0.1" port="{port}")
template(name="line" type="string" string="%hostname%|%app-name%|%msg%\n")
action(type="omfile" file="{work}/output" template="line")
"#,
        work = directory.display(),
        ca = clients.ca().display(),
        certificate = own.certificate.display(),
        key = own.key.display(),
    );
    let file = directory.join("rsyslog.conf");
    fs::write(&file, text).unwrap();
    let mut command = Command::new("/usr/sbin/rsyslogd");
    command.arg("-n").arg("-f").arg(file).arg("-i").arg(directory.join("pid"));
    Some(command)
}

fn syslog_ng(directory: &Path, port: u16, own: &Pair, clients: &Authority) -> Option<Command> {
    static UNPACKING: Mutex<()> = Mutex::new(());
    let alone = UNPACKING.lock().unwrap_or_else(PoisonError::into_inner);
    let unpacked = Workspace::locate()
        .and_then(|workspace| packages::unpacked(&workspace, Architecture::X86_64, &["syslog-ng"]));
    let tree = match unpacked {
        Ok(tree) => tree,
        Err(error) => {
            println!("skipped: syslog-ng cannot be had: {error}");
            return None;
        }
    };
    drop(alone);
    let modules = tree.join("usr/lib/syslog-ng");
    let version: PathBuf = fs::read_dir(&modules)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.join("libsyslogformat.so").exists())
        .unwrap();
    let text = format!(
        r#"@version: {version}
options {{ keep-hostname(yes); use-dns(no); }};
source in {{ syslog(transport("tls") ip(127.0.0.1) port({port}) tls(key-file("{key}") cert-file("{certificate}")
  ca-file("{ca}") crl-dir("{crl}") peer-verify(required-trusted))); }};
destination out {{ file("{work}/output" template("$HOST|$PROGRAM|$MSG\n")); }};
log {{ source(in); destination(out); }};
"#,
        version = version.file_name().unwrap().to_string_lossy(),
        work = directory.display(),
        ca = clients.ca().display(),
        crl = clients.crl_directory().display(),
        certificate = own.certificate.display(),
        key = own.key.display(),
    );
    let file = directory.join("syslog-ng.conf");
    fs::write(&file, text).unwrap();
    // With the libraries it was unpacked with, whatever this machine has.
    let libraries = tree.join("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(tree.join("usr/lib64/ld-linux-x86-64.so.2"));
    if !tree.join("usr/lib64/ld-linux-x86-64.so.2").exists() {
        command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    }
    let own_libraries = format!("{}:{}", libraries.display(), modules.display());
    command.arg("--library-path").arg(own_libraries).arg(tree.join("usr/sbin/syslog-ng"));
    command.args(["-F", "-e", "--no-caps", "-f"]).arg(file);
    for (option, name) in [("-R", "persist"), ("-p", "pid"), ("-c", "control")] {
        command.arg(option).arg(directory.join(name));
    }
    command.arg(format!("--module-path={}", version.display()));
    Some(command)
}
