//! What has to happen on a device, and the runner that sees to it. One boot serves many scenarios; each attacks from
//! addresses of its own, so that none depends on what another left.

mod account;
mod attack;
mod benign;
mod configuration;
mod doer;
mod ebpf;
mod faults;
mod harness;
mod intrusion;
mod life;
mod load;
mod login;
mod name;
mod packet_filter;
mod peripheral;
mod posture;
mod response;
mod submission;

use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::image::{self, Flavour, Image};
use crate::lab::{Lab, Node};
use crate::progress;
use crate::qemu::{Accelerator, Machine, Setup};
use crate::samples;
use crate::workspace::Workspace;

/// Network and machine a scenario works on.
pub struct World<'a> {
    lab: &'a Lab,
    workspace: &'a Workspace,
    image: &'a Image,
    machine: Option<Machine>,
    next_node: u8,
}

/// One thing that has to happen.
struct Scenario {
    name: &'static str,
    /// Runs on these; elsewhere it is not listed.
    on: &'static [Flavour],
    /// Needs a running agent.
    agent: bool,
    run: fn(&mut World<'_>) -> Result<()>,
}

const BOTH: &[Flavour] = &Flavour::ALL;
const BUSYBOX: &[Flavour] = &[Flavour::Busybox];
const SYSTEMD: &[Flavour] = &[Flavour::Systemd];

/// In the order they run.
const SCENARIOS: &[Scenario] = &[
    Scenario { name: "control_channel", on: BOTH, agent: false, run: harness::control_channel },
    Scenario { name: "base_ruleset_is_loaded", on: BOTH, agent: false, run: harness::base_ruleset_is_loaded },
    Scenario { name: "attacker_can_log_in", on: BOTH, agent: false, run: harness::attacker_can_log_in },
    Scenario {
        name: "a_drop_rule_stops_the_attacker",
        on: BOTH,
        agent: false,
        run: harness::a_drop_rule_stops_the_attacker,
    },
    Scenario { name: "armed_after_boot", on: BOTH, agent: true, run: life::armed_after_boot },
    Scenario { name: "confinement", on: BOTH, agent: true, run: life::confinement },
    // Before the attacks: what they leave behind is found, and rightly so.
    Scenario { name: "posture_of_the_device", on: BOTH, agent: true, run: posture::posture_of_the_device },
    Scenario { name: "benign_hour", on: BOTH, agent: true, run: benign::benign_hour },
    // After that hour: changes of the agent's own configuration alert, a little later.
    Scenario {
        name: "posture_changes_are_told",
        on: BOTH,
        agent: true,
        run: posture::posture_changes_are_told,
    },
    Scenario { name: "brute_force_ipv4", on: BOTH, agent: true, run: attack::brute_force_ipv4 },
    Scenario { name: "brute_force_ipv6", on: BOTH, agent: true, run: attack::brute_force_ipv6 },
    Scenario { name: "success_after_failures", on: BOTH, agent: true, run: attack::success_after_failures },
    Scenario { name: "dropper", on: BOTH, agent: true, run: attack::dropper },
    Scenario {
        name: "repeats_become_a_count",
        on: BUSYBOX,
        agent: true,
        run: attack::repeats_become_a_count,
    },
    Scenario { name: "kill_hook_and_isolate", on: BOTH, agent: true, run: response::kill_hook_and_isolate },
    Scenario { name: "devices_come_and_go", on: BOTH, agent: true, run: peripheral::devices_come_and_go },
    Scenario { name: "a_login_is_one_event", on: BOTH, agent: true, run: login::a_login_is_one_event },
    Scenario { name: "names_are_told", on: BOTH, agent: true, run: name::names_are_told },
    Scenario { name: "journald_alone", on: SYSTEMD, agent: true, run: login::journald_alone },
    Scenario {
        name: "packet_filter_is_watched",
        on: BOTH,
        agent: true,
        run: packet_filter::packet_filter_is_watched,
    },
    Scenario {
        name: "a_service_submits_an_event",
        on: BOTH,
        agent: true,
        run: submission::a_service_submits_an_event,
    },
    Scenario {
        name: "accounts_and_groups_change",
        on: BOTH,
        agent: true,
        run: account::accounts_and_groups_change,
    },
    Scenario { name: "deeds_have_a_doer", on: BOTH, agent: true, run: doer::deeds_have_a_doer },
    Scenario { name: "intrusion", on: BOTH, agent: true, run: intrusion::intrusion },
    Scenario { name: "second_agent_refuses", on: BUSYBOX, agent: true, run: life::second_agent_refuses },
    Scenario {
        name: "operator_blocks_and_unblocks",
        on: BUSYBOX,
        agent: true,
        run: life::operator_blocks_and_unblocks,
    },
    Scenario { name: "killed_in_mid_attack", on: BOTH, agent: true, run: life::killed_in_mid_attack },
    Scenario { name: "syslogd_restarts", on: BOTH, agent: true, run: faults::syslogd_restarts },
    Scenario { name: "dbus_restarts", on: BUSYBOX, agent: true, run: faults::dbus_restarts },
    Scenario { name: "nft_missing", on: BUSYBOX, agent: true, run: faults::nft_missing },
    Scenario { name: "clock_jumps", on: BUSYBOX, agent: true, run: faults::clock_jumps },
    Scenario { name: "bad_configuration", on: BOTH, agent: true, run: faults::bad_configuration },
    Scenario { name: "bad_rule", on: BUSYBOX, agent: true, run: faults::bad_rule },
    Scenario {
        name: "ebpf_with_and_without_btf",
        on: BOTH,
        agent: true,
        run: ebpf::ebpf_with_and_without_btf,
    },
    Scenario { name: "auditd_comes_and_goes", on: SYSTEMD, agent: true, run: faults::auditd_comes_and_goes },
    Scenario {
        name: "every_exec_is_reported_once",
        on: BOTH,
        agent: true,
        run: load::every_exec_is_reported_once,
    },
    Scenario { name: "a_storm_adds_up", on: BOTH, agent: true, run: load::a_storm_adds_up },
    Scenario { name: "blocks_survive_a_reboot", on: BOTH, agent: true, run: life::blocks_survive_a_reboot },
    Scenario { name: "var_read_only", on: BUSYBOX, agent: true, run: faults::var_read_only },
    Scenario { name: "var_full", on: BUSYBOX, agent: true, run: faults::var_full },
    // Last: the machine has another kernel from then on.
    Scenario {
        name: "usb_devices_come_and_go",
        on: BOTH,
        agent: true,
        run: peripheral::usb_devices_come_and_go,
    },
];

/// How many scenarios did what.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// All assertions held.
    pub passed: u32,
    /// One did not.
    pub failed: u32,
    /// Does not apply here; the reason was printed.
    pub skipped: u32,
}

