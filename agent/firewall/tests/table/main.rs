//! The table in a real kernel, through the real `nft`.

// In tests a failed step is a failed test; clippy sees that only for functions marked as tests.
#![allow(clippy::unwrap_used)]

mod faults;
mod isolation;
mod namespace;
mod watch;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use defender_firewall::{BlockRequest, Config, Error, Firewall, Target};
use namespace::Answer::{Connected, Refused, Silence};
use namespace::{inside, meets, run, script, Peer};

const NOW: i64 = 1_800_000_000_000;

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn request(text: &str, seconds: u64) -> BlockRequest {
    BlockRequest {
        target: target(text),
        duration: Duration::from_secs(seconds),
        reason: "ssh brute force".into(),
    }
}

fn config() -> Config {
    Config { nft: "/usr/sbin/nft".into(), allow_gateway: false, ..Config::default() }
}

fn with_state(path: &Path) -> Config {
    Config { state_file: Some(path.to_path_buf()), ..config() }
}

async fn started(config: Config) -> Firewall {
    let mut firewall = Firewall::new(config);
    firewall.start(NOW).await.unwrap();
    firewall
}

/// Blocks that must all succeed; whether the table was repaired.
async fn block(firewall: &mut Firewall, requests: &[BlockRequest]) -> bool {
    let report = firewall.block(requests, NOW).await.unwrap();
    for (outcome, request) in report.outcomes.iter().zip(requests) {
        assert_eq!(outcome.target, request.target);
        let left = *outcome.result.as_ref().unwrap();
        assert!(left + Duration::from_secs(3) >= request.duration, "{} for {left:?}", request.target);
    }
    assert_eq!(report.outcomes.len(), requests.len());
    report.repaired
}

/// Address and seconds left, as `nft` says, not we.
fn in_kernel() -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for set in ["blocked4", "blocked6"] {
        let text = run(&format!("nft -j list set inet defender {set}"));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        for element in value["nftables"][1]["set"]["elem"].as_array().into_iter().flatten() {
            let element = &element["elem"];
            found.push((element["val"].as_str().unwrap().to_owned(), element["expires"].as_u64().unwrap()));
        }
    }
    found.sort();
    found
}

fn addresses() -> Vec<String> {
    in_kernel().into_iter().map(|(a, _)| a).collect()
}

/// Every blocked address, those without time-out too.
fn addresses_and_forever() -> Vec<String> {
    let text = run("nft list set inet defender blocked4; nft list set inet defender blocked6");
    let words = text.split(|c: char| c.is_whitespace() || c == ',');
    let mut found: Vec<String> = words.filter(|w| w.parse::<Target>().is_ok()).map(str::to_owned).collect();
    found.sort();
    found
}

#[test]
fn install_again_keeps_blocks_counters_and_foreign_elements() {
    inside("install_again_keeps_blocks_counters_and_foreign_elements", || async {
        let mut first = started(config()).await;
        block(
            &mut first,
            &[request("192.0.2.7", 600), request("::ffff:192.0.2.8", 600), request("2001:db8::7", 3600)],
        )
        .await;
        run("nft add element inet defender blocked4 { 198.51.100.9 }");
        let before = run("nft list table inet defender");
        assert!(before.contains("priority -250; policy accept"), "{before}");
        drop(first); // as good as killed: nothing is undone

        let mut second = Firewall::new(config());
        let report = second.start(NOW).await.unwrap();
        assert_eq!((report.kept, report.restored), (3, 0));
        let blocked = second.blocked().await.unwrap();
        let found: Vec<_> = blocked.iter().map(|b| (b.target.to_string(), b.remaining.is_some())).collect();
        let wanted =
            [("192.0.2.7", true), ("192.0.2.8", true), ("198.51.100.9", false), ("2001:db8::7", true)];
        assert_eq!(found, wanted.map(|(a, timed)| (a.to_owned(), timed)));
        assert_eq!(blocked[0].reason.as_deref(), Some("found in the kernel"));
        assert!(!second.check(NOW).await.unwrap());

        // Another bound means sets of another size, which a kernel set cannot change to.
        let before = addresses_and_forever();
        let mut second = Firewall::new(Config { max_blocks: 20_000, ..config() });
        assert_eq!(second.start(NOW).await.unwrap().kept, 3);
        assert_eq!(addresses_and_forever(), before);
        assert!(run("nft list set inet defender blocked4").contains("size 65536"));

        second.remove().await.unwrap();
        second.remove().await.unwrap();
        assert_eq!(run("nft list ruleset"), "");
        assert!(matches!(second.blocked().await, Err(Error::TableMissing)));
        // And it is not gone for good.
        assert!(!block(&mut second, &[request("192.0.2.9", 60)]).await);
        assert_eq!(addresses(), ["192.0.2.9"]);
    });
}

