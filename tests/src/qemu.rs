//! The machine under test.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use crate::architecture::Architecture;
use crate::command;
use crate::control::{wire, Control, Reply};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::lab::{Lab, TAP};
use crate::progress;
use crate::workspace::Workspace;

/// The kernel's command line: what the laboratory needs, the root, and the product's words.
pub(crate) fn command_line(architecture: Architecture, read_only: bool, product: &str) -> String {
    let console = architecture.console();
    let writable = if read_only { "ro" } else { "rw" };
    format!("console={console} panic=-1 net.ifnames=0 loglevel=4 root=/dev/vda {writable} {product}")
}

/// Where the harness's own programs go in the guest: not where droppers land, since they are about counting.
pub const PROGRAMS: &str = "/var/lib/validation";

/// A kernel boots in about 3 s on an emulated processor; this is for a busy build machine.
const BOOT: Duration = Duration::from_secs(120);

/// A guest that works under KVM answers the probe in less than a second.
const PROBE: Duration = Duration::from_secs(8);

/// A clean shutdown of systemd, emulated.
const SHUTDOWN: Duration = Duration::from_secs(60);

/// Size of the disk for `/var`, bytes: small enough to be filled by a test.
const STATE_DISK: u64 = 160 << 20;

/// Bound of a command in the guest for which nothing else is said.
const COMMAND: Duration = Duration::from_secs(30);

/// Who executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Accelerator {
    /// KVM where a guest really boots under it, otherwise emulation. `DEFENDER_VALIDATION_ACCEL=kvm|tcg` decides without
    /// a probe. A device node that can be opened says nothing: nested guests may hang in their first instructions. The
    /// answer is kept until the build machine boots again.
    ///
    /// # Errors
    /// When the variable has another value.
    pub fn choose(workspace: &Workspace, image: &Image) -> Result<Self> {
        if !image.architecture.is_native() {
            return Ok(Self::Tcg);
        }
        match env::var("DEFENDER_VALIDATION_ACCEL").as_deref() {
            Ok("kvm") => return Ok(Self::Kvm),
            Ok("tcg") => return Ok(Self::Tcg),
            Ok(other) => {
                return Err(Error::Usage(format!("DEFENDER_VALIDATION_ACCEL={other}: it is `kvm` or `tcg`")));
            }
            Err(_) => {}
        }
        if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(Self::Tcg);
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let known = workspace.work("accelerator");
        if let Ok(text) = fs::read_to_string(&known) {
            if let Some(answer) = text.strip_prefix(&boot) {
                return Ok(if answer == "kvm" { Self::Kvm } else { Self::Tcg });
            }
        }
        let works = progress::step("trying a guest under KVM", || probe(image));
        let answer = if works { "kvm" } else { "tcg" };
        // Only a short cut for the next time.
        let _ = fs::write(known, format!("{boot}{answer}"));
        Ok(if works { Self::Kvm } else { Self::Tcg })
    }

    fn arguments(self, architecture: Architecture) -> &'static [&'static str] {
        match (architecture, self) {
            (Architecture::X86_64, Self::Kvm) => &["-accel", "kvm", "-cpu", "host"],
            // A processor of a generation that many devices still have, without the pointer authentication that costs a translator
            // most of its time.
            (Architecture::Aarch64, _) => &["-machine", "virt", "-accel", "tcg", "-cpu", "cortex-a57"],
            // The translator has more of the newer instructions than any real model, AES among them; but five levels of page
            // tables only make every exec slower.
            (Architecture::X86_64, Self::Tcg) => &["-accel", "tcg", "-cpu", "max,la57=off"],
        }
    }
}

fn emulator(image: &Image) -> String {
    format!("qemu-system-{}", image.architecture.name())
}

