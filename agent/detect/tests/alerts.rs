//! `docs/alerts.md`: which of our rules stands for which alert of Microsoft's micro agent. The table is made from the rules and
//! compared with the file; `UPDATE_GOLDEN=1` writes it anew.

#![allow(clippy::unwrap_used)] // A test that cannot read its input has failed.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use common::shipped;
use defender_detect::Rule;

/// An alert of the other product.
struct Alert {
    /// Its identifier; where none was published, its name with `_` for blanks.
    id: &'static str,
    name: &'static str,
    /// What else covers it than rules.
    also: &'static str,
}

const fn alert(id: &'static str, name: &'static str) -> Alert {
    Alert { id, name, also: "" }
}

const fn other(id: &'static str, name: &'static str, also: &'static str) -> Alert {
    Alert { id, name, also }
}

/// Built into the micro agent ("Micro agent security alerts", Azure documentation of 2023-01; identifiers as spelt there).
const MICRO_AGENT: &[Alert] = &[
    alert("IoT_BinaryCommandLine", "Binary Command Line"),
    alert("IoT_DisableFirewall", "Disable firewall"),
    alert("IoT_PortForwarding", "Port forwarding detection"),
    alert("IoT_DisableAuditdLogging", "Possible attempt to disable Auditd logging"),
    alert("IoT_ReverseShell", "Reverse shells"),
    alert("IoT_SucessfulLocalLogin", "Successful local login"),
    alert("IoT_WebShell", "Web shell"),
    alert("IoT_Ransomware", "Behavior similar to ransomware"),
    alert("IoT_CryptoMiner", "Crypto coin miner image"),
    alert("IoT_USBConnection", "New USB Connection"),
    alert("IoT_UsbDisconnection", "USB Disconnection"),
    alert("IoT_EthernetConnection", "New Ethernet Connection"),
    alert("IoT_EthernetDisconnection", "Ethernet Disconnection"),
    alert("IoT_FileCreated", "New File Created"),
    alert("IoT_FileModified", "File Modified"),
    alert("IoT_FileDeleted", "File Deleted"),
    alert("IoT_CommonBots", "Behavior similar to common Linux bots"),
    alert("IoT_FairwareMalware", "Behavior similar to Fairware ransomware"),
    alert("IoT_CryptoMinerContainer", "Crypto coin miner container image"),
    alert("IoT_SuspiciousNohup", "Suspicious use of nohup"),
    alert("IoT_SuspiciousUseradd", "Suspicious use of useradd"),
    alert("IoT_ExposedDocker", "Exposed Docker daemon by TCP socket"),
    alert("IoT_FailedLocalLogin", "Failed local login"),
    other("IoT_PossibleMalware", "File download from a malicious source", FEEDS),
    alert("IoT_AccessingHtaccessFile", "htaccess file access"),
    alert("IoT_KnownAttackTools", "Known attack tool"),
    alert("IoT_LinuxReconnaissance", "Local host reconnaissance"),
    alert("IoT_ScriptInterpreterMismatch", "Script interpreter and file extension mismatch"),
    alert("IoT_LinuxBackdoor", "Possible backdoor"),
    alert("IoT_EgressData", "Possible loss of data"),
    alert("IoT_PrivilegedContainer", "Privileged container"),
    alert("IoT_RemovelOfSystemLogs", "Removal of system log files"),
    alert("IoT_ExecuteFileWithTrailingSpace", "Space after filename"),
    alert("IoT_CredentialAccessTools", "Tools for malicious credential access"),
    alert("IoT_SuspiciousCompilation", "Suspicious compilation"),
    alert("IoT_DownloadFileThenRun", "Download followed by file run"),
    other("IoT_TiConnection", "Suspicious IP address communication", FEEDS),
    other("IoT_MaliciousNameQueriesDetection", "Malicious Domain Name Request", FEEDS),
    alert("IoT_ClearHistoryFile", "Bash history cleared"),
];

