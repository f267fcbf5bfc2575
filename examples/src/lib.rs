//! What all the examples begin with. The examples themselves are in `examples/`, one file an idea.

use konsul_client::{Client, Error};

/// Connects to the server at `KONSUL_ADDR` (`http://127.0.0.1:8500` unless set).
///
/// # Errors
/// [`Error::Unreachable`] when there is none.
pub async fn connect() -> Result<Client, Error> {
    let address = std::env::var("KONSUL_ADDR").unwrap_or_else(|_| "http://127.0.0.1:8500".into());
    Client::connect(address).await
}

/// Connects, and deletes what an earlier run left under `prefix`.
///
/// # Errors
/// Those of [`connect`] and of the delete.
pub async fn connect_afresh(prefix: &str) -> Result<Client, Error> {
    let client = connect().await?;
    client.kv().delete_range(prefix).await?;
    Ok(client)
}
