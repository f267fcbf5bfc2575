//! Carries out probes: how many at a time, and for how long.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::dial::{Dialer, Progress};
use crate::failure::Failure;
use crate::limits::TIMEOUT;
use crate::probe::{Kind, Probe};
use crate::script::Scripts;
use crate::settings::{Settings, SettingsError};
use crate::verdict::{Status, Verdict};
use crate::{grpc, http, tcp, udp};

/// Carries out probes within what the operator allows. It is shared, and used within a tokio runtime with time and I/O.
pub struct Prober {
    dialer: Dialer,
    scripts: Scripts,
    slots: Semaphore,
}

impl Prober {
    /// Makes all that probes have in common.
    ///
    /// # Errors
    /// [`SettingsError`] when the settings can't be worked with.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        settings.validate()?;
        Ok(Self {
            dialer: Dialer::new(settings)?,
            scripts: Scripts::new(settings),
            slots: Semaphore::new(settings.max_concurrent),
        })
    }

    /// Carries out a probe and tells the verdict, whatever comes of it.
    ///
    /// All that the target takes part in ends after `timeout` (an hour at most): lookup, connecting, handshakes, redirects, answers. When as many
    /// probes are under way as may be, it waits for its turn first, which is no fault of the target's, so that the time counts from there. Given
    /// up before its end, it leaves no connection, no process and no task behind; only a lookup goes on until the system's resolver is
    /// done with it.
    pub async fn probe(&self, probe: &Probe, timeout: Duration) -> Verdict {
        // It is never closed: either way there is a turn.
        let _slot = self.slots.acquire().await;
        let timeout = timeout.min(TIMEOUT);
        let progress = Progress::until(Instant::now() + timeout);
        match timeout_at(progress.deadline, self.carry_out(probe, &progress)).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(failure)) => Verdict::new(Status::Critical, &format!("{probe}: {failure}")),
            Err(_) => {
                let late = format!("{probe}: timed out after {timeout:?}{}", progress.words());
                Verdict::new(Status::Critical, &late)
            }
        }
    }

    async fn carry_out(&self, probe: &Probe, progress: &Progress) -> Result<Verdict, Failure> {
        match &probe.0 {
            Kind::Http(check) => http::check(&self.dialer, check, progress).await,
            Kind::Tcp(check) => tcp::check(&self.dialer, check, progress).await,
            Kind::Udp(check) => udp::check(&self.dialer, check, progress).await,
            Kind::Grpc(check) => grpc::check(&self.dialer, check, progress).await,
            Kind::Script(check) => self.scripts.check(check, progress).await,
        }
    }
}
