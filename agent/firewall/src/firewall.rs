//! The operations: start, block, unblock, list, save, remove.
//!
//! A block is at most two runs of `nft`: one transaction, after which packets are dropped, and one listing that proves it.
//! The listing covers the whole table, so that rules or allowed sets changed by another hand are noticed as well; then the
//! table is put right once, with every active block, in one transaction.
//!
//! The kernel is the truth about what is blocked; memory holds what *should* be (bounded, see `ledger`), the state file what
//! to restore after a reboot. Writing that file is a call of its own, [`Firewall::save`]: a sync to flash may take longer
//! than the block itself, and a burst of blocks needs one write, not many.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use defender_model::time::uptime_ms;

use crate::address::Target;
use crate::allow::AllowList;
use crate::config::Config;
use crate::error::Error;
use crate::ledger::{Change, Journal, Ledger, GRACE_MS};
use crate::listing::{self, Listing};
use crate::nft::Nft;
use crate::outcome::{BlockReport, BlockRequest, Blocked, Counters, Outcome, Started, Tally, Unblocked};
use crate::route;
use crate::ruleset::{Document, TABLE};
use crate::saved::{self, Moment, Saved, SavedBlock, MAX_BLOCK, MAX_SAVED};

/// Most bytes read from one file of `/proc`; a larger route table is cut.
const MAX_PROC: u64 = 1 << 20;

/// Owner of table `inet defender`. One per network namespace.
#[derive(Debug)]
pub struct Firewall {
    config: Config,
    nft: Nft,
    allow: AllowList,
    ledger: Ledger,
    /// Zero of the ledger's clock.
    origin: Instant,
    boot_id: String,
    /// What the state file held, until it is restored.
    pending: Option<Saved>,
    state_problem: Option<Error>,
    started: bool,
    /// Fingerprint of the table as we wrote it.
    baseline: u64,
    /// The gateways are not those in the kernel's allowed sets.
    allow_changed: bool,
    /// A transaction may have happened or not: the kernel can hold blocks that the ledger does not know.
    uncertain: bool,
    unsaved: bool,
}

impl Firewall {
    /// Reads the state file and touches nothing yet; see [`start`](Self::start).
    #[must_use]
    pub fn new(mut config: Config) -> Self {
        config.max_blocks = config.max_blocks.clamp(1, MAX_SAVED);
        let (pending, state_problem) = match config.state_file.as_deref().map(saved::read) {
            None | Some(Ok(None)) => (None, None),
            Some(Ok(Some(saved))) => {
                let problem = (saved.unreadable > 0).then(|| Error::StateCorrupt {
                    path: config.state_file.clone().unwrap_or_default(),
                    cause: format!("{} entries without a valid address", saved.unreadable),
                });
                (Some(saved), problem)
            }
            Some(Err(problem)) => (None, Some(problem)),
        };
        let boot_id = read_proc(&config.proc.join("sys/kernel/random/boot_id"))
            .map(|b| String::from_utf8_lossy(&b).trim().to_owned())
            .unwrap_or_default();
        Self {
            nft: Nft::new(config.nft.clone(), config.nft_timeout),
            allow: AllowList::new(&config.allow),
            ledger: Ledger::new(config.max_blocks),
            origin: Instant::now(),
            boot_id,
            pending,
            state_problem,
            started: false,
            baseline: 0,
            allow_changed: false,
            uncertain: false,
            unsaved: false,
            config,
        }
    }

    /// Installs the table, keeps the blocks the kernel still has, and restores the saved ones, in one transaction.
    ///
    /// When it fails nothing is lost: the next [`block`](Self::block) starts first. Called again, it is a
    /// [`check`](Self::check). `now_ms` is the wall clock, milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// Whatever stands in the way of `nft`; a bad state file is no error but a [`Started::state_problem`].
    pub async fn start(&mut self, now_ms: i64) -> Result<Started, Error> {
        if self.started {
            self.check(now_ms).await?;
            return Ok(Started::default());
        }
        self.refresh_gateways();
        self.install_and_restore(now_ms).await
    }

