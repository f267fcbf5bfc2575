//! Move an amount from one key to another: both change or neither does, and never from a balance that is out of date.

use konsul_client::{Compare, Entry, Error, Kv, Operation, Operator};

const BLUE: &str = "examples/transaction/blue";
const GREEN: &str = "examples/transaction/green";

fn amount(entry: &Entry) -> u64 {
    String::from_utf8_lossy(&entry.value).parse().unwrap_or(0)
}

/// Moves `moved` from blue to green; false when blue has not that much.
async fn transfer(kv: &Kv, moved: u64) -> Result<bool, Error> {
    loop {
        let read = kv.batch_get([BLUE, GREEN]).await?;
        let [blue, green] = read.entries.as_slice() else { return Ok(false) };
        let Some(left) = amount(blue).checked_sub(moved) else { return Ok(false) };
        let outcome = kv
            .txn()
            .compare(Compare::mod_revision(BLUE, Operator::Equal, blue.mod_revision))
            .compare(Compare::mod_revision(GREEN, Operator::Equal, green.mod_revision))
            .then(Operation::put(BLUE, left.to_string()))
            .then(Operation::put(GREEN, (amount(green) + moved).to_string()))
            .await?;
        if outcome.succeeded {
            println!("moved {moved} at revision {}", outcome.revision);
            return Ok(true);
        }
        // Somebody wrote in between: look again.
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kv = konsul_examples::connect_afresh("examples/transaction/").await?.kv();
    kv.put(BLUE, "100").await?;
    kv.put(GREEN, "0").await?;

    // Ten at once: as they all need blue, they come one after the other.
    let transfers: Vec<_> = (0..10)
        .map(|_| {
            let kv = kv.clone();
            tokio::spawn(async move { transfer(&kv, 9).await })
        })
        .collect();
    for moved in transfers {
        assert!(moved.await??);
    }
    assert!(!transfer(&kv, 11).await?, "blue has only 10 left");

    let read = kv.batch_get([BLUE, GREEN]).await?;
    let amounts: Vec<u64> = read.entries.iter().map(amount).collect();
    println!("blue has {}, green has {}", amounts[0], amounts[1]);
    assert_eq!(amounts, [10, 90]);
    Ok(())
}
