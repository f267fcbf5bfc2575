//! A check that sends a datagram, and waits for an answer, or for a refusal.

use std::io;
use std::net::SocketAddr;

use tokio::time::{Instant, timeout_at};

use crate::dial::{Dialer, Phase, Progress};
use crate::failure::Failure;
use crate::limits::{OUTPUT_BYTES, UDP_QUIET};
use crate::probe::Udp;
use crate::verdict::{Status, Verdict};

/// Carries it out. A name may have several addresses, of which one that refuses is passed over.
///
/// # Errors
/// [`Failure`] when nothing can be sent, or the last address refuses.
pub(crate) async fn check(dialer: &Dialer, udp: &Udp, progress: &Progress) -> Result<Verdict, Failure> {
    let mut failure = None;
    for address in dialer.addresses(&udp.target, progress).await? {
        match exchange(dialer, udp, address, progress).await {
            Ok(answer) => return Ok(judge(udp, answer.as_deref())),
            Err(refusal) => failure = Some(refusal),
        }
    }
    Err(failure.unwrap_or_else(|| Failure::NoAddress(udp.target.host.to_string())))
}

/// The answer, or none where none is needed.
async fn exchange(
    dialer: &Dialer,
    udp: &Udp,
    address: SocketAddr,
    progress: &Progress,
) -> Result<Option<Vec<u8>>, Failure> {
    let socket = dialer.udp(address).await?;
    progress.at(Phase::Answer);
    let mut answer = vec![0; OUTPUT_BYTES];
    let answered = async {
        socket.send(&udp.payload).await?;
        socket.recv(&mut answer).await
    };
    let received: io::Result<usize> = if udp.expect.is_empty() {
        match timeout_at(quiet_until(progress), answered).await {
            Ok(received) => received,
            Err(_) => return Ok(None),
        }
    } else {
        answered.await
    };
    answer.truncate(received.map_err(|error| Failure::Connect(address.ip(), error))?);
    Ok(Some(answer))
}

/// Until when a refusal is waited for: a little shorter than the check may take, so that silence is no timeout.
fn quiet_until(progress: &Progress) -> Instant {
    let now = Instant::now();
    let left = progress.deadline.saturating_duration_since(now);
    now + (left - left / 10).min(UDP_QUIET)
}

fn judge(udp: &Udp, answer: Option<&[u8]>) -> Verdict {
    let target = &udp.target;
    let Some(answer) = answer else {
        return Verdict::new(Status::Passing, &format!("UDP {target}: not refused, no answer"));
    };
    if !has(answer, &udp.expect) {
        let missing = format!("UDP {target}: answered without \"{}\"", udp.expect.escape_ascii());
        return Verdict::quoting(Status::Critical, &missing, answer);
    }
    Verdict::quoting(Status::Passing, &format!("UDP {target}: answered"), answer)
}

/// Whether what is expected is part of an answer. Both are short.
pub(crate) fn has(answer: &[u8], expected: &[u8]) -> bool {
    expected.is_empty() || answer.windows(expected.len()).any(|window| window == expected)
}
