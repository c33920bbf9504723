//! The state file: which blocks to restore after a reboot, and for how long.
//!
//! What to restore is decided by [`plan`], a pure function of the file, the kernel's sets and the clocks. Three clock
//! situations are told apart, and in none does a block last longer than was left of it when it was saved:
//!
//! 1. the same boot (same boot id): the time since boot counts, whatever the wall clock did meanwhile;
//! 2. the wall clock is not behind the time of saving: the block ends when it was meant to;
//! 3. the wall clock is behind (a device without battery starts in 1970), or was wrong already when the file was saved: the
//!    time that was left then runs from now.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use defender_model::order;
use serde::{Deserialize, Serialize};

use crate::address::Target;
use crate::allow::AllowList;
use crate::error::Error;
use crate::ledger::{short, MAX_REASON};

/// Most bytes read from a state file: room for 32,768 blocks, ten times that of a usual bound.
pub const MAX_FILE: u64 = 8 << 20;
/// Most blocks taken from a state file, whatever the configuration says.
pub const MAX_SAVED: usize = 32_768;
/// Longest block, a year: whatever is asked for or saved is cut to it.
pub const MAX_BLOCK: Duration = Duration::from_secs(365 * 24 * 3600);

/// A wall clock before this (2024-01-01, before this program existed) is wrong.
const PLAUSIBLE_MS: i64 = 1_704_067_200_000;
const VERSION: u32 = 1;

/// Contents of a state file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// `/proc/sys/kernel/random/boot_id` when it was saved; empty when unknown.
    pub boot_id: String,
    /// Wall clock when it was saved, milliseconds since 1970.
    pub saved_at_ms: i64,
    /// Time since boot when it was saved, milliseconds.
    pub uptime_ms: Option<u64>,
    /// The blocks then in force.
    pub blocks: Vec<SavedBlock>,
    /// Entries left out in reading because their address is none.
    pub unreadable: usize,
}

/// One block of a state file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedBlock {
    /// What is blocked.
    pub target: Target,
    /// Why, at most 128 bytes.
    pub reason: String,
    /// When it ends by the wall clock, milliseconds since 1970.
    pub expires_ms: i64,
    /// What was left of it when it was saved, milliseconds.
    pub remaining_ms: u64,
}

/// The clocks at the time of restoring.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// Wall clock, milliseconds since 1970.
    pub now_ms: i64,
    /// Time since boot, milliseconds.
    pub uptime_ms: Option<u64>,
    /// Boot id; empty when unknown.
    pub boot_id: &'a str,
}

impl Saved {
    /// Whether the file was written since the last boot.
    #[must_use]
    pub fn same_boot(&self, moment: Moment<'_>) -> bool {
        !self.boot_id.is_empty() && self.boot_id == moment.boot_id
    }

    /// What is left of a block now, milliseconds; `None` when it has ended.
    #[must_use]
    pub fn remaining_ms(&self, block: &SavedBlock, moment: Moment<'_>) -> Option<u64> {
        let most = u64::try_from(MAX_BLOCK.as_millis()).unwrap_or(u64::MAX);
        let saved = block.remaining_ms.min(most);
        let elapsed = match (self.same_boot(moment), self.uptime_ms, moment.uptime_ms) {
            (true, Some(then), Some(now)) => now.checked_sub(then),
            _ => None,
        };
        let left = if let Some(elapsed) = elapsed {
            saved.saturating_sub(elapsed)
        } else if moment.now_ms >= self.saved_at_ms && self.saved_at_ms >= PLAUSIBLE_MS {
            let until = block.expires_ms.saturating_sub(moment.now_ms);
            saved.min(u64::try_from(until).unwrap_or(0))
        } else {
            saved
        };
        (left > 0).then_some(left)
    }
}

/// One block that should be in force after a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What is blocked.
    pub target: Target,
    /// Why, as far as the state file tells.
    pub reason: String,
    /// What is left of it, milliseconds.
    pub remaining_ms: u64,
    /// Whether the kernel holds it already.
    pub in_kernel: bool,
}

