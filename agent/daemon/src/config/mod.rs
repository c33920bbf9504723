//! The configuration file: what it may say, how it is read, and its documentation.
//!
//! | Module | Holds |
//! |---|---|
//! | [`alert`] | sections `[[alert]]`, each read by itself |
//! | [`load`] | reading the file and its drop-ins, errors with file, line and nearest key |
//! | `read` | from the file's values to the types |
//! | [`reference`](mod@reference) | the documentation and the commented default file, generated from the types |
//! | [`sink`] | what leaves the device: spool, priorities, sinks |
//! | [`section`] | one list from which a section's struct, defaults and documentation come |
//! | `watched` | the files that are watched by default |
//! | [`value`] | values with a meaning of their own |

use std::path::PathBuf;

use serde::Serialize;

pub mod alert;
pub mod load;
mod read;
pub mod reference;
pub mod section;
pub mod sink;
pub mod value;
mod watched;

use defender_detect::Placeholders;
use section::{section, Section};
pub use sink::{FileSink, MqttSink, Priorities, RemoteSyslogSink, Sinks, Spool, SyslogSink};
use toml::de::DeTable;
use value::{
    AllowedPeripheral, Enforcement, FeedKind, Level, LogLevel, Prefix, ResponseChoice, SourceChoice, When,
};
use watched::{SERVICES, UNWATCHED, WATCHED};

/// The whole configuration. Every key has a default, so that an empty file, or none, guards a device.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Config {
    /// Section `agent`.
    pub agent: Agent,
    /// Section `device`.
    pub device: Device,
    /// Section `process`.
    pub process: Process,
    /// Section `login`.
    pub login: Login,
    /// Section `network`.
    pub network: Network,
    /// Section `files`.
    pub files: Files,
    /// Section `services`.
    pub services: Services,
    /// Section `peripheral`.
    pub peripheral: Peripheral,
    /// Section `firewall`.
    pub firewall: Firewall,
    /// Section `module`.
    pub module: Module,
    /// Section `accounts`.
    pub accounts: Accounts,
    /// Section `inventory`.
    pub inventory: Inventory,
    /// Section `rules`.
    pub rules: Rules,
    /// Sections `[[rule]]`.
    pub rule: Vec<Rule>,
    /// Sections `[[exception]]`.
    pub exception: Vec<RuleException>,
    /// Section `suppression`.
    pub suppression: Suppression,
    /// Section `posture` with `[[posture.exception]]`.
    pub posture: Posture,
    /// Section `sbom`.
    pub sbom: Sbom,
    /// Section `feeds`.
    pub feeds: Feeds,
    /// Sections `[[feed]]`.
    pub feed: Vec<Feed>,
    /// Sections `[[alert]]`.
    pub alert: alert::Alerts,
    /// Section `profile`.
    pub profile: Profile,
    /// Section `response`.
    pub response: Response,
    /// Section `spool`.
    pub spool: Spool,
    /// Section `priorities`.
    pub priorities: Priorities,
    /// Sections `sink.*`.
    pub sink: Sinks,
    /// Section `dbus`.
    pub dbus: Dbus,
    /// Section `confinement`.
    pub confinement: Confinement,
}

impl Config {
    /// Reads a whole file.
    pub(crate) fn read(table: &DeTable<'_>) -> Result<Self, read::Fault> {
        let mut read = Self::default();
        read::entries(
            table,
            &mut [
                ("agent", &mut read.agent),
                ("device", &mut read.device),
                ("process", &mut read.process),
                ("login", &mut read.login),
                ("network", &mut read.network),
                ("files", &mut read.files),
                ("services", &mut read.services),
                ("peripheral", &mut read.peripheral),
                ("firewall", &mut read.firewall),
                ("module", &mut read.module),
                ("accounts", &mut read.accounts),
                ("inventory", &mut read.inventory),
                ("rules", &mut read.rules),
                ("rule", &mut read.rule),
                ("exception", &mut read.exception),
                ("suppression", &mut read.suppression),
                ("posture", &mut read.posture),
                ("sbom", &mut read.sbom),
                ("feeds", &mut read.feeds),
                ("feed", &mut read.feed),
                ("alert", &mut read.alert),
                ("profile", &mut read.profile),
                ("response", &mut read.response),
                ("spool", &mut read.spool),
                ("priorities", &mut read.priorities),
                ("sink", &mut read.sink),
                ("dbus", &mut read.dbus),
                ("confinement", &mut read.confinement),
            ],
        )?;
        Ok(read)
    }
}

