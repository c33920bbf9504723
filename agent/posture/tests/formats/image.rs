//! Every format a scan reads, each in an image of which the bytes of that format are the hostile part. The mutation test beside this
//! and the fuzz targets in tests/fuzz both start here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, reason = "the fuzz targets compile this into a library")]

use std::fs;
use std::path::Path;

use defender_model::time::Timestamp;
use defender_posture::report::{html, junit, ocsf, sarif, text};
use defender_posture::root::table::DeviceTable;
use defender_posture::{scan, Exceptions, Inputs, Policy, Root};

/// Between the contents of several places in one input; no text in UTF-8 holds it.
const SEPARATOR: u8 = 0xff;

/// A format.
#[derive(Debug)]
pub struct Format {
    /// Its name, that of the fuzz target without `posture_`.
    pub name: &'static str,
    /// Where its bytes lie: paths in the image, or inputs of the scan by name. An input is cut at [`SEPARATOR`] when there are several.
    pub places: &'static [&'static str],
    /// Other files without which nobody looks at it; all are empty.
    pub around: &'static [&'static str],
    /// Content in order for each place.
    pub seed: &'static [&'static [u8]],
    /// Expressions of checks that look at it.
    pub expect: &'static [&'static str],
}

/// Every format.
pub const FORMATS: &[Format] = &[
    Format {
        name: "sshd",
        places: &["/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/a.conf"],
        around: &["/usr/sbin/sshd"],
        seed: &[
            b"Include /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin no\nCiphers -aes128-cbc\nMatch User ops,!x Address 10.0.0.0/8\n  PermitRootLogin yes\n",
            b"LoginGraceTime 2m\nMaxStartups 10:30:60\nMatch Host *.example exec \"/bin/true\"\n  MaxAuthTries = 3\nMatch all\n",
        ],
        expect: &[
            "{ sshd = \"permitrootlogin\", one_of = [\"no\", \"prohibit-password\"] }",
            "{ sshd = \"permitrootlogin\", user = \"ops\", host = \"a.example\", address = \"10.0.0.1\", equals = \"no\" }",
            "{ sshd = \"ciphers\", lacks = \"cbc\" }",
            "{ sshd = \"logingracetime\", at_most = 60 }",
            "{ sshd = \"maxauthtries\", at_most = 4 }",
            "{ sshd = \"maxstartups\", matches = \"^10:30:60$\" }",
        ],
    },
    Format {
        name: "accounts",
        places: &["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/login.defs"],
        around: &[],
        seed: &[
            b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n+::::::\n",
            b"root:*:19000:0:99999:7:::\nann:$1$salt$0123456789abcdefghijkl:19000:1:365:7:30::\n",
            b"root:x:0:\nann:x:1000:ann,bob\n",
            b"UID_MIN 1000\nPASS_MAX_DAYS 99999\n",
        ],
        expect: &[
            "{ account = \"any\", password = [\"empty\", \"weak_hash\", \"unshadowed\"] }",
            "{ account = \"login\", every = true, password = \"set\" }",
            "{ account = \"superuser\", except = [\"root\"] }",
            "{ account = \"any\", duplicate = \"uid\" }",
            "{ account = \"any\", duplicate = \"group\" }",
            "{ account = \"person\", home_exists = true, home_mode_beyond = \"0750\", home_owned = true, group_exists = false }",
            "{ account = \"any\", max_days_at_most = 365, min_days_at_least = 1, inactive_days_at_most = 30 }",
            "{ account = \"any\", changed_in_future = true }",
            "{ account = \"any\", legacy_plus = true }",
        ],
    },
    Format {
        name: "nft",
        places: &["/etc/nftables.conf"],
        around: &[],
        seed: &[
            b"#!/usr/sbin/nft -f\nflush ruleset\ndefine lan = { 192.0.2.0/24, 198.51.100.0/24 }\ntable inet filter {\n set s { type ipv4_addr; \
              flags interval; elements = { 192.0.2.1-192.0.2.9 } }\n chain input { type filter hook input priority filter; policy drop;\n \
              iif lo accept\n ct state vmap { established : accept, invalid : drop }\n ip saddr $lan tcp dport { 22, 80-443 } accept\n \
              ip6 saddr ::/0 udp dport 1-65535 counter accept comment \"x\"\n jump more }\n chain more { meta l4proto icmp accept }\n}\n",
        ],
        expect: NFTABLES,
    },
    Format {
        name: "nft_listing",
        places: &["ruleset"],
        around: &[],
        seed: &[
            br#"{"nftables":[{"metainfo":{"version":"1.0.6"}},{"table":{"family":"inet","name":"t","handle":1}},{"chain":{"family":"inet","table":"t","name":"input","handle":1,"type":"filter","hook":"input","prio":0,"policy":"drop"}},{"rule":{"family":"inet","table":"t","chain":"input","handle":2,"expr":[{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":{"set":[22,{"range":[80,443]}]}}},{"accept":null}]}},{"rule":{"family":"inet","table":"t","chain":"input","handle":3,"expr":[{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":{"prefix":{"addr":"10.0.0.0","len":4}}}},{"accept":null}]}}]}"#,
        ],
        expect: NFTABLES,
    },
    Format {
        name: "elf",
        places: &["/usr/bin/a"],
        around: &[],
        // A little-endian head of 64 bits with three segments: loaded, dynamic, stack.
        seed: &[&ELF],
        expect: &[
            "{ elf = \"/usr/bin/*\", pie = true }",
            "{ elf = \"/usr/bin/*\", relro = \"full\", nx = true, at_least_percent = 90 }",
            "{ elf = \"/usr/bin/*\", canary = true, fortify = true, no_rpath = true }",
            "{ find = \"suspicious_suffix\" }",
        ],
    },
    Format {
        name: "certificate",
        places: &["/etc/ssl/a.pem"],
        around: &[],
        seed: &[b"-----BEGIN CERTIFICATE-----\nMIIBmzCCAQQCAQEwDQYJKoZIhvcNAQELBQAwFjEUMBIGA1UEAwwLZGV2aWNlLnRl\nc3QwHhcNMjUxMTI3MDAwMDAwWhcNMjUxMjI3MDAwMDAwWjAWMRQwEgYDVQQDDAtk\nZXZpY2UudGVzdDCBnzANBgkqhkiG9w0BAQEFAAOBjQAwgYkCgYEArHc0PxmcNFcx\nesIX85zyleUHZZ5x3gpJ9e7Pm5FZN7LaKwpNRO2SS+pBZ+fWTqw6juahe/XPLFlS\niPHw8xBfTlapWuPq+1VR66dJbQSvBgOJQJMMbu5AcDaynl/fRMkavbtIyZFlag3B\nOB9sQtYg/yAY9CBw1eSv7MzkvFpeQ9MCAwEAATANBgkqhkiG9w0BAQsFAAOBgQBg\ni5T9llF+9jAuH0fILVEFQVRHHFYxBUIjP7AFpHXzNUP6ygLPVXz4wJKsAXgzBSEO\n5Q7U5PRgDFdihk77Ubwu/eql1XGrwFfQoCSnwtl+liPNlZeMEgwptfRLpyAyq3U/\nBUDQnhyyT/CSKGIHPJPOhu5SndIOQ6caDqllr2aFeQ==\n-----END CERTIFICATE-----\n"],
        expect: &[
            "{ certificate = \"/etc/ssl/*\", expires_in_days_at_least = 10, key_bits_at_least = 2048 }",
            "{ certificate = \"/etc/ssl/*\", signature_not = [\"sha1\", \"md5\"], self_signed = false }",
            "{ private_key = \"/etc/ssl/*\", shared = false }",
            "{ private_key = \"/etc/ssl/*\", key_bits_at_least = 2048, mode_max = \"0600\" }",
            "{ find = \"private_key\" }",
        ],
    },
    Format {
        name: "kernel_config",
        places: &["/boot/config-1"],
        around: &[],
        seed: &[b"# Linux/arm 6.6\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\nCONFIG_D=\"z\"\nCONFIG_E=0x10\n"],
        expect: KERNEL_CONFIG,
    },
    Format {
        name: "kernel_image",
        places: &["/boot/vmlinuz-1"],
        around: &[],
        seed: &[b"MZ\x00\x00IKCFG_ST\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03S\xe6r\xf6\xf7s\xf3t\x8fw\xb4\xad\xe4RV\x80r\x9c\x142\x8b\x15\xf2\xf2K\x14\x8aSK`\x0a\x5cl\x95\xaa\x94\xb8\x00\xe4\xec\xf8\xd60\x00\x00\x00IKCFG_ED"],
        expect: KERNEL_CONFIG,
    },
    Format {
        name: "command_line",
        places: &["/boot/extlinux/extlinux.conf", "/boot/grub/grub.cfg", "/boot/cmdline.txt", "/boot/uEnv.txt"],
        around: &[],
        seed: &[
            b"LABEL a\n  LINUX /zImage\n  APPEND root=/dev/mmcblk0p2 ro quiet init_on_alloc=1\n",
            b"menuentry 'a' {\n linux /vmlinuz root=/dev/sda1 \"x y\" \\\n quiet\n}\n",
            b"console=serial0,115200 root=PARTUUID=1 rootwait\n",
            b"bootargs=root=/dev/mmcblk0p2 ${extra}\n",
        ],
        expect: &[
            "{ cmdline = \"quiet\" }",
            "{ cmdline = \"init_on_alloc\", equals = \"1\" }",
            "{ cmdline = \"x\", present = false }",
        ],
    },
    Format {
        name: "sysctl",
        places: &["/etc/sysctl.d/a.conf", "/etc/sysctl.conf"],
        around: &["/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd-sysctl"],
        seed: &[
            b"# x\nkernel.kptr_restrict = 2\n-net/ipv4/conf/eth0.1/rp_filter = 1\nnet.ipv4.conf.*.rp_filter=1\n",
            b"kernel.dmesg_restrict=1\n;x\nkernel.core_pattern=|/bin/false\n",
        ],
        expect: &[
            "{ sysctl = \"kernel.kptr_restrict\", at_least = 1, default = 0 }",
            "{ sysctl = \"net.ipv4.conf.all.rp_filter\", iface = true, equals = 1, default = 0 }",
            "{ sysctl = [\"kernel.dmesg_restrict\", \"kernel.x\"], one_of = [\"1\"] }",
        ],
    },
    Format {
        name: "pam",
        places: &["/etc/pam.d/login", "/etc/pam.d/common-auth", "/etc/pam.conf"],
        around: &[],
        seed: &[
            b"@include common-auth\nauth [success=2 default=die user_unknown=ignore] pam_unix.so nullok \\\n try_first_pass\n-session optional pam_x.so [a b]\n",
            b"auth required pam_faillock.so preauth deny=5\nauth substack login\n",
            b"login auth required pam_deny.so\n",
        ],
        expect: &[
            "{ pam = \"login\", type = \"auth\", module = \"pam_faillock\" }",
            "{ pam = \"login\", type = \"auth\", control = \"required\", module = \"pam_unix\", argument = \"nullok\", present = false }",
        ],
    },
    Format {
        name: "mounts",
        places: &["/etc/fstab", "/usr/lib/systemd/system/tmp.mount"],
        around: &["/usr/lib/systemd/systemd"],
        seed: &[
            b"/dev/root / squashfs ro 0 1\ntmpfs /tmp tmpfs nosuid,nodev,size=1\\040M 0 0\nLABEL=a /mnt/usb vfat defaults\n",
            b"[Mount]\nWhat=tmpfs\nWhere=/tmp\nType=tmpfs\nOptions=nosuid,\\\n nodev\n",
        ],
        expect: &[
            "{ mount = \"/tmp\", separate = true, options = [\"nodev\"], lacks_options = [\"exec\"], fstype = \"tmpfs\" }",
            "{ mount = \"/\", read_only = true }",
            "{ mount = \"/{media,mnt}/**\", options = [\"nodev\"] }",
            "{ root_fs = [\"squashfs\", \"erofs\"] }",
            "{ writable_root = false }",
        ],
    },
    Format {
        name: "modules",
        places: &["/lib/modules/1/modules.dep", "/lib/modules/1/modules.builtin", "/etc/modprobe.d/a.conf"],
        around: &[],
        seed: &[
            b"kernel/fs/udf/udf.ko.xz: kernel/lib/crc.ko.xz\nkernel/net/dccp/dccp-ipv4.ko:\n",
            b"kernel/fs/ext4/ext4.ko\n",
            b"install udf /bin/true\nblacklist dccp_ipv4\nalias net-pf-1 \\\n off\n",
        ],
        expect: &[
            "{ module = \"udf\", loadable = false }",
            "{ module = [\"dccp_ipv4\", \"ext4\"], loadable = false }",
            "{ module = \"dccp\", present = false }",
        ],
    },
    Format {
        name: "services",
        places: &["/etc/inittab", "/etc/inetd.conf", "/etc/systemd/system/a.service", "/etc/init.d/S50dropbear", "/etc/default/dropbear"],
        around: &["/bin/busybox", "/usr/sbin/dropbear"],
        seed: &[
            b"::sysinit:/etc/init.d/rcS\nttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100\n::askfirst:-/bin/sh\n::once:/usr/sbin/telnetd -F\n",
            b"telnet stream tcp nowait root /usr/sbin/telnetd telnetd -i\n",
            b"[Service]\nExecStart=\nExecStart=-/usr/sbin/dropbear -F \"-w\"\n[Install]\nWantedBy=multi-user.target\n",
            b"#!/bin/sh\nDROPBEAR_ARGS='-R -w'\n[ -r /etc/default/dropbear ] && . /etc/default/dropbear\nstart-stop-daemon -S -x /usr/sbin/dropbear -- $DROPBEAR_ARGS\n",
            b"DROPBEAR_ARGS=\"-s -p 22 -K 60\"\n",
        ],
        expect: &[
            "{ service = \"telnetd\", enabled = false }",
            "{ service = [\"a\", \"dropbear\"], installed = true }",
            "{ inittab = true, getty = true }",
            "{ inittab = true, shell_without_login = false }",
            "{ inittab = true, matches = \"telnetd\" }",
            "{ dropbear = \"no_root_login\" }",
            "{ dropbear = \"port\", equals = 22 }",
            "{ dropbear = \"idle_timeout\", at_most = 600 }",
        ],
    },
    Format {
        name: "packages",
        places: &["/var/lib/dpkg/status", "/usr/lib/opkg/status", "/lib/apk/db/installed"],
        around: &[],
        seed: &[
            b"Package: telnetd\nStatus: install ok installed\nVersion: 0.17-41.2~rc1+b1\nDescription: x\n y\n\nPackage: x\nStatus: deinstall ok config-files\nVersion: 1\n",
            b"Package: dropbear\nVersion: 2022.83-r0\nStatus: install user installed\n\n",
            b"C:Q1\nP:busybox\nV:1.36.1-r2\n\n",
        ],
        expect: &[
            "{ package = \"telnet.*\", installed = false }",
            "{ package = [\"busybox\", \"dropbear\"], version_at_least = \"1.36\" }",
            "{ package = \"telnetd\", version_below = \"1:0.17\" }",
        ],
    },
    Format {
        name: "settings",
        places: &["/etc/a.conf"],
        around: &[],
        seed: &[b"; x\nKey = 1\n[s]\nkey=\"7\" # y\nOther two words\nlist: a, b c\n"],
        expect: &[
            "{ setting = \"/etc/*.conf\", key = \"Key\", equals = 1, first = true }",
            "{ setting = \"/etc/a.conf\", key = \"key\", ignore_case = true, section = \"s\", at_least = 7 }",
            "{ setting = \"/etc/a.conf\", key = \"Other\", separator = \"space\", matches = \"two\" }",
            "{ setting = \"/etc/a.conf\", key = \"list\", separator = \":\", contains = \"b\" }",
            "{ text = \"/etc/a.conf\", matches = \"^Key\" }",
            "{ text = \"/etc/a.conf\", lacks = \"(?i)password\", comment = \";\" }",
        ],
    },
    Format {
        name: "device_table",
        places: &["device_table"],
        around: &["/usr/bin/a"],
        seed: &[b"# x\n/dev/mem c 640 0 0 1 1 0 0 -\n/usr/bin f 4755 root root - - - - -\n|xattr cap_net_raw+ep\n/usr/bin/a r -1 1000 1000 - - - - -\n"],
        expect: &[
            "{ find = \"setuid\" }",
            "{ find = \"capability\" }",
            "{ find = \"device_node\" }",
            "{ find = \"unowned\" }",
            "{ file = \"/usr/bin/a\", owner = \"root\", mode_max = \"0755\" }",
        ],
    },
];

