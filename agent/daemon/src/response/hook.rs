//! The product's own program, started with a finding: OCSF on its standard input.
//!
//! It runs as the agent's user, without a capability and within the agent's confinement. One runs at a time; what waits is
//! bounded, and who takes too long is killed.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use defender_model::remediation::{Action, Outcome, Remediation};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::mpsc;

/// Findings that may wait.
const WAITING: usize = 32;

/// A finding for the program.
#[derive(Debug)]
pub struct Order {
    /// Unique id of the finding.
    pub finding: String,
    /// Title of its rule.
    pub reason: String,
    /// The finding as OCSF JSON.
    pub ocsf: Arc<str>,
}

/// The task that starts the program.
#[derive(Debug)]
pub struct Hook {
    orders: Option<mpsc::Sender<Order>>,
}

impl Hook {
    /// Starts the task. Needs a runtime. Outcomes come by the receiver.
    #[must_use]
    pub fn start(program: PathBuf, limit: Duration) -> (Self, mpsc::Receiver<Remediation>) {
        let (orders, mut incoming) = mpsc::channel::<Order>(WAITING);
        let (outgoing, outcomes) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            while let Some(order) = incoming.recv().await {
                let outcome = run(&program, &order.ocsf, limit).await;
                // The pipeline is gone only at the very end.
                let _ = outgoing.send(remediation(order, outcome)).await;
            }
        });
        (Self { orders: Some(orders) }, outcomes)
    }

    /// Gives an order; what cannot be taken comes back as what became of it.
    ///
    /// # Errors
    /// The failed remediation, when too many wait already.
    pub fn order(&self, order: Order) -> Result<(), Box<Remediation>> {
        let refused = match &self.orders {
            Some(orders) => orders.try_send(order).map_err(mpsc::error::TrySendError::into_inner),
            None => Err(order),
        };
        refused.map_err(|order| {
            let why = "too many findings wait for the hook already".to_owned();
            Box::new(remediation(order, Outcome::Failed(why)))
        })
    }

    /// No more orders; the task ends when it has carried out those it has.
    pub fn close(&mut self) {
        self.orders = None;
    }
}

impl Order {
    /// The order as not carried out, because a setting forbids it.
    #[must_use]
    pub fn refused(self, why: &str) -> Box<Remediation> {
        Box::new(remediation(self, Outcome::Refused(why.to_owned())))
    }
}

fn remediation(order: Order, outcome: Outcome) -> Remediation {
    Remediation::new(Action::RunHook, outcome, order.reason, Some(order.finding))
}

/// Whoever can write the program can have the agent run anything: it and the directories above it must be root's alone.
///
/// # Errors
/// The path that is not, and why.
pub fn trustworthy(program: &Path) -> Result<(), String> {
    if !program.is_absolute() {
        return Err(format!("{}: the hook must be named by an absolute path", program.display()));
    }
    for path in program.ancestors() {
        let found = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let sticky_directory = found.is_dir() && found.mode() & 0o1000 != 0;
        if found.mode() & 0o022 != 0 && !(sticky_directory && path != program) {
            return Err(format!("{}: others than its owner may write it", path.display()));
        }
        if found.uid() != 0 {
            return Err(format!("{}: it belongs to user {}, not to root", path.display(), found.uid()));
        }
    }
    Ok(())
}

async fn run(program: &Path, ocsf: &str, limit: Duration) -> Outcome {
    if let Err(why) = trustworthy(program) {
        return Outcome::Refused(why);
    }
    let attempt = async {
        let mut command = Command::new(program);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/").kill_on_drop(true);
        // SAFETY: between fork and exec it makes one prctl(2) call and touches no memory of the parent's.
        unsafe {
            command.pre_exec(|| {
                // What nft needs is not the hook's. Kernels before 4.3 have no ambient set, and nothing in it.
                let _ = caps::clear(None, caps::CapSet::Ambient);
                Ok(())
            });
        }
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // A program that does not read its input to the end has what it wants.
            let _ = input.write_all(ocsf.as_bytes()).await;
            let _ = input.write_all(b"\n").await;
        }
        child.wait().await
    };
    // Dropping the child kills it.
    match tokio::time::timeout(limit, attempt).await {
        Ok(Ok(status)) if status.success() => Outcome::Verified,
        Ok(Ok(status)) => Outcome::Failed(format!("{} ended with {status}", program.display())),
        Ok(Err(error)) => Outcome::Failed(describe(program, &error)),
        Err(_) => {
            Outcome::Failed(format!("{} was killed after {} s", program.display(), limit.as_secs_f32()))
        }
    }
}

fn describe(program: &Path, error: &io::Error) -> String {
    format!("{} cannot be started: {error}", program.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn order(n: u32) -> Order {
        Order { finding: format!("f-{n}"), reason: "a rule".into(), ocsf: format!("{{\"n\":{n}}}").into() }
    }

    /// A script of root's in a directory of root's; the tests of this project run as root.
    fn script(directory: &Path, text: &str) -> PathBuf {
        let program = directory.join("hook");
        fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    fn outcome(program: &Path, limit: Duration) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (hook, mut outcomes) = Hook::start(program.to_owned(), limit);
            hook.order(order(7)).unwrap();
            outcomes.recv().await.unwrap().outcome
        })
    }

    #[test]
    fn the_program_gets_the_finding_and_its_status_counts() {
        let directory = tempfile::tempdir().unwrap();
        let got = directory.path().join("got");
        let program = script(directory.path(), &format!("cat > {}; exec true", got.display()));
        let second = Duration::from_secs(20);
        if let Err(why) = trustworthy(&program) {
            println!("skipped: {why}");
            return;
        }
        assert_eq!(outcome(&program, second), Outcome::Verified);
        assert_eq!(fs::read_to_string(&got).unwrap(), "{\"n\":7}\n");
        let program = script(directory.path(), "exit 3");
        let failed = outcome(&program, second);
        assert!(matches!(&failed, Outcome::Failed(why) if why.contains('3')), "{failed:?}");
        // One that neither reads nor ends.
        let program = script(directory.path(), "exec sleep 60");
        let failed = outcome(&program, Duration::from_millis(200));
        assert!(matches!(&failed, Outcome::Failed(why) if why.contains("was killed")), "{failed:?}");
    }

    #[test]
    fn what_others_can_write_is_not_run() {
        let directory = tempfile::tempdir().unwrap();
        let program = script(directory.path(), "exit 0");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = outcome(&program, Duration::from_secs(5));
        assert!(matches!(&refused, Outcome::Refused(why) if why.contains("may write")), "{refused:?}");
        assert!(trustworthy(Path::new("hook")).unwrap_err().contains("absolute"));
        assert!(trustworthy(&directory.path().join("absent")).is_err());
    }

    #[test]
    fn what_waits_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let program = script(directory.path(), "exec sleep 60");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (hook, _outcomes) = Hook::start(program, Duration::from_secs(1));
            let refused = (0..100).filter_map(|n| hook.order(order(n)).err()).count();
            assert_eq!(refused, 100 - WAITING);
        });
    }
}