section! { "agent"
/// The agent itself.
Agent {
    /// User the agent becomes when it is started as root.
    user: String = "defender".into(),
    /// What must survive a reboot: blocks, read positions of log files. Must be writable.
    state_dir: PathBuf = "/var/lib/defender".into(),
    /// Process id lock and control socket. Emptied at boot.
    run_dir: PathBuf = "/run/defender".into(),
    /// How much the agent says on standard error about itself; health events are sent regardless.
    log_level: LogLevel = LogLevel(tracing::Level::INFO),
    /// Observations that may wait between the sensors and the pipeline.
    queue: usize = 4096,
    /// Seconds between two heartbeats: health events with statistics of the agent and each sensor; 0 switches them off.
    statistics_interval_s: u64 = 3600,
    /// Seconds after which a sensor is reported that tells nothing while the kernel's own counters move; 0 for never.
    silent_after_s: u64 = 600,
} }

section! { "device"
/// Who this device is.
Device {
    /// Name that is unique in the fleet and stands in every event. Empty: the serial number of the device tree, or else the machine id.
    id: String = String::new(),
} }

section! { "process"
/// Programs started and ended.
Process {
    /// Watch processes.
    enabled: bool = true,
    /// Where events come from. `auto` takes audit, else eBPF, else the proc connector, else polling, and says in `defender status` why.
    /// `ebpf` needs the cargo feature of that name, else it is as `auto`; events of a kernel without BTF bear `ebpf_entry`.
    source: SourceChoice = SourceChoice(defender_sensors::process::Preference::Auto),
    /// Report the end of processes too.
    exits: bool = true,
    /// Milliseconds between two rounds when polling.
    poll_interval_ms: u64 = 100,
    /// Processes remembered for their children's sake.
    table_capacity: usize = 2048,
    /// KiB of kernel memory for what the agent has not read yet.
    receive_buffer_kib: u32 = 2048,
    /// Audit records the kernel may queue while the agent is the audit daemon.
    audit_backlog_limit: u32 = 8192,
    /// How long the kernel holds a process up for a full audit queue before it drops a record, in ticks of CONFIG_HZ.
    audit_backlog_wait: u32 = 250,
} }

section! { "login"
/// Logins, failed or not.
Login {
    /// Watch logins.
    enabled: bool = true,
    /// Log files that login services write to. Files that do not exist yet are picked up when they appear.
    files: Vec<PathBuf> = ["/var/log/auth.log", "/var/log/secure", "/var/log/messages", "/var/log/syslog"].map(PathBuf::from).to_vec(),
    /// Receive log messages directly: `auto` takes what systemd's journal forwards, or `/dev/log`, if no syslog daemon has it when the agent starts, `off` never does, a path names another socket.
    syslog_socket: String = "auto".into(),
    /// Files in which the C library keeps who is logged in (`utmp...`), who was turned away (`btmp...`), and who was logged in (any other name).
    accounting: Vec<PathBuf> = ["/run/utmp", "/var/run/utmp", "/var/log/wtmp", "/var/log/btmp"].map(PathBuf::from).to_vec(),
} }

