//! By which name the device looked an address up, for as long as the answer holds and a little longer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Programs keep addresses beyond their time to live.
const GRACE: Duration = Duration::from_secs(300);
/// Longest time an address is kept.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Names by address, at most a given number.
#[derive(Debug)]
pub(super) struct Names {
    known: HashMap<IpAddr, (Arc<str>, Instant)>,
    capacity: usize,
}

impl Names {
    pub(super) fn new(capacity: usize) -> Self {
        Self { known: HashMap::new(), capacity }
    }

    /// The name an address was last looked up by.
    pub(super) fn get(&self, address: IpAddr, now: Instant) -> Option<Arc<str>> {
        self.known.get(&address).filter(|(_, until)| *until > now).map(|(name, _)| Arc::clone(name))
    }

    /// Notes that a look-up of the name was answered by the addresses, which hold for so many seconds. What ends soonest makes room.
    pub(super) fn learn(&mut self, name: &str, addresses: &[(IpAddr, u32)], now: Instant) {
        let name: Arc<str> = name.into();
        for (address, seconds) in addresses {
            if self.known.len() >= self.capacity && !self.known.contains_key(address) {
                let soonest =
                    self.known.iter().min_by_key(|(_, (_, until))| *until).map(|(address, _)| *address);
                let Some(soonest) = soonest else { return };
                self.known.remove(&soonest);
            }
            let until = now + (Duration::from_secs(u64::from(*seconds)) + GRACE).min(LONGEST);
            self.known.insert(*address, (Arc::clone(&name), until));
        }
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_name_holds_for_its_time() {
        let (mut names, now) = (Names::new(9), Instant::now());
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        names.learn("a.example", &[(address, 60)], now);
        names.learn("b.example", &[(address, 60)], now);
        assert_eq!(names.get(address, now).as_deref(), Some("b.example"));
        assert_eq!(names.get(address, now + Duration::from_secs(359)).as_deref(), Some("b.example"));
        assert_eq!(names.get(address, now + Duration::from_secs(361)), None);
        names.learn("c.example", &[(address, u32::MAX)], now);
        assert_eq!(names.get(address, now + LONGEST), None);
    }

    #[test]
    fn what_ends_soonest_makes_room() {
        let (mut names, now) = (Names::new(3), Instant::now());
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        for (n, seconds) in [(1, 50), (2, 10), (3, 90), (4, 70)] {
            names.learn("x", &[(address(n), seconds)], now);
        }
        let known: Vec<bool> = (1..=4).map(|n| names.get(address(n), now).is_some()).collect();
        assert_eq!(known, [true, false, true, true]);
        assert_eq!(names.len(), 3);
        Names::new(0).learn("x", &[(address(1), 1)], now);
    }
}
