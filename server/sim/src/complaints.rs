//! What members and their libraries say has gone wrong with themselves: panics, which tasks would swallow, and errors of our own
//! crates' logs. A member that complains has broken a promise even if nobody noticed.

use std::fmt::{Debug, Write};
use std::panic;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// The complaints that nobody has heard yet.
#[derive(Clone, Default)]
pub(crate) struct Complaints(Arc<Mutex<Vec<String>>>);

impl Complaints {
    /// Hears panics from now on, in the whole process.
    pub(crate) fn hear_panics(&self) {
        let heard = self.0.clone();
        panic::set_hook(Box::new(move |panicked| heard.lock().push(format!("panic: {panicked}"))));
    }

    /// Hears the logs of what runs inside; what `RUST_LOG` wants goes to stderr, with simulated times.
    pub(crate) fn hear_logs<T>(&self, inside: impl FnOnce() -> T) -> T {
        let shown = tracing_subscriber::fmt::layer()
            .with_timer(tracing_subscriber::fmt::time::uptime())
            .with_writer(std::io::stderr)
            .with_filter(
                EnvFilter::builder().with_default_directive(LevelFilter::OFF.into()).from_env_lossy(),
            );
        let heard = self.clone().with_filter(LevelFilter::ERROR);
        let heard = tracing_subscriber::registry().with(shown).with(heard);
        tracing::subscriber::with_default(heard, inside)
    }

    /// Takes what was heard.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl<S: Subscriber> Layer<S> for Complaints {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        if target.starts_with("konsul") {
            let mut text = Text(format!("{target}:"));
            event.record(&mut text);
            self.0.lock().push(text.0);
        }
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String can't fail.
        let _ = write!(self.0, " {field}={value:?}");
    }
}
