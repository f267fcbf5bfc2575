//! Service discovery for Prometheus over HTTP: `/discovery/prometheus` tells a service's instances in the format of http_sd
//! (<https://prometheus.io/docs/prometheus/latest/http_sd/>), answered from the [`Directory`] that DNS is answered from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use serde::Serialize;

use crate::dns::{Address, Directory, Health, Instance};

/// Most services of one request.
const SERVICES: usize = 64;
/// Most tags and healths of one request.
const SELECTED: usize = 64;
/// Most bytes of a query.
const QUERY_BYTES: usize = 8 << 10;

/// The page, answering from `directory`.
pub fn router(directory: Arc<dyn Directory>) -> Router {
    Router::new().route("/discovery/prometheus", get(prometheus)).with_state(directory)
}

/// What is asked for.
#[derive(Debug)]
struct Wanted<'q> {
    namespace: Cow<'q, str>,
    services: Vec<Cow<'q, str>>,
    tags: Vec<Cow<'q, str>>,
    health: Vec<Health>,
    port: Option<Cow<'q, str>>,
}

/// One target with what is known of it.
#[derive(Debug, Serialize)]
struct TargetGroup {
    targets: [String; 1],
    labels: BTreeMap<String, String>,
}

async fn prometheus(State(directory): State<Arc<dyn Directory>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let wanted = match parse(&query) {
        Ok(wanted) => wanted,
        Err(problem) => return (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response(),
    };
    let mut groups = Vec::new();
    for name in &wanted.services {
        // One that is not there has no targets; tomorrow it may.
        let Some(service) = directory.service(&wanted.namespace, name) else { continue };
        groups.extend(service.instances().iter().filter_map(|instance| group(&wanted, name, instance)));
    }
    match serde_json::to_string(&groups) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn parse(query: &str) -> Result<Wanted<'_>, String> {
    if query.len() > QUERY_BYTES {
        return Err(format!("the query must be at most {QUERY_BYTES} bytes"));
    }
    let mut wanted = Wanted {
        namespace: "default".into(),
        services: Vec::new(),
        tags: Vec::new(),
        health: Vec::new(),
        port: None,
    };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "service" => wanted.services.push(value),
            "namespace" => wanted.namespace = value,
            "tag" => wanted.tags.push(value),
            "port" => wanted.port = Some(value),
            "health" => wanted.health.push(health(&value)?),
            _ => {
                return Err(format!(
                    "unknown parameter {name:?}: there is service, namespace, tag, port, health"
                ));
            }
        }
    }
    if !(1..=SERVICES).contains(&wanted.services.len()) {
        return Err(format!("name 1 to {SERVICES} services: /discovery/prometheus?service=web"));
    }
    if wanted.tags.len() > SELECTED || wanted.health.len() > SELECTED {
        return Err(format!("name at most {SELECTED} tags and healths"));
    }
    Ok(wanted)
}

fn health(text: &str) -> Result<Health, String> {
    match text {
        "passing" => Ok(Health::Passing),
        "warning" => Ok(Health::Warning),
        "critical" => Ok(Health::Critical),
        _ => Err(format!("health is {text:?} and must be passing, warning or critical")),
    }
}

/// An instance as a target, if it is meant and has the port that is meant.
fn group(wanted: &Wanted<'_>, service: &str, instance: &Instance) -> Option<TargetGroup> {
    let has = |tag: &Cow<'_, str>| instance.tags.iter().any(|found| **found == **tag);
    let is_meant =
        wanted.tags.iter().all(has) && (wanted.health.is_empty() || wanted.health.contains(&instance.health));
    if !is_meant {
        return None;
    }
    let port = match &wanted.port {
        None => instance.port,
        Some(wanted) => instance.ports.iter().find(|(name, _)| **name == **wanted)?.1,
    };
    let host = match &instance.address {
        Address::Ip(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        Address::Ip(std::net::IpAddr::V4(address)) => address.to_string(),
        Address::Name(name) => name.trim_end_matches('.').to_owned(),
    };
    let target = if port == 0 { host } else { format!("{host}:{port}") };
    let known = [
        ("namespace", wanted.namespace.to_string()),
        ("service", service.to_owned()),
        ("instance", instance.id.to_string()),
        ("health", health_name(instance.health).to_owned()),
        // With a comma before and behind each, as in Prometheus' own discoveries: one pattern finds any of them.
        ("tags", format!(",{},", instance.tags.join(","))),
    ];
    let mut labels: BTreeMap<String, String> =
        known.into_iter().map(|(name, value)| (format!("__meta_konsul_{name}"), value)).collect();
    for (name, value) in &instance.metadata {
        labels.insert(format!("__meta_konsul_metadata_{}", label(name)), value.to_string());
    }
    Some(TargetGroup { targets: [target], labels })
}

fn health_name(health: Health) -> &'static str {
    match health {
        Health::Passing => "passing",
        Health::Warning => "warning",
        Health::Critical => "critical",
        Health::Maintenance => "maintenance",
    }
}

/// A name as a part of a label's name: what it may not have is an underscore.
fn label(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
