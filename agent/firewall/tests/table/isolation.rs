//! An isolated device: what passes, what does not, and how it ends.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use defender_firewall::isolation::{Check, Isolation};
use defender_firewall::{Cidr, Error};

use super::namespace::Answer::{Refused, Silence};
use super::namespace::{inside, meets, run, script, sh, Peer};
use super::{config, started};

const TABLE: &str = "inet defender_isolation";

fn peers(texts: &[&str]) -> Vec<Cidr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn expires(set: &str) -> Vec<u64> {
    let listing: serde_json::Value =
        serde_json::from_str(&run(&format!("nft -j list set {TABLE} {set}"))).unwrap();
    let elements = listing["nftables"][1]["set"]["elem"].as_array().cloned().unwrap_or_default();
    elements.iter().map(|element| element["elem"]["expires"].as_u64().unwrap()).collect()
}

/// Whether a datagram from one of our ports to an address leaves the device: the output hook tells a sender of its drop.
fn leaves(from: &str, to: &str) -> bool {
    match UdpSocket::bind(from).unwrap().send_to(b"x", to) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => false,
        Err(error) => panic!("{from} to {to}: {error}"),
    }
}

/// Both directions and families, with the friend (net 1) and the stranger (net 2).
fn assert_isolated(friend: &Peer, stranger: &Peer, isolated: bool) {
    let strangers = if isolated { Silence } else { Refused };
    for (from, answer, address) in [
        (friend, Refused, "198.18.1.1"),
        (friend, Refused, "2001:db8:1::1"),
        (stranger, strangers, "198.18.2.1"),
        (stranger, strangers, "2001:db8:2::1"),
    ] {
        assert_eq!(from.meets(address, 9), answer, "in: {address}");
    }
    for (address, answer) in [
        ("198.18.1.2", Refused),
        ("2001:db8:1::2", Refused),
        ("198.18.2.2", strangers),
        ("2001:db8:2::2", strangers),
        ("127.0.0.1", Refused),
        ("::1", Refused),
        // Its own address, which is reached by way of loopback.
        ("198.18.2.1", Refused),
    ] {
        assert_eq!(meets(address, 9), answer, "out: {address}");
    }
}

#[test]
fn only_named_peers_pass_until_it_ends_by_itself() {
    inside("isolation::only_named_peers_pass_until_it_ends_by_itself", || async {
        let (friend, stranger) = (Peer::on(1), Peer::on(2));
        let _table = started(config()).await;
        let mut isolation = Isolation::new(&config());
        assert_isolated(&friend, &stranger, false);
        assert_eq!(isolation.check().await.unwrap(), Check::Idle);
        let named = peers(&["198.18.1.0/24", "198.18.1.2", "2001:db8:1::/64"]);
        let left = isolation.isolate(&named, seconds(600), Duration::ZERO).await.unwrap();
        assert!(left > seconds(595), "{left:?}");
        assert_isolated(&friend, &stranger, true);
        assert_eq!(isolation.check().await.unwrap(), Check::Holds);

        // DHCP keeps the address; DNS carries nothing out.
        assert!(leaves("0.0.0.0:68", "198.18.2.2:67"));
        assert!(leaves("[::]:546", &format!("[ff02::1:2{}]:547", scope("here2"))));
        assert!(!leaves("0.0.0.0:0", "198.18.2.2:67"));
        assert!(!leaves("0.0.0.0:0", "198.18.2.2:53"));
        assert!(!leaves("[::]:0", "[2001:db8:2::2]:53"));
        assert!(leaves("0.0.0.0:0", "198.18.1.2:53"));
        // A tunnel through the DHCP port would be a slow one.
        let sent = (0..200).filter(|_| leaves("0.0.0.0:68", "198.18.2.2:67")).count();
        assert!(sent < 20, "{sent} of 200");
        if sh("python3 --version").status.success() {
            let receiver = UdpSocket::bind("0.0.0.0:68").unwrap();
            receiver.set_read_timeout(Some(seconds(3))).unwrap();
            let from = |port: u16, text: &str| {
                stranger.run(&format!(
                    "python3 -c \"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
                     s.bind(('', {port})); s.sendto(b'{text}', ('198.18.2.1', 68))\""
                ));
            };
            from(6767, "forged");
            from(67, "answer");
            let mut bytes = [0; 16];
            let (length, _) = receiver.recv_from(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"answer");
        } else {
            println!("skipped: DHCP answers: no python3");
        }
        assert!(sh("ping -c 1 -W 1 198.18.2.2").status.code() != Some(0), "ping out");
        let dropped = run(&format!("nft list table {TABLE}"));
        assert!(!dropped.contains("packets 0 bytes 0\n\t}\n\n\tcounter dropped_output"), "{dropped}");

        // Longer, never shorter; and ended by hand.
        isolation.isolate(&named, seconds(60), Duration::ZERO).await.unwrap();
        assert!(expires("active").iter().all(|left| *left > 590), "{:?}", expires("active"));
        assert!(isolation.end().await.unwrap());
        assert!(!isolation.end().await.unwrap());
        assert_isolated(&friend, &stranger, false);
        assert!(!sh(&format!("nft list table {TABLE}")).status.success(), "the table stayed");

        // Nobody ends this one: the agent is gone.
        isolation.isolate(&[], seconds(3), Duration::ZERO).await.unwrap();
        drop(isolation);
        assert_eq!(meets("198.18.1.2", 9), Silence);
        tokio::time::sleep(seconds(4)).await;
        assert_isolated(&friend, &stranger, false);
    });
}