#[test]
fn packets_of_blocked_addresses_are_dropped() {
    inside("packets_of_blocked_addresses_are_dropped", || async {
        let peer = Peer::on(0);
        let listeners =
            ["198.18.0.1:4022", "[2001:db8:0::1]:4022"].map(|a| std::net::TcpListener::bind(a).unwrap());
        let reaches = |v4: bool, v6: bool| {
            let wanted = |reached| if reached { Connected } else { Silence };
            assert_eq!(peer.meets("198.18.0.1", 4022), wanted(v4), "IPv4");
            assert_eq!(peer.meets("2001:db8:0::1", 4022), wanted(v6), "IPv6");
        };
        let mut firewall = started(config()).await;
        reaches(true, true);
        assert_eq!(meets("198.18.0.2", 9), Refused);
        assert_eq!(meets("2001:db8:0::2", 9), Refused);
        block(&mut firewall, &[request("198.18.0.2", 600)]).await;
        reaches(false, true);
        block(&mut firewall, &[request("2001:db8:0::2", 600)]).await;
        reaches(false, false);
        // The other way round as well.
        assert_eq!(meets("198.18.0.2", 9), Silence);
        assert_eq!(meets("2001:db8:0::2", 9), Silence);
        let out = std::net::UdpSocket::bind("[::]:0").unwrap();
        let sent = out.send_to(b"x", "[2001:db8:0::2]:9");
        assert!(sent.is_err(), "a datagram to a blocked address left: {sent:?}");
        let counters = firewall.counters().await.unwrap();
        assert!(counters.input.packets >= 2 && counters.input.bytes >= 100, "{counters:?}");
        assert!(counters.output.packets >= 1, "{counters:?}");
        assert_eq!(counters.forward.packets, 0);
        // Our own address may be blocked by mistake; we still reach ourselves.
        block(&mut firewall, &[request("198.18.0.1", 600)]).await;
        assert!(std::net::TcpStream::connect_timeout(
            &"198.18.0.1:4022".parse().unwrap(),
            Duration::from_secs(1)
        )
        .is_ok());

        let gone = firewall.unblock(&[target("198.18.0.2"), target("192.0.2.1")], NOW).await.unwrap();
        assert_eq!(gone.iter().map(|u| u.was_blocked).collect::<Vec<_>>(), [true, false]);
        firewall.unblock(&[target("198.18.0.1")], NOW).await.unwrap();
        reaches(true, false);
        firewall.unblock(&[target("2001:db8:0::2")], NOW).await.unwrap();
        reaches(true, true);

        // A block ends by itself.
        block(&mut firewall, &[request("198.18.0.2", 3), request("2001:db8:0::2", 3)]).await;
        let begin = Instant::now();
        reaches(false, false);
        while peer.meets("198.18.0.1", 4022) != Connected || peer.meets("2001:db8:0::1", 4022) != Connected {
            assert!(begin.elapsed() < Duration::from_secs(15), "the block did not end");
        }
        assert!(begin.elapsed() > Duration::from_millis(1500), "the block ended early");
        assert!(firewall.counters().await.unwrap().input.packets > counters.input.packets);
        drop(listeners);
    });
}

#[test]
fn forwarded_packets_are_dropped_in_both_directions() {
    inside("forwarded_packets_are_dropped_in_both_directions", || async {
        // peer A (198.18.0.2) - us - peer B (198.18.1.2)
        let (a, b) = (Peer::on(0), Peer::on(1));
        run("sysctl -qw net.ipv4.ip_forward=1");
        a.run("ip route add default via 198.18.0.1");
        b.run("ip route add default via 198.18.1.1");
        let through = || a.meets("198.18.1.2", 9) == Refused;
        let mut firewall = started(Config { allow: vec!["198.18.1.2".parse().unwrap()], ..config() }).await;
        assert!(through());
        block(&mut firewall, &[request("198.18.0.2", 600)]).await;
        assert!(!through(), "an allowed destination must not open the way to a blocked source");
        assert!(firewall.counters().await.unwrap().forward.packets > 0);
        firewall.unblock(&[target("198.18.0.2")], NOW).await.unwrap();
        assert!(through());
    });
}