/// What to do at a start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Blocks that should be in force, the longest first.
    pub blocks: Vec<Restored>,
    /// Elements of the kernel's sets that the allow-list now forbids.
    pub release: Vec<Target>,
    /// Saved blocks that have ended meanwhile.
    pub expired: usize,
    /// Saved blocks that the allow-list now forbids.
    pub forbidden: usize,
    /// Blocks over the bound, those with the least time left.
    pub over: usize,
}

/// Decides what to restore. What the kernel's sets hold (`kernel`, with the time left) is the truth about itself; of the file,
/// what is missing there is added. Elements without time-out are somebody else's and left alone.
#[must_use]
pub fn plan(
    saved: &Saved,
    kernel: &BTreeMap<Target, Option<Duration>>,
    allow: &AllowList,
    moment: Moment<'_>,
    limit: usize,
) -> Plan {
    let mut plan = Plan::default();
    // A target may stand twice in a file that we did not write; the entry with the most time left counts.
    let mut blocks: BTreeMap<Target, Restored> = BTreeMap::new();
    for block in &saved.blocks {
        let target = block.target;
        if allow.reason(target).is_some() {
            plan.forbidden += 1;
            continue;
        }
        let Some(remaining_ms) = saved.remaining_ms(block, moment) else {
            plan.expired += 1;
            continue;
        };
        let restored = Restored { target, reason: block.reason.clone(), remaining_ms, in_kernel: false };
        let known = blocks.entry(target).or_insert_with(|| restored.clone());
        if known.remaining_ms < remaining_ms {
            *known = restored;
        }
    }
    for (target, left) in kernel {
        if allow.reason(*target).is_some() {
            plan.release.push(*target);
            continue;
        }
        let Some(left) = left else {
            blocks.remove(target);
            continue;
        };
        // Read back in whole seconds: an element that shows 0 has some milliseconds left.
        let remaining_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        let known = blocks.entry(*target).or_insert_with(|| Restored {
            target: *target,
            reason: "found in the kernel".to_owned(),
            remaining_ms,
            in_kernel: true,
        });
        known.remaining_ms = remaining_ms;
        known.in_kernel = true;
    }
    plan.blocks = blocks.into_values().collect();
    order::sort_by_key(&mut plan.blocks, |b| (std::cmp::Reverse(b.remaining_ms), b.target));
    plan.over = plan.blocks.len().saturating_sub(limit);
    plan.blocks.truncate(limit);
    plan
}

#[derive(Serialize, Deserialize)]
struct FileForm {
    version: u32,
    boot_id: String,
    saved_at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uptime_ms: Option<u64>,
    blocks: Vec<BlockForm>,
}

#[derive(Serialize, Deserialize)]
struct BlockForm {
    addr: String,
    reason: String,
    expires_ms: i64,
    remaining_ms: u64,
}

/// Reads the bytes of a state file; the error says what is wrong with them.
///
/// # Errors
///
/// Not the JSON that [`encode`] writes, of another version, or too large.
pub fn parse(bytes: &[u8]) -> Result<Saved, String> {
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("it is larger than {MAX_FILE} bytes"));
    }
    let form: FileForm = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if form.version != VERSION {
        return Err(format!("it has version {}, this program reads version {VERSION}", form.version));
    }
    let mut saved = Saved {
        boot_id: short(&form.boot_id),
        saved_at_ms: form.saved_at_ms,
        uptime_ms: form.uptime_ms,
        ..Saved::default()
    };
    for block in form.blocks {
        match block.addr.parse() {
            Ok(target) if saved.blocks.len() < MAX_SAVED => saved.blocks.push(SavedBlock {
                target,
                reason: short(&block.reason),
                expires_ms: block.expires_ms,
                remaining_ms: block.remaining_ms,
            }),
            _ => saved.unreadable += 1,
        }
    }
    Ok(saved)
}

