//! Command line of the validation harness.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use defender_validation::architecture::Architecture;
use defender_validation::bench;
use defender_validation::demo;
use defender_validation::error::{Error, Result};
use defender_validation::image::{self, Flavour, Image};
use defender_validation::lab::Lab;
use defender_validation::progress;
use defender_validation::qemu::{Machine, Setup};
use defender_validation::samples;
use defender_validation::scenario::{self, Tally};
use defender_validation::workspace::Workspace;

const USAGE: &str = "\
defender-validation COMMAND [OPTIONS]

Commands (all need root: they make network namespaces, and files that belong to other users)
  image            assemble the images
  compilers        get the compilers for --arch; the last lines, NAME=VALUE, are what cargo needs in its environment to use them
  run              boot the images and run every scenario
  demo             show the whole path once, with explanations
  try COMMAND...   boot, run these shell commands in the guest one after the other, print what they print
  bench WHAT       measure: exec, connect, size, start, latency, block, posture or all of them; footprint; storm; faults; fleet; idle

Options
  --flavour NAME   busybox or systemd; may be repeated (default: both; demo and try: busybox)
  --arch NAME      x86_64 or aarch64, which is emulated, and whose agent is built with Debian's cross compilers (default: x86_64)
  --agent FILE     agent binary (default: target/release/defender)
  --image KERNEL ROOTFS   boot these two, from a Buildroot or Yocto build, instead of assembling an image; what they must have:
                   docs/testing.md. --kernel FILE --rootfs FILE is the same
  --only WORD      run only scenarios, and of bench only arms of exec and runs of faults, with WORD in their name; may be repeated
  --jobs N         run: machines at once (default: one for each processor)
  --samples FILE   run: write a page with one event of every kind, as docs/samples.md is
  --list           list the scenarios
  --rounds N       bench: rounds of exec, starts, repetitions of block, devices of fleet
  --count N        bench: executions per arm and round, alerts of each part of latency, events of each part of faults, of each device of fleet
  --kills N        bench faults: how often servers and the agent are killed
  --features-matrix  bench size: one build for each cargo feature left out (slow)

Environment
  DEFENDER_VALIDATION_ACCEL   kvm or tcg (default: kvm if a guest boots under it)
  DEFENDER_VALIDATION_WORK    directory for everything built (default: tests/.work)
";

#[derive(Default)]
struct Options {
    flavours: Vec<Flavour>,
    architecture: Option<Architecture>,
    agent: Option<PathBuf>,
    kernel: Option<PathBuf>,
    rootfs: Option<PathBuf>,
    only: Vec<String>,
    list: bool,
    samples: Option<PathBuf>,
    jobs: Option<NonZeroUsize>,
    guest_commands: Vec<String>,
    bench_words: Vec<String>,
    rounds: Option<u32>,
    count: Option<u64>,
    kills: Option<u32>,
    features_matrix: bool,
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
        "compilers" => {
            for (name, value) in image::compilers(&workspace, options.architecture())? {
                println!("{name}={}", Path::new(&value).display());
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
            let images = options.images(&workspace, &flavours)?;
            for tally in
                scenario::run(&workspace, &images, &options.only, options.jobs(), options.samples.is_some())?
            {
                total.passed += tally.passed;
                total.failed += tally.failed;
                total.skipped += tally.skipped;
            }
            if let Some(page) = &options.samples {
                samples::write(&workspace, &flavours, page)?;
            }
            if total.skipped > 0 {
                progress::say(format_args!("{} skipped, for the reasons given above", total.skipped));
            }
            println!("{} passed, {} failed", total.passed, total.failed);
            Ok(if total.failed == 0 && total.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        "bench" => {
            match options.bench_words.split_first() {
                Some((what, words)) if what == bench::spawn::COMMAND => bench::spawn::loop_over(words)?,
                Some((what, [])) if what == bench::drain::COMMAND => bench::drain::run()?,
                Some((what, [])) => bench::run(&workspace, what, options.bench(&workspace))?,
                _ => return Err(Error::Usage("bench needs one word: what to measure".into())),
            }
            Ok(ExitCode::SUCCESS)
        }
        other => Err(Error::Usage(format!("no command `{other}`"))),
    }
}

impl Options {
    /// An emulated machine keeps one processor busy.
    fn jobs(&self) -> NonZeroUsize {
        self.jobs.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
    }

    fn bench(&self, workspace: &Workspace) -> bench::Options {
        bench::Options {
            agent: self.agent.clone().unwrap_or_else(|| workspace.agent()),
            rounds: self.rounds,
            count: self.count,
            kills: self.kills,
            only: self.only.clone(),
            flavours: self.flavours.clone(),
            features_matrix: self.features_matrix,
        }
    }

    fn architecture(&self) -> Architecture {
        self.architecture.unwrap_or(Architecture::X86_64)
    }

    fn images(&self, workspace: &Workspace, default: &[Flavour]) -> Result<Vec<Image>> {
        let flavours = if self.flavours.is_empty() { default } else { &self.flavours };
        let architecture = self.architecture();
        match (&self.kernel, &self.rootfs) {
            (Some(kernel), Some(rootfs)) => {
                let flavour = flavours.first().copied().unwrap_or(Flavour::Busybox);
                Ok(vec![image::external(workspace, architecture, flavour, kernel, rootfs)?])
            }
            (None, None) => flavours
                .iter()
                .map(|flavour| image::assemble(workspace, architecture, *flavour, self.agent.as_deref()))
                .collect(),
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
            Long("arch") => {
                let name = parser.value().and_then(ValueExt::string).map_err(usage)?;
                options.architecture = Some(Architecture::parse(&name)?);
            }
            Long("agent") => options.agent = Some(parser.value().map_err(usage)?.into()),
            Long("kernel") => options.kernel = Some(parser.value().map_err(usage)?.into()),
            Long("rootfs") => options.rootfs = Some(parser.value().map_err(usage)?.into()),
            Long("image") => {
                options.kernel = Some(parser.value().map_err(usage)?.into());
                options.rootfs = Some(parser.value().map_err(usage)?.into());
            }
            Long("only") => options.only.push(parser.value().and_then(ValueExt::string).map_err(usage)?),
            Long("samples") => options.samples = Some(parser.value().map_err(usage)?.into()),
            Long("list") => options.list = true,
            Long("jobs") => options.jobs = Some(parser.value().and_then(|v| v.parse()).map_err(usage)?),
            Long("rounds") => {
                options.rounds = Some(parser.value().and_then(|v| v.parse()).map_err(usage)?);
            }
            Long("count") => options.count = Some(parser.value().and_then(|v| v.parse()).map_err(usage)?),
            Long("kills") => options.kills = Some(parser.value().and_then(|v| v.parse()).map_err(usage)?),
            Long("features-matrix") => options.features_matrix = true,
            Value(word) if command.is_none() => command = Some(word.string().map_err(usage)?),
            Value(word) if command.as_deref() == Some("try") => {
                options.guest_commands.push(word.string().map_err(usage)?);
            }
            Value(word) if command.as_deref() == Some("bench") => {
                options.bench_words.push(word.string().map_err(usage)?);
            }
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    let command = command.ok_or_else(|| Error::Usage("a command is needed".into()))?;
    Ok((command, options))
}