/// Boots kernel and initramfs, which says one line and switches off.
fn probe(image: &Image) -> bool {
    let mut qemu = Command::new("setpriv");
    qemu.args([
        "--pdeathsig",
        "KILL",
        &emulator(image),
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    qemu.args(Accelerator::Kvm.arguments(image.architecture)).args(["-m", "256", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initramfs);
    qemu.args(["-append", "console=ttyS0 panic=-1 quiet validation.probe"]);
    command::output(&mut qemu, PROBE)
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("validation: probe ok"))
}

/// How to boot.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What.
    pub image: Image,
    /// By whom.
    pub accelerator: Accelerator,
    /// Mebibytes of memory.
    pub memory: u32,
    /// Processors.
    pub processors: u32,
    /// With a controller that USB devices are plugged into by `device_add usb-...`.
    pub usb: bool,
    /// Directory for the console's log and the disks of this machine; made, and emptied, when missing.
    pub directory: PathBuf,
}

impl Setup {
    /// The usual machine: 256 MiB, one processor.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn new(workspace: &Workspace, image: &Image, name: &str) -> Result<Self> {
        let directory = workspace.work(&format!("runs/{name}"));
        // What an earlier run left is of no use.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)
            .map_err(Error::io(format!("cannot create {}", directory.display())))?;
        let accelerator = Accelerator::choose(workspace, image)?;
        Ok(Self { image: image.clone(), accelerator, memory: 256, processors: 1, usb: false, directory })
    }

    /// The disk that becomes `/var`; empty when first asked for. It survives reboots.
    fn state_disk(&self) -> Result<PathBuf> {
        let path = self.directory.join("var.ext4");
        if !path.exists() {
            let file = File::create(&path).map_err(Error::io(format!("cannot create {}", path.display())))?;
            file.set_len(STATE_DISK).map_err(Error::io(format!("cannot size {}", path.display())))?;
            // Nothing is left to be initialised by the guest in the background.
            let mut mkfs = Command::new("mkfs.ext4");
            mkfs.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(&path);
            command::run(&mut mkfs, COMMAND)?;
        }
        Ok(path)
    }
}

/// A running machine. It is killed, by its process id, when this is dropped.
pub struct Machine {
    setup: Setup,
    child: Child,
    control: Control,
    booted: Duration,
    boots: u32,
}

impl Machine {
    /// Switches it on and waits until its control agent answers, which is before the image's own init runs.
    ///
    /// # Errors
    /// When QEMU cannot be started, the kernel panics, or the agent does not answer in time.
    pub fn boot(setup: Setup, lab: &Lab) -> Result<Self> {
        Self::start(setup, lab, 1)
    }

