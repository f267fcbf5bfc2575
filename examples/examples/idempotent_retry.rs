//! A write whose outcome is unknown (the program died, the connection broke) is made again under the same idempotency
//! key, and happens once. The client does this by itself within a call; here is how to carry it over a restart.

use konsul_client::Error;

const KEY: &str = "examples/idempotent_retry/order-17";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let client = konsul_examples::connect_afresh("examples/idempotent_retry/").await?;
    // A name for the write, kept where a restart finds it. Here it is made anew, so that the example can run twice.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let name = format!("order-17-{}", now.as_nanos());

    let first = client.kv().put(KEY, "paid").if_absent().idempotency_key(&name).await?;
    println!("written at revision {}; suppose that the answer was lost", first.revision);

    // Another process, or the same one after a restart. Without the idempotency key `if_absent` would refuse it.
    let restarted = konsul_examples::connect().await?;
    let second = restarted.kv().put(KEY, "paid").if_absent().idempotency_key(&name).await?;
    println!("made again: the first outcome, revision {}", second.revision);
    assert_eq!(second.revision, first.revision);
    let entry = client.kv().get(KEY).await?.unwrap_or_default();
    assert_eq!((entry.version, entry.mod_revision), (1, first.revision), "it was written once");

    // The name stands for that one write: another request under it is a mistake, and refused.
    let error = client.kv().put(KEY, "refunded").idempotency_key(&name).await.err();
    let reason = error.as_ref().and_then(Error::reason);
    println!("another write under the same key: {reason:?}");
    assert_eq!(reason, Some("IDEMPOTENCY_KEY_REUSED"));
    Ok(())
}
