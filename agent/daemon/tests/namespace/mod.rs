//! The agent itself in a network namespace of its own, with the real `nft`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A network namespace that lasts as long as this does, and a directory for the agents in it.
pub(crate) struct Device {
    pub(crate) directory: tempfile::TempDir,
    namespace: Child,
}

/// A running agent.
pub(crate) struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // As abrupt as a crash.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.namespace.kill();
        let _ = self.namespace.wait();
    }
}

impl Device {
    /// `None` where there is no root or no nft.
    pub(crate) fn start() -> Option<Self> {
        // SAFETY: geteuid(2) takes nothing and cannot fail.
        let root = unsafe { libc::geteuid() } == 0;
        if !root || !Path::new("/usr/sbin/nft").exists() {
            println!("skipped: needs root and /usr/sbin/nft");
            return None;
        }
        let mut command = Command::new("unshare");
        let namespace = command.args(["--net", "sleep", "300"]).stdin(Stdio::null()).spawn().unwrap();
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", namespace.id());
        wait("a namespace", || fs::read_link(&theirs).is_ok_and(|theirs| theirs != own).then_some(()));
        let device = Self { directory: tempfile::tempdir().unwrap(), namespace };
        assert!(device.inside("ip link set lo up").status.success());
        Some(device)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn inside(&self, line: &str) -> Output {
        let net = format!("--net=/proc/{}/ns/net", self.namespace.id());
        Command::new("nsenter").args([&net, "sh", "-c", line]).output().unwrap()
    }

    /// An agent with these lines in section `response`.
    pub(crate) fn agent(&self, response: &str) -> Agent {
        let rules =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rootfs-overlay/usr/share/defender/rules");
        let at = self.directory.path().display();
        let configuration = format!(
            "[agent]\nstate_dir = \"{at}/state\"\nrun_dir = \"{at}/run\"\n\
             [process]\nenabled = false\n[network]\nenabled = false\n[posture]\nenabled = false\n\
             [dbus]\nenabled = false\n[feeds]\ndirectories = []\n\
             [login]\nfiles = [\"{at}/auth.log\"]\nsyslog_socket = \"off\"\n\
             [rules]\ndirectories = [{rules:?}]\n[suppression]\nrepeat_window_s = 0\n\
             [sink.file]\npath = \"{at}/events.jsonl\"\n[sink.syslog]\nenabled = false\n\
             [confinement]\ndrop_privileges = false\n\
             [response]\n{response}\n"
        );
        fs::write(self.path("defender.toml"), configuration).unwrap();
        fs::write(self.path("auth.log"), "").unwrap();
        let net = format!("--net=/proc/{}/ns/net", self.namespace.id());
        let mut command = Command::new("nsenter");
        command.arg(net).arg(env!("CARGO_BIN_EXE_defender")).args(["run", "--config"]);
        command.arg(self.path("defender.toml")).stdin(Stdio::null()).stderr(Stdio::null());
        let agent = Agent(command.spawn().unwrap());
        wait("the agent is armed", || self.ask(&["status"]).status.success().then_some(()));
        agent
    }

    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_defender"));
        command.args(arguments).arg("--socket").arg(self.path("run/control.sock")).output().unwrap()
    }
}

pub(crate) fn wait<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(30) {
        if let Some(found) = probe() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("within 30 s not: {what}");
}
