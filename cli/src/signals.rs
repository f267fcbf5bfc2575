//! Signals: those that end a command, and those that are passed on.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// The signals that end a command.
pub(crate) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for a signal: its exit code, as shells have it.
    pub(crate) async fn code(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }
}

/// The signals that a command which runs another one passes on to it.
pub(crate) struct Passed {
    signals: [(rustix::process::Signal, Signal); 6],
}

impl Passed {
    pub(crate) fn new() -> Result<Self, Failure> {
        use rustix::process::Signal as S;
        Ok(Self {
            signals: [
                (S::INT, listen(SignalKind::interrupt())?),
                (S::TERM, listen(SignalKind::terminate())?),
                (S::HUP, listen(SignalKind::hangup())?),
                (S::QUIT, listen(SignalKind::quit())?),
                (S::USR1, listen(SignalKind::user_defined1())?),
                (S::USR2, listen(SignalKind::user_defined2())?),
            ],
        })
    }

    /// Waits for one of them.
    pub(crate) async fn next(&mut self) -> rustix::process::Signal {
        let waits = self.signals.iter_mut().map(|(number, signal)| {
            let number = *number;
            Box::pin(async move {
                signal.recv().await;
                number
            })
        });
        futures_util::future::select_all(waits).await.0
    }

    /// Waits for one of them while there is no command to pass it on to: its exit code, as shells have it.
    pub(crate) async fn code(&mut self) -> u8 {
        u8::try_from(128 + self.next().await.as_raw()).unwrap_or(1)
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::Start { what: "the signal handler".into(), error })
}
