use std::net::IpAddr;

use defender_model::event::EventKind;
use proptest::prelude::*;

use super::*;

const SOURCE: &str = "192.0.2.7";

fn login(service: &str, activity: Activity, outcome: Outcome) -> Authentication {
    Authentication {
        activity,
        outcome,
        user: None,
        user_known: None,
        service: service.to_owned(),
        method: None,
        source: None,
        source_port: None,
        tty: None,
        pid: None,
        count: 1,
        duration_ms: None,
        message: String::new(),
    }
}

fn address() -> Option<IpAddr> {
    SOURCE.parse().ok()
}

/// What each source tells of one ssh session of `user`: log line, wtmp, audit, PAM.
fn told(teller: Teller, activity: Activity, session: u32) -> Report {
    let base = login("sshd", activity, Outcome::Success);
    let user = Some("root".to_owned());
    let tty = Some(format!("pts/{session}"));
    let pid = Some(100 + session);
    let port = u16::try_from(40_000 + session).ok();
    Report::new(
        teller,
        match (teller, activity) {
            (Teller::Log, Activity::Logon) => Authentication {
                user,
                method: Some("publickey".into()),
                source: address(),
                source_port: port,
                pid,
                message: "Accepted".into(),
                ..base
            },
            // By the unprivileged process.
            (Teller::Log, _) => Authentication {
                user,
                source: address(),
                source_port: port,
                pid: Some(900 + session),
                ..base
            },
            (Teller::Audit, _) => Authentication { user, source: address(), pid, ..base },
            (Teller::Pam, _) => Authentication { user, source: address(), ..base },
            (_, Activity::Logon) => Authentication {
                service: "utmp".into(),
                user,
                source: address(),
                tty,
                pid: Some(500 + session),
                ..base
            },
            (_, _) => Authentication { service: "utmp".into(), tty, pid: Some(500 + session), ..base },
        },
    )
}

fn failure(teller: Teller, pid: u32) -> Report {
    let (user, source) = (Some("root".to_owned()), address());
    let base = Authentication { user, source, ..login("sshd", Activity::Logon, Outcome::Failure) };
    Report::new(
        teller,
        match teller {
            Teller::Btmp => Authentication { service: "utmp".into(), pid: Some(pid), ..base },
            Teller::Audit => Authentication { pid: Some(pid), ..base },
            _ => Authentication { pid: Some(pid), source_port: Some(40_000), ..base },
        },
    )
}

/// Feeds reports at their times, in milliseconds, and returns every event.
fn run(reports: impl IntoIterator<Item = (u64, Report)>) -> Vec<(i64, Authentication)> {
    let (mut merger, start, mut out) = (Merger::default(), Instant::now(), Vec::new());
    let mut last = 0;
    for (at, report) in reports {
        let now = start + Duration::from_millis(at);
        merger.take(report, Timestamp(at.try_into().expect("small")), now, &mut out);
        last = at;
    }
    merger.expire(start + Duration::from_millis(last) + WINDOW, &mut out);
    assert_eq!((merger.wake(), merger.told.len()), (None, 0));
    let login = |event: Event| match event.kind {
        EventKind::Authentication(login) => (event.time.millis(), *login),
        other => panic!("{other:?}"),
    };
    out.into_iter().map(login).collect()
}

#[test]
fn a_log_line_is_sent_at_once_with_what_others_knew_before() {
    let (mut merger, now, mut out) = (Merger::default(), Instant::now(), Vec::new());
    merger.take(told(Teller::Wtmp, Activity::Logon, 0), Timestamp(1), now, &mut out);
    assert!(out.is_empty());
    assert_eq!(merger.wake(), Some(now + HOLD));
    merger.take(told(Teller::Log, Activity::Logon, 0), Timestamp(2), now, &mut out);
    let EventKind::Authentication(login) = &out[0].kind else { panic!("a login") };
    assert_eq!(
        (login.tty.as_deref(), login.method.as_deref(), login.pid),
        (Some("pts/0"), Some("publickey"), Some(100))
    );
    assert_eq!(
        (login.service.as_str(), login.message.as_str(), out[0].time),
        ("sshd", "Accepted", Timestamp(1))
    );
    merger.take(told(Teller::Audit, Activity::Logon, 0), Timestamp(3), now, &mut out);
    let figures = merger.figures();
    assert_eq!((out.len(), figures.merged, figures.sessions), (1, 2, 1));
}

