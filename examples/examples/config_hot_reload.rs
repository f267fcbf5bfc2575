//! A program whose settings live in Konsul: it starts with what is there and takes over each change while it runs. A broken
//! change is refused, and the program goes on with what it has.

use std::collections::BTreeMap;

use konsul_client::{Kv, WatchEvent, WatchOptions};
use tokio::sync::watch;

const PREFIX: &str = "examples/config_hot_reload/";

/// The settings, as one consistent set.
#[derive(Debug, Clone, Default, PartialEq)]
struct Settings {
    /// Revision that the settings are of.
    revision: u64,
    greeting: String,
    workers: u32,
}

impl Settings {
    /// Settings from keys and values; says what is wrong with them.
    fn parse(values: &BTreeMap<String, String>, revision: u64) -> Result<Self, String> {
        let value = |name: &str| values.get(name).ok_or_else(|| format!("{name} is missing"));
        let workers = value("workers")?.parse().map_err(|error| format!("workers: {error}"))?;
        Ok(Self { revision, greeting: value("greeting")?.clone(), workers })
    }
}

/// Follows the settings until the program ends. Changes of one revision are taken over together.
async fn follow(
    kv: Kv,
    settings: watch::Sender<Result<Settings, String>>,
) -> Result<(), konsul_client::Error> {
    let options = WatchOptions::prefix(PREFIX).initial_state().reset_when_compacted();
    let mut watch = kv.watch(options);
    let mut values = BTreeMap::new();
    let name = |key: &str| key.trim_start_matches(PREFIX).to_string();
    while let Some(event) = watch.next().await {
        let complete = match event? {
            WatchEvent::Reset { .. } => {
                values.clear();
                None
            }
            WatchEvent::State { entry, .. } => {
                values.insert(name(&entry.key), String::from_utf8_lossy(&entry.value).into_owned());
                None
            }
            WatchEvent::Put { revision, entry, last_of_revision, .. } => {
                values.insert(name(&entry.key), String::from_utf8_lossy(&entry.value).into_owned());
                last_of_revision.then_some(revision)
            }
            WatchEvent::Delete { revision, entry, last_of_revision, .. } => {
                values.remove(&name(&entry.key));
                last_of_revision.then_some(revision)
            }
            WatchEvent::Synced { revision, .. } => Some(revision),
            _ => None,
        };
        if let Some(revision) = complete
            && settings.send(Settings::parse(&values, revision)).is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kv = konsul_examples::connect_afresh(PREFIX).await?.kv();
    kv.put(format!("{PREFIX}greeting"), "hello").await?;
    kv.put(format!("{PREFIX}workers"), "4").await?;

    let (sender, mut receiver) = watch::channel(Err("not loaded yet".to_string()));
    let follower = tokio::spawn(follow(kv.clone(), sender));

    receiver.wait_for(Result::is_ok).await?;
    let mut running = receiver.borrow().clone()?;
    println!("started with {running:?}");
    assert_eq!((running.greeting.as_str(), running.workers), ("hello", 4));

    // Two settings that belong together change in one transaction, and arrive together.
    let outcome = kv
        .txn()
        .then(konsul_client::Operation::put(format!("{PREFIX}greeting"), "good evening"))
        .then(konsul_client::Operation::put(format!("{PREFIX}workers"), "8"))
        .await?;
    receiver.changed().await?;
    running = receiver.borrow().clone()?;
    println!("reloaded: {running:?}");
    assert_eq!(running, Settings { revision: outcome.revision, greeting: "good evening".into(), workers: 8 });

    kv.put(format!("{PREFIX}workers"), "many").await?;
    receiver.changed().await?;
    let refused = receiver.borrow().clone();
    println!("refused: {refused:?}; still running with {} workers", running.workers);
    assert!(refused.is_err());

    follower.abort();
    Ok(())
}
