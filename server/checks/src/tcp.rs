//! A check that opens a TCP connection, does a TLS handshake if it is asked to, and closes it.

use crate::dial::{Dialer, Progress};
use crate::failure::Failure;
use crate::probe::Tcp;
use crate::tls::Protocol;
use crate::verdict::{Status, Verdict};

/// Carries it out.
///
/// # Errors
/// [`Failure`] when no connection can be made.
pub(crate) async fn check(dialer: &Dialer, tcp: &Tcp, progress: &Progress) -> Result<Verdict, Failure> {
    dialer.stream(&tcp.target, tcp.tls.as_ref(), Protocol::Any, progress).await?;
    let done = if tcp.tls.is_some() { "ok, with TLS" } else { "ok" };
    Ok(Verdict::new(Status::Passing, &format!("TCP connect {}: {done}", tcp.target)))
}