/// The bytes of a state file.
#[must_use]
pub fn encode(saved: &Saved) -> Vec<u8> {
    debug_assert!(saved.blocks.iter().all(|b| b.reason.len() <= MAX_REASON));
    let form = FileForm {
        version: VERSION,
        boot_id: saved.boot_id.clone(),
        saved_at_ms: saved.saved_at_ms,
        uptime_ms: saved.uptime_ms,
        blocks: saved
            .blocks
            .iter()
            .map(|b| BlockForm {
                addr: b.target.to_string(),
                reason: b.reason.clone(),
                expires_ms: b.expires_ms,
                remaining_ms: b.remaining_ms,
            })
            .collect(),
    };
    let mut bytes = serde_json::to_vec(&form).expect("structs with string keys always serialize");
    bytes.push(b'\n');
    bytes
}

/// Reads a state file; `None` when there is none.
///
/// # Errors
///
/// [`Error::StateFile`] when it cannot be read or is no regular file, [`Error::StateCorrupt`] when it is not one of ours.
pub fn read(path: &Path) -> Result<Option<Saved>, Error> {
    let failed = |source| Error::StateFile { path: path.to_path_buf(), doing: "reading", source };
    // Asked before opening: opening a FIFO would wait for a writer.
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
        Ok(m) if !m.is_file() => return Err(failed(io::Error::other("it is no regular file"))),
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|f| f.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(failed)?;
    parse(&bytes).map(Some).map_err(|cause| Error::StateCorrupt { path: path.to_path_buf(), cause })
}

