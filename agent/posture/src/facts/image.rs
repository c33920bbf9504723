//! What an image is and has.

use crate::root::{Root, Unreadable};

/// Where programs are.
pub(crate) const PROGRAM_DIRECTORIES: &[&str] = &[
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/libexec",
    "/usr/lib",
];

/// Things an image can have whose program is not simply called so.
const THINGS: &[(&str, &[&str])] = &[
    (
        "cron",
        &[
            "/usr/sbin/crond",
            "/usr/sbin/cron",
            "/sbin/crond",
            "/usr/bin/crond",
            "/usr/sbin/anacron",
            "/usr/sbin/fcron",
            "/etc/crontab",
        ],
    ),
    (
        "pam",
        &[
            "/etc/pam.conf",
            "/etc/pam.d/*",
            "/usr/lib/libpam.so*",
            "/lib/libpam.so*",
            "/{usr/,}lib/*/libpam.so*",
        ],
    ),
    ("u-boot-env", &["/etc/fw_env.config", "/usr/bin/fw_setenv", "/usr/sbin/fw_setenv", "/sbin/fw_setenv"]),
    ("swupdate", &["/usr/bin/swupdate", "/etc/swupdate.cfg"]),
    ("rauc", &["/usr/bin/rauc", "/etc/rauc/system.conf"]),
    (
        "mender",
        &["/usr/bin/mender", "/usr/bin/mender-update", "/usr/bin/mender-auth", "/etc/mender/mender.conf"],
    ),
    (
        "docker",
        &["/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/bin/docker", "/usr/bin/podman", "/usr/bin/balenad"],
    ),
    ("nftables", &["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"]),
    ("iptables", &["/usr/sbin/iptables", "/sbin/iptables", "/usr/sbin/iptables-restore"]),
    ("python", &["/usr/bin/python*", "/usr/local/bin/python*"]),
    ("perl", &["/usr/bin/perl*"]),
    ("apt", &["/usr/bin/apt-get", "/usr/bin/apt"]),
    ("dnf", &["/usr/bin/dnf*", "/usr/bin/yum", "/usr/bin/microdnf"]),
    (
        "syslog",
        &[
            "/usr/sbin/rsyslogd",
            "/usr/sbin/syslog-ng",
            "/sbin/syslogd",
            "/usr/sbin/syslogd",
            "/usr/bin/syslogd",
        ],
    ),
    ("rsyslog", &["/usr/sbin/rsyslogd"]),
    ("snmp", &["/usr/sbin/snmpd"]),
    ("apache", &["/usr/sbin/httpd", "/usr/sbin/apache2"]),
    (
        "tls-server",
        &[
            "/usr/sbin/nginx",
            "/usr/sbin/lighttpd",
            "/usr/sbin/apache2",
            "/usr/bin/stunnel*",
            "/usr/sbin/mosquitto",
        ],
    ),
    ("gcc", &["/usr/bin/gcc*", "/usr/bin/cc", "/usr/bin/*-gcc", "/usr/bin/clang*"]),
    (
        "grub",
        &[
            "/boot/grub/grub.cfg",
            "/boot/grub2/grub.cfg",
            "/boot/efi/EFI/*/grub.cfg",
            "/boot/EFI/BOOT/grub.cfg",
        ],
    ),
    ("x11", &["/usr/bin/Xorg", "/usr/lib/xorg/Xorg", "/usr/bin/X", "/usr/libexec/Xorg"]),
    ("selinux", &["/etc/selinux/config"]),
    ("apparmor", &["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser", "/etc/apparmor.d"]),
    ("networkmanager", &["/usr/sbin/NetworkManager"]),
    ("bluetooth", &["/usr/libexec/bluetooth/bluetoothd", "/usr/lib/bluetooth/bluetoothd"]),
    ("defender", &["/usr/bin/defender"]),
];

/// `PRETTY_NAME` of os-release, empty when there is none.
pub(crate) fn pretty_name(root: &Root) -> String {
    for file in ["/etc/os-release", "/usr/lib/os-release"] {
        let Ok(Some(text)) = root.text(file) else { continue };
        if let Some(value) = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")) {
            return value.trim_matches(['"', '\'']).to_owned();
        }
    }
    String::new()
}

/// systemd is the init of this image.
pub(crate) fn systemd(root: &Root) -> Result<bool, Unreadable> {
    any(root, &["/usr/lib/systemd/systemd", "/lib/systemd/systemd"]).map(|found| found.is_some())
}

/// The first of some paths or patterns that is there.
pub(crate) fn any(root: &Root, paths: &[&str]) -> Result<Option<String>, Unreadable> {
    for path in paths {
        if let Some(found) = root.glob(path)?.into_iter().next() {
            return Ok(Some(found.display().to_string()));
        }
    }
    Ok(None)
}

/// The path by which an image has something: a thing of the list above, or a program of that name.
pub(crate) fn has(root: &Root, thing: &str) -> Result<Option<String>, Unreadable> {
    if let Some((_, paths)) = THINGS.iter().find(|(name, _)| *name == thing) {
        return any(root, paths);
    }
    for directory in PROGRAM_DIRECTORIES {
        let path = format!("{directory}/{thing}");
        if root.link_metadata(&path)?.is_some() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