fn scope(device: &str) -> String {
    format!(
        "%{}",
        run(&format!(
            "cat /sys/class/net/{device}/ifindex 2>/dev/null || ip -o link show {device} | cut -d: -f1"
        ))
        .trim()
    )
}

#[test]
fn what_others_do_to_the_table_is_put_right() {
    inside("isolation::what_others_do_to_the_table_is_put_right", || async {
        let (friend, stranger) = (Peer::on(1), Peer::on(2));
        let mut isolation = Isolation::new(&config());
        let named = peers(&["198.18.1.2", "2001:db8:1::2"]);
        isolation.isolate(&named, seconds(600), Duration::ZERO).await.unwrap();
        for harm in [
            "nft flush ruleset",
            "nft delete table inet defender_isolation",
            "nft flush set inet defender_isolation active",
            "nft delete element inet defender_isolation active { ipv6 }",
            "nft add element inet defender_isolation peers4 { 198.18.2.2 }",
            "nft insert rule inet defender_isolation output accept",
            "nft flush chain inet defender_isolation input",
            "nft 'add table inet defender_isolation { flags dormant; }'",
            // For ever, where it was to end.
            "nft 'flush set inet defender_isolation active; add element inet defender_isolation active { ipv4, ipv6 }'",
            "nft 'add set inet defender_isolation stranger { type mark; }'",
        ] {
            run(harm);
            assert_eq!(isolation.check().await.unwrap(), Check::Repaired, "{harm}");
            assert!(expires("active").iter().all(|left| (590..=600).contains(left)), "{harm}");
            assert_eq!(isolation.check().await.unwrap(), Check::Holds, "{harm}");
        }
        assert_isolated(&friend, &stranger, true);
        isolation.end().await.unwrap();
    });
}

#[test]
fn an_agent_that_comes_back_knows_of_it() {
    inside("isolation::an_agent_that_comes_back_knows_of_it", || async {
        let (friend, stranger) = (Peer::on(1), Peer::on(2));
        let mut first = Isolation::new(&config());
        first.isolate(&peers(&["198.18.1.0/24"]), seconds(500), seconds(300)).await.unwrap();
        drop(first);
        let mut second = Isolation::new(&config());
        assert!(second.adopt(&peers(&["2001:db8:1::/64"])).await.unwrap());
        assert!((495..=500).contains(&second.left().unwrap().as_secs()), "{:?}", second.left());
        assert!((795..=800).contains(&second.pause_left().unwrap().as_secs()));
        assert_isolated(&friend, &stranger, true);
        assert_eq!(second.check().await.unwrap(), Check::Holds);
        // Ended early, the pause goes on, and is known after another restart.
        assert!(second.end().await.unwrap());
        assert_isolated(&friend, &stranger, false);
        assert!(second.left().is_none());
        let mut third = Isolation::new(&config());
        assert!(!third.adopt(&[]).await.unwrap());
        assert!((790..=800).contains(&third.pause_left().unwrap().as_secs()));

        // Its end and that of the pause leave nothing behind.
        third.end().await.unwrap();
        run("nft delete table inet defender_isolation");
        let mut last = Isolation::new(&config());
        assert!(!last.adopt(&[]).await.unwrap());
        last.isolate(&[], seconds(1), seconds(1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1300)).await;
        assert_eq!(last.check().await.unwrap(), Check::Ended);
        assert_eq!(last.check().await.unwrap(), Check::Idle);
        assert_isolated(&friend, &stranger, false);
        tokio::time::sleep(seconds(1)).await;
        assert_eq!(last.check().await.unwrap(), Check::Idle);
        assert!(!sh(&format!("nft list table {TABLE}")).status.success(), "the table stayed");
    });
}

#[test]
fn a_slow_nft_is_no_fault() {
    inside("isolation::a_slow_nft_is_no_fault", || async {
        let directory = tempfile::tempdir().unwrap();
        let nft = directory.path().join("nft");
        // Longer than what rounding explains: as an emulated or busy processor takes.
        script(&nft, "case \"$*\" in *list*) ;; *) sleep 4;; esac; exec /usr/sbin/nft \"$@\"");
        let mut isolation = Isolation::new(&defender_firewall::Config { nft, ..config() });
        isolation.isolate(&[], seconds(60), Duration::ZERO).await.unwrap();
        assert_eq!(isolation.check().await.unwrap(), Check::Holds);
        // Another's hand is told all the same.
        run(&format!("nft delete element {TABLE} active '{{ ipv4 }}'"));
        run(&format!("nft add element {TABLE} active '{{ ipv4 timeout 100s }}'"));
        assert_eq!(isolation.check().await.unwrap(), Check::Repaired);
    });
}

#[test]
fn without_nft_it_fails_and_counts_as_not_made() {
    inside("isolation::without_nft_it_fails_and_counts_as_not_made", || async {
        let mut isolation =
            Isolation::new(&defender_firewall::Config { nft: "/nonexistent/nft".into(), ..config() });
        let error = isolation.isolate(&[], seconds(60), seconds(60)).await.unwrap_err();
        assert!(matches!(error, Error::NftMissing { .. }), "{error}");
        assert_eq!((isolation.left(), isolation.pause_left()), (None, None));
    });
}