    async fn install_and_restore(&mut self, now_ms: i64) -> Result<Started, Error> {
        let seen = self.glance().await?;
        let saved = self.pending.clone().unwrap_or_default();
        let uptime_ms = self.uptime_ms();
        let moment = Moment { now_ms, uptime_ms, boot_id: &self.boot_id };
        let nothing = Default::default();
        let kernel = seen.as_ref().map_or(&nothing, |l| &l.blocked);
        let plan = saved::plan(&saved, kernel, &self.allow, moment, self.ledger.limit());
        let same_boot = saved.same_boot(moment);
        self.ledger.clear();
        let now = self.clock_ms();
        for block in &plan.blocks {
            self.ledger.block(block.target, block.remaining_ms, &block.reason, now, &mut Journal::default());
        }
        self.put_right(seen, &plan.release).await?;
        let kept = plan.blocks.iter().filter(|b| b.in_kernel).count();
        let started = Started {
            restored: plan.blocks.len() - kept,
            kept,
            expired: plan.expired,
            forbidden: plan.forbidden + plan.release.len(),
            over: plan.over,
            same_boot,
            state_problem: self.state_problem.take(),
        };
        self.pending = None;
        self.started = true;
        self.unsaved = true;
        tracing::info!(restored = started.restored, kept, "table inet defender is installed");
        Ok(started)
    }

    /// Blocks a batch of addresses in one transaction and reads back that each is in force.
    ///
    /// An address blocked already is blocked for longer, never shorter. `now_ms` is the wall clock; it is only used when the
    /// firewall has yet to start.
    ///
    /// # Errors
    ///
    /// When nothing of the batch could be done, or not verified; what is wrong with single addresses stands in the
    /// [outcomes](BlockReport::outcomes). After an error the blocks count as not made. A call dropped half way leaves them
    /// wanted, and the next call brings them about.
    pub async fn block(&mut self, requests: &[BlockRequest], now_ms: i64) -> Result<BlockReport, Error> {
        self.refresh_gateways();
        let forbidden: Option<Vec<Outcome>> = requests
            .iter()
            .map(|r| self.forbidden(r.target).map(|error| Outcome { target: r.target, result: Err(error) }))
            .collect();
        if let Some(outcomes) = forbidden {
            return Ok(BlockReport { outcomes, ..BlockReport::default() });
        }
        self.ensure_started(now_ms).await?;
        let now = self.clock_ms();
        self.ledger.expire(now);
        let mut journal = Journal::default();
        let (mut add, mut extend) = (Vec::new(), BTreeSet::new());
        let mut refused: Vec<Option<Error>> = Vec::with_capacity(requests.len());
        for request in requests {
            let target = request.target;
            if let Some(error) = self.forbidden(target) {
                refused.push(Some(error));
                continue;
            }
            let ms = request.duration.clamp(Duration::from_secs(1), MAX_BLOCK).as_millis();
            let ms = u64::try_from(ms).unwrap_or(u64::MAX);
            match self.ledger.block(target, ms, &request.reason, now, &mut journal) {
                Change::Add => add.push(target),
                Change::Extend => {
                    extend.insert(target);
                }
                Change::Keep => {}
                Change::Full => {
                    refused.push(Some(Error::Full { target, limit: self.ledger.limit() }));
                    continue;
                }
            }
            refused.push(None);
        }
        let evicted = std::mem::take(&mut journal.evicted);
        match self.carry_out(&add, &extend, &evicted, now).await {
            Ok((listing, repaired)) => {
                self.uncertain = false;
                self.unsaved |= !(add.is_empty() && extend.is_empty() && evicted.is_empty());
                let outcomes = refused
                    .into_iter()
                    .zip(requests)
                    .map(|(refused, request)| Outcome {
                        target: request.target,
                        result: match refused {
                            Some(error) => Err(error),
                            None => self.outcome(request.target, &listing),
                        },
                    })
                    .collect();
                Ok(BlockReport { outcomes, evicted, repaired })
            }
            Err(error) => {
                self.ledger.undo(journal);
                self.uncertain = true;
                Err(error)
            }
        }
    }

    /// The transaction of a batch and the listing that proves it; whether the table had to be put right.
    async fn carry_out(
        &mut self,
        add: &[Target],
        extend: &BTreeSet<Target>,
        evicted: &[Target],
        now: u64,
    ) -> Result<(Listing, bool), Error> {
        // Those still there: a large batch can drive out its own first members, and name one address twice.
        let timed = |targets: &mut dyn Iterator<Item = Target>| -> Vec<(Target, u32)> {
            targets
                .filter_map(|t| self.ledger.get(t).map(|e| (t, seconds(e.ends_ms.saturating_sub(now)))))
                .collect()
        };
        let fresh = timed(&mut add.iter().copied().filter(|t| !extend.contains(t)));
        let again = timed(&mut extend.iter().copied());
        let mut document = Document::new();
        document.unblock(evicted);
        if self.uncertain {
            document.block_again(&fresh);
        } else {
            document.block_new(&fresh);
        }
        document.block_again(&again);
        if !document.is_empty() {
            match self.nft.apply(&document.text(), "blocking").await {
                Ok(()) => {}
                Err(error) if is_repairable(&error) => {
                    tracing::warn!(%error, "a block was refused; table inet defender is put right");
                    let seen = self.glance().await?;
                    return Ok((self.put_right(seen, evicted).await?, true));
                }
                Err(error) => return Err(error),
            }
        }
        self.verified(evicted).await
    }