/// Prints the scenarios of a flavour.
pub fn list(flavour: Flavour) {
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.on.contains(&flavour)) {
        println!("{} {}", flavour.name(), scenario.name);
    }
}

/// Runs the scenarios of every one of `images`, or those with one of the words `only` in their name, each image on a machine and in a
/// laboratory of its own, `jobs` of them at once.
///
/// # Errors
/// Only when a laboratory cannot be set up; what goes wrong in a scenario is counted.
pub fn run(
    workspace: &Workspace,
    images: &[Image],
    only: &[String],
    jobs: NonZeroUsize,
    samples: bool,
) -> Result<Vec<Tally>> {
    for image in images {
        // What it finds out is kept; two that find it out at once would disturb each other.
        Accelerator::choose(workspace, image)?;
    }
    let mut tallies = Vec::with_capacity(images.len());
    for together in images.chunks(jobs.get()) {
        thread::scope(|scope| {
            let running: Vec<_> = together
                .iter()
                .map(|image| {
                    scope.spawn(|| {
                        progress::about(image.flavour.name());
                        run_one(workspace, image, only, samples)
                    })
                })
                .collect();
            for thread in running {
                let ended = thread.join();
                tallies.push(ended.unwrap_or_else(|_| Err(Error::Unexpected("a scenario panicked".into())))?);
            }
            Ok(())
        })?;
    }
    Ok(tallies)
}

fn run_one(workspace: &Workspace, image: &Image, only: &[String], samples: bool) -> Result<Tally> {
    let lab = Lab::new()?;
    let mut world = World { lab: &lab, workspace, image, machine: None, next_node: 20 };
    let mut tally = Tally::default();
    let chosen = SCENARIOS.iter().filter(|scenario| {
        scenario.on.contains(&image.flavour)
            && (only.is_empty() || only.iter().any(|word| scenario.name.contains(word.as_str())))
    });
    for scenario in chosen {
        let start = Instant::now();
        let result = world.ready(scenario.agent).and_then(|()| (scenario.run)(&mut world));
        let name = format!("{} ({:.1} s)", scenario.name, start.elapsed().as_secs_f64());
        match result {
            Ok(()) => {
                tally.passed += 1;
                progress::say(format_args!("PASS {name}"));
            }
            Err(Error::Skipped(reason)) => {
                tally.skipped += 1;
                progress::say(format_args!("SKIP {name}: {reason}"));
            }
            Err(error) => {
                tally.failed += 1;
                progress::say(format_args!("FAIL {name}: {error}"));
                world.keep_evidence(scenario.name);
            }
        }
    }
    if let Some(mut machine) = world.machine.take() {
        if samples {
            samples::keep(workspace, &mut machine)?;
        }
        // A shutdown that hangs is a fault of the product's init scripts.
        if let Err(error) = machine.shut_down() {
            tally.failed += 1;
            progress::say(format_args!("FAIL shutdown: {error}"));
        }
    }
    Ok(tally)
}