section! { "network"
/// Connections, sockets that wait for them, and names looked up.
Network {
    /// Watch the network.
    enabled: bool = true,
    /// Have the kernel count bytes and packets of connections (`net.netfilter.nf_conntrack_acct`).
    accounting: bool = true,
    /// Seconds between two looks for sockets that begin or cease to listen; 0 for none.
    listen_interval_s: u64 = 5,
    /// Watch questions and answers of the domain name system, on port 53 over UDP and TCP; connections then bear the name of their destination.
    dns: bool = true,
    /// NFLOG group by which they come; another program that reads NFLOG may have it already.
    dns_group: u16 = 53,
    /// Report packets that rules of the packet filter drop and log to NFLOG group `denied_group`.
    denied: bool = true,
    /// NFLOG group of such rules: `limit rate 10/second log prefix "..." group 54`.
    denied_group: u16 = 54,
    /// Names of addresses that are kept.
    dns_table: usize = 512,
    /// Interfaces that are watched; `*` at the end of a name stands for any ending. Empty: all.
    include_interfaces: Vec<String> = Vec::new(),
    /// Interfaces that are not watched.
    exclude_interfaces: Vec<String> = Vec::new(),
    /// Connections remembered between begin and end.
    flow_table: usize = 2048,
    /// Events of one kind within a second, with bursts of five times as many; what goes beyond is counted. 0 for no bound.
    events_per_second: u32 = 200,
    /// KiB of kernel memory for what the agent has not read yet.
    receive_buffer_kib: u32 = 1024,
} }

section! { "files"
/// Files created, changed and removed.
Files {
    /// Watch files.
    enabled: bool = true,
    /// Files, and directories with everything below them; `*` in a name stands for any characters. What does not exist yet is waited for.
    paths: Vec<PathBuf> = WATCHED.map(PathBuf::from).to_vec(),
    /// What is left out of them.
    exclude: Vec<PathBuf> = UNWATCHED.map(PathBuf::from).to_vec(),
    /// Directories watched; each takes about 1 KiB of kernel memory.
    max_watches: usize = 2048,
    /// Files that the baseline holds; each takes about 0.3 KiB of memory.
    max_files: usize = 8192,
    /// KiB up to which a file has a SHA-256; longer ones are compared by size and time. 0 for none.
    hash_max_kib: u64 = 16384,
    /// KiB read within a second for that.
    hash_kib_per_second: u64 = 2048,
    /// Events within a second, with bursts of five times as many; what goes beyond is counted. 0 for no bound.
    events_per_second: u32 = 100,
} }

section! { "peripheral"
/// Devices plugged in and pulled out: USB, disks and cards, network interfaces, keyboards and mice.
Peripheral {
    /// Watch devices.
    enabled: bool = true,
    /// The devices that may be connected: `0781:5567` by vendor and product, `0781:*`, `0781:5567:SERIAL`, `class:storage` (one of [these](rules.md#fields), and `class:hid`), `bus:mmc`. What is not on the list is marked so in its event, and alerts; of USB also what is there when the agent starts. Empty: there is no list.
    allow: Vec<AllowedPeripheral> = Vec::new(),
    /// Events within a second, with bursts of five times as many; what goes beyond is counted. 0 for no bound.
    events_per_second: u32 = 50,
    /// KiB of kernel memory for what the agent has not read yet.
    receive_buffer_kib: u32 = 512,
} }

section! { "firewall"
/// Changes of the packet filter by others.
Firewall {
    /// Watch it, and put the agent's own tables right at once when another program changes them. Off: they are looked at every 30 seconds.
    monitor: bool = true,
    /// Events within a second, with bursts of five times as many; as many again for what is grave, such as a flush. What goes beyond is counted. 0 for no bound.
    events_per_second: u32 = 20,
    /// KiB of kernel memory for what the agent has not read yet.
    receive_buffer_kib: u32 = 1024,
} }

section! { "services"
/// Services of the device: what becomes of them, and what they announce on the system bus.
Services {
    /// Watch services.
    enabled: bool = true,
    /// What is told of when it stops, fails, starts or is restarted: units of systemd, and, where systemd is not init, processes as `process:` and their short name. What was never there is not missed.
    watch: Vec<String> = SERVICES.map(str::to_owned).to_vec(),
    /// Seconds between two looks for processes.
    interval_s: u64 = 5,
} }

section! { "module"
/// Kernel modules loaded and removed.
Module {
    /// Watch them.
    enabled: bool = true,
    /// Seconds between two looks at `/proc/modules`, at least 1.
    interval_s: u64 = 10,
} }

