//! A definition that was found to be sound: what comes from outside is parsed here and trusted behind. Nothing is connected to.

use std::fmt;

use bytes::Bytes;
use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use rustls_pki_types::ServerName;

use crate::limits::{
    BODY_BYTES, EXPECT_BYTES, HEADER_BYTES, HEADERS, PAYLOAD_BYTES, SCRIPT_BYTES, SERVICE_BYTES,
    STATUS_RANGES, VARIABLE_BYTES, VARIABLES,
};
use crate::location::Location;
use crate::statuses::Statuses;
use crate::target::{Host, Target};

/// What a request says it is from.
const USER_AGENT: HeaderValue = HeaderValue::from_static("konsul-check");

/// One check, ready to be carried out. It shows as what is done: `HTTP GET http://192.0.2.10/health`.
#[derive(Debug, Clone)]
pub struct Probe(pub(crate) Kind);

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Http(Box<Http>),
    Tcp(Tcp),
    Udp(Udp),
    Grpc(Grpc),
    Script(Script),
}

#[derive(Debug, Clone)]
pub(crate) struct Http {
    pub(crate) location: Location,
    pub(crate) method: Method,
    /// All that is sent but the host.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) expect_status: Statuses,
    pub(crate) expect_body: String,
    pub(crate) follow_redirects: bool,
    /// For `https://` alone.
    pub(crate) tls: Option<Tls>,
}

#[derive(Debug, Clone)]
pub(crate) struct Tcp {
    pub(crate) target: Target,
    pub(crate) tls: Option<Tls>,
}

#[derive(Debug, Clone)]
pub(crate) struct Udp {
    pub(crate) target: Target,
    pub(crate) payload: Bytes,
    pub(crate) expect: Bytes,
}

#[derive(Debug, Clone)]
pub(crate) struct Grpc {
    pub(crate) target: Target,
    pub(crate) service: String,
    pub(crate) tls: Option<Tls>,
}

#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) variables: Vec<(String, String)>,
}

/// How TLS is spoken.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) server_name: ServerName<'static>,
    pub(crate) insecure_skip_verify: bool,
}

/// An HTTP check as somebody wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpDefinition {
    /// `http://` or `https://`, host, port and path; up to 2,048 bytes.
    pub url: String,
    /// GET, HEAD, POST, PUT or OPTIONS. Empty: GET.
    pub method: String,
    /// Up to 32, each name once, names and values together up to 4 KiB. Those that frame a message, as `content-length`, are
    /// not for choosing.
    pub headers: Vec<(String, String)>,
    /// Sent with the request; up to 4 KiB.
    pub body: Bytes,
    /// Statuses that pass, each a number or a range (`200-299`): up to 16. Empty: 200-299.
    pub expect_status: Vec<String>,
    /// What the answer's body must have in its first 4 KiB; up to 256 bytes. Empty: any body.
    pub expect_body: String,
    /// Follow up to 5 redirects to the same scheme and host.
    pub follow_redirects: bool,
    /// For `https://`.
    pub tls: TlsDefinition,
}

/// How TLS is spoken, as somebody wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsDefinition {
    /// The name to ask for and to check the certificate against. Empty: the host.
    pub server_name: String,
    /// Take any certificate.
    pub insecure_skip_verify: bool,
}

/// A definition that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// Which field of the definition, as the API's protos name it: `url`, `expect_status[1]`, `tls.server_name`.
    pub field: String,
    /// What is wrong with it, and how to mend it.
    pub problem: String,
}

impl Invalid {
    fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

impl Probe {
    /// A check that asks an HTTP server.
    ///
    /// # Errors
    /// [`Invalid`] for what [`HttpDefinition`] does not allow, and for a URL with a user name, a password or a fragment.
    pub fn http(definition: &HttpDefinition) -> Result<Self, Invalid> {
        let location = Location::parse(&definition.url).map_err(|problem| Invalid::new("url", problem))?;
        let method = method(&definition.method)?;
        let headers = headers(&definition.headers)?;
        at_most("body", definition.body.len(), BODY_BYTES)?;
        if method == Method::HEAD && !definition.expect_body.is_empty() {
            return Err(Invalid::new(
                "expect_body",
                "must be empty with HEAD, which is answered without a body",
            ));
        }
        let expect_status = statuses(&definition.expect_status)?;
        at_most("expect_body", definition.expect_body.len(), EXPECT_BYTES)?;
        let secure = location.is_secure().then(|| tls(&definition.tls, &location.target.host));
        let tls = secure.transpose()?;
        Ok(Self(Kind::Http(Box::new(Http {
            location,
            method,
            headers,
            body: definition.body.clone(),
            expect_status,
            expect_body: definition.expect_body.clone(),
            follow_redirects: definition.follow_redirects,
            tls,
        }))))
    }

    /// A check that opens a TCP connection, does a TLS handshake if `tls` is there, and closes it.
    ///
    /// # Errors
    /// [`Invalid`] when the address is not `host:port`, or the server name none.
    pub fn tcp(address: &str, with_tls: Option<&TlsDefinition>) -> Result<Self, Invalid> {
        let target = target(address)?;
        let tls = with_tls.map(|definition| tls(definition, &target.host)).transpose()?;
        Ok(Self(Kind::Tcp(Tcp { target, tls })))
    }

    /// A check that sends a datagram of up to 512 bytes. With `expect`, up to 256 bytes, it must be answered, with this in the first
    /// 4 KiB; without, it must only not be refused.
    ///
    /// # Errors
    /// [`Invalid`] when the address is not `host:port`, or something is too long.
    pub fn udp(address: &str, payload: Bytes, expect: Bytes) -> Result<Self, Invalid> {
        let target = target(address)?;
        at_most("payload", payload.len(), PAYLOAD_BYTES)?;
        at_most("expect", expect.len(), EXPECT_BYTES)?;
        Ok(Self(Kind::Udp(Udp { target, payload, expect })))
    }

