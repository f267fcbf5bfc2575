//! What a server shows beside its own API: health, reflection, compression, metrics.

use std::collections::BTreeMap;

use konsul_proto::v1::{GetRequest, PutRequest, WatchRequest, WatchTarget, watch_target};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::server::Server;

/// Every method of the API and of gRPC's own services.
const SERVICES: [&str; 2] = ["konsul.v1.KV", "konsul.v1.Admin"];

#[tokio::test]
async fn health_tells_of_the_server_and_of_each_service() {
    let server = Server::start();
    let mut health = HealthClient::new(server.channel());
    for service in SERVICES.into_iter().chain([""]) {
        let check = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(check).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let unknown = HealthCheckRequest { service: "konsul.v1.Nope".to_owned() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(server.page("/health/live").unwrap(), (200, "ok\n".to_owned()));
    let (status, text) = server.page("/health/ready").unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((status, lines[0]), (200, "ok"));
    assert!(lines[1].starts_with("term ") && lines[2].contains("leader, this member, 0 behind"), "{text}");
    assert_eq!(server.page("/nope").unwrap().0, 404);
}

/// Asks one version of reflection for its services and for the file of each.
macro_rules! reflection_test {
    ($name:ident, $version:ident) => {
        #[tokio::test]
        async fn $name() {
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;

            let server = Server::start();
            let mut client = ServerReflectionClient::new(server.channel());
            let mut requests = vec![MessageRequest::ListServices(String::new())];
            requests.extend(SERVICES.map(|name| MessageRequest::FileContainingSymbol(name.to_owned())));
            let requests = requests.into_iter().map(|request| ServerReflectionRequest {
                host: String::new(),
                message_request: Some(request),
            });
            let requests = futures_util::stream::iter(requests.collect::<Vec<_>>());
            let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
            let mut next = async || answers.message().await.unwrap().unwrap().message_response.unwrap();
            let MessageResponse::ListServicesResponse(list) = next().await else { panic!("no list") };
            for service in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
                assert!(list.service.iter().any(|found| found.name == service), "{service}: {list:?}");
            }
            for service in SERVICES {
                let MessageResponse::FileDescriptorResponse(files) = next().await else { panic!("no file") };
                let name = service.rsplit('.').next().unwrap();
                let has = |file: &Vec<u8>| file.windows(name.len()).any(|bytes| bytes == name.as_bytes());
                assert!(files.file_descriptor_proto.iter().any(has), "{service}");
            }
        }
    };
}

reflection_test!(reflection_v1_describes_the_api, v1);
reflection_test!(reflection_v1alpha_describes_the_api, v1alpha);

#[tokio::test]
async fn answers_are_compressed_for_who_accepts_it() {
    let server = Server::start();
    let value = vec![b'a'; 1 << 20];
    for (encoding, name) in [(CompressionEncoding::Gzip, "gzip"), (CompressionEncoding::Zstd, "zstd")] {
        let mut kv = server.kv().send_compressed(encoding).accept_compressed(encoding);
        let put = PutRequest { key: name.to_owned(), value: value.clone().into(), ..PutRequest::default() };
        kv.put(put).await.unwrap();
        let get = GetRequest { key: name.to_owned(), ..GetRequest::default() };
        let answer = kv.get(get.clone()).await.unwrap();
        assert_eq!(answer.metadata().get("grpc-encoding").map(|v| v.to_str().unwrap()), Some(name));
        assert_eq!(answer.into_inner().entry.unwrap().value, value);
        let plain = server.kv().get(get).await.unwrap();
        assert!(plain.metadata().get("grpc-encoding").is_none());
        assert_eq!(plain.into_inner().entry.unwrap().value, value);

        let selector = Some(watch_target::Selector::Key(name.to_owned()));
        let target = WatchTarget { id: 1, selector, initial_state: true, ..WatchTarget::default() };
        let mut watch = kv.watch(WatchRequest { targets: vec![target], ..Default::default() }).await.unwrap();
        assert_eq!(watch.metadata().get("grpc-encoding").map(|v| v.to_str().unwrap()), Some(name));
        let entries = loop {
            let message = watch.get_mut().message().await.unwrap().unwrap();
            if !message.entries.is_empty() {
                break message.entries;
            }
        };
        assert_eq!(entries[0].value, value);
    }
}

/// Families of Prometheus' text format 0.0.4, with their type and samples; each line must be well-formed.
fn parse(text: &str) -> BTreeMap<String, (String, Vec<(String, f64)>)> {
    let mut families: BTreeMap<String, (String, Vec<(String, f64)>)> = BTreeMap::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines().filter(|line| !line.starts_with("# HELP ")) {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(
                families.insert(name.to_owned(), (kind.to_owned(), Vec::new())).is_none(),
                "{name} comes twice"
            );
            current = name.to_owned();
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let (kind, samples) = families.get_mut(&current).unwrap();
        let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(
            suffixes.iter().any(|suffix| name == format!("{current}{suffix}")),
            "{line} within {current}"
        );
        assert_eq!(series.contains('{'), series.ends_with("\"}"), "{line}");
        samples.push((series.to_owned(), value.parse().unwrap()));
    }
    families
}

#[tokio::test]
async fn metrics_tell_what_happened() {
    const PUTS: u64 = 20;
    let server = Server::start();
    let mut kv = server.kv();
    let selector = Some(watch_target::Selector::Prefix(String::new()));
    let target = WatchTarget { id: 1, selector, ..WatchTarget::default() };
    let watch = kv.watch(WatchRequest { targets: vec![target], ..Default::default() }).await.unwrap();
    for n in 0..PUTS {
        let put = PutRequest { key: n.to_string(), value: vec![1; 1000].into(), ..PutRequest::default() };
        kv.put(put).await.unwrap();
    }
    let get = |key: &str| GetRequest { key: key.to_owned(), ..GetRequest::default() };
    kv.get(get("0")).await.unwrap();
    kv.get(get("absent")).await.unwrap_err();

    let (status, text) = server.page("/metrics").unwrap();
    assert_eq!(status, 200);
    let families = parse(&text);
    let sample = |series: &str| {
        let all = families.values().flat_map(|(_, samples)| samples);
        all.clone().find(|(name, _)| name == series).unwrap_or_else(|| panic!("no {series} in\n{text}")).1
    };
    let puts = PUTS as f64;
    let rpc =
        |method: &str, code: &str| format!("konsul_rpc_calls_total{{code=\"{code}\",method=\"/{method}\"}}");
    assert_eq!(sample(&rpc("konsul.v1.KV/Put", "Ok")), puts);
    assert_eq!(sample(&rpc("konsul.v1.KV/Get", "Ok")), 1.0);
    assert_eq!(sample(&rpc("konsul.v1.KV/Get", "NotFound")), 1.0);
    assert_eq!(sample("konsul_rpc_in_flight{method=\"/konsul.v1.KV/Watch\"}"), 1.0);
    assert_eq!(sample("konsul_rpc_in_flight{method=\"/konsul.v1.KV/Put\"}"), 0.0);
    assert_eq!(sample("konsul_rpc_duration_seconds_count{method=\"/konsul.v1.KV/Put\"}"), puts);
    assert_eq!(sample("konsul_revision"), puts);
    assert_eq!(sample("konsul_store_entries"), puts);
    assert_eq!(sample("konsul_watch_streams"), 1.0);
    assert_eq!(sample("konsul_watch_targets"), 1.0);
    assert_eq!(sample("konsul_watch_lag_revisions"), 0.0);
    assert_eq!(sample("konsul_commit_batch_size_sum"), puts);
    assert!((1.0..=puts).contains(&sample("konsul_commit_batch_size_count")));
    assert!(sample("konsul_commit_duration_seconds_count") >= 1.0);
    assert!(sample("konsul_commit_duration_seconds_sum") > 0.0);
    let used = sample("konsul_store_used_bytes");
    assert!((20_000.0..10e6).contains(&used), "{used}");
    assert!(sample("konsul_store_file_bytes") >= used);
    let (resident, anonymous) =
        (sample("process_resident_memory_bytes"), sample("konsul_process_anonymous_memory_bytes"));
    assert!(resident > anonymous && anonymous > 1e6, "{resident}, {anonymous}");
    assert!(sample("process_cpu_seconds_total") > 0.0);
    let version = konsul_server::VERSION;
    assert_eq!(sample(&format!("konsul_build_info{{version=\"{version}\"}}")), 1.0);
    for (name, (kind, samples)) in &families {
        assert!(!samples.is_empty() || kind == "counter", "{name} has no sample");
        assert!(samples.iter().all(|(_, value)| *value >= 0.0), "{name}: {samples:?}");
        let buckets: Vec<f64> = samples
            .iter()
            .filter(|(s, _)| s.starts_with(&format!("{name}_bucket{{le")))
            .map(|s| s.1)
            .collect();
        assert!(buckets.is_sorted(), "{name}: {buckets:?}");
    }
    drop(watch);
}