#[test]
fn allowed_addresses_are_refused_and_outrank_the_sets() {
    inside("allowed_addresses_are_refused_and_outrank_the_sets", || async {
        let peer = Peer::on(0);
        let _listener = std::net::TcpListener::bind("198.18.0.1:4022").unwrap();
        let proc = tempfile::tempdir().unwrap();
        fs::create_dir(proc.path().join("net")).unwrap();
        let route = proc.path().join("net/route");
        fs::write(&route, "Iface Destination Gateway\n").unwrap();
        let mut firewall = Firewall::new(Config {
            allow: vec![
                "10.0.0.0/8".parse().unwrap(),
                "10.9.0.0/16".parse().unwrap(),
                "2001:db8:5::/48".parse().unwrap(),
            ],
            allow_gateway: true,
            proc: proc.path().to_path_buf(),
            ..config()
        });
        firewall.start(NOW).await.unwrap();
        let report = firewall
            .block(
                &[request("::ffff:10.9.1.2", 60), request("192.0.2.1", 60), request("2001:db8:5::1", 60)],
                NOW,
            )
            .await
            .unwrap();
        assert_eq!(
            report.outcomes[0].result.as_ref().unwrap_err().to_string(),
            "10.9.1.2 is never blocked: it is in the allow-list (10.0.0.0/8)"
        );
        assert!(report.outcomes[1].result.is_ok());
        assert!(matches!(report.outcomes[2].result, Err(Error::Allowed { .. })));
        assert_eq!(addresses(), ["192.0.2.1"]);
        let report = firewall
            .block(&[request("127.0.0.1", 60), request("::", 60), request("ff02::1", 60)], NOW)
            .await
            .unwrap();
        assert!(report.outcomes.iter().all(|o| matches!(o.result, Err(Error::Allowed { .. }))));

        // A peer that is blocked, and then becomes our gateway (a lease was renewed).
        block(&mut firewall, &[request("198.18.0.2", 600)]).await;
        assert_eq!(peer.meets("198.18.0.1", 4022), Silence);
        fs::write(&route, "eth0\t00000000\t020012C6\t0003\t0\t0\t0\t00000000\t0\t0\t0\n").unwrap();
        let report = firewall.block(&[request("192.0.2.3", 600)], NOW).await.unwrap();
        assert!(report.outcomes[0].result.is_ok());
        assert_eq!(peer.meets("198.18.0.1", 4022), Connected);
        assert_eq!(addresses(), ["192.0.2.1", "192.0.2.3"]);
        let report = firewall.block(&[request("198.18.0.2", 600)], NOW).await.unwrap();
        assert!(report.outcomes[0].result.as_ref().unwrap_err().to_string().contains("default gateway"));
        // Even if another hand puts it into the set.
        run("nft add element inet defender blocked4 { 198.18.0.2 timeout 60s }");
        assert_eq!(peer.meets("198.18.0.1", 4022), Connected);
    });
}

#[test]
fn foreign_tables_stay_as_they_are() {
    inside("foreign_tables_stay_as_they_are", || async {
        run("nft add table inet product");
        run("nft 'add chain inet product input { type filter hook input priority 0; policy drop; }'");
        run("nft 'add rule inet product input tcp dport 22 counter accept'");
        // What crate nftables 0.6.3 cannot parse.
        run("nft 'add rule inet product input reset tcp option sack-perm'");
        run("nft 'add table ip defender; add chain ip defender input; add rule ip defender input drop'");
        run("nft 'add set inet product blocked4 { type ipv4_addr; flags timeout; }; add element inet product blocked4 { 192.0.2.7 }'");
        let before = run("nft -a list ruleset");
        let mut firewall = started(config()).await;
        block(&mut firewall, &[request("192.0.2.7", 600), request("2001:db8::7", 600)]).await;
        firewall.unblock(&[target("192.0.2.7")], NOW).await.unwrap();
        run("nft flush chain inet defender input");
        assert!(firewall.check(NOW).await.unwrap());
        assert!(run("nft list ruleset").contains("table inet defender"));
        let without_ours = |text: String| {
            let start = text.find("table inet defender {").unwrap();
            let end = start + text[start..].find("\n}\n").unwrap() + 3;
            format!("{}{}", &text[..start], &text[end..])
        };
        assert_eq!(without_ours(run("nft -a list ruleset")), before);
        firewall.remove().await.unwrap();
        assert_eq!(run("nft -a list ruleset"), before);
    });
}