    /// A check that asks a gRPC server's health service (`grpc.health.v1`) for a service, by a name of up to 256 bytes; empty: for
    /// the server as a whole.
    ///
    /// # Errors
    /// [`Invalid`] when the address is not `host:port`, the server name none, or the service's name too long.
    pub fn grpc(address: &str, service: &str, with_tls: Option<&TlsDefinition>) -> Result<Self, Invalid> {
        let target = target(address)?;
        at_most("service", service.len(), SERVICE_BYTES)?;
        let tls = with_tls.map(|definition| tls(definition, &target.host)).transpose()?;
        Ok(Self(Kind::Grpc(Grpc { target, service: service.to_owned(), tls })))
    }

    /// A check by a script that the operator's configuration names. It is told what it checks by `variables`, each handed to it
    /// as `KONSUL_CHECK_<NAME>`: up to 32, together up to 4 KiB, names of A-Z, 0-9 and `_`, values without NUL.
    ///
    /// # Errors
    /// [`Invalid`] when the name is empty or longer than 128 bytes, or a variable is not as said. Whether there is such a script is
    /// for the [`Prober`](crate::Prober) to say.
    pub fn script(name: &str, variables: &[(String, String)]) -> Result<Self, Invalid> {
        if name.is_empty() {
            return Err(Invalid::new("script", "must name a script of the servers' configuration"));
        }
        at_most("script", name.len(), SCRIPT_BYTES)?;
        if variables.len() > VARIABLES {
            return Err(Invalid::new("variables", format!("must not be more than {VARIABLES}")));
        }
        at_most("variables", bytes_of(variables), VARIABLE_BYTES)?;
        for (name, value) in variables {
            let sound = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
            if name.is_empty() || !name.bytes().all(sound) || value.contains('\0') {
                return Err(Invalid::new(
                    "variables",
                    "must have names of A-Z, 0-9 and _ and values without NUL",
                ));
            }
        }
        Ok(Self(Kind::Script(Script { name: name.to_owned(), variables: variables.to_vec() })))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Http(http) => write!(f, "HTTP {} {}", http.method, http.location),
            Kind::Tcp(tcp) => write!(f, "TCP connect {}", tcp.target),
            Kind::Udp(udp) => write!(f, "UDP {}", udp.target),
            Kind::Grpc(grpc) if grpc.service.is_empty() => write!(f, "gRPC {}", grpc.target),
            Kind::Grpc(grpc) => write!(f, "gRPC {} {}", grpc.target, grpc.service),
            Kind::Script(script) => write!(f, "script {}", script.name),
        }
    }
}

fn target(address: &str) -> Result<Target, Invalid> {
    Target::parse(address).map_err(|problem| Invalid::new("address", problem))
}

fn method(text: &str) -> Result<Method, Invalid> {
    match text {
        "" | "GET" => Ok(Method::GET),
        "HEAD" => Ok(Method::HEAD),
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "OPTIONS" => Ok(Method::OPTIONS),
        _ => Err(Invalid::new("method", "must be GET, HEAD, POST, PUT or OPTIONS")),
    }
}

fn statuses(texts: &[String]) -> Result<Statuses, Invalid> {
    if texts.len() > STATUS_RANGES {
        return Err(Invalid::new("expect_status", format!("must not be more than {STATUS_RANGES} ranges")));
    }
    Statuses::parse(texts)
        .map_err(|(index, problem)| Invalid::new(format!("expect_status[{index}]"), problem))
}

/// The headers of a request: those that are asked for, and ours where they leave room.
fn headers(asked: &[(String, String)]) -> Result<HeaderMap, Invalid> {
    if asked.len() > HEADERS {
        return Err(Invalid::new("headers", format!("must not be more than {HEADERS}")));
    }
    at_most("headers", bytes_of(asked), HEADER_BYTES)?;
    let mut headers = HeaderMap::with_capacity(asked.len() + 4);
    for (name, value) in asked {
        // The name may be anything, so that it is told as Rust would write it, without control characters.
        let refuse = |problem: &str| Invalid::new(format!("headers[{name:?}]"), problem);
        let known = HeaderName::try_from(name)
            .map_err(|_| refuse("must be a header's name: letters, digits and !#$%&'*+-.^_`|~"))?;
        if FRAMING.contains(&known) {
            return Err(refuse("is decided by the check itself"));
        }
        let value = HeaderValue::try_from(value)
            .map_err(|_| refuse("must have a value without line ends and control characters"))?;
        if headers.insert(known, value).is_some() {
            return Err(refuse("is there twice: the case of letters makes no difference"));
        }
    }
    headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
    headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(headers)
}

/// What tells where a message ends, or what becomes of its connection.
const FRAMING: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

fn tls(definition: &TlsDefinition, host: &Host) -> Result<Tls, Invalid> {
    let server_name = match definition.server_name.as_str() {
        "" => host.server_name(),
        name => ServerName::try_from(name.to_owned()).map_err(|_| "must be a DNS name or an IP address"),
    };
    let server_name = server_name.map_err(|problem| Invalid::new("tls.server_name", problem))?;
    Ok(Tls { server_name, insecure_skip_verify: definition.insecure_skip_verify })
}

fn bytes_of(pairs: &[(String, String)]) -> usize {
    pairs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

fn at_most(field: &str, bytes: usize, most: usize) -> Result<(), Invalid> {
    if bytes > most {
        Err(Invalid::new(field, format!("must not be longer than {most} bytes")))
    } else {
        Ok(())
    }
}