const NFTABLES: &[&str] = &[
    "{ nftables = \"loaded\" }",
    "{ nftables = \"policy\", hook = \"input\", policy = \"drop\" }",
    "{ nftables = \"accepts\", hook = \"input\", traffic = \"loopback\" }",
    "{ nftables = \"drops\", hook = \"input\", traffic = \"invalid\" }",
    "{ not = { nftables = \"permissive\", hook = \"input\" } }",
    "{ nftables = \"parity\", hook = \"input\" }",
];

const KERNEL_CONFIG: &[&str] = &[
    "{ kconfig = \"A\", is = \"y\" }",
    "{ kconfig = [\"B\", \"C\"], is = \"n\" }",
    "{ kconfig = \"CONFIG_D\", equals = \"z\" }",
    "{ kconfig = \"E\", at_least = 16 }",
];

/// See `elf`.
const ELF: [u8; 64 + 3 * 56] = {
    let mut file = [0; 64 + 3 * 56];
    let head = *b"\x7fELF\x02\x01\x01";
    let mut at = 0;
    while at < head.len() {
        file[at] = head[at];
        at += 1;
    }
    // Type, machine, version; where the segments are, their size and number.
    file[16] = 3;
    file[18] = 62;
    file[20] = 1;
    file[32] = 64;
    file[52] = 64;
    file[54] = 56;
    file[56] = 3;
    let kinds: [[u8; 4]; 3] = [[1, 0, 0, 0], [2, 0, 0, 0], [0x51, 0xe5, 0x74, 0x64]];
    let mut segment = 0;
    while segment < 3 {
        let start = 64 + segment * 56;
        let mut byte = 0;
        while byte < 4 {
            file[start + byte] = kinds[segment][byte];
            byte += 1;
        }
        file[start + 4] = 4;
        file[start + 32] = 64;
        file[start + 40] = 64;
        segment += 1;
    }
    file
};