    /// A listing in which everything is as it should be, after putting it right if it was not.
    async fn verified(&mut self, release: &[Target]) -> Result<(Listing, bool), Error> {
        let seen = self.glance().await?;
        if let Some(listing) = &seen {
            if listing.whole && listing.fingerprint == self.baseline && self.lacking(Some(listing)).is_empty()
            {
                return Ok((seen.unwrap_or_default(), false));
            }
        }
        tracing::warn!("table inet defender was deleted or changed by another hand; it is put right");
        Ok((self.put_right(seen, release).await?, true))
    }

    /// What the kernel says about one address of a batch; an address not there is forgotten.
    fn outcome(&mut self, target: Target, listing: &Listing) -> Result<Duration, Error> {
        let Some(entry) = self.ledger.get(target) else {
            return Err(Error::Full { target, limit: self.ledger.limit() });
        };
        let left = entry.ends_ms.saturating_sub(self.clock_ms());
        match listing.blocked.get(&target) {
            // Without time-out it is blocked for as long as anybody asks.
            Some(remaining) => Ok(remaining.unwrap_or(MAX_BLOCK)),
            // So short that it has ended meanwhile.
            None if left <= GRACE_MS => Ok(Duration::ZERO),
            None => {
                self.ledger.remove(target);
                Err(Error::NotInEffect { target })
            }
        }
    }

    /// Ends blocks early, in one transaction, and reads back that they are gone.
    ///
    /// # Errors
    ///
    /// When it could not be done or not verified.
    pub async fn unblock(&mut self, targets: &[Target], now_ms: i64) -> Result<Vec<Unblocked>, Error> {
        self.ensure_started(now_ms).await?;
        let now = self.clock_ms();
        self.ledger.expire(now);
        let seen = self.glance().await?;
        let in_kernel = |t: &Target| seen.as_ref().is_some_and(|l| l.blocked.contains_key(t));
        let results: Vec<Unblocked> =
            targets.iter().map(|t| Unblocked { target: *t, was_blocked: in_kernel(t) }).collect();
        let gone: Vec<Target> = targets.iter().copied().filter(in_kernel).collect();
        for target in targets {
            self.unsaved |= self.ledger.remove(*target);
        }
        if !gone.is_empty() {
            let mut document = Document::new();
            document.unblock(&gone);
            match self.nft.apply(&document.text(), "unblocking").await {
                Err(error) if !is_repairable(&error) => return Err(error),
                // Whatever was refused shows in the listing.
                _ => {}
            }
        }
        let (mut listing, _) = self.verified(&gone).await?;
        if gone.iter().any(|t| listing.blocked.contains_key(t)) {
            listing = self.put_right(Some(listing), &gone).await?;
            if gone.iter().any(|t| listing.blocked.contains_key(t)) {
                return Err(Error::TableAltered);
            }
        }
        Ok(results)
    }

    /// What the kernel blocks now, whoever put it there.
    ///
    /// # Errors
    ///
    /// [`Error::TableMissing`], or whatever stands in the way of `nft`.
    pub async fn blocked(&self) -> Result<Vec<Blocked>, Error> {
        let listing = self.list().await?.ok_or(Error::TableMissing)?;
        let reason = |t| self.ledger.get(t).map(|e| e.reason.clone());
        Ok(listing
            .blocked
            .iter()
            .map(|(t, r)| Blocked { target: *t, remaining: *r, reason: reason(*t) })
            .collect())
    }

    /// What was dropped so far.
    ///
    /// # Errors
    ///
    /// [`Error::TableMissing`], or whatever stands in the way of `nft`.
    pub async fn counters(&self) -> Result<Counters, Error> {
        let listing = self.list().await?.ok_or(Error::TableMissing)?;
        let [input, output, forward] = listing.counters.map(|c| Tally { packets: c.packets, bytes: c.bytes });
        Ok(Counters { input, output, forward })
    }