section! { "accounts"
/// Local users and groups: who came, went, or is another (docs/events.md).
Accounts {
    /// Watch `/etc/passwd`, `/etc/group` and `/etc/shadow`.
    enabled: bool = true,
} }

section! { "inventory"
/// What the device consists of, told when the agent starts and when it changes.
Inventory {
    /// Tell of hardware, system, network interfaces and packages.
    enabled: bool = true,
    /// Seconds between two looks at network interfaces and package databases, at least 1.
    interval_s: u64 = 30,
} }

section! { "rules"
/// Detection rules in Sigma's format.
Rules {
    /// Directories read with everything below them, in this order; rule files end in `.yml`.
    directories: Vec<PathBuf> = ["/usr/share/defender/rules", "/etc/defender/rules"].map(PathBuf::from).to_vec(),
    /// What placeholders of the modifier `expand` stand for: the key `administrators` holds the values of `%administrators%`. Wildcards are wildcards.
    placeholders: Placeholders = Placeholders::new(),
} }

section! { list true "rule"
/// Changes one rule, named by its id, without touching its file.
Rule {
    /// The rule's UUID.
    id: String = String::new(),
    /// Switches the rule off or on.
    enabled: Option<bool> = None,
    /// Replaces its level.
    level: Option<Level> = None,
    /// Replaces its response.
    response: Option<ResponseChoice> = None,
    /// Replaces the number a correlation waits for, such as failed logins before an alert.
    count: Option<u32> = None,
    /// Replaces a correlation's time span, in seconds.
    timespan_s: Option<u64> = None,
    /// Alerts of this rule within an hour, in place of `suppression.max_per_hour`; 0 for no bound.
    max_per_hour: Option<u32> = None,
} }

section! { list true "exception"
/// Events that a rule is not to be held against. They neither alert nor count for a correlation.
RuleException {
    /// Id or title of the rule; `*` for every rule.
    rule: String = String::new(),
    /// What the event must be like: fields with modifiers as rules have them, such as `CommandLine|contains`, each with a value or a list of which one will do. Empty: whatever the rule holds for.
    when: When = When::default(),
    /// Why. Must be given.
    reason: String = String::new(),
    /// Who answers for it.
    owner: String = String::new(),
    /// Last day it holds, as YYYY-MM-DD in UTC. Empty: without end.
    expires: String = String::new(),
} }

section! { "suppression"
/// Keeps alerts readable. What is held back is counted and reported; responses are never held back.
Suppression {
    /// Seconds in which repeats of an alert are counted instead of sent; one update then tells their number. 0 sends each.
    repeat_window_s: u64 = 300,
    /// Alerts of one rule within an hour; 0 for no bound.
    max_per_hour: u32 = 600,
} }

section! { "posture"
/// Grading of the device against policies.
Posture {
    /// Scan at intervals.
    enabled: bool = true,
    /// Directories of policies; policy files end in `.toml`.
    directories: Vec<PathBuf> = ["/usr/share/defender/policies", "/etc/defender/policies"].map(PathBuf::from).to_vec(),
    /// Policies that are judged, by id. Empty: all in the directories.
    policies: Vec<String> = Vec::new(),
    /// Ports the product may listen on.
    allowed_ports: Vec<u16> = Vec::new(),
    /// Hours between two scans.
    interval_hours: u32 = 24,
    /// Minutes over which the scans of a fleet are spread: each device waits a random part of them.
    spread_minutes: u32 = 60,
    /// Lowest score that is good enough, 0 to 100.
    minimum_score: u32 = 0,
    /// Faults that are accepted: sections `[[posture.exception]]`.
    exception: Vec<PostureException> = Vec::new(),
} }

section! { list true "posture.exception"
/// Accepts one fault for a time, with a reason and someone who answers for it.
PostureException {
    /// Id of the check.
    check: String = String::new(),
    /// Why the fault is accepted.
    reason: String = String::new(),
    /// Who answers for it.
    owner: String = String::new(),
    /// Last day it is accepted, as YYYY-MM-DD; the check fails again after it.
    expires: String = String::new(),
} }

