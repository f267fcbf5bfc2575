//! A watcher that lives through the server's crashes, and checks that it is told of each change once and in order.

use konsul_client::{Client, WatchEvent, WatchOptions};
use tokio::sync::watch;

use super::writer::{Row, Rows, rows};

/// What a watcher was told.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// Up to and including this revision it knows everything.
    pub(super) revision: u64,
    pub(super) rows: Rows,
    /// Each change: its revision, its key, and the value unless it deleted.
    pub(super) changes: Vec<(u64, String, Option<Vec<u8>>)>,
}

/// Watches `prefix` from revision `from` on, resuming by itself, for as long as somebody holds the receiver.
pub(super) async fn watch(client: Client, prefix: String, from: u64, told: watch::Sender<Told>) {
    let mut events = client.kv().watch(
        WatchOptions::prefix(prefix.clone())
            .from_revision(from)
            .progress_interval(std::time::Duration::from_millis(100)),
    );
    let mut last_of_revision = true;
    loop {
        let event = tokio::select! {
            () = told.closed() => return,
            event = events.next() => event.expect("the watch ended").expect("the watch failed"),
        };
        let revision = event.revision();
        told.send_modify(|told| {
            let at = told.changes.last().map_or(from - 1, |(revision, ..)| *revision);
            let (entry, is_put, is_last) = match event {
                WatchEvent::Put { entry, last_of_revision, .. } => (entry, true, last_of_revision),
                WatchEvent::Delete { entry, last_of_revision, .. } => (entry, false, last_of_revision),
                WatchEvent::Progress { revision, .. } | WatchEvent::Opened { revision, .. } => {
                    told.revision = told.revision.max(revision);
                    return;
                }
                other => panic!("{other:?}"),
            };
            assert!(
                if last_of_revision { revision > at } else { revision == at },
                "{prefix:?}: {revision} came after {at}, which had ended: {last_of_revision}"
            );
            // Every write of this test changes something, so a watcher of everything sees each revision.
            if prefix.is_empty() && last_of_revision {
                assert_eq!(revision, at + 1, "a revision is missing");
            }
            last_of_revision = is_last;
            assert_eq!(entry.mod_revision, revision);
            told.changes.push((revision, entry.key.clone(), is_put.then(|| entry.value.to_vec())));
            match is_put {
                true => told.rows.extend(rows([entry])),
                false => drop::<Option<Row>>(told.rows.remove(&entry.key)),
            }
            if is_last {
                told.revision = told.revision.max(revision);
            }
        });
    }
}
