//! Several keys in one call and at one revision: all are written, or none.

use konsul_client::{DeleteOperation, Error, PutOperation};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let kv = konsul_examples::connect_afresh("examples/batch/").await?.kv();
    let key = |name: &str| format!("examples/batch/{name}");

    let written = kv
        .batch_put([
            PutOperation::new(key("host"), "db.internal"),
            PutOperation::new(key("port"), "5432"),
            PutOperation::new(key("name"), "orders").if_absent(),
        ])
        .await?;
    println!("three keys written at revision {}", written.revision);

    // `name` exists by now, so this changes nothing, and `host` stays as it is.
    let refused = kv
        .batch_put([
            PutOperation::new(key("host"), "elsewhere"),
            PutOperation::new(key("name"), "mine").if_absent(),
        ])
        .await;
    match refused {
        Err(Error::PreconditionFailed(answer)) => println!("refused: {answer}"),
        other => panic!("{other:?}"),
    }

    let read = kv.batch_get([key("host"), key("port"), key("user")]).await?;
    println!("read at revision {}, missing: {:?}", read.revision, read.missing);
    let values: Vec<&[u8]> = read.entries.iter().map(|entry| entry.value.as_ref()).collect();
    assert_eq!(values, [b"db.internal".as_slice(), b"5432"]);
    assert!(read.entries.iter().all(|entry| entry.mod_revision == written.revision));
    assert_eq!(read.missing, [key("user")]);

    let deleted =
        kv.batch_delete([DeleteOperation::new(key("host")), DeleteOperation::new(key("user"))]).await?;
    let counts: Vec<u64> = deleted.results.iter().map(|result| result.deleted).collect();
    println!("deleted at revision {}: {counts:?}", deleted.revision);
    assert_eq!(counts, [1, 0]);
    Ok(())
}