/// An image of one format, written anew for each input.
#[derive(Debug)]
pub struct Image {
    format: &'static Format,
    directory: tempfile::TempDir,
    policy: Policy,
}

impl Image {
    /// The image of the format of that name.
    ///
    /// # Panics
    /// When there is no such format, or the directory cannot be made.
    pub fn new(name: &str) -> Self {
        let format = FORMATS.iter().find(|format| format.name == name).expect("a format of that name");
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let image = Self { format, directory, policy: policy(format.expect) };
        for path in format.around.iter().chain(format.places).filter(|path| path.starts_with('/')) {
            let path = image.below(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if !path.exists() {
                fs::write(path, "").unwrap();
            }
        }
        image
    }

    /// The content in order, as one input.
    pub fn seed(&self) -> Vec<u8> {
        self.format.seed.join(&SEPARATOR)
    }

    fn below(&self, path: &str) -> std::path::PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    /// Scans the image with these bytes in their places and returns the verdicts, by name. Whatever they are, the scan ends, comes to
    /// the same verdicts again, and what the reports say of it is safe to show.
    ///
    /// # Panics
    /// When that is not so.
    pub fn judge(&self, input: &[u8]) -> Vec<&'static str> {
        let mut parts = input.splitn(self.format.places.len(), |byte| *byte == SEPARATOR);
        let mut inputs =
            Inputs { live: false, time: Timestamp::from_secs(1_764_230_400), ..Inputs::default() };
        let mut table = None;
        for place in self.format.places {
            let bytes = parts.next().unwrap_or_default();
            match *place {
                "ruleset" => inputs.ruleset = Some(String::from_utf8_lossy(bytes).into_owned()),
                "device_table" => table = DeviceTable::parse(bytes, |_| Some(0), |_| Some(0)).ok(),
                path => fs::write(self.below(path), bytes).unwrap(),
            }
        }
        let judged = || {
            let mut root = Root::open(self.directory.path()).unwrap();
            if let Some(table) = &table {
                // A table that does not fit the image is refused.
                let _ = root.apply(table);
            }
            scan(&root, std::slice::from_ref(&self.policy), &Exceptions::default(), &inputs)
        };
        let report = judged();
        let verdicts: Vec<&'static str> =
            report.policies[0].checks.iter().map(|result| result.verdict.name()).collect();
        let shown = text::write(&report, text::Layout { all: true, ..text::Layout::default() });
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        assert_eq!(shown, text::write(&judged(), text::Layout { all: true, ..text::Layout::default() }));
        for line in ocsf::write(&report, &Default::default()).lines() {
            assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
        }
        let _ = (html::write(&report), junit::write(&report), sarif::write(&report));
        verdicts
    }
}

fn policy(expect: &[&str]) -> Policy {
    let mut text = "[policy]\nid = \"p\"\ntitle = \"P\"\n".to_owned();
    for (number, expression) in expect.iter().enumerate() {
        text.push_str(&format!(
            "[[check]]\nid = \"p-{number}\"\ntitle = \"T\"\nsection = \"S\"\nseverity = \"high\"\nrationale = \"R\"\n\
             remediation = \"M\"\nexpect = {expression}\n"
        ));
    }
    Policy::parse("p.toml", text.as_bytes()).unwrap_or_else(|error| panic!("{error:?}\n{text}"))
}

/// A policy file of the seed's kind: it parses or is refused.
pub fn parse_policy(input: &[u8]) -> bool {
    Policy::parse("fuzz.toml", input).is_ok()
}

/// A policy in order.
pub fn policy_seed() -> Vec<u8> {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR"));
    // This file is compiled into two crates.
    let overlay = policies.ancestors().map(|path| path.join("rootfs-overlay")).find(|path| path.is_dir());
    fs::read(overlay.unwrap().join("usr/share/defender/policies/network.toml")).unwrap()
}
