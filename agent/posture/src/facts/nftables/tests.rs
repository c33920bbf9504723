use super::rule::Verdict;
use super::traffic::Width;
use super::*;

const WIDTH: Width = Width { prefix: 8, prefix6: 32, ports: 1024 };

fn by_text(text: &str) -> Result<Ruleset, String> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("etc/conf.d")).unwrap();
    std::fs::write(directory.path().join("etc/nftables.conf"), text).unwrap();
    std::fs::write(
        directory.path().join("etc/conf.d/a.nft"),
        "add rule inet t extra tcp dport 5000 accept\n",
    )
    .unwrap();
    Ruleset::find(&Root::open(directory.path()).unwrap(), &Inputs::default())
}

const RULES: &str = r#"#!/usr/sbin/nft -f
flush ruleset
define mgmt = { 192.0.2.0/24, 198.51.100.7 }
table inet t {
	set open { type inet_service; flags interval
		elements = { 22, 8000-8002 }
	}
	set later { type inet_service; }
	chain extra { }
	chain input {
		type filter hook input priority filter; policy drop;
		iifname "lo" accept comment "loop; back"
		ip saddr 127.0.0.0/8 counter drop
		ct state vmap { established : accept, related : accept, invalid : drop }
		tcp dport @open ip saddr $mgmt accept
		udp dport @later accept
		meta l4proto { icmp, ipv6-icmp } limit rate 10/second accept
		jump extra
	}
	chain forward { type filter hook forward priority 0; policy accept; }
	chain output {
		type filter hook output priority 0; policy drop;
		ip daddr 0.0.0.0/0 accept
		tcp dport { https, \
			8883 } accept
	}
}
include "/etc/conf.d/*.nft"
"#;

#[test]
fn reads_nfts_own_language() {
    let rules = by_text(RULES).unwrap();
    assert!(!rules.loaded);
    assert_eq!(rules.drops_by_default("input", Family::Ip6).unwrap().name, "input");
    assert!(rules.drops_by_default("forward", Family::Ip).is_none());
    let input = &rules.chains.iter().find(|chain| chain.name == "input").unwrap().rules;
    assert_eq!(input.len(), 9, "the map of states is three rules: {input:#?}");
    assert_eq!(input[1].verdict, Some(Verdict::Drop));
    assert!(rules.permissive("input", Family::Ip, WIDTH).is_empty());
    assert_eq!(
        rules.permissive("output", Family::Ip, WIDTH),
        ["table t chain output: ip daddr 0.0.0.0/0 accept"]
    );
    assert!(rules.permissive("output", Family::Ip6, WIDTH).is_empty());
    let open = rules.open_ports("input", Family::Ip);
    assert_eq!(
        open,
        [("tcp".to_owned(), 22, 22), ("tcp".to_owned(), 5000, 5000), ("tcp".to_owned(), 8000, 8002)].into()
    );
    assert_eq!(rules.open_ports("input", Family::Ip6), [("tcp".to_owned(), 5000, 5000)].into());
}

#[test]
fn wide_rules_in_every_spelling() {
    let wide = |rule: &str| {
        let rules = by_text(&format!(
            "table inet t {{ chain input {{ type filter hook input priority 0; policy drop; {rule}\n}} }}"
        ))
        .unwrap();
        !rules.permissive("input", Family::Ip, WIDTH).is_empty()
    };
    for rule in [
        "accept",
        "counter accept",
        "iifname eth0 accept",
        "ip saddr 0.0.0.0/0 accept",
        "ip saddr 10.0.0.0/7 tcp dport 1-65535 accept",
        "tcp dport != 22 accept",
        "ct state new,established accept",
        "meta l4proto { tcp, udp } accept",
        "ip protocol vmap { tcp : accept }",
        "ip saddr != 192.0.2.1 accept",
    ] {
        assert!(wide(rule), "{rule}");
    }
    for rule in [
        "iif lo accept",
        "tcp dport 22 accept",
        "ip saddr 192.0.2.0/24 accept",
        "ct state established,related accept",
        "icmp type echo-request accept",
        "meta l4proto icmp accept",
        "ip6 saddr ::/0 accept",
        "limit rate 1/second accept",
        "drop",
        "tcp dport { 22, 80, 8000-8100 } accept",
        "ip protocol icmp accept",
    ] {
        assert!(!wide(rule), "{rule}");
    }
}

#[test]
fn what_is_not_the_language_is_an_error() {
    for text in [
        "x",
        "table inet t {",
        "table inet t { chain c { tcp dport 22 accept",
        "include \"missing.nft\"",
        "}",
        "table inet t { chain c { type filter hook input priority 0; }",
    ] {
        assert!(by_text(text).is_err(), "{text}");
    }
    assert!(by_text("").unwrap().chains.is_empty());
    assert!(by_text("table inet t\ndelete table inet t\n").unwrap().chains.is_empty());
}

