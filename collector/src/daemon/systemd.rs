//! What systemd is told: that we are ready, alive, still opening, or ending.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

/// Tells systemd that we live, twice as often as it asks for.
pub async fn watchdog(end: CancellationToken) {
    let mut usec = 0;
    if !sd_notify::watchdog_enabled(false, &mut usec) || usec == 0 {
        return;
    }
    let mut beat = tokio::time::interval(Duration::from_micros(usec / 2));
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            _ = beat.tick() => notify(&[NotifyState::Watchdog]),
        }
    }
}

/// Without systemd there is nobody to tell, and that is no error.
pub fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "cannot notify systemd");
    }
}