/// Only in the list of the agent before it ("classic"); one identifier of them was published.
const CLASSIC: &[Alert] = &[
    alert("Successful_Bruteforce_attempt", "Successful Bruteforce attempt"),
    alert("IoT_Bruteforce_Fail", "Failed Bruteforce attempt"),
    other(
        "Device_silent",
        "Device silent",
        "heartbeat: the health event with statistics every `agent.statistics_interval_s`; the receiver notices that it stays out",
    ),
    alert("Local_user_added_to_one_or_more_groups", "Local user added to one or more groups"),
    alert("Local_user_deleted_from_one_or_more_groups", "Local user deleted from one or more groups"),
    alert("Local_user_deletion_detected", "Local user deletion detected"),
    alert("Potential_overriding_of_common_files", "Potential overriding of common files"),
    other(
        "Agent_failed_to_parse_the_module_twin",
        "Agent failed to parse the module twin",
        "health event: a configuration that cannot be read is named with file, line and key, and the agent goes on with the rest",
    ),
];

/// The device's part of custom alerts; identifiers of the ARM type `deviceSecurityGroups`.
const CUSTOM: &[Alert] = &[
    other("ActiveConnectionsNotInAllowedRange", "Active connections out of range", CUSTOM_ALERTS),
    other("ConnectionToIpNotAllowed", "Outbound connection to an address that is not allowed", CUSTOM_ALERTS),
    other(
        "ConnectionFromIpNotAllowed",
        "Inbound connection from an address that is not allowed",
        CUSTOM_ALERTS,
    ),
    other("FailedLocalLoginsNotInAllowedRange", "Failed local logins out of range", CUSTOM_ALERTS),
    other("LocalUserNotAllowed", "Login of a user that is not allowed", CUSTOM_ALERTS),
    other("ProcessNotAllowed", "Process that is not allowed", CUSTOM_ALERTS),
];

const FEEDS: &str = "threat feeds (`docs/custom-alerts.md`)";
const CUSTOM_ALERTS: &str = "custom alerts of the configuration (`docs/custom-alerts.md`)";

fn table(out: &mut String, alerts: &[Alert], rules: &[&Rule]) {
    out.push_str("| Alert | Identifier in `replaces` | Here |\n|---|---|---|\n");
    for alert in alerts {
        let mut here: Vec<String> = rules
            .iter()
            .filter(|rule| rule.info.replaces.iter().any(|id| id == alert.id))
            .map(|rule| {
                format!(
                    "{} ({}, `{}`)",
                    rule.info.title.replace('|', "\\|"),
                    rule.level.level(),
                    rule.info.id
                )
            })
            .collect();
        here.sort();
        if !alert.also.is_empty() {
            here.push(alert.also.to_owned());
        }
        assert!(!here.is_empty(), "nothing stands for {}", alert.id);
        writeln!(out, "| {} | `{}` | {} |", alert.name, alert.id, here.join("<br>")).unwrap();
    }
}

#[test]
fn every_alert_of_the_micro_agent_has_its_match() {
    let set = shipped();
    let rules: Vec<&Rule> = set.rules().collect();
    let mut out = String::from(
        "# Alerts of Microsoft's micro agent, and what stands for them here\n\n\
         For those who come from Microsoft Defender for IoT and sort alerts by its identifiers. Ours carry them in \
         `unmapped.replaces`, and\n`defender rules list --json` shows them. The left columns name alerts of the other product; what \
         our rules look for is our own.\n\n\
         Made from the rules by `UPDATE_GOLDEN=1 cargo test -p defender-detect --test alerts`; without the variable the test compares.\n",
    );
    for (title, alerts) in [
        ("Built into the micro agent", MICRO_AGENT),
        ("Only in the agent before it", CLASSIC),
        ("Custom alerts about the device", CUSTOM),
    ] {
        write!(out, "\n## {title}\n\n").unwrap();
        table(&mut out, alerts, &rules);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/alerts.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &out).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == out,
        "docs/alerts.md is not what the rules say; run with UPDATE_GOLDEN=1"
    );
}

#[test]
fn rules_name_only_alerts_that_exist() {
    let known: BTreeSet<&str> = [MICRO_AGENT, CLASSIC, CUSTOM]
        .into_iter()
        .flatten()
        .map(|alert| alert.id)
        .chain(["IoT_OpenPorts"])
        .collect();
    let set = shipped();
    let unknown: Vec<_> =
        set.rules().flat_map(|rule| &rule.info.replaces).filter(|id| !known.contains(id.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
