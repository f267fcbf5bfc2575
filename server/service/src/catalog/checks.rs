//! Checks, from the API's messages to what Commands carry and back.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use konsul_proto::v1::{self, check::Kind};
use konsul_state::command::{
    self, CheckDefinition, CheckSet, GrpcProbe, Health, HttpProbe, InstanceKey, Item, NamedCheck, TcpProbe,
    TlsOptions, UdpProbe, check_definition,
};

use super::parse::{at_most, ident, label, too_many};
use crate::convert;
use crate::error::ServiceError;
use crate::health;
use crate::limits;
use crate::parse;

/// How often active checks are carried out that don't say, and how long they may take.
const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);

/// The checks of an instance or a node.
pub(super) fn set(field: &str, checks: Vec<v1::Check>, of_node: bool) -> Result<CheckSet, ServiceError> {
    if checks.len() > limits::CHECKS {
        return Err(too_many(field, limits::CHECKS));
    }
    let mut ids = HashSet::with_capacity(checks.len());
    let mut set = CheckSet::default();
    for (i, check) in checks.into_iter().enumerate() {
        let check = self::check(&format!("{field}[{i}]."), check, of_node)?;
        if !ids.insert(check.id.clone()) {
            let problem =
                "must differ from the ids of the checks before it; those without one are named by their kind";
            return Err(ServiceError::field(format!("{field}[{i}].id"), problem));
        }
        set.checks.push(check);
    }
    Ok(set)
}

/// The place of the first alias check that follows this instance.
pub(super) fn follows(set: &CheckSet, service: &str, id: &str) -> Option<usize> {
    set.checks.iter().position(|check| {
        let kind = check.definition.as_ref().and_then(|definition| definition.kind.as_ref());
        matches!(kind, Some(check_definition::Kind::Alias(key)) if key.service == service && key.id == id)
    })
}

fn check(path: &str, check: v1::Check, of_node: bool) -> Result<NamedCheck, ServiceError> {
    let Some(kind) = check.kind else {
        return Err(ServiceError::field(format!("{path}kind"), "must be one of the kinds of checks"));
    };
    let id = if check.id.is_empty() { kind_name(&kind).to_owned() } else { check.id };
    ident(&format!("{path}id"), &id)?;
    at_most(&format!("{path}name"), &check.name, limits::CHECK_NAME_BYTES)?;
    let is_active = !matches!(kind, Kind::Ttl(_) | Kind::Alias(_));
    if of_node && matches!(kind, Kind::Alias(_)) {
        return Err(ServiceError::field(format!("{path}alias"), "must be a check of an instance"));
    }
    let duration = |field: &str, given: Option<prost_types::Duration>, range| {
        given.map(|d| parse::duration(&format!("{path}{field}"), &d, range)).transpose()
    };
    let interval = duration("interval", check.interval, limits::CHECK_INTERVAL)?;
    let timeout = duration("timeout", check.timeout, limits::CHECK_TIMEOUT)?;
    let deregister = "deregister_critical_after";
    let deregister_after = duration(deregister, check.deregister_critical_after, limits::DEREGISTER_AFTER)?;
    if of_node && deregister_after.is_some() {
        return Err(ServiceError::field(format!("{path}{deregister}"), "must be unset for a node"));
    }
    let counts = [check.passes_after, check.fails_after, check.warns_after];
    for (name, count) in ["passes_after", "fails_after", "warns_after"].into_iter().zip(counts) {
        if count > limits::CHECK_COUNT {
            let problem = format!("must be at most {}", limits::CHECK_COUNT);
            return Err(ServiceError::field(format!("{path}{name}"), problem));
        }
        if !is_active && count > 0 {
            return Err(ServiceError::field(format!("{path}{name}"), "must be unset but for active checks"));
        }
    }
    let [passes_after, fails_after, warns_after] = counts;
    if warns_after > fails_after.max(1) {
        return Err(ServiceError::field(format!("{path}warns_after"), "must be at most fails_after"));
    }
    let (interval, timeout) = match is_active {
        true => times(path, interval, timeout)?,
        false if interval.or(timeout).is_some() => {
            return Err(ServiceError::field(
                format!("{path}interval"),
                "must be unset but for active checks",
            ));
        }
        false => (Duration::ZERO, Duration::ZERO),
    };
    let definition = CheckDefinition {
        name: check.name,
        interval_ms: interval.as_millis() as u64,
        timeout_ms: timeout.as_millis() as u64,
        passes_after: if is_active { passes_after.max(1) } else { 0 },
        fails_after: if is_active { fails_after.max(1) } else { 0 },
        warns_after,
        deregister_after_ms: deregister_after.unwrap_or_default().as_millis() as u64,
        initial: initial(path, check.initial)?.into(),
        kind: Some(sound(path, self::kind(path, kind)?)?),
    };
    Ok(NamedCheck { id, definition: Some(definition) })
}

