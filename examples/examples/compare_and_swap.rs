//! A counter that many tasks increase at once, without a lock: each writes only if nobody wrote since it read.

use konsul_client::{Error, Kv};

const KEY: &str = "examples/compare_and_swap/counter";
const TASKS: u64 = 8;
const INCREMENTS: u64 = 10;

/// Adds one, and tries again whenever somebody else was faster. Returns how often that was.
async fn increment(kv: &Kv) -> Result<u32, Error> {
    let mut lost = 0;
    loop {
        let entry = kv.get(KEY).await?.unwrap_or_default();
        let count: u64 = String::from_utf8_lossy(&entry.value).parse().unwrap_or(0);
        // The modify revision of a key that is not there is 0, and so is the default entry's.
        match kv.put(KEY, (count + 1).to_string()).if_revision(entry.mod_revision).await {
            Ok(_) => return Ok(lost),
            Err(Error::PreconditionFailed(_)) => lost += 1,
            Err(error) => return Err(error),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kv = konsul_examples::connect_afresh("examples/compare_and_swap/").await?.kv();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let kv = kv.clone();
            tokio::spawn(async move {
                let mut lost = 0;
                for _ in 0..INCREMENTS {
                    lost += increment(&kv).await?;
                }
                Ok::<u32, Error>(lost)
            })
        })
        .collect();
    let mut lost = 0;
    for task in tasks {
        lost += task.await??;
    }

    let entry = kv.get(KEY).await?.unwrap_or_default();
    println!("{TASKS} tasks counted to {:?}, and lost {lost} races on the way", entry.value);
    assert_eq!(entry.value, (TASKS * INCREMENTS).to_string());
    assert_eq!(entry.version, TASKS * INCREMENTS, "each increment was written once");
    Ok(())
}
