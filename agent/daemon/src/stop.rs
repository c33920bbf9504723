//! How the agent is told to stop, and how its sensors learn of it.

use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::watch;

/// Ready at SIGTERM or SIGINT, and at SIGHUP: the agent has nothing to reload that a restart by its supervisor would not read.
pub(crate) async fn signalled() {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = kinds.map(signal) else {
        // The default action of the signals, an abrupt end, stays in place.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// Ready when a sensor is told to stop.
pub(crate) async fn told(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stopped.wait_for(|stop| *stop).await;
}