fn times(
    path: &str,
    interval: Option<Duration>,
    timeout: Option<Duration>,
) -> Result<(Duration, Duration), ServiceError> {
    let interval = interval.unwrap_or(INTERVAL);
    let timeout = timeout.unwrap_or(TIMEOUT.min(interval));
    if timeout > interval {
        return Err(ServiceError::field(format!("{path}timeout"), "must not be longer than the interval"));
    }
    Ok((interval, timeout))
}

fn initial(path: &str, status: i32) -> Result<Health, ServiceError> {
    match v1::HealthStatus::try_from(status) {
        Ok(v1::HealthStatus::Unspecified | v1::HealthStatus::Critical) => Ok(Health::Critical),
        Ok(v1::HealthStatus::Passing) => Ok(Health::Passing),
        Ok(v1::HealthStatus::Warning) => Ok(Health::Warning),
        Ok(v1::HealthStatus::Maintenance) | Err(_) => {
            Err(ServiceError::field(format!("{path}initial"), "must be PASSING, WARNING or CRITICAL"))
        }
    }
}

/// What a check without an id is called.
fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Ttl(_) => "ttl",
        Kind::Http(_) => "http",
        Kind::Tcp(_) => "tcp",
        Kind::Udp(_) => "udp",
        Kind::Grpc(_) => "grpc",
        Kind::Script(_) => "script",
        Kind::Alias(_) => "alias",
    }
}

/// What is done, not looked at yet ([`sound`] does). Whether an address may be connected to, and what answers there, is found out by who connects: that is a result like any other.
fn kind(path: &str, kind: Kind) -> Result<check_definition::Kind, ServiceError> {
    Ok(match kind {
        Kind::Ttl(ttl) => {
            let field = format!("{path}ttl.ttl");
            let ttl = ttl.ttl.ok_or_else(|| ServiceError::field(&field, "must be set"))?;
            check_definition::Kind::TtlMs(parse::ttl_ms(&field, &ttl)?)
        }
        Kind::Http(http) => check_definition::Kind::Http(self::http(http)),
        Kind::Tcp(v1::TcpCheck { address, tls }) => {
            check_definition::Kind::Tcp(TcpProbe { address, tls: tls.map(self::tls) })
        }
        Kind::Udp(v1::UdpCheck { address, payload, expect }) => {
            check_definition::Kind::Udp(UdpProbe { address, payload, expect })
        }
        Kind::Grpc(v1::GrpcCheck { address, service, tls }) => {
            check_definition::Kind::Grpc(GrpcProbe { address, service, tls: tls.map(self::tls) })
        }
        Kind::Script(script) => check_definition::Kind::Script(script.script),
        Kind::Alias(alias) => {
            label(&format!("{path}alias.service"), &alias.service)?;
            ident(&format!("{path}alias.instance"), &alias.instance)?;
            check_definition::Kind::Alias(InstanceKey { service: alias.service, id: alias.instance })
        }
    })
}

