//! `konsul kv watch`: prints changes, or runs a command on each. How a command is run is `exec`'s.

use std::time::Duration;

use clap::Args;
use konsul_client::proto::{self, watch_event};
use konsul_client::{WatchEvent, WatchOptions};

use super::exec::Exec;
use crate::failure::{Failure, complain};
use crate::session::Session;
use crate::signals::Interrupt;

/// Keeps the point to resume at ahead of compaction while the keys are quiet.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
Examples:
  konsul kv watch app/                           print each change under app/
  konsul kv watch app/port                       print each change of one key
  konsul kv watch app/ --initial                 print what is there, then each change
  konsul kv watch app/ --from-revision 17        also what happened since revision 17
  konsul kv watch app/ -o json | jq .entry.key
  konsul kv watch app/port --once                wait for one change
  konsul kv watch app/ --initial --exec ./reload.sh

A command finds this in its environment, and the whole event as one line of JSON on
stdin: {\"type\":\"TYPE_PUT\",\"entry\":{\"key\":\"app/port\",\"value\":\"ODA4MA==\",…}}
  KONSUL_KEY        the key
  KONSUL_REVISION   the revision of the change
  KONSUL_EVENT      put or delete";

/// Print each change of a key or prefix, or run a command on it
///
/// Runs until it is interrupted. When the connection breaks it reconnects and goes on without gap or repeat.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Watch {
    /// The key; with a `/` at its end (or --prefix): all keys that start with it
    #[arg(value_name = "KEY_OR_PREFIX")]
    key: String,
    /// Watch all keys that start with the argument, whatever it ends with
    #[arg(long)]
    prefix: bool,
    /// Start with the changes of this revision
    #[arg(long, value_name = "N", conflicts_with = "initial", value_parser = clap::value_parser!(u64).range(1..))]
    from_revision: Option<u64>,
    /// Start with the entries that are there, as if each had just been put
    #[arg(long)]
    initial: bool,
    /// Send with each event the entry as it was before (JSON)
    #[arg(long)]
    previous: bool,
    /// Run this command with `sh -c` for each change, one after the other, rather than print the changes
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// End with the command's exit code when it fails; otherwise the failure is reported and the watch goes on
    #[arg(long, requires = "exec")]
    exec_fail_fast: bool,
    /// End after the first event
    #[arg(long)]
    once: bool,
}

impl Watch {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let mut interrupt = Interrupt::new()?;
        let mut watch = session.client.kv().watch(self.options());
        let exec = self.exec.as_deref().map(|command| Exec::new(command, self.exec_fail_fast));
        let mut begun = false;
        loop {
            let event = tokio::select! {
                code = interrupt.code() => return Err(Failure::Interrupted { code }),
                event = watch.next() => event,
            };
            let change = match event.transpose()? {
                None => return Ok(()),
                Some(WatchEvent::Reset { .. }) => {
                    if std::mem::replace(&mut begun, true) {
                        complain("what is there comes once more, from the beginning");
                    }
                    continue;
                }
                Some(event) => match change(event) {
                    Some(change) => change,
                    None => continue,
                },
            };
            match &exec {
                Some(exec) => exec.run(&change, &mut interrupt).await?,
                None => session.output.event(&change)?,
            }
            if self.once {
                return Ok(());
            }
        }
    }

    fn options(&self) -> WatchOptions {
        let mut options = if self.prefix || self.key.ends_with('/') {
            WatchOptions::prefix(&self.key)
        } else {
            WatchOptions::key(&self.key)
        };
        if self.initial {
            options = options.initial_state();
        }
        if self.previous {
            options = options.previous();
        }
        options.from_revision(self.from_revision.unwrap_or(0)).progress_interval(PROGRESS_INTERVAL)
    }
}

/// The API's event, if this is one of a key.
fn change(event: WatchEvent) -> Option<proto::WatchEvent> {
    let (kind, entry, previous) = match event {
        WatchEvent::State { entry, .. } => (watch_event::Type::Put, entry, None),
        WatchEvent::Put { entry, previous, .. } => (watch_event::Type::Put, entry, previous),
        WatchEvent::Delete { entry, previous, .. } => (watch_event::Type::Delete, entry, previous),
        _ => return None,
    };
    Some(proto::WatchEvent { r#type: kind.into(), entry: Some(entry), previous })
}