impl World<'_> {
    /// The machine is up, and the agent in it if that is asked for. Boots it if it is not, or no longer, usable.
    fn ready(&mut self, agent: bool) -> Result<()> {
        if let Some(machine) = &mut self.machine {
            if let Err(error) = machine.check().and_then(|()| machine.run("true").map(drop)) {
                progress::say(format_args!("booting again: {error}"));
                self.machine = None;
            }
        }
        if self.machine.is_none() {
            let setup = Setup::new(self.workspace, self.image, self.image.flavour.name())?;
            let machine = progress::step(&format!("booting {}", self.image.flavour.name()), || {
                Machine::boot(setup, self.lab)
            })?;
            self.machine = Some(machine);
            self.wait_for_network()?;
        }
        if agent {
            let machine = self.machine()?;
            if machine.agent_pid()?.is_none() {
                // Its own init may be about to do it.
                let _ = machine.agent_service("start");
            }
            machine.wait_armed()?;
        }
        Ok(())
    }

    fn machine(&mut self) -> Result<&mut Machine> {
        self.machine.as_mut().ok_or_else(|| Error::Machine("it is not running".into()))
    }

    /// Reboots the machine and waits for its network.
    fn reboot(&mut self) -> Result<()> {
        let machine = self.machine.take().ok_or_else(|| Error::Machine("it is not running".into()))?;
        self.machine = Some(machine.reboot(self.lab)?);
        self.wait_for_network()
    }

    /// Cuts the machine's power and boots it anew on a kernel with USB, with a controller.
    fn boot_with_usb(&mut self) -> Result<()> {
        let image = image::with_usb(self.workspace, self.image)?.ok_or_else(|| {
            Error::Skipped("no kernel with USB is named for this image in tests/packages.txt".into())
        })?;
        let machine = self.machine.take().ok_or_else(|| Error::Machine("it is not running".into()))?;
        self.machine = Some(machine.cut_power(self.lab, |setup| {
            setup.image = image;
            setup.usb = true;
        })?);
        self.wait_for_network()
    }

    /// Until ssh answers over both protocols, asked from the switch itself.
    fn wait_for_network(&mut self) -> Result<()> {
        let lab = self.lab;
        let configures = self.image.configures_network;
        let machine = self.machine()?;
        machine.wait("ssh answers over IPv4 and IPv6", Duration::from_secs(120), |machine| {
            machine.check()?;
            if !configures {
                // An image from elsewhere knows nothing of our network. The addresses may be there already.
                machine.run(
                    "ip link set eth0 up; ip addr add 10.77.0.2/24 dev eth0; ip -6 addr add fd77::2/64 dev eth0",
                )?;
            }
            Ok(lab.ssh_answers().map_err(|target| format!("no answer from {target}")))
        })
    }

    /// A host that nobody has heard of yet.
    fn node(&mut self) -> Result<Node> {
        self.next_node =
            self.next_node.checked_add(1).ok_or_else(|| Error::Unexpected("too many hosts".into()))?;
        self.lab.node(self.next_node)
    }

    /// Keeps what a failed scenario leaves, for the person who has to find out why.
    fn keep_evidence(&mut self, scenario: &str) {
        let Some(machine) = &mut self.machine else { return };
        let file = machine.setup().directory.join(format!("{scenario}.evidence"));
        let collected = machine.run(
            "echo '== status'; defender status --json; echo '== ruleset'; nft list ruleset; echo '== processes'; ps; \
             echo '== agent'; tail -n 20 /var/log/defender-agent.log; journalctl -n 40 -u defender 2>/dev/null; \
             echo '== system log'; tail -n 60 /var/log/messages /var/log/auth.log /var/log/syslog 2>/dev/null; \
             echo '== events'; tail -n 60 /var/log/defender/events.jsonl",
        );
        let text = match collected {
            Ok(reply) => format!("{}{}", reply.output, reply.error),
            Err(error) => error.to_string(),
        };
        if std::fs::write(&file, format!("{text}\n== console\n{}", machine.console())).is_ok() {
            progress::say(format_args!("     evidence: {}", file.display()));
        }
    }
}

/// A scenario's assertion.
fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::Unexpected(otherwise()))
    }
}