#[test]
fn again_is_longer_never_shorter() {
    inside("again_is_longer_never_shorter", || async {
        let mut firewall = started(config()).await;
        block(&mut firewall, &[request("192.0.2.1", 600), request("192.0.2.1", 300)]).await;
        assert!((595..=600).contains(&in_kernel()[0].1));
        block(&mut firewall, &[request("192.0.2.1", 60)]).await;
        assert!((595..=600).contains(&in_kernel()[0].1));
        block(&mut firewall, &[request("192.0.2.1", 1200)]).await;
        assert!((1195..=1200).contains(&in_kernel()[0].1));
        // Just at its end: whichever side of it we hit, the new block is in force.
        for pause in [900, 960, 990, 1000, 1010, 1040, 1100] {
            block(&mut firewall, &[request("192.0.2.2", 1)]).await;
            tokio::time::sleep(Duration::from_millis(pause)).await;
            assert!(!block(&mut firewall, &[request("192.0.2.2", 30)]).await);
            assert!((27..=30).contains(&in_kernel()[1].1), "{:?}", in_kernel());
            firewall.unblock(&[target("192.0.2.2")], NOW).await.unwrap();
        }
        // One that somebody else put there for a shorter time.
        run("nft add element inet defender blocked4 { 192.0.2.9 timeout 10s }");
        block(&mut firewall, &[request("192.0.2.9", 600)]).await;
        assert!((595..=600).contains(&in_kernel()[1].1));
    });
}

#[test]
fn at_the_bound_the_soonest_to_end_makes_room() {
    inside("at_the_bound_the_soonest_to_end_makes_room", || async {
        let mut firewall = started(Config { max_blocks: 3, ..config() }).await;
        block(
            &mut firewall,
            &[request("192.0.2.1", 100), request("192.0.2.2", 200), request("192.0.2.3", 300)],
        )
        .await;
        let report =
            firewall.block(&[request("192.0.2.4", 400), request("192.0.2.5", 50)], NOW).await.unwrap();
        assert!(report.outcomes[0].result.is_ok());
        assert!(matches!(report.outcomes[1].result, Err(Error::Full { limit: 3, .. })));
        assert_eq!(report.evicted, [target("192.0.2.1")]);
        assert_eq!(addresses(), ["192.0.2.2", "192.0.2.3", "192.0.2.4"]);
        // A set filled to its size by another hand.
        firewall.remove().await.unwrap();
        let mut firewall = started(Config { max_blocks: 5, ..config() }).await;
        block(
            &mut firewall,
            &[request("192.0.2.2", 200), request("192.0.2.3", 300), request("192.0.2.4", 400)],
        )
        .await;
        let many: Vec<String> = (0..1021).map(|n| format!("203.0.{}.{}", n / 250, n % 250)).collect();
        run(&format!("nft add element inet defender blocked4 {{ {} }}", many.join(", ")));
        assert!(block(&mut firewall, &[request("192.0.2.6", 500)]).await);
        assert!(run("nft list set inet defender blocked4").contains("192.0.2.6 timeout"));
    });
}