    fn start(setup: Setup, lab: &Lab, boots: u32) -> Result<Self> {
        let drive = |file: &Path, id: &str, options: &str| {
            format!(
                "file={},format=raw,if=none,id={id},{options}",
                file.display().to_string().replace(',', ",,")
            )
        };
        let image = &setup.image;
        let emulator = emulator(image);
        let mut qemu = lab.switch().command(&emulator);
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        qemu.args(setup.accelerator.arguments(image.architecture));
        qemu.arg("-m").arg(setup.memory.to_string()).arg("-smp").arg(setup.processors.to_string());
        qemu.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initramfs);
        qemu.arg("-append").arg(command_line(image.architecture, image.read_only, image.cmdline));
        // The console's log goes on over reboots.
        let console = OpenOptions::new()
            .create(true)
            .append(true)
            .open(console(&setup))
            .map_err(Error::io("cannot open the console's log"))?;
        drop(console);
        qemu.arg("-chardev").arg(format!(
            "file,id=console,append=on,path={}",
            self::console(&setup).display().to_string().replace(',', ",,")
        ));
        qemu.args(["-serial", "chardev:console", "-device", "virtio-serial-pci"]);
        // Whoever waits for it at start-up gets nothing: it is for plugging devices in later.
        let _ = fs::remove_file(monitor(&setup));
        qemu.arg("-qmp").arg(format!(
            "unix:{},server=on,wait=off",
            monitor(&setup).display().to_string().replace(',', ",,")
        ));
        // Our end of the control port is QEMU's own standard input and output: no socket to leave behind.
        qemu.args(["-chardev", "stdio,id=control,signal=off"]);
        qemu.arg("-device").arg(format!("virtserialport,chardev=control,name={}", wire::PORT));
        let mode = if image.read_only { "readonly=on" } else { "cache=unsafe" };
        qemu.arg("-drive").arg(drive(&image.rootfs, "root", mode));
        qemu.args(["-device", "virtio-blk-pci,drive=root"]);
        qemu.arg("-drive").arg(drive(&setup.state_disk()?, "var", "cache=unsafe"));
        qemu.args(["-device", "virtio-blk-pci,drive=var"]);
        qemu.arg("-netdev").arg(format!("tap,id=net,ifname={TAP},script=no,downscript=no,vhost=off"));
        qemu.args(["-device", "virtio-net-pci,netdev=net,mac=52:54:00:77:00:02,romfile="]);
        qemu.args(["-device", "virtio-rng-pci"]);
        for (chassis, port) in (1..).zip(image.architecture.ports()) {
            qemu.arg("-device").arg(format!("pcie-root-port,id={port},chassis={chassis}"));
        }
        if setup.usb {
            qemu.args(["-device", "qemu-xhci,id=usb"]);
        }
        let errors =
            File::create(setup.directory.join("qemu.log")).map_err(Error::io("cannot open QEMU's log"))?;
        let start = Instant::now();
        let mut child = qemu
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(Error::io(format!("cannot start {emulator}")))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Machine("no control channel".into()));
        };
        let control = Control::new(to, from);
        let mut machine = Self { setup, child, control, booted: Duration::ZERO, boots };
        while !machine.control.sync(Duration::from_millis(250)).map_err(|error| machine.explain(&error))? {
            if start.elapsed() > BOOT {
                return Err(machine.explain(&Error::TimedOut {
                    what: "the guest's control agent".into(),
                    after: BOOT,
                    seen: String::new(),
                }));
            }
            machine.check()?;
        }
        machine.booted = start.elapsed();
        Ok(machine)
    }

    /// What was booted.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// From switching on until the control agent answered.
    #[must_use]
    pub fn boot_time(&self) -> Duration {
        self.booted
    }

    /// Gives the machine's monitor a command for people, such as `device_add`, and returns what it says.
    ///
    /// # Errors
    /// When the monitor cannot be reached or does not answer as it should.
    pub fn monitor(&mut self, command: &str) -> Result<String> {
        let words = || format!("QEMU's monitor: {command}");
        let stream = UnixStream::connect(monitor(&self.setup)).map_err(Error::io(words()))?;
        stream.set_read_timeout(Some(COMMAND)).map_err(Error::io(words()))?;
        let mut lines = BufReader::new(stream.try_clone().map_err(Error::io(words()))?).lines();
        let requests = [
            json!({ "execute": "qmp_capabilities" }),
            json!({ "execute": "human-monitor-command", "arguments": { "command-line": command } }),
        ];
        let mut said = String::new();
        for request in requests {
            writeln!(&stream, "{request}").map_err(Error::io(words()))?;
            // Greetings and events come in between.
            said = loop {
                let line = lines
                    .next()
                    .ok_or_else(|| Error::Unexpected(format!("{}: it hung up", words())))?
                    .map_err(Error::io(words()))?;
                let reply: Value = serde_json::from_str(&line)
                    .map_err(|error| Error::Unexpected(format!("{}: {error}: {line}", words())))?;
                if let Some(error) = reply.get("error") {
                    return Err(Error::Unexpected(format!("{}: {error}", words())));
                }
                if let Some(answer) = reply.get("return") {
                    break answer.as_str().unwrap_or_default().to_owned();
                }
            };
        }
        Ok(said)
    }

    /// Runs a shell command as root in the guest, whatever its status.
    ///
    /// # Errors
    /// When the machine is gone or does not answer.
    pub fn run(&mut self, command: &str) -> Result<Reply> {
        self.run_within(command, COMMAND)
    }

    /// As [`Machine::run`], with a bound of its own.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn run_within(&mut self, command: &str, limit: Duration) -> Result<Reply> {
        self.run_with(command, &[], limit)
    }

    fn run_with(&mut self, command: &str, input: &[u8], limit: Duration) -> Result<Reply> {
        self.control.run(command, input, limit).map_err(|error| self.explain(&error))
    }

    /// Runs a command that has to succeed, and returns its standard output.
    ///
    /// # Errors
    /// Also when its status is not 0.
    pub fn ok(&mut self, command: &str) -> Result<String> {
        let reply = self.run(command)?;
        if reply.status == 0 {
            return Ok(reply.output);
        }
        Err(Error::Command {
            command: format!("guest: {command}"),
            status: format!("status {}", reply.status),
            said: format!("{}{}", reply.error, reply.output),
        })
    }

    /// Types `script` into a root shell of the guest. Other than with [`Machine::run`], no command line holds the text of
    /// the commands: what they do is seen from the programs they start, as on an intruder's terminal.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn type_as_root(&mut self, script: &str) -> Result<Reply> {
        self.run_with("exec sh", script.as_bytes(), COMMAND)
    }

    /// Writes a file in the guest.
    ///
    /// # Errors
    /// When that fails.
    pub fn write_file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let reply = self.run_with(&format!("cat >'{path}' && chmod {mode:o} '{path}'"), content, COMMAND)?;
        if reply.status == 0 {
            return Ok(());
        }
        Err(Error::Command {
            command: format!("guest: write {path}"),
            status: format!("status {}", reply.status),
            said: reply.error,
        })
    }

    /// Puts the programs that scenarios start into [`PROGRAMS`] in the guest.
    ///
    /// # Errors
    /// When that fails.
    pub fn install_programs(&mut self) -> Result<()> {
        let programs = self.setup.image.programs.clone();
        self.ok(&format!("mkdir -p {PROGRAMS}"))?;
        for (program, name) in [
            (&programs.noop, "noop"),
            (&programs.spawner, "spawner"),
            (&programs.storm, "storm"),
            (&programs.deeds, "deeds"),
        ] {
            let content =
                fs::read(program).map_err(Error::io(format!("cannot read {}", program.display())))?;
            self.write_file(&format!("{PROGRAMS}/{name}"), 0o755, &content)?;
        }
        Ok(())
    }

    /// Asks again until `probe` finds what it looks for, at most `limit`. `probe` returns `Err(seen)` while it does not.
    ///
    /// # Errors
    /// When the time is over (with what was last seen), or the machine is gone.
    pub fn wait<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut(&mut Self) -> Result<std::result::Result<T, String>>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            match probe(self)? {
                Ok(found) => return Ok(found),
                Err(seen) if start.elapsed() > limit => {
                    return Err(Error::TimedOut { what: what.into(), after: limit, seen });
                }
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Reboots through the image's own init; the disk for `/var` stays.
    ///
    /// # Errors
    /// When it does not go down or does not come up.
    pub fn reboot(mut self, lab: &Lab) -> Result<Self> {
        self.bring_down("reboot")?;
        let (setup, boots) = (self.setup.clone(), self.boots + 1);
        drop(self);
        Self::start(setup, lab, boots)
    }

    /// Cuts the power and boots what `change` makes of the machine; the disk for `/var` stays, with all that was written before.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn cut_power(mut self, lab: &Lab, change: impl FnOnce(&mut Setup)) -> Result<Self> {
        self.ok("sync")?;
        let (mut setup, boots) = (self.setup.clone(), self.boots + 1);
        drop(self);
        change(&mut setup);
        Self::start(setup, lab, boots)
    }

    /// Switches off through the image's own init.
    ///
    /// # Errors
    /// When it does not go down; it is killed then.
    pub fn shut_down(mut self) -> Result<()> {
        self.bring_down("poweroff")
    }

    fn bring_down(&mut self, command: &str) -> Result<()> {
        // In the background: the control agent is among the first to be killed.
        let asked = self.run(&format!("(sleep 0.2; {command}) >/dev/null 2>&1 &"));
        if let Err(error @ Error::TimedOut { .. }) = asked {
            return Err(error);
        }
        let start = Instant::now();
        while self.exit_status()?.is_none() {
            if start.elapsed() > SHUTDOWN {
                return Err(self.explain(&Error::TimedOut {
                    what: format!("the guest's {command}"),
                    after: SHUTDOWN,
                    seen: String::new(),
                }));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Nothing is wrong with the machine itself.
    ///
    /// # Errors
    /// When QEMU ended or the kernel panicked.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.exit_status()? {
            return Err(self.explain(&Error::Machine(format!("QEMU ended ({status})"))));
        }
        if self.panicked() {
            return Err(self.explain(&Error::Machine("kernel panic".into())));
        }
        Ok(())
    }

    /// The console's log so far.
    #[must_use]
    pub fn console(&self) -> String {
        let mut bytes = Vec::new();
        // A log that cannot be read says nothing, which is what an empty one says.
        let _ = File::open(console(&self.setup)).and_then(|mut file| file.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn panicked(&self) -> bool {
        self.console().contains("Kernel panic")
    }

    fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(Error::io("cannot look after QEMU"))
    }

    /// An error with what console and QEMU said last.
    fn explain(&self, error: &Error) -> Error {
        let console = self.console();
        let mut last: Vec<&str> = console.lines().rev().take(12).collect();
        last.reverse();
        let qemu = fs::read_to_string(self.setup.directory.join("qemu.log")).unwrap_or_default();
        Error::Machine(format!(
            "{error}\n  console ({}):\n    {}\n  {}",
            self::console(&self.setup).display(),
            last.join("\n    "),
            qemu.trim_end()
        ))
    }
}

fn monitor(setup: &Setup) -> PathBuf {
    setup.directory.join("monitor")
}

fn console(setup: &Setup) -> PathBuf {
    setup.directory.join("console.log")
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