#[test]
fn finds_what_is_loaded_at_boot() {
    assert_eq!(file_of("ExecStart=/usr/sbin/nft -f /etc/a.nft"), Some("/etc/a.nft".into()));
    assert_eq!(file_of("  nft -o -f \"/etc/b.nft\";"), Some("/etc/b.nft".into()));
    assert_eq!(file_of("nft list ruleset"), None);
    assert_eq!(default_file("CONF=\"/etc/nftables.conf\""), Some("/etc/nftables.conf".into()));
}

/// The base firewall that ships, with both ways of starting it.
#[test]
fn the_shipped_base_firewall_is_found_and_closed() {
    let overlay = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rootfs-overlay");
    for starter in ["etc/init.d/S35defender-firewall", "usr/lib/systemd/system/defender-firewall.service"] {
        let image = tempfile::tempdir().unwrap();
        let copy = |from: &str, to: &str| {
            let to = image.path().join(to);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(overlay.join(from), to).unwrap();
        };
        copy("etc/defender/nftables/base.nft", "etc/defender/nftables/base.nft");
        copy("etc/defender/nftables/table.nft", "etc/defender/nftables/table.nft");
        let wanted = starter.replace("usr/lib/systemd/system", "etc/systemd/system/sysinit.target.wants");
        copy(starter, &wanted);
        std::fs::write(image.path().join("etc/nftables.conf"), "flush ruleset\n").unwrap();
        let rules = Ruleset::find(&Root::open(image.path()).unwrap(), &Inputs::default()).unwrap();
        assert!(rules.loaded, "{starter}");
        for hook in ["input", "forward"] {
            for family in [Family::Ip, Family::Ip6] {
                assert!(rules.drops_by_default(hook, family).is_some(), "{starter} {hook} {family:?}");
                assert!(rules.permissive(hook, family, WIDTH).is_empty());
            }
        }
        let open = rules.open_ports("input", Family::Ip);
        assert_eq!(open, [("tcp".to_owned(), 22, 22)].into(), "DHCP answers come from one port and are none");
        assert_eq!(open, rules.open_ports("input", Family::Ip6));
    }
}

/// The same rules by the kernel's listing and by the language, where nft and a network namespace of our own are to be had.
#[test]
fn both_readers_agree() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text =
        RULES.replace("include \"/etc/conf.d/*.nft\"\n", "add rule inet t extra tcp dport 5000 accept\n");
    std::fs::write(file.path(), &text).unwrap();
    let script = format!("nft -f {} && nft -j list ruleset", file.path().display());
    let listed = std::process::Command::new("unshare").args(["-n", "sh", "-c", &script]).output();
    let Some(listed) = listed.ok().filter(|listed| listed.status.success()) else {
        println!("skipped: no nft, or no right to a network namespace");
        return;
    };
    let inputs =
        Inputs { live: true, ruleset: Some(String::from_utf8(listed.stdout).unwrap()), ..Inputs::default() };
    let directory = tempfile::tempdir().unwrap();
    let live = Ruleset::find(&Root::open(directory.path()).unwrap(), &inputs).unwrap();
    let read = by_text(RULES).unwrap();
    assert_eq!(live.chains.len(), read.chains.len());
    for (chain, other) in live.chains.iter().zip(&read.chains) {
        assert_eq!(
            (&chain.name, &chain.hook, chain.policy_drop),
            (&other.name, &other.hook, other.policy_drop)
        );
        // The kernel keeps the entries of a map in an order of its own.
        let verdicts = |chain: &Chain| {
            let mut verdicts: Vec<_> = chain.rules.iter().map(|rule| format!("{:?}", rule.verdict)).collect();
            verdicts.sort();
            verdicts
        };
        assert_eq!(verdicts(chain), verdicts(other), "{}", chain.name);
    }
    for hook in ["input", "output", "forward"] {
        for family in [Family::Ip, Family::Ip6] {
            assert_eq!(live.open_ports(hook, family), read.open_ports(hook, family), "{hook} {family:?}");
            assert_eq!(
                live.permissive(hook, family, WIDTH).len(),
                read.permissive(hook, family, WIDTH).len(),
                "{hook} {family:?}"
            );
        }
    }
}

proptest::proptest! {
    #[test]
    fn listings_never_panic(text in "[\\[\\]{}\":,a-z0-9 ]{0,120}") {
        let _ = listing::read(&text);
        let _ = listing::read(&format!("{{\"nftables\": [{{\"chain\": {{\"name\": \"c\"}}}}, {{\"rule\": {{\"chain\": \"c\", \"expr\": [{text}]}}}}]}}"));
    }
}