#[test]
fn blocks_outlive_a_reboot() {
    inside("blocks_outlive_a_reboot", || async {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("blocks.json");
        let mut firewall = started(with_state(&file)).await;
        block(
            &mut firewall,
            &[request("192.0.2.1", 600), request("2001:db8::1", 3600), request("192.0.2.2", 60)],
        )
        .await;
        assert!(firewall.needs_save());
        assert!(firewall.save(NOW).await.unwrap());
        assert!(!firewall.save(NOW).await.unwrap());
        drop(firewall);

        // The reboot: a kernel without the table, another boot id, 100 seconds later.
        let reboot = || {
            run("nft delete table inet defender");
            let text = fs::read_to_string(&file).unwrap();
            let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
            fs::write(&file, text.replace(boot_id.trim(), "another")).unwrap();
        };
        reboot();
        let mut firewall = Firewall::new(with_state(&file));
        let report = firewall.start(NOW + 100_000).await.unwrap();
        assert_eq!((report.restored, report.kept, report.expired, report.same_boot), (2, 0, 1, false));
        let found = in_kernel();
        assert_eq!(addresses(), ["192.0.2.1", "2001:db8::1"]);
        assert!((495..=500).contains(&found[0].1) && (3495..=3500).contains(&found[1].1), "{found:?}");
        assert_eq!(firewall.blocked().await.unwrap()[0].reason.as_deref(), Some("ssh brute force"));
        assert!(firewall.save(NOW + 100_000).await.unwrap());

        // A reboot into 1970: the time that was left.
        reboot();
        let mut firewall = Firewall::new(with_state(&file));
        firewall.start(20_000).await.unwrap();
        let found = in_kernel();
        assert!((490..=500).contains(&found[0].1) && (3490..=3500).contains(&found[1].1), "{found:?}");
        assert!(firewall.save(20_000).await.unwrap());

        // A restart in the same boot, after another hand took one block out, with the clock put right meanwhile.
        run("nft delete element inet defender blocked4 { 192.0.2.1 }");
        let mut firewall = Firewall::new(with_state(&file));
        let report = firewall.start(NOW + 500_000).await.unwrap();
        assert_eq!((report.restored, report.kept, report.same_boot), (1, 1, true));
        assert!((480..=500).contains(&in_kernel()[0].1), "{:?}", in_kernel());

        // The allow-list has grown meanwhile; the kernel's element goes too.
        firewall.save(NOW + 500_000).await.unwrap();
        let config = Config { allow: vec!["192.0.2.0/24".parse().unwrap()], ..with_state(&file) };
        let report = Firewall::new(config).start(NOW + 500_000).await.unwrap();
        assert_eq!((report.forbidden > 0, report.kept), (true, 1));
        assert_eq!(addresses(), ["2001:db8::1"]);

        // A file that is none of ours.
        fs::write(&file, b"{\"version\":1,\"blocks\":[[[[").unwrap();
        let mut firewall = Firewall::new(with_state(&file));
        let report = firewall.start(NOW).await.unwrap();
        assert!(matches!(report.state_problem, Some(Error::StateCorrupt { .. })), "{report:?}");
        assert_eq!(report.kept, 1);
        assert!(firewall.save(NOW).await.unwrap());
        assert!(Firewall::new(with_state(&file)).start(NOW).await.unwrap().state_problem.is_none());
    });
}

#[test]
fn a_thousand_in_one_transaction() {
    inside("a_thousand_in_one_transaction", || async {
        let directory = tempfile::tempdir().unwrap();
        let (nft, log) = (directory.path().join("nft"), directory.path().join("log"));
        script(&nft, &format!("echo run >> {}; exec /usr/sbin/nft \"$@\"", log.display()));
        let runs = || fs::read_to_string(&log).unwrap_or_default().lines().count();
        let mut counted = started(Config { nft, ..config() }).await;
        let thousand = |tens: u32| -> Vec<BlockRequest> {
            (0..1000)
                .map(|n| {
                    if n % 2 == 0 {
                        request(&format!("{tens}.0.{}.{}", n / 250, n % 250), 600)
                    } else {
                        request(&format!("2001:db8:{tens}::{n:x}"), 600)
                    }
                })
                .collect()
        };
        let before = runs();
        assert!(!block(&mut counted, &thousand(11)).await);
        assert_eq!(runs() - before, 2, "one transaction, one listing");
        assert_eq!(addresses().len(), 1000);
        counted.remove().await.unwrap();

        let mut firewall = started(config()).await;
        let millis = |begin: Instant| begin.elapsed().as_secs_f64() * 1e3;
        let mut single: Vec<f64> = Vec::new();
        for n in 0..50 {
            let begin = Instant::now();
            block(&mut firewall, &[request(&format!("192.0.2.{n}"), 600)]).await;
            single.push(millis(begin));
        }
        single.sort_by(f64::total_cmp);
        println!(
            "  one block, added and verified: median {:.1} ms, worst of 50 {:.1} ms",
            single[25], single[49]
        );
        let begin = Instant::now();
        block(&mut firewall, &[request("192.0.2.0", 1200)]).await;
        println!("  one block made longer: {:.1} ms", millis(begin));
        let begin = Instant::now();
        block(&mut firewall, &thousand(12)).await;
        println!("  a batch of 1,000, added and verified: {:.1} ms", millis(begin));
        let begin = Instant::now();
        block(&mut firewall, &[request("192.0.2.200", 600)]).await;
        println!("  one block while 1,050 are in force: {:.1} ms", millis(begin));
        let begin = Instant::now();
        firewall.unblock(&thousand(12).iter().map(|r| r.target).collect::<Vec<_>>(), NOW).await.unwrap();
        println!("  1,000 unblocked: {:.1} ms", millis(begin));
        assert_eq!(addresses().len(), 51);
        let begin = Instant::now();
        let mut again = Firewall::new(config());
        again.start(NOW).await.unwrap();
        println!("  start with 51 blocks in the kernel: {:.1} ms", millis(begin));
    });
}
