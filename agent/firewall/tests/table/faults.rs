//! What others do to the table, to `nft`, to the disk and to our privileges.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use defender_firewall::{Config, Error, Firewall};

use super::namespace::{inside, run, script, sh};
use super::{addresses, block, config, in_kernel, request, started, with_state, NOW};

#[test]
fn a_table_changed_behind_our_back_is_put_right() {
    inside("faults::a_table_changed_behind_our_back_is_put_right", || async {
        let mut firewall = started(config()).await;
        assert!(!block(&mut firewall, &[request("192.0.2.1", 600), request("2001:db8::1", 600)]).await);
        let good = run("nft -s list table inet defender");
        let mut n = 10;
        for harm in [
            "nft delete table inet defender",
            "nft flush ruleset",
            "nft flush chain inet defender input",
            "nft add rule inet defender output accept",
            "nft flush set inet defender blocked4",
            "nft delete element inet defender blocked6 { 2001:db8::1 }",
            "nft add element inet defender allowed4 { 192.0.2.0/24 }",
            "nft 'delete chain inet defender forward'",
            "nft 'flush chain inet defender input; delete chain inet defender input; add chain inet defender input { type filter hook input priority 50; }'",
            "nft 'add chain inet defender stranger { type filter hook input priority 0; policy drop; }'",
            "nft 'add set inet defender stranger { type mark; }'",
            "nft 'add table inet defender { flags dormant; }'",
            "nft 'delete table inet defender; add table inet defender; add set inet defender blocked4 { type ipv6_addr; }'",
        ] {
            run(harm);
            let begin = Instant::now();
            let address = format!("192.0.2.{n}");
            assert!(block(&mut firewall, &[request(&address, 600)]).await, "not noticed: {harm}");
            println!("  put right in {:5.1} ms after: {harm}", begin.elapsed().as_secs_f64() * 1e3);
            n += 1;
            let found = addresses();
            assert_eq!(found.len(), n - 10 + 2, "after {harm}: {found:?}");
            assert!(found.contains(&address) && found.contains(&"192.0.2.1".to_owned()), "{harm}");
            assert!(!block(&mut firewall, &[request(&address, 600)]).await, "still not right after: {harm}");
        }
        let names = |text: &str| {
            text.lines()
                .filter(|l| !l.contains("192.0.2") && !l.contains("2001:db8"))
                .map(|l| l.trim().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&run("nft -s list table inet defender")), names(&good));
        // An element of somebody else outlives even a table made anew.
        run("nft 'add element inet defender blocked4 { 198.51.100.1 }; add element inet defender blocked4 { 198.51.100.2 timeout 1h }; add set inet defender x { type mark; }'");
        assert!(firewall.check(NOW).await.unwrap());
        let text = run("nft list set inet defender blocked4");
        assert!(text.contains("198.51.100.1,") && text.contains("198.51.100.2 timeout"), "{text}");
    });
}

