//! A message bus of the tests' own, and who calls over it.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use defender_daemon::dbus::{NAME, PATH};
use tokio::time::sleep;
use zbus::{Connection, Proxy};

use super::{overlay, PATIENCE};

/// What a bus lets everybody do, besides what a package's policy says.
#[derive(Clone, Copy)]
pub(super) enum Policy {
    /// Everything: the agent has to look after itself.
    Open,
    /// As a system bus: nothing but what the policy file of the image allows.
    Image,
}

/// A message bus of our own. Its socket stays in place over restarts.
pub(super) struct Bus {
    directory: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Bus {
    /// `None`, and the reason on standard output, where there is no dbus-daemon.
    pub(super) fn new(policy: Policy) -> Option<Self> {
        if Command::new("dbus-daemon").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("skipped: dbus-daemon is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let rules = match policy {
            Policy::Open => {
                "<policy context='default'><allow user='*'/><allow own='*'/><allow send_destination='*'/>\
                 <allow receive_sender='*'/></policy>"
                    .to_owned()
            }
            // What a distribution's system.conf says, and then the image's file.
            Policy::Image => format!(
                "<policy context='default'><allow user='*'/><deny own='*'/><deny send_type='method_call'/>\
                 <allow send_type='signal'/><allow send_requested_reply='true' send_type='method_return'/>\
                 <allow send_requested_reply='true' send_type='error'/><allow receive_type='method_call'/>\
                 <allow receive_type='method_return'/><allow receive_type='error'/><allow receive_type='signal'/>\
                 <allow send_destination='org.freedesktop.DBus'/></policy><include>{}</include>",
                overlay("usr/share/dbus-1/system.d/org.defender.Agent1.conf").display()
            ),
        };
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC '-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN' \
             'http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd'>\
             <busconfig><listen>unix:path={}</listen><auth>EXTERNAL</auth>{rules}</busconfig>",
            directory.path().join("bus").display()
        );
        std::fs::write(directory.path().join("bus.conf"), text).unwrap();
        Some(Self { directory, daemon: None })
    }

    pub(super) fn running(policy: Policy) -> Option<Self> {
        let mut bus = Self::new(policy)?;
        bus.start();
        Some(bus)
    }

    pub(super) fn start(&mut self) {
        let configuration = format!("--config-file={}", self.directory.path().join("bus.conf").display());
        let child = Command::new("dbus-daemon")
            .args([&configuration, "--nofork"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.daemon = Some(child);
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
        let _ = std::fs::remove_file(self.directory.path().join("bus"));
    }

    pub(super) fn address(&self) -> String {
        format!("unix:path={}", self.directory.path().join("bus").display())
    }

    pub(super) async fn connect(&self) -> Connection {
        let began = Instant::now();
        loop {
            let built = zbus::connection::Builder::address(self.address().as_str()).unwrap().build().await;
            match built {
                Ok(connection) => return connection,
                Err(error) => assert!(began.elapsed() < PATIENCE, "the bus does not come up: {error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The agent's object, once it is there.
    pub(super) async fn agent(&self) -> Proxy<'static> {
        let connection = self.connect().await;
        let began = Instant::now();
        loop {
            let bus = zbus::fdo::DBusProxy::new(&connection).await.unwrap();
            if bus.name_has_owner(NAME.try_into().unwrap()).await.unwrap() {
                return zbus::proxy::Builder::new(&connection)
                    .destination(NAME)
                    .unwrap()
                    .path(PATH)
                    .unwrap()
                    .interface(NAME)
                    .unwrap()
                    .cache_properties(zbus::proxy::CacheProperties::No)
                    .build()
                    .await
                    .unwrap();
            }
            assert!(began.elapsed() < PATIENCE, "the agent does not come onto the bus");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Calls a member as another user.
    pub(super) fn call_as(
        &self,
        uid: u32,
        gid: u32,
        member: &str,
        arguments: &[&str],
    ) -> Result<String, String> {
        let output = Command::new("dbus-send")
            .arg(format!("--bus={}", self.address()))
            .args(["--print-reply", "--reply-timeout=20000"])
            .arg(format!("--dest={NAME}"))
            .arg(PATH)
            .arg(member)
            .args(arguments)
            .uid(uid)
            .gid(gid)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.kill();
    }
}