/// The kind again, if it is one that can be carried out.
fn sound(path: &str, kind: check_definition::Kind) -> Result<check_definition::Kind, ServiceError> {
    let field = match &kind {
        check_definition::Kind::Script(_) => return Err(ServiceError::ScriptsDisabled),
        check_definition::Kind::Http(_) => "http",
        check_definition::Kind::Tcp(_) => "tcp",
        check_definition::Kind::Udp(_) => "udp",
        check_definition::Kind::Grpc(_) => "grpc",
        check_definition::Kind::TtlMs(_) | check_definition::Kind::Alias(_) => return Ok(kind),
    };
    match health::probe(&kind) {
        Ok(_) => Ok(kind),
        Err(invalid) => Err(ServiceError::field(format!("{path}{field}.{}", invalid.field), invalid.problem)),
    }
}

fn http(http: v1::HttpCheck) -> HttpProbe {
    let v1::HttpCheck { url, method, headers, body, expect_status, expect_body, follow_redirects, tls } =
        http;
    let method = if method.is_empty() { "GET".to_owned() } else { method };
    // In an order of their own: a map has none.
    let headers: BTreeMap<String, String> = headers.into_iter().collect();
    let headers = headers.into_iter().map(|(name, value)| Item { name, value }).collect();
    let tls = tls.map(self::tls);
    HttpProbe { url, method, headers, body, expect_status, expect_body, follow_redirects, tls }
}

fn tls(tls: v1::TlsOptions) -> TlsOptions {
    let v1::TlsOptions { server_name, insecure_skip_verify } = tls;
    TlsOptions { server_name, insecure_skip_verify }
}

/// A check as the API shows it.
pub(crate) fn shown(id: &str, definition: CheckDefinition) -> v1::Check {
    let is_active = definition.interval_ms > 0;
    let active_ms = |ms: u64| is_active.then(|| convert::duration_ms(ms)).flatten();
    let initial = convert::health(definition.initial()).into();
    v1::Check {
        id: id.to_owned(),
        name: definition.name,
        interval: active_ms(definition.interval_ms),
        timeout: active_ms(definition.timeout_ms),
        passes_after: definition.passes_after,
        fails_after: definition.fails_after,
        warns_after: definition.warns_after,
        deregister_critical_after: (definition.deregister_after_ms > 0)
            .then(|| convert::duration_ms(definition.deregister_after_ms))
            .flatten(),
        initial,
        kind: definition.kind.map(shown_kind),
    }
}

fn shown_kind(kind: check_definition::Kind) -> Kind {
    let tls = |tls: Option<command::TlsOptions>| {
        tls.map(|tls| v1::TlsOptions {
            server_name: tls.server_name,
            insecure_skip_verify: tls.insecure_skip_verify,
        })
    };
    match kind {
        check_definition::Kind::TtlMs(ms) => Kind::Ttl(v1::TtlCheck { ttl: convert::duration_ms(ms) }),
        check_definition::Kind::Http(http) => Kind::Http(v1::HttpCheck {
            url: http.url,
            method: http.method,
            headers: http.headers.into_iter().map(|item| (item.name, item.value)).collect(),
            body: http.body,
            expect_status: http.expect_status,
            expect_body: http.expect_body,
            follow_redirects: http.follow_redirects,
            tls: tls(http.tls),
        }),
        check_definition::Kind::Tcp(tcp) => {
            Kind::Tcp(v1::TcpCheck { address: tcp.address, tls: tls(tcp.tls) })
        }
        check_definition::Kind::Udp(udp) => {
            Kind::Udp(v1::UdpCheck { address: udp.address, payload: udp.payload, expect: udp.expect })
        }
        check_definition::Kind::Grpc(grpc) => {
            Kind::Grpc(v1::GrpcCheck { address: grpc.address, service: grpc.service, tls: tls(grpc.tls) })
        }
        check_definition::Kind::Script(script) => Kind::Script(v1::ScriptCheck { script }),
        check_definition::Kind::Alias(key) => {
            Kind::Alias(v1::AliasCheck { service: key.service, instance: key.id })
        }
    }
}