section! { "sbom"
/// The bill of materials that `defender sbom` writes.
Sbom {
    /// A list of packages the build left in the image, read in addition to package databases: Buildroot's `manifest.csv`, Yocto's image manifest or `license.manifest`; or the image's own bill of materials in JSON, which is printed as it is. Empty: none but those in their usual places.
    manifest: PathBuf = PathBuf::new(),
} }

section! { "feeds"
/// Threat feeds: lists of addresses, networks, domains and SHA-256 digests, one entry a line (docs/custom-alerts.md).
Feeds {
    /// Directories whose files ending in `.txt` are feeds, called by the name of the file. Of two files of one name, that of the later directory counts.
    directories: Vec<PathBuf> = ["/usr/share/defender/feeds", "/etc/defender/feeds", "/var/lib/defender/feeds"].map(PathBuf::from).to_vec(),
    /// Level of an alert about something listed.
    level: Level = Level(defender_model::severity::Severity::High),
    /// What is done about something listed.
    response: ResponseChoice = ResponseChoice(defender_model::finding::Responses::NONE),
    /// Entries of all feeds together; 100,000 take at most 8 MiB of memory.
    max_entries: usize = 100_000,
    /// Seconds between two looks for changed files.
    interval_s: u64 = 30,
} }

section! { list true "feed"
/// A threat feed of its own, wherever its file lies, or one of the directories treated differently.
Feed {
    /// Its file.
    path: PathBuf = PathBuf::new(),
    /// What it is called in alerts; empty: the name of the file without its ending.
    name: String = String::new(),
    /// What it may list; a line of another kind is a mistake.
    kind: FeedKind = FeedKind(defender_detect::feed::Kind::Any),
    /// Level of its alerts; that of section `feeds` when absent.
    level: Option<Level> = None,
    /// What is done about what it lists; as in section `feeds` when absent.
    response: Option<ResponseChoice> = None,
} }

section! { "profile"
/// The learned profile: what the product did while it was tested (docs/profile.md).
Profile {
    /// What is done about what the profile lacks: nothing, or an alert.
    enforce: Enforcement = Enforcement(false),
    /// The file that `defender profile learn` wrote.
    path: PathBuf = "/etc/defender/profile.toml".into(),
    /// Level of its alerts. Sections `[[rule]]` change those of one kind, such as `profile.program`.
    level: Level = Level(defender_model::severity::Severity::Medium),
    /// What is done about its alerts.
    response: ResponseChoice = ResponseChoice(defender_model::finding::Responses::NONE),
} }

section! { list true "alert"
/// An alert of the product's own (docs/custom-alerts.md): a list of what is allowed, or how many events of a kind there may be. Exactly one of `allow_users`, `allow_processes`, `allow_outbound`, `allow_inbound`, `allow_dns` and `count` is given.
Alert {
    /// What its alerts are called.
    name: String = String::new(),
    /// What its rule is called in `[[rule]]` and `[[exception]]`; empty: `alert.` and the name in lower case with dashes.
    id: String = String::new(),
    /// What it means and what to do, for whoever reads the alert.
    description: String = String::new(),
    /// Level of its alerts; medium when absent.
    level: Level = Level(defender_model::severity::Severity::Medium),
    /// What is done about it; nothing when absent.
    response: ResponseChoice = ResponseChoice(defender_model::finding::Responses::NONE),
    /// Accounts that may log in or be changed to.
    allow_users: Option<Vec<String>> = None,
    /// Absolute paths of programs that may run. `*` and `?` stay within a directory, `**` does not. ` sha256:DIGEST` behind a path says what its content may be.
    allow_processes: Option<Vec<String>> = None,
    /// Where the device may connect to, as `PROTOCOL HOST PORT`.
    allow_outbound: Option<Vec<String>> = None,
    /// Who may connect to the device, as `PROTOCOL HOST PORT`; the port is the device's.
    allow_inbound: Option<Vec<String>> = None,
    /// Names that may be looked up; `*.example.com` is what lies below.
    allow_dns: Option<Vec<String>> = None,
    /// What is counted: `active_connections`, `failed_logins`, or a category or service of Sigma's log sources.
    count: Option<String> = None,
    /// Which of these events count, as in `[[exception]]`. Empty: all.
    select: When = When::default(),
    /// Fields by whose values they are counted apart.
    group_by: Vec<String> = Vec::new(),
    /// Seconds of the window, up to a week; 60 when absent.
    window_s: u64 = 60,
    /// Fewer events in the window alert.
    minimum: Option<u32> = None,
    /// More events in the window alert.
    maximum: Option<u32> = None,
} }

