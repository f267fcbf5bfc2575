//! Streams of requests that are answered in order, those together that came together.

use std::future::Future;

use futures_util::{Stream, StreamExt};
use konsul_state::propose::ProposeError;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::error::ServiceError;

/// Requests of one stream that are answered together.
const TOGETHER: usize = 1_000;

/// Answers requests in order, up to the first that can't be, with which the stream ends. `answer` is given those that are there already, and tells the answers up to
/// the first failure. The stream ends when the server stops; `place` is given back with it.
pub(crate) fn answer_in_order<Q, A, F, Fut>(
    requests: Streaming<Q>,
    stop: CancellationToken,
    place: OwnedSemaphorePermit,
    answer: F,
) -> impl Stream<Item = Result<A, Status>> + Send
where
    Q: Send + 'static,
    A: Send + 'static,
    F: Fn(Vec<Q>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = (Vec<A>, Option<ServiceError>)> + Send + 'static,
{
    let groups = requests.take_until(stop.clone().cancelled_owned()).ready_chunks(TOGETHER);
    let answers = groups.then(move |group| {
        let answer = answer.clone();
        async move {
            let (requests, end): (Vec<_>, Option<Status>) = split(group);
            let (answers, error) = answer(requests).await;
            let end = error.map(Status::from).or(end);
            futures_util::stream::iter(answers.into_iter().map(Ok).chain(end.map(Err)))
        }
    });
    // Ends with the first error, as a stream of gRPC does.
    let answers = answers.flatten().scan(false, |is_over, answer: Result<A, Status>| {
        let goes_on = !std::mem::replace(is_over, answer.is_err());
        std::future::ready(goes_on.then_some(answer))
    });
    let end = futures_util::stream::once(async move {
        // Given back with the stream.
        drop(place);
        stop.is_cancelled().then(|| Err(ServiceError::from(ProposeError::ShuttingDown).into()))
    });
    answers.chain(end.filter_map(std::future::ready))
}

/// The requests up to the first error, and that one.
fn split<Q>(group: Vec<Result<Q, Status>>) -> (Vec<Q>, Option<Status>) {
    let mut requests = Vec::with_capacity(group.len());
    for request in group {
        match request {
            Ok(request) => requests.push(request),
            Err(status) => return (requests, Some(status)),
        }
    }
    (requests, None)
}