    /// Takes note of new gateways, and puts the table right if another hand has changed it; true when that was so. Worth
    /// calling now and then, and when another process has touched the ruleset.
    ///
    /// # Errors
    ///
    /// Whatever stands in the way of `nft`, or [`Error::TableAltered`].
    pub async fn check(&mut self, now_ms: i64) -> Result<bool, Error> {
        self.refresh_gateways();
        self.ledger.expire(self.clock_ms());
        self.ensure_started(now_ms).await?;
        Ok(self.verified(&[]).await?.1)
    }

    /// Whether [`save`](Self::save) has something to write.
    #[must_use]
    pub fn needs_save(&self) -> bool {
        self.unsaved && self.started && self.config.state_file.is_some()
    }

    /// Writes the state file if blocks changed since the last time; true when it was written. Also worth calling every few
    /// minutes and at the end: the file says how much time is left of each block, for a boot with a wrong clock.
    ///
    /// # Errors
    ///
    /// [`Error::StateFile`]; the old file is still there and the next call tries again.
    pub async fn save(&mut self, now_ms: i64) -> Result<bool, Error> {
        if !self.needs_save() {
            return Ok(false);
        }
        let Some(path) = self.config.state_file.clone() else { return Ok(false) };
        let blocks = self
            .ledger
            .active(self.clock_ms())
            .map(|(target, entry, remaining_ms)| SavedBlock {
                target,
                reason: entry.reason.clone(),
                expires_ms: now_ms.saturating_add_unsigned(remaining_ms),
                remaining_ms,
            })
            .collect();
        let saved = Saved {
            boot_id: self.boot_id.clone(),
            saved_at_ms: now_ms,
            uptime_ms: self.uptime_ms(),
            blocks,
            unreadable: 0,
        };
        let bytes = saved::encode(&saved);
        let for_error = path.clone();
        // Off the runtime's thread: a sync may wait long for the flash.
        tokio::task::spawn_blocking(move || saved::write(&path, &bytes)).await.map_err(|e| {
            Error::StateFile {
                path: for_error,
                doing: "writing",
                source: std::io::Error::other(e.to_string()),
            }
        })??;
        self.unsaved = false;
        Ok(true)
    }

    /// Deletes the table with every block in it, and nothing else. The next block installs it anew.
    ///
    /// # Errors
    ///
    /// Whatever stands in the way of `nft`. A table that is not there is no error.
    pub async fn remove(&mut self) -> Result<(), Error> {
        let mut document = Document::new();
        document.remove();
        self.nft.apply(&document.text(), "removing the table").await?;
        self.ledger.clear();
        self.pending = None;
        self.started = false;
        Ok(())
    }

    async fn ensure_started(&mut self, now_ms: i64) -> Result<(), Error> {
        if self.started {
            self.sync_allowed().await
        } else {
            self.install_and_restore(now_ms).await.map(|_| ())
        }
    }

    /// Brings the table and its blocked sets to what they should be, from whatever they are (`seen`): first gently, so that
    /// elements and counters stay; if that does not do, by making the table anew, blocks included. One transaction each.
    async fn put_right(&mut self, seen: Option<Listing>, release: &[Target]) -> Result<Listing, Error> {
        let mut document = Document::new();
        document.install(&self.allow, self.set_size());
        if seen.is_some() {
            document.unblock(release);
            document.block_again(&self.lacking(seen.as_ref()));
        } else {
            document.block_new(&self.lacking(None));
        }
        match self.nft.apply(&document.text(), "installing the table").await {
            Ok(()) => {
                if let Some(listing) = self.glance().await? {
                    if self.accept(&listing) {
                        return Ok(listing);
                    }
                }
            }
            Err(error) if is_repairable(&error) => {
                tracing::warn!(%error, "table inet defender cannot be refreshed; it is made anew");
            }
            Err(error) => return Err(error),
        }
        // Elements that are not ours come along as far as there is room for them.
        let mut others = seen.map(|l| l.blocked).unwrap_or_default();
        others.retain(|t, _| {
            self.ledger.get(*t).is_none() && !release.contains(t) && self.allow.reason(*t).is_none()
        });
        let (mut timed, mut for_good) = (self.lacking(None), Vec::new());
        for (target, left) in others.into_iter().take(self.ledger.limit()) {
            match left {
                Some(left) => timed.push((target, u32::try_from(left.as_secs()).unwrap_or(u32::MAX).max(1))),
                None => for_good.push(target),
            }
        }
        let mut document = Document::new();
        document.remove();
        document.install(&self.allow, self.set_size());
        document.block_new(&timed);
        document.block_for_good(&for_good);
        self.nft.apply(&document.text(), "making the table anew").await?;
        match self.list().await? {
            Some(listing) if self.accept(&listing) => Ok(listing),
            _ => Err(Error::TableAltered),
        }
    }