section! { "response"
/// What the agent does about findings.
Response {
    /// Act at all. Off: findings are reported and nothing is blocked.
    enabled: bool = true,
    /// Seconds an address stays blocked.
    block_seconds: u64 = 3600,
    /// Addresses and prefixes that can never be blocked, such as the management network.
    allow: Vec<Prefix> = Vec::new(),
    /// Never block the default gateways.
    allow_gateway: bool = false,
    /// The nft program.
    nft: PathBuf = "/usr/sbin/nft".into(),
    /// Let rules and levels kill processes. The agent then keeps the right to send signals to others.
    kill_process: bool = false,
    /// Executables whose processes are never killed.
    never_kill: Vec<PathBuf> = Vec::new(),
    /// Program that `run_hook` starts with the finding as OCSF JSON on its standard input. It and the directories above it must be root's alone. Empty: none.
    hook: PathBuf = PathBuf::new(),
    /// Seconds after which the hook is killed.
    hook_timeout_s: u64 = 30,
    /// Let rules and levels isolate the device: nothing passes but loopback, `isolate_allow`, the sinks' servers and DHCP.
    isolate: bool = false,
    /// Seconds an isolation lasts, at most a day. Then the device is reachable for at least as long before a rule can isolate it again.
    isolate_s: u64 = 900,
    /// Addresses and prefixes that an isolated device still speaks with, such as the management network and its name servers.
    isolate_allow: Vec<Prefix> = Vec::new(),
    /// What is done about every critical alert, besides what its rule asks for.
    on_critical: ResponseChoice = ResponseChoice::default(),
    /// The same about every high alert.
    on_high: ResponseChoice = ResponseChoice::default(),
    /// The same about every medium alert.
    on_medium: ResponseChoice = ResponseChoice::default(),
    /// Only say what would be done.
    dry_run: bool = false,
} }

section! { "dbus"
/// The service org.defender.Agent1 on the system bus.
Dbus {
    /// Offer the service. Without a bus everything else still works.
    enabled: bool = true,
    /// Security events a second that each user may submit by `SubmitEvent`, with bursts of five times as many; what goes beyond is refused and counted. 0 for no bound.
    submissions_per_second: u32 = 10,
} }

section! { "confinement"
/// What the agent gives up before it looks at anything hostile.
Confinement {
    /// Become the user of section `agent` and drop every capability the sensors do not need. Off: nothing of this section is done.
    drop_privileges: bool = true,
    /// Restrict the file system with Landlock, where the kernel has it and the process source allows it.
    landlock: bool = true,
    /// Forbid system calls the agent never makes.
    seccomp: bool = true,
} }

/// Every section, in the order of the reference.
#[must_use]
pub fn sections() -> Vec<Section> {
    vec![
        Agent::section(),
        Device::section(),
        Process::section(),
        Login::section(),
        Network::section(),
        Files::section(),
        Peripheral::section(),
        Firewall::section(),
        Services::section(),
        Module::section(),
        Rules::section(),
        Rule::section(),
        RuleException::section(),
        Suppression::section(),
        Posture::section(),
        PostureException::section(),
        Sbom::section(),
        Feeds::section(),
        Feed::section(),
        Alert::section(),
        Profile::section(),
        Response::section(),
        Spool::section(),
        Priorities::section(),
        FileSink::section(),
        SyslogSink::section(),
        RemoteSyslogSink::section(),
        MqttSink::section(),
        Dbus::section(),
        Confinement::section(),
    ]
}
