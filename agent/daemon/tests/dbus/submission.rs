//! Events that other services hand in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use defender_daemon::dbus::NAME;
use defender_model::event::{Event, EventKind};
use defender_model::health::Kind;
use defender_model::severity::Severity;
use defender_sensors::{balance, Observation};
use tokio::time::{sleep, timeout};

use super::bus::{Bus, Policy};
use super::{error_name, own_uid, Agent, BURST, PATIENCE, STRANGER, SUBMISSIONS};

type Submission<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, HashMap<&'a str, &'a str>);

fn submission(title: &str) -> Submission<'_> {
    (title, "high", "tamper", "T-1", "lid switch 2", HashMap::from([("lid", "2"), ("board", "main")]))
}

#[tokio::test]
async fn a_submitted_event_bears_what_the_bus_says_of_its_sender() {
    let Some(bus) = Bus::running(Policy::Open) else { return };
    let mut agent = Agent::ours(&bus);
    let proxy = bus.agent().await;
    proxy.call::<_, _, ()>("SubmitEvent", &submission("Enclosure opened")).await.unwrap();
    let event = agent.next_submitted().await;
    assert_eq!((event.title.as_str(), event.severity), ("Enclosure opened", Severity::High));
    assert_eq!((event.category.as_str(), event.code.as_str()), ("tamper", "T-1"));
    assert_eq!(event.message, "lid switch 2");
    let pairs = [("board", "main"), ("lid", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(event.attributes, pairs);
    assert_eq!(event.sender, proxy.connection().unique_name().unwrap().as_str());
    let process = event.process.unwrap();
    assert_eq!((process.pid, process.uid), (std::process::id(), Some(own_uid())));
    for (title, says) in [("", "title is empty"), ("a\nb", "title holds")] {
        let error = proxy.call::<_, _, ()>("SubmitEvent", &submission(title)).await.unwrap_err();
        let said = error_name(error);
        assert!(said.contains("InvalidArgs") && said.contains(says), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_flood_of_submissions_is_bounded_told_and_leaves_others_be() {
    const FLOOD: u64 = 2000;
    let Some(bus) = Bus::running(Policy::Image) else { return };
    if own_uid() != 0 {
        println!("skipped: needs root, to own the name under the image's policy and to call as another user");
        return;
    }
    let Agent { mut health, tally, .. } = Agent::ours(&bus);
    let taken = Arc::new(Mutex::new((0, 0, 0)));
    let heard = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Some(observation) = health.recv().await {
            let mut heard = heard.lock().unwrap();
            match observation {
                Observation::Event(Event { kind: EventKind::Submitted(event), .. }) => {
                    let uid = event.process.unwrap().uid;
                    *(if uid == Some(STRANGER) { &mut heard.1 } else { &mut heard.0 }) += 1;
                }
                Observation::Health(health) if health.component == "dbus.submit" => {
                    assert_eq!(health.kind, Kind::Lost);
                    heard.2 += health.counters[0].1;
                }
                _ => {}
            }
        }
    });
    let proxy = bus.agent().await;
    let began = Instant::now();
    let flood = tokio::spawn(async move {
        let mut refused = 0;
        for _ in 0..FLOOD / 50 {
            let calls: Vec<_> = (0..50)
                .map(|_| {
                    let proxy = proxy.clone();
                    tokio::spawn(
                        async move { proxy.call::<_, _, ()>("SubmitEvent", &submission("Noise")).await },
                    )
                })
                .collect();
            for call in calls {
                if let Err(error) = call.await.unwrap() {
                    let said = error_name(error);
                    assert!(said.contains("LimitsExceeded"), "{said}");
                    refused += 1;
                }
            }
        }
        refused
    });
    let member = format!("{NAME}.SubmitEvent");
    let text = ["string:Quiet", "string:low", "string:", "string:", "string:", "dict:string:string:a,b"];
    for _ in 0..3 {
        let call = tokio::task::block_in_place(|| bus.call_as(STRANGER, STRANGER, &member, &text));
        call.unwrap();
    }
    let operator = bus.agent().await;
    let verified: bool = operator.call("Block", &("192.0.2.9", 0u32, "")).await.unwrap();
    assert!(verified);
    let refused: u64 = timeout(PATIENCE * 4, flood).await.unwrap().unwrap();
    let counters = tally.status().lock().unwrap().counters.clone();
    assert_eq!(balance::sides(counters.clone()), Some((FLOOD + 3, FLOOD + 3)), "{counters:?}");
    assert!(counters.contains(&("delivered", FLOOD + 3 - refused)), "{counters:?}");
    let most = BURST + u64::from(SUBMISSIONS) * (began.elapsed().as_secs() + 1);
    let told = Instant::now();
    loop {
        let (ours, others, dropped) = *taken.lock().unwrap();
        if (ours + dropped, others, dropped) == (FLOOD, 3, refused) {
            assert!((BURST..=most).contains(&ours), "{ours} of at most {most}");
            break;
        }
        assert!(told.elapsed() < PATIENCE, "{ours} + {dropped} of {FLOOD}, {others} of 3");
        sleep(Duration::from_millis(50)).await;
    }
}