#[test]
fn what_no_log_tells_of_is_sent_after_a_moment() {
    let found =
        run([(0, told(Teller::Wtmp, Activity::Logon, 0)), (10, told(Teller::Audit, Activity::Logon, 0))]);
    assert_eq!(found.len(), 1);
    let login = &found[0].1;
    assert_eq!((login.service.as_str(), login.tty.as_deref(), login.pid), ("sshd", Some("pts/0"), Some(100)));
}

#[test]
fn a_session_known_from_the_table_ends_with_a_duration() {
    let mut present = told(Teller::Utmp, Activity::Logon, 0);
    present.since = Some(-60);
    let found = run([
        (0, present),
        (5_000, told(Teller::Wtmp, Activity::Logoff, 0)),
        (5_001, told(Teller::Utmp, Activity::Logoff, 0)),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
    let end = &found[0].1;
    assert_eq!(
        (end.activity, end.duration_ms, end.user.as_deref()),
        (Activity::Logoff, Some(65_000), Some("root"))
    );
    assert_eq!(end.source, address());
    // A terminal at which nobody was.
    assert!(run([(0, told(Teller::Wtmp, Activity::Logoff, 3))]).is_empty());
}

#[test]
fn failures_without_an_address_hide_none_that_has_one() {
    let mut forged = failure(Teller::Log, 7);
    (forged.login.source, forged.login.source_port) = (None, None);
    let found = run([(0, forged), (1, failure(Teller::Btmp, 7))]);
    assert_eq!(found.iter().map(|(_, login)| login.source).collect::<Vec<_>>(), [None, address()]);
}

#[test]
fn one_report_of_several_attempts_takes_those_of_others() {
    let mut three = failure(Teller::Log, 7);
    three.login.count = 3;
    let mut reports = vec![(0, failure(Teller::Btmp, 7)), (1, three)];
    reports.extend((2..4).map(|at| (at, failure(Teller::Btmp, 7))));
    reports.extend((4..8).map(|at| (at, failure(Teller::Audit, 7))));
    assert_eq!(run(reports).iter().map(|(_, login)| login.count).sum::<u32>(), 4);
}

#[test]
fn su_on_a_terminal_is_not_the_terminals_session() {
    let mut su = login("su", Activity::AccountSwitch, Outcome::Success);
    (su.user, su.tty, su.pid) = (Some("root".into()), Some("pts/0".into()), Some(77));
    let mut end = login("su", Activity::Logoff, Outcome::Success);
    (end.user, end.pid) = (Some("root".into()), Some(77));
    let found = run([
        (0, told(Teller::Log, Activity::Logon, 0)),
        (1, told(Teller::Wtmp, Activity::Logon, 0)),
        (1_000, Report::new(Teller::Log, su)),
        (3_000, Report::new(Teller::Log, end)),
        (9_000, told(Teller::Wtmp, Activity::Logoff, 0)),
    ]);
    let ends: Vec<_> =
        found.iter().filter_map(|(_, login)| Some((login.service.as_str(), login.duration_ms?))).collect();
    assert_eq!(ends, [("su", 2_000), ("sshd", 9_000)]);
}

#[test]
fn memory_is_bounded() {
    let (mut merger, now, mut out) = (Merger::default(), Instant::now(), Vec::new());
    for session in 0..2_000 {
        merger.take(told(Teller::Audit, Activity::Logon, session), Timestamp(0), now, &mut out);
    }
    assert_eq!((merger.told.len(), merger.sessions.len(), out.len()), (EVENTS, SESSIONS, 2_000 - EVENTS));
}

/// Reports in the order of their times.
fn ordered(mut reports: Vec<(u64, Report)>) -> Vec<(u64, Report)> {
    reports.sort_by_key(|(at, _)| *at);
    reports
}

const FOUR: [Teller; 4] = [Teller::Log, Teller::Wtmp, Teller::Audit, Teller::Pam];

proptest! {
    /// Any interleaving of what any of the sources tell of one login and its end, within the window.
    #[test]
    fn one_login_is_one_event(
        began in prop::collection::vec(0u64..4_000, 4), ended in prop::collection::vec(0u64..4_000, 4),
        tell in prop::collection::vec(any::<bool>(), 4), lasted in 4_000u64..1_000_000,
    ) {
        prop_assume!(tell.contains(&true));
        let mut reports = Vec::new();
        for (index, teller) in FOUR.into_iter().enumerate().filter(|(index, _)| tell[*index]) {
            reports.push((began[index], told(teller, Activity::Logon, 1)));
            reports.push((lasted + ended[index], told(teller, Activity::Logoff, 1)));
        }
        let found = run(ordered(reports));
        prop_assert_eq!(found.len(), 2, "{:?}", found);
        prop_assert_eq!((found[0].1.activity, found[1].1.activity), (Activity::Logon, Activity::Logoff));
        let shortest = lasted - 4_000;
        prop_assert!(found[1].1.duration_ms.is_some_and(|d| (shortest..=lasted + 4_000).contains(&d)), "{:?}", found);
        prop_assert_eq!(found[1].1.user.as_deref(), Some("root"));
    }

    /// Two sessions of one user from one address at once are two logins and two logouts, each with the duration of one of them.
    #[test]
    fn two_logins_at_once_stay_two(at in prop::collection::vec(0u64..3_000, 16)) {
        let mut reports = Vec::new();
        for (index, teller) in FOUR.into_iter().enumerate() {
            for session in 0..2u32 {
                let place = index * 4 + session as usize;
                reports.push((at[place], told(teller, Activity::Logon, session)));
                reports.push((60_000 + at[place + 2], told(teller, Activity::Logoff, session)));
            }
        }
        let found = run(ordered(reports));
        let of = |activity| found.iter().filter(|(_, login)| login.activity == activity).count();
        prop_assert_eq!((of(Activity::Logon), of(Activity::Logoff)), (2, 2), "{:?}", found);
        prop_assert!(found[2..].iter().all(|(_, login)| login.duration_ms.is_some()), "{:?}", found);
    }

    /// Failures count as often as the source that saw most of them says, in whatever order.
    #[test]
    fn failures_are_never_counted_twice(
        log in prop::collection::vec(0u64..9_000, 0..12), btmp in prop::collection::vec(0u64..9_000, 0..12),
        audit in prop::collection::vec(0u64..9_000, 0..12),
    ) {
        let most = log.len().max(btmp.len()).max(audit.len());
        let mut reports = Vec::new();
        for (teller, times) in [(Teller::Log, log), (Teller::Btmp, btmp), (Teller::Audit, audit)] {
            reports.extend(times.into_iter().map(|at| (at, failure(teller, 7))));
        }
        let found = run(ordered(reports));
        prop_assert_eq!(found.iter().map(|(_, login)| login.count as usize).sum::<usize>(), most);
        prop_assert!(found.iter().all(|(_, login)| login.source == address()));
    }

    /// Time goes on, nothing is held for longer than said.
    #[test]
    fn every_report_is_sent_or_merged(steps in prop::collection::vec((0usize..4, 0u32..3, any::<bool>(), 0u64..900), 1..60)) {
        let (mut merger, mut now, mut out, mut took) = (Merger::default(), Instant::now(), Vec::new(), 0);
        for (teller, session, fails, wait) in steps {
            now += Duration::from_millis(wait);
            let report = if fails { failure(FOUR[teller], session) } else { told(FOUR[teller], Activity::Logon, session) };
            merger.take(report, Timestamp(0), now, &mut out);
            took += 1;
            prop_assert!(merger.wake().is_none_or(|wake| wake <= now + HOLD));
        }
        merger.expire(now + HOLD, &mut out);
        let figures = merger.figures();
        prop_assert_eq!(out.len() as u64 + figures.merged, took);
        let delivered = out.iter().map(|event| match &event.kind {
            EventKind::Authentication(login) => u64::from(login.count),
            _ => 0,
        });
        prop_assert_eq!(delivered.sum::<u64>() + figures.aggregated + figures.unchanged, took);
        prop_assert_eq!(figures.held, 0);
    }
}
