//! List keys: in pages that are one snapshot, and as folders.

use futures_util::TryStreamExt;
use konsul_client::{Error, PutOperation};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let kv = konsul_examples::connect_afresh("examples/list/").await?.kv();
    let puts = (0..100).map(|n| PutOperation::new(format!("examples/list/host-{:02}/port", n), "80"));
    kv.batch_put(puts).await?;
    kv.put("examples/list/readme", "a key beside the folders").await?;

    // The first page pins the revision: a write between two pages does not show.
    let mut pages = kv.list("examples/list/").page_size(40).pages();
    let mut seen = 0;
    while let Some(page) = pages.try_next().await? {
        println!("a page of {} keys at revision {}", page.entries.len(), page.revision);
        seen += page.entries.len();
        kv.put("examples/list/written-meanwhile", seen.to_string()).await?;
    }
    assert_eq!(seen, 101);

    // All at once, for a listing that fits into memory.
    assert_eq!(kv.list("examples/list/").all().await?.len(), 102);
    assert_eq!(kv.list("examples/list/host-0").count().await?, 10);

    // One level, like a folder.
    let folder = kv.list("examples/list/").separator("/").await?;
    let keys: Vec<&str> = folder.entries.iter().map(|entry| entry.key.as_str()).collect();
    println!("{} folders and the keys {keys:?}", folder.common_prefixes.len());
    assert_eq!(folder.common_prefixes.len(), 100);
    assert_eq!(keys, ["examples/list/readme", "examples/list/written-meanwhile"]);

    let last = kv.list("examples/list/host-").descending().page_size(1).await?;
    assert_eq!(last.entries[0].key, "examples/list/host-99/port");
    Ok(())
}
