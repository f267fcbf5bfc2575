//! Write a key, read it, change it, delete it.

use konsul_client::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let kv = konsul_examples::connect_afresh("examples/get_put/").await?.kv();
    let key = "examples/get_put/port";

    let first = kv.put(key, "8080").content_type("text/plain").await?;
    println!("wrote {key} at revision {}", first.revision);

    let entry = kv.get(key).await?.unwrap_or_default();
    println!("it holds {:?}, version {}", entry.value, entry.version);
    assert_eq!((entry.value.as_ref(), entry.version), (b"8080".as_slice(), 1));
    assert_eq!(entry.mod_revision, first.revision);

    let second = kv.put(key, "8081").previous().await?;
    let previous = second.previous.map(|entry| entry.value);
    println!("now it holds 8081; before, it was {previous:?}");
    assert_eq!(previous.as_deref(), Some(b"8080".as_slice()));
    assert!(second.revision > first.revision);

    let deleted = kv.delete(key).await?;
    println!("deleted {} key", deleted.deleted);
    assert_eq!(deleted.deleted, 1);
    assert_eq!(kv.get(key).await?, None, "a key that is not there is None, not an error");
    Ok(())
}
