//! The table that feeds the network sensor.

use defender_firewall::watch::{install, Watch, TABLE};

use crate::config;
use crate::namespace::{inside, run};

#[test]
fn nft_takes_the_rules_of_the_watch() {
    inside("watch::nft_takes_the_rules_of_the_watch", || async {
        let watch = Watch {
            connections: true,
            dns_group: Some(53),
            include: vec!["eth*".into(), "lo".into()],
            exclude: vec!["wlan0".into()],
        };
        // Twice: the second takes the place of the first.
        for _ in 0..2 {
            install(&config(), &watch).await.unwrap();
        }
        let text = run(&format!("nft list table inet {TABLE}"));
        for rule in [
            "ct state invalid counter",
            "oifname \"wlan0\" return",
            "iifname \"eth*\" udp sport 53 log group 53 snaplen 1500 queue-threshold 1",
            "oifname \"lo\" tcp dport 53 tcp flags psh log group 53 snaplen 1500 queue-threshold 1",
        ] {
            // Tracking is asked for in both directions, each log rule stands in one.
            let wanted = if rule.starts_with("ct") { 2 } else { 1 };
            assert_eq!(text.matches(rule).count(), wanted, "{rule}: {text}");
        }
    });
}