#[test]
fn a_full_or_read_only_disk_keeps_the_old_file() {
    inside("faults::a_full_or_read_only_disk_keeps_the_old_file", || async {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().display();
        run(&format!("mount -t tmpfs -o size=64k none {disk}"));
        let file = directory.path().join("blocks.json");
        let mut firewall = started(with_state(&file)).await;
        block(&mut firewall, &[request("192.0.2.1", 600)]).await;
        assert!(firewall.save(NOW).await.unwrap());
        let old = fs::read(&file).unwrap();
        block(&mut firewall, &[request("192.0.2.2", 600)]).await;
        sh(&format!("head -c 1000000 /dev/zero > {disk}/filler"));
        let error = firewall.save(NOW).await.unwrap_err();
        assert!(
            matches!(error, Error::StateFile { .. }) && error.to_string().contains("No space left"),
            "{error}"
        );
        run(&format!("rm {disk}/filler && mount -o remount,ro {disk}"));
        let error = firewall.save(NOW).await.unwrap_err();
        assert!(error.to_string().contains("Read-only file system"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), old);
        // Blocking goes on all the while, and what could not be saved is saved later.
        block(&mut firewall, &[request("192.0.2.3", 600)]).await;
        run(&format!("mount -o remount,rw {disk}"));
        assert!(firewall.save(NOW).await.unwrap());
        assert!(fs::read_to_string(&file).unwrap().contains("192.0.2.3"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        run(&format!("umount {disk}"));
    });
}

#[test]
fn without_nft_nothing_is_lost() {
    inside("faults::without_nft_nothing_is_lost", || async {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("blocks.json");
        let nft = directory.path().join("nft");
        let mut firewall = started(with_state(&file)).await;
        block(&mut firewall, &[request("192.0.2.1", 600)]).await;
        firewall.save(NOW).await.unwrap();
        firewall.remove().await.unwrap();

        let mut firewall = Firewall::new(Config { nft: nft.clone(), ..with_state(&file) });
        let error = firewall.start(NOW).await.unwrap_err();
        assert!(matches!(error, Error::NftMissing { .. }), "{error}");
        let error = firewall.block(&[request("192.0.2.2", 600)], NOW).await.unwrap_err();
        assert!(matches!(error, Error::NftMissing { .. }), "{error}");
        // What is not restored yet must not be forgotten.
        assert!(!firewall.save(NOW).await.unwrap());
        fs::write(&nft, "not a program").unwrap();
        assert!(matches!(firewall.start(NOW).await, Err(Error::NftNotStarted { .. })));
        for (says, check) in [
            (
                "echo 'JSON support not compiled-in' >&2; exit 1",
                (|e| matches!(e, Error::NftWithoutJson { .. })) as fn(&Error) -> bool,
            ),
            ("echo 'nft: Unable to initialize Netlink socket: Protocol not supported' >&2; exit 1", |e| {
                matches!(e, Error::KernelUnsupported { .. })
            }),
            ("echo 'Operation not permitted (you must be root)' >&2; exit 1", |e| {
                matches!(e, Error::PermissionDenied { .. })
            }),
            ("echo 'Error: something else' >&2; exit 1", |e| matches!(e, Error::NftFailed { .. })),
            ("echo 'table inet defender {'", |e| matches!(e, Error::BadOutput { .. })),
            ("head -c 20000000 /dev/zero", |e| matches!(e, Error::BadOutput { .. })),
            ("yes >&2", |e| matches!(e, Error::NftFailed { .. })),
        ] {
            script(&nft, says);
            let error = firewall.start(NOW).await.unwrap_err();
            assert!(check(&error), "{says}: {error}");
        }
        // nft is back: the next block starts everything.
        script(&nft, "exec /usr/sbin/nft \"$@\"");
        block(&mut firewall, &[request("192.0.2.2", 600)]).await;
        assert_eq!(addresses(), ["192.0.2.1", "192.0.2.2"]);
        assert!(firewall.save(NOW).await.unwrap());
    });
}

#[test]
fn a_hanging_nft_is_bounded_and_killed() {
    inside("faults::a_hanging_nft_is_bounded_and_killed", || async {
        let directory = tempfile::tempdir().unwrap();
        let (nft, pid) = (directory.path().join("nft"), directory.path().join("pid"));
        script(&nft, "exec /usr/sbin/nft \"$@\"");
        let bound = Duration::from_secs(1);
        let mut firewall = started(Config { nft: nft.clone(), nft_timeout: bound, ..config() }).await;
        let gone = |pid: &PathBuf| {
            let pid = fs::read_to_string(pid).unwrap();
            !Path::new(&format!("/proc/{}", pid.trim())).exists()
        };
        script(&nft, &format!("echo $$ > {}; exec sleep 30", pid.display()));
        let begin = Instant::now();
        let error = firewall.block(&[request("192.0.2.1", 600)], NOW).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
        assert!(
            begin.elapsed() >= bound && begin.elapsed() < Duration::from_secs(10),
            "{:?}",
            begin.elapsed()
        );
        assert!(gone(&pid), "the child was left behind");
        // One that deals with the transaction and then hangs: the block may be there, and does no harm later.
        script(
            &nft,
            &format!(
                "case \"$*\" in *list*) echo $$ > {}; exec sleep 30;; esac; exec /usr/sbin/nft \"$@\"",
                pid.display()
            ),
        );
        assert!(matches!(firewall.block(&[request("192.0.2.2", 30)], NOW).await, Err(Error::Timeout { .. })));
        assert_eq!(addresses(), ["192.0.2.2"]);
        script(&nft, "exec /usr/sbin/nft \"$@\"");
        block(&mut firewall, &[request("192.0.2.2", 600)]).await;
        assert!((595..=600).contains(&in_kernel()[0].1));
        // A caller that gives up takes the child along.
        script(&nft, &format!("echo $$ > {}; exec sleep 30", pid.display()));
        fs::remove_file(&pid).unwrap();
        let requests = [request("192.0.2.3", 60)];
        let given_up = tokio::time::timeout(Duration::from_millis(700), firewall.block(&requests, NOW)).await;
        assert!(given_up.is_err());
        for _ in 0..100 {
            if gone(&pid) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(gone(&pid), "the child outlived its caller");
    });
}

#[test]
fn without_privilege_it_says_so_and_with_one_capability_it_works() {
    const NAME: &str = "faults::without_privilege_it_says_so_and_with_one_capability_it_works";
    if let Ok(capable) = std::env::var("DEFENDER_FIREWALL_TEST_CAPABLE") {
        return inside(NAME, || async move {
            let mut firewall = Firewall::new(config());
            if capable == "yes" {
                firewall.start(NOW).await.unwrap();
                block(&mut firewall, &[request("192.0.2.1", 60), request("2001:db8::1", 60)]).await;
            } else {
                let error = firewall.start(NOW).await.unwrap_err();
                assert!(matches!(error, Error::PermissionDenied { .. }), "{error}");
                assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
            }
        });
    }
    inside(NAME, || async {
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("test");
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        run(&format!("chmod 755 {} {}", directory.path().display(), copy.display()));
        for (capable, capabilities) in
            [("no", ""), ("yes", "--inh-caps=-all,+net_admin --ambient-caps=-all,+net_admin")]
        {
            let output = sh(&format!(
                "cd / && DEFENDER_FIREWALL_TEST_CAPABLE={capable} setpriv --reuid=65534 --regid=65534 --clear-groups \
                 --no-new-privs --bounding-set=-all,+net_admin {capabilities} -- {} --exact {NAME} --nocapture",
                copy.display()
            ));
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                output.status.success() && text.contains("1 passed"),
                "{text}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    });
}
