//! Follow changes, stop, and go on later from where it stopped: nothing is missed and nothing comes twice.

use konsul_client::{Error, Kv, WatchEvent, WatchOptions};

const PREFIX: &str = "examples/watch/";

/// Takes `count` changes from the first one of `start` on. Returns the keys and the revision to go on after.
async fn follow(kv: &Kv, start: u64, count: usize) -> Result<(Vec<String>, u64), Error> {
    let mut watch = kv.watch(WatchOptions::prefix(PREFIX).from_revision(start));
    let (mut keys, mut done) = (Vec::new(), start);
    while keys.len() < count {
        let Some(event) = watch.next().await else { break };
        match event? {
            WatchEvent::Put { revision, entry, .. } => {
                println!("revision {revision}: {} = {:?}", entry.key, entry.value);
                keys.push(entry.key);
                done = revision;
            }
            WatchEvent::Delete { revision, entry, .. } => {
                println!("revision {revision}: {} is gone", entry.key);
                keys.push(entry.key);
                done = revision;
            }
            _ => {}
        }
    }
    Ok((keys, done))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let kv = konsul_examples::connect_afresh(PREFIX).await?.kv();
    let start = kv.put("examples/watch/a", "1").await?.revision;
    kv.put("examples/watch/b", "2").await?;
    kv.put("examples/elsewhere", "not under the prefix").await?;

    let (keys, done) = follow(&kv, start, 2).await?;
    assert_eq!(keys, ["examples/watch/a", "examples/watch/b"]);
    println!("done up to revision {done}; now nobody is watching");

    kv.put("examples/watch/c", "3").await?;
    kv.delete("examples/watch/a").await?;

    // The history has it all. (A connection that breaks is handled by the watch itself, in the same way.)
    let (keys, _) = follow(&kv, done + 1, 2).await?;
    assert_eq!(keys, ["examples/watch/c", "examples/watch/a"]);
    kv.delete("examples/elsewhere").await?;
    Ok(())
}
