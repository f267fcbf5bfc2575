//! A check that asks an HTTP server, over HTTP/1.1.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::dial::{Dialer, Phase, Progress, beside};
use crate::failure::Failure;
use crate::limits::{ANSWER_HEAD_BYTES, OUTPUT_BYTES, REDIRECTS};
use crate::location::Location;
use crate::probe::Http;
use crate::tls::Protocol;
use crate::udp::has;
use crate::verdict::{Status, Verdict};

/// Most header lines of an answer.
const ANSWER_HEADERS: usize = 100;

/// What is asked, and where.
struct Question<'a> {
    location: Location,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
    check: &'a Http,
}

/// What came back.
struct Answer {
    status: StatusCode,
    location: Option<HeaderValue>,
    /// As much of the body as is looked at.
    body: Vec<u8>,
}

/// Carries it out.
///
/// # Errors
/// [`Failure`] when there is no answer, or none that can be judged.
pub(crate) async fn check(dialer: &Dialer, check: &Http, progress: &Progress) -> Result<Verdict, Failure> {
    let mut question = Question {
        location: check.location.clone(),
        method: check.method.clone(),
        headers: check.headers.clone(),
        body: check.body.clone(),
        check,
    };
    let mut asked = Vec::new();
    loop {
        let answer = question.ask(dialer, progress).await?;
        let Some(to) = answer.location.as_ref().filter(|_| check.follow_redirects && answer.is_redirect())
        else {
            return Ok(judge(check, &answer));
        };
        if asked.len() == REDIRECTS {
            return Err(Failure::TooManyRedirects);
        }
        asked.push((question.method.clone(), question.location.clone()));
        question.redirect(answer.status, to)?;
        if asked.contains(&(question.method.clone(), question.location.clone())) {
            return Err(Failure::Circle(question.location.to_string()));
        }
    }
}

impl Question<'_> {
    async fn ask(&self, dialer: &Dialer, progress: &Progress) -> Result<Answer, Failure> {
        let tls = self.check.tls.as_ref();
        let stream = dialer.stream(&self.location.target, tls, Protocol::Http1, progress).await?;
        progress.at(Phase::Answer);
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(ANSWER_HEAD_BYTES)
            .max_headers(ANSWER_HEADERS)
            .handshake(TokioIo::new(stream))
            .await?;
        let request = self.request();
        let exchange = async move {
            let (head, body) = sender.send_request(request).await?.into_parts();
            progress.at(Phase::Body);
            let body = beginning(body).await?;
            Ok(Answer { status: head.status, location: head.headers.get(header::LOCATION).cloned(), body })
        };
        beside(connection, exchange).await
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.location.path.clone());
        *request.headers_mut() = self.headers.clone();
        let host = request.headers_mut().entry(header::HOST);
        host.or_insert_with(|| self.location.authority.clone());
        request
    }

    /// Asks the next time what an answer redirects to, as browsers do (RFC 9110 §15.4).
    fn redirect(&mut self, status: StatusCode, to: &HeaderValue) -> Result<(), Failure> {
        let location = self.location.redirect(to.as_bytes()).map_err(|why| Failure::Redirect {
            to: String::from_utf8_lossy(to.as_bytes()).into_owned(),
            why,
        })?;
        let see_other = status == StatusCode::SEE_OTHER && self.method != Method::HEAD;
        let moved = matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND);
        if see_other || moved && self.method == Method::POST {
            self.method = Method::GET;
            self.body = Bytes::new();
            self.headers.remove(header::CONTENT_TYPE);
        }
        if location.target != self.location.target {
            // Another port of the host may be somebody else.
            for secret in [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION] {
                self.headers.remove(secret);
            }
        }
        self.location = location;
        Ok(())
    }
}

impl Answer {
    /// Whether it says where else to ask.
    fn is_redirect(&self) -> bool {
        matches!(
            self.status,
            StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT
        )
    }
}

/// As much of a body as is looked at. The rest is not read.
async fn beginning(mut body: Incoming) -> Result<Vec<u8>, Failure> {
    let mut beginning = Vec::new();
    while beginning.len() < OUTPUT_BYTES {
        let Some(frame) = body.frame().await else { break };
        if let Some(bytes) = frame?.data_ref() {
            let wanted = bytes.len().min(OUTPUT_BYTES - beginning.len());
            beginning.extend_from_slice(&bytes[..wanted]);
        }
    }
    Ok(beginning)
}

fn judge(check: &Http, answer: &Answer) -> Verdict {
    let reason = answer.status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
    let done = format!("HTTP {} {}: {}{reason}", check.method, check.location, answer.status.as_str());
    if !check.expect_status.contain(answer.status.as_u16()) {
        let status = match answer.status {
            StatusCode::TOO_MANY_REQUESTS => Status::Warning,
            _ => Status::Critical,
        };
        return Verdict::quoting(status, &format!("{done}, expected {}", check.expect_status), &answer.body);
    }
    if !has(&answer.body, check.expect_body.as_bytes()) {
        let done = format!("{done}, but the first 4 KiB of the body are without \"{}\"", check.expect_body);
        return Verdict::quoting(Status::Critical, &done, &answer.body);
    }
    Verdict::quoting(Status::Passing, &done, &answer.body)
}
