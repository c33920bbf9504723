//! Command line of the validation harness.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use defender_validation::demo;
use defender_validation::error::{Error, Result};
use defender_validation::image::{self, Flavour, Image};
use defender_validation::lab::Lab;
use defender_validation::progress;
use defender_validation::qemu::{Machine, Setup};
use defender_validation::scenario::{self, Tally};
use defender_validation::workspace::Workspace;

const USAGE: &str = "\
defender-validation COMMAND [OPTIONS]

Commands (all need root: they make network namespaces, and files that belong to other users)
  image            assemble the images
  run              boot the images and run every scenario
  demo             show the whole path once, with explanations
  try COMMAND...   boot, run these shell commands in the guest one after the other, print what they print

Options
  --flavour NAME   busybox or systemd; may be repeated (default: both; demo and try: busybox)
  --agent FILE     agent binary (default: target/release/defender)
  --kernel FILE    boot this kernel, from a Buildroot or Yocto build, instead of assembling an image;
  --rootfs FILE    with this root file system. Drivers for virtio disks, network and console must be built in
  --only WORD      run only scenarios with WORD in their name; may be repeated
  --list           list the scenarios

Environment
  DEFENDER_VALIDATION_ACCEL   kvm or tcg (default: kvm if a guest boots under it)
  DEFENDER_VALIDATION_WORK    directory for everything built (default: tests/.work)
";

#[derive(Default)]
struct Options {
    flavours: Vec<Flavour>,
    agent: Option<PathBuf>,
    kernel: Option<PathBuf>,
    rootfs: Option<PathBuf>,
    only: Vec<String>,
    list: bool,
    guest_commands: Vec<String>,
}

fn main() -> ExitCode {
    let _ = progress::elapsed();
    let result = start();
    defender_validation::attack::clean_up();
    match result {
        Ok(code) => code,
        Err(error) => {
            progress::say(format_args!("error: {error}"));
            ExitCode::from(if matches!(error, Error::Usage(_)) { 2 } else { 3 })
        }
    }
}

fn start() -> Result<ExitCode> {
    let (command, options) = parse()?;
    let workspace = Workspace::locate()?;
    match command.as_str() {
        "image" => {
            for image in options.images(&workspace, &Flavour::ALL)? {
                println!("{}", image.rootfs.display());
            }
            Ok(ExitCode::SUCCESS)
        }
        "try" => {
            let lab = Lab::new()?;
            for image in options.images(&workspace, &[Flavour::Busybox])? {
                let mut machine = Machine::boot(Setup::new(&workspace, &image, "try")?, &lab)?;
                progress::say(format_args!("{} booted in {:.1?}", image.flavour.name(), machine.boot_time()));
                machine.wait("a disk for /var", Duration::from_secs(60), |machine| {
                    Ok(if machine.run("grep -q ' /var ' /proc/mounts")?.status == 0 {
                        Ok(())
                    } else {
                        Err(String::new())
                    })
                })?;
                machine.install_programs()?;
                for command in &options.guest_commands {
                    let reply = machine.run_within(command, Duration::from_secs(300))?;
                    println!("{}{}(status {})", reply.output, reply.error, reply.status);
                }
                machine.shut_down()?;
            }
            Ok(ExitCode::SUCCESS)
        }
        "demo" => {
            for image in options.images(&workspace, &[Flavour::Busybox])? {
                demo::show(&workspace, &image)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        "run" => {
            let flavours =
                if options.flavours.is_empty() { Flavour::ALL.to_vec() } else { options.flavours.clone() };
            if options.list {
                flavours.into_iter().for_each(scenario::list);
                return Ok(ExitCode::SUCCESS);
            }
            let mut total = Tally::default();
            for image in options.images(&workspace, &flavours)? {
                let tally = scenario::run(&workspace, &image, &options.only)?;
                total.passed += tally.passed;
                total.failed += tally.failed;
                total.skipped += tally.skipped;
            }
            if total.skipped > 0 {
                progress::say(format_args!("{} skipped, for the reasons given above", total.skipped));
            }
            println!("{} passed, {} failed", total.passed, total.failed);
            Ok(if total.failed == 0 && total.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        other => Err(Error::Usage(format!("no command `{other}`"))),
    }
}

impl Options {
    fn images(&self, workspace: &Workspace, default: &[Flavour]) -> Result<Vec<Image>> {
        let flavours = if self.flavours.is_empty() { default } else { &self.flavours };
        match (&self.kernel, &self.rootfs) {
            (Some(kernel), Some(rootfs)) => {
                let flavour = flavours.first().copied().unwrap_or(Flavour::Busybox);
                Ok(vec![image::external(workspace, flavour, kernel, rootfs)?])
            }
            (None, None) => {
                let agent = self.agent.clone().unwrap_or_else(|| workspace.agent());
                flavours.iter().map(|flavour| image::assemble(workspace, *flavour, &agent)).collect()
            }
            _ => Err(Error::Usage("--kernel and --rootfs belong together".into())),
        }
    }
}

fn parse() -> Result<(String, Options)> {
    use lexopt::prelude::{Long, Short, Value, ValueExt};
    let usage = |error: lexopt::Error| Error::Usage(error.to_string());
    let mut options = Options::default();
    let mut command = None;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("help") | Short('h') => {
                print!("{USAGE}");
                std::process::exit(0);
            }
            Long("flavour") => {
                let name = parser.value().and_then(ValueExt::string).map_err(usage)?;
                options.flavours.push(Flavour::parse(&name)?);
            }
            Long("agent") => options.agent = Some(parser.value().map_err(usage)?.into()),
            Long("kernel") => options.kernel = Some(parser.value().map_err(usage)?.into()),
            Long("rootfs") => options.rootfs = Some(parser.value().map_err(usage)?.into()),
            Long("only") => options.only.push(parser.value().and_then(ValueExt::string).map_err(usage)?),
            Long("list") => options.list = true,
            Value(word) if command.is_none() => command = Some(word.string().map_err(usage)?),
            Value(word) if command.as_deref() == Some("try") => {
                options.guest_commands.push(word.string().map_err(usage)?);
            }
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    let command = command.ok_or_else(|| Error::Usage("a command is needed".into()))?;
    Ok((command, options))
}