    /// Takes a listing right after an install as the measure for later ones, if everything is there.
    fn accept(&mut self, listing: &Listing) -> bool {
        let good = listing.whole && self.lacking(Some(listing)).is_empty();
        if good {
            self.baseline = listing.fingerprint;
            self.allow_changed = false;
        }
        good
    }

    /// Active blocks that are not in the kernel, or not for long enough, with the seconds to block them for.
    fn lacking(&self, listing: Option<&Listing>) -> Vec<(Target, u32)> {
        let in_force = |target: &Target, left_ms: u64| match listing {
            None => false,
            Some(listing) => match listing.blocked.get(target) {
                Some(None) => true,
                Some(Some(left)) => left.as_millis() + u128::from(GRACE_MS) >= u128::from(left_ms),
                None => left_ms <= GRACE_MS,
            },
        };
        self.ledger
            .active(self.clock_ms())
            .filter(|(target, _, left)| !in_force(target, *left))
            .map(|(target, _, left)| (target, seconds(left)))
            .collect()
    }

    async fn list(&self) -> Result<Option<Listing>, Error> {
        let Some(bytes) = self.nft.list(TABLE).await? else { return Ok(None) };
        let doing = "listing the table";
        listing::parse(&bytes).map(Some).map_err(|cause| Error::BadOutput { doing, cause })
    }

    /// A listing that may be mended: an unreadable one counts as a table with everything wrong. (nft 1.0.6 prints nothing
    /// but a line feed for a table that somebody made dormant.)
    async fn glance(&self) -> Result<Option<Listing>, Error> {
        match self.list().await {
            Err(error @ Error::BadOutput { .. }) => {
                tracing::warn!(%error, "the table cannot be read");
                Ok(Some(Listing::default()))
            }
            other => other,
        }
    }

    fn forbidden(&self, target: Target) -> Option<Error> {
        self.allow.reason(target).map(|by| Error::Allowed { target, by })
    }

    /// Reads the default gateways; when a file cannot be read, what it said last still holds.
    fn refresh_gateways(&mut self) {
        if !self.config.allow_gateway {
            return;
        }
        let net = self.config.proc.join("net");
        let v4 = read_proc(&net.join("route")).map(|b| route::ipv4_gateways(&b));
        let v6 = read_proc(&net.join("ipv6_route")).map(|b| route::ipv6_gateways(&b));
        let Some(mut gateways) = v4 else { return };
        // A kernel without IPv6 has no such file.
        gateways.extend(v6.unwrap_or_default());
        self.allow_changed |= self.allow.set_gateways(gateways);
    }

    /// Writes changed gateways to the kernel's allowed sets and ends blocks of what is now allowed.
    async fn sync_allowed(&mut self) -> Result<(), Error> {
        if !self.allow_changed {
            return Ok(());
        }
        let now_allowed: Vec<Target> = self
            .ledger
            .active(self.clock_ms())
            .map(|(t, _, _)| t)
            .filter(|t| self.allow.reason(*t).is_some())
            .collect();
        for target in &now_allowed {
            self.unsaved |= self.ledger.remove(*target);
        }
        let seen = self.glance().await?;
        self.put_right(seen, &now_allowed).await?;
        Ok(())
    }

    fn set_size(&self) -> u32 {
        // Twice the bound: within a transaction an element that is replaced counts twice.
        u32::try_from((2 * self.config.max_blocks).next_power_of_two().max(1024)).unwrap_or(u32::MAX)
    }

    fn clock_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn uptime_ms(&self) -> Option<u64> {
        uptime_ms(&read_proc(&self.config.proc.join("uptime"))?)
    }
}

/// Whether making the table as it should be may help.
fn is_repairable(error: &Error) -> bool {
    matches!(error, Error::NftFailed { .. } | Error::SetFull { .. })
}

/// Whole seconds, rounded up, at least one: the kernel takes a time-out of nothing for none.
fn seconds(ms: u64) -> u32 {
    u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

fn read_proc(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|f| f.take(MAX_PROC).read_to_end(&mut bytes)).ok()?;
    Some(bytes)
}
