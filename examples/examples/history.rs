//! The past of a key: its versions, what it held at a revision, and how to go back to it.

use konsul_client::Error;

const KEY: &str = "examples/history/banner";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let kv = konsul_examples::connect_afresh("examples/history/").await?.kv();
    let good = kv.put(KEY, "welcome").await?.revision;
    kv.put(KEY, "wellcome").await?;
    let deleted = kv.delete(KEY).await?.revision;

    for version in kv.history(KEY).all().await? {
        let value = version.entry.as_ref().map(|entry| &entry.value);
        println!(
            "revision {}: {value:?}{}",
            version.revision,
            if version.deleted { " (deleted)" } else { "" }
        );
    }

    // The key is gone, yet the past is there, for the key alone and for whole listings.
    assert_eq!(kv.get(KEY).await?, None);
    let before = kv.get(KEY).at_revision(good).await?.unwrap_or_default();
    assert_eq!(before.value, "welcome");
    assert_eq!(kv.list("examples/history/").at_revision(deleted - 1).all().await?.len(), 1);

    // Going back is a write like any other, so it has a revision and can itself be undone.
    let restored = kv.put(KEY, before.value).if_absent().await?;
    println!("back to the value of revision {good}, at revision {}", restored.revision);
    let newest_first: Vec<u64> =
        kv.history(KEY).all().await?.iter().map(|version| version.revision).collect();
    assert_eq!(newest_first[..4], [restored.revision, deleted, deleted - 1, good]);
    Ok(())
}