/// Writes a state file so that a crash at any moment leaves the old or the new one: a new file beside it, mode 0640, synced,
/// then renamed over it, then the directory synced. Blocks while the flash is written.
///
/// # Errors
///
/// [`Error::StateFile`], the old file is then still there.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |doing| move |source| Error::StateFile { path: path.to_path_buf(), doing, source };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let result = (|| {
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(failed("removing an unfinished one")(e))
            }
            _ => {}
        }
        // `create_new` follows no link that somebody put there.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&temporary)
            .map_err(failed("creating"))?;
        file.write_all(bytes).map_err(failed("writing"))?;
        file.sync_all().map_err(failed("syncing"))?;
        fs::rename(&temporary, path).map_err(failed("renaming"))
    })();
    if result.is_err() {
        // Only tidying up: the next write removes it too.
        let _ = fs::remove_file(&temporary);
        return result;
    }
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|d| d.sync_all()).map_err(failed("syncing the directory"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;
    use std::os::unix::fs::PermissionsExt;

    const NOW: i64 = 1_800_000_000_000;

    fn block(n: u32, expires_ms: i64, remaining_ms: u64) -> SavedBlock {
        let target = Target::from(Ipv4Addr::from_bits(0x0b00_0000 + n));
        SavedBlock { target, reason: "ssh".into(), expires_ms, remaining_ms }
    }

    fn saved_at(saved_at_ms: i64, remaining_ms: u64) -> Saved {
        let expires = saved_at_ms + remaining_ms as i64;
        Saved {
            boot_id: "a".into(),
            saved_at_ms,
            uptime_ms: Some(50_000),
            blocks: vec![block(1, expires, remaining_ms)],
            unreadable: 0,
        }
    }

    fn left(saved: &Saved, now_ms: i64, uptime_ms: Option<u64>, boot_id: &str) -> Option<u64> {
        saved.remaining_ms(&saved.blocks[0], Moment { now_ms, uptime_ms, boot_id })
    }

    #[test]
    fn the_clock_situations() {
        let saved = saved_at(NOW, 600_000);
        // A reboot, the clock right: the wall clock counts.
        assert_eq!(left(&saved, NOW + 200_000, Some(10), "b"), Some(400_000));
        assert_eq!(left(&saved, NOW + 600_000, Some(10), "b"), None);
        // A reboot into 1970, or a clock set back: what was left.
        assert_eq!(left(&saved, 30_000, Some(10), "b"), Some(600_000));
        assert_eq!(left(&saved, NOW - 1, Some(10), "b"), Some(600_000));
        // Saved in 1970, restored with the clock right.
        let early = saved_at(60_000, 600_000);
        assert_eq!(left(&early, NOW, Some(10), "b"), Some(600_000));
        // The same boot, the clock anywhere.
        for now in [30_000, NOW - 1, NOW + 10_000_000] {
            assert_eq!(left(&saved, now, Some(150_000), "a"), Some(500_000));
            assert_eq!(left(&early, now, Some(150_000), "a"), Some(500_000));
        }
        // An unknown boot id is never the same boot.
        let unknown = Saved { boot_id: String::new(), ..saved };
        assert_eq!(left(&unknown, NOW + 100_000, Some(150_000), ""), Some(500_000));
        // An end that lies about itself does not make it longer.
        let mut lying = saved_at(NOW, 600_000);
        lying.blocks[0].expires_ms = i64::MAX;
        assert_eq!(left(&lying, NOW, None, "b"), Some(600_000));
        lying.blocks[0].remaining_ms = u64::MAX;
        assert_eq!(left(&lying, NOW, None, "b"), Some(MAX_BLOCK.as_millis() as u64));
    }

    #[test]
    fn kernel_and_allow_list_come_before_the_file() {
        let saved = Saved {
            boot_id: "a".into(),
            saved_at_ms: NOW,
            uptime_ms: None,
            blocks: vec![
                block(1, NOW + 60_000, 60_000),
                block(2, NOW + 60_000, 60_000),
                block(3, NOW, 1),
                block(4, NOW + 90_000, 90_000),
            ],
            unreadable: 0,
        };
        let (t1, t2, t4) = (saved.blocks[0].target, saved.blocks[1].target, saved.blocks[3].target);
        let foreign = Target::from(Ipv4Addr::new(198, 51, 100, 1));
        let forever = Target::from(Ipv4Addr::new(198, 51, 100, 2));
        let lo = Target::from(Ipv4Addr::LOCALHOST);
        let kernel = BTreeMap::from([
            (t1, Some(Duration::from_secs(30))),
            (foreign, Some(Duration::from_secs(0))),
            (forever, None),
            (lo, Some(Duration::from_secs(9))),
        ]);
        let allow = AllowList::new(&["11.0.0.4/32".parse().unwrap()]);
        assert!(allow.reason(t4).is_some());
        let plan = plan(&saved, &kernel, &allow, Moment { now_ms: NOW, uptime_ms: None, boot_id: "a" }, 10);
        let blocks: Vec<_> =
            plan.blocks.iter().map(|b| (b.target, b.reason.as_str(), b.remaining_ms, b.in_kernel)).collect();
        assert_eq!(
            blocks,
            [
                (t2, "ssh", 60_000, false),
                (t1, "ssh", 30_000, true),
                (foreign, "found in the kernel", 1, true)
            ]
        );
        assert_eq!((plan.release, plan.expired, plan.forbidden, plan.over), (vec![lo], 1, 1, 0));
    }

    #[test]
    fn what_is_no_state_file() {
        for text in [
            "",
            "{}",
            "[]",
            "null",
            "{\"version\":1}",
            r#"{"version":2,"boot_id":"","saved_at_ms":0,"blocks":[]}"#,
            r#"{"version":1,"boot_id":"","saved_at_ms":1e400,"blocks":[]}"#,
            r#"{"version":1,"boot_id":"","saved_at_ms":0,"blocks":[{"addr":"1.2.3.4","reason":"","expires_ms":0,"remaining_ms":-1}]}"#,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse("[".repeat(1 << 20).as_bytes()).is_err());
        assert!(parse(&vec![b' '; MAX_FILE as usize + 1]).unwrap_err().contains("larger"));
        let odd = r#"{"version":1,"boot_id":"x","saved_at_ms":0,"new":1,"blocks":[
            {"addr":"localhost","reason":"","expires_ms":0,"remaining_ms":1},
            {"addr":"::ffff:1.2.3.4","reason":"","expires_ms":0,"remaining_ms":1}]}"#;
        let saved = parse(odd.as_bytes()).unwrap();
        assert_eq!((saved.blocks.len(), saved.unreadable), (1, 1));
        assert_eq!(saved.blocks[0].target.to_string(), "1.2.3.4");
    }

    #[test]
    fn files_are_replaced_whole_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blocks.json");
        assert!(read(&path).unwrap().is_none());
        let saved = saved_at(NOW, 1000);
        // What a crash left behind, and a link that somebody put there.
        std::os::unix::fs::symlink("/dev/full", directory.path().join("blocks.json.new")).unwrap();
        write(&path, &encode(&saved)).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), saved);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777 & !0o640, 0);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        // A directory that is gone: an error, not a panic.
        let gone = directory.path().join("none/blocks.json");
        assert!(matches!(write(&gone, b"x"), Err(Error::StateFile { doing: "creating", .. })));
        assert!(matches!(read(directory.path()), Err(Error::StateFile { .. })));
        fs::write(&path, b"\xff\xfe").unwrap();
        assert!(matches!(read(&path), Err(Error::StateCorrupt { .. })));
    }

    prop_compose! {
        fn any_saved()(
            boot_id in "[ab]?",
            saved_at_ms in prop_oneof![any::<i64>(), NOW - 1_000_000..NOW + 1_000_000, 0i64..100_000],
            uptime_ms in proptest::option::of(0u64..10_000_000),
            blocks in proptest::collection::vec((0u32..20, any::<i64>(), prop_oneof![any::<u64>(), 0u64..1_000_000], ".{0,20}"), 0..30),
        ) -> Saved {
            let blocks = blocks.into_iter().map(|(n, expires_ms, remaining_ms, reason)| SavedBlock { reason, ..block(n, expires_ms, remaining_ms) }).collect();
            Saved { boot_id, saved_at_ms, uptime_ms, blocks, unreadable: 0 }
        }
    }

    proptest! {
        #[test]
        fn written_is_read(saved in any_saved()) {
            prop_assert_eq!(parse(&encode(&saved)).unwrap(), saved);
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_damaged_file_never_panics(saved in any_saved(), at: proptest::sample::Index, byte: u8) {
            let mut bytes = encode(&saved);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = parse(&bytes);
        }

        #[test]
        fn never_longer_than_saved_never_allowed_never_over_the_bound(
            saved in any_saved(),
            now_ms in prop_oneof![any::<i64>(), NOW - 1_000_000..NOW + 1_000_000, 0i64..100_000],
            uptime_ms in proptest::option::of(0u64..10_000_000),
            boot_id in "[ab]?",
            kernel in proptest::collection::btree_map(0u32..30, proptest::option::of(0u64..5000), 0..10),
            limit in 0usize..20,
            allowed in 0u32..32,
        ) {
            let moment = Moment { now_ms, uptime_ms, boot_id: &boot_id };
            let kernel: BTreeMap<Target, Option<Duration>> =
                kernel.into_iter().map(|(n, s)| (block(n, 0, 0).target, s.map(Duration::from_secs))).collect();
            let allow = AllowList::new(&[format!("11.0.0.{allowed}/31").parse().unwrap()]);
            let plan = plan(&saved, &kernel, &allow, moment, limit);
            prop_assert!(plan.blocks.len() <= limit);
            prop_assert!(plan.release.iter().all(|t| allow.reason(*t).is_some() && kernel.contains_key(t)));
            for restored in &plan.blocks {
                prop_assert!(allow.reason(restored.target).is_none());
                prop_assert!(restored.remaining_ms > 0);
                let in_kernel = kernel.get(&restored.target);
                prop_assert_eq!(restored.in_kernel, in_kernel.is_some());
                if let Some(left) = in_kernel {
                    let left = left.expect("elements without time-out are left alone");
                    prop_assert!(restored.remaining_ms <= left.as_millis() as u64 + 1);
                } else {
                    let asked = saved.blocks.iter().filter(|b| b.target == restored.target).map(|b| b.remaining_ms).max();
                    prop_assert!(restored.remaining_ms <= asked.unwrap());
                }
            }
            // Nothing that is left is forgotten while there is room.
            if plan.over == 0 {
                for block in &saved.blocks {
                    let due = saved.remaining_ms(block, moment).is_some() && allow.reason(block.target).is_none();
                    let known = plan.blocks.iter().any(|b| b.target == block.target) || kernel.get(&block.target) == Some(&None);
                    prop_assert!(!due || known);
                }
            }
        }
    }
}
