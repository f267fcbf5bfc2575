//! What is listed: all of it, each once, however small the pages, and only what is asked for.

use konsul_proto::v1::{self, HealthStatus, InstanceSelector};
use tonic::Code;

use super::{Catalog, all_of, catalog, ids, instance, node};
use crate::harness::refusal;

/// Services s0 to s4 with 7 instances each, every other one tagged `even` and on node n1.
async fn many() -> Catalog {
    let mut c = catalog().await;
    c.client.register(v1::RegisterRequest { node: Some(node("n1")), ..Default::default() }).await.unwrap();
    for service in 0..5 {
        for i in 0..7 {
            let is_even = i % 2 == 0;
            c.register(v1::Instance {
                node: if is_even { "n1".into() } else { String::new() },
                tags: if is_even { vec!["even".into()] } else { vec![] },
                metadata: [("number".to_owned(), i.to_string())].into(),
                ..instance(&format!("s{service}"), &format!("i{i}"))
            })
            .await;
        }
    }
    c
}

async fn pages(c: &mut Catalog, mut request: v1::ListInstancesRequest) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let page = c.client.list_instances(request.clone()).await.unwrap().into_inner();
        let names = page.instances.iter().map(|info| info.instance.as_ref().unwrap());
        found.extend(names.map(|i| format!("{}/{}", i.service, i.id)));
        assert!(page.instances.len() <= request.page_size.max(1) as usize);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return found;
        }
    }
}

#[tokio::test]
async fn pages_of_any_size_come_to_the_same() {
    let mut c = many().await;
    let selected =
        |select: InstanceSelector| v1::ListInstancesRequest { select: Some(select), ..Default::default() };
    let tagged = InstanceSelector { tags: vec!["even".into()], ..Default::default() };
    let numbered =
        InstanceSelector { metadata: [("number".to_owned(), "4".to_owned())].into(), ..Default::default() };
    let filtered = InstanceSelector { filter: "service in ['s1', 's3']".into(), ..Default::default() };
    let on_node = v1::ListInstancesRequest { node: "n1".into(), ..Default::default() };
    let cases = [
        (all_of("s2"), 7),
        (v1::ListInstancesRequest::default(), 35),
        (on_node.clone(), 20),
        (v1::ListInstancesRequest { service: "s1".into(), ..on_node }, 4),
        (selected(tagged.clone()), 20),
        (v1::ListInstancesRequest { service: "s0".into(), ..selected(tagged) }, 4),
        (selected(numbered), 5),
        (selected(filtered), 14),
        (all_of("none"), 0),
    ];
    for (request, count) in cases {
        let whole = pages(&mut c, v1::ListInstancesRequest { page_size: 1_000, ..request.clone() }).await;
        assert_eq!(whole.len(), count, "{request:?}");
        assert!(whole.is_sorted());
        for page_size in [1, 3, 7, 20] {
            let paged = pages(&mut c, v1::ListInstancesRequest { page_size, ..request.clone() }).await;
            assert_eq!(paged, whole, "{page_size} of {request:?}");
        }
    }
}

#[tokio::test]
async fn a_filter_sees_all_of_an_instance() {
    let mut c = catalog().await;
    let request = v1::RegisterRequest {
        node: Some(node("n1")),
        instance: Some(v1::Instance {
            ports: [("metrics".to_owned(), 9090)].into(),
            tags: vec!["canary".into(), "v2".into()],
            metadata: [("zone".to_owned(), "a".to_owned())].into(),
            version: "1.2.3".into(),
            ..instance("web", "web-1")
        }),
        ..Default::default()
    };
    c.client.register(request).await.unwrap();
    let cases = [
        ("service == 'web' && id == 'web-1' && node == 'n1'", true),
        ("address == '192.0.2.10' && port == 8080", true),
        ("ports.metrics == 9090 && ports['metrics'] > 9000", true),
        ("'canary' in tags && metadata.zone == 'a' && zone == 'a'", true),
        ("tags.exists(t, t.startsWith('v')) && tags.all(t, size(t) < 10)", true),
        ("version == '1.2.3' && health == 'passing'", true),
        ("metadata.zone == 'b'", false),
        ("port < 80", false),
        // What fails is false, and not an error.
        ("metadata.nothing == 'x'", false),
        ("port + 'x' == 'y'", false),
        ("port", false),
        // As deep as may be.
        (&format!("{}true{}", "(".repeat(127), ")".repeat(127)), true),
        (&format!("{}true", "!".repeat(254)), true),
        (&format!("true{}", " == true".repeat(31)), true),
        (&format!("tags{}", "[0]".repeat(31)), false),
        (&format!("metadata{}", ".a".repeat(31)), false),
        (&format!("port{} > 0", "+1".repeat(30)), true),
        (&format!("port == 8080{}", " && port == 8080".repeat(40)), true),
        ("version == '((([[[' || true", true),
    ];
    for (filter, is_found) in cases {
        let select = Some(InstanceSelector { filter: filter.into(), ..Default::default() });
        let found = c.instances(v1::ListInstancesRequest { select, ..all_of("web") }).await;
        assert_eq!(!found.is_empty(), is_found, "{filter}");
    }
}

#[tokio::test]
async fn filters_that_cost_too_much_or_are_none_are_refused() {
    let mut c = catalog().await;
    c.register(instance("web", "a")).await;
    let nested = "tags.all(a, tags.all(b, tags.all(c, tags.all(d, a == b && c == d))))";
    let grown = "(tags + tags + tags).map(a, tags + tags).all(b, b.all(c, (tags + tags).all(d, c == d)))";
    let cases = [
        (nested.to_owned(), "FILTER_TOO_COSTLY"),
        (grown.to_owned(), "FILTER_TOO_COSTLY"),
        ("tags.".to_owned(), "INVALID_FIELD"),
        ("password == 'x'".to_owned(), "INVALID_FIELD"),
        ("x".repeat(2_049), "INVALID_FIELD"),
        // What would need a deep stack to be parsed, looked at, or evaluated.
        (format!("{}true{}", "(".repeat(1_000), ")".repeat(1_000)), "INVALID_FIELD"),
        (format!("{}true", "!".repeat(2_000)), "INVALID_FIELD"),
        (format!("{}[]{}", "[".repeat(1_000), "]".repeat(1_000)), "INVALID_FIELD"),
        (format!("tags{}", "[0]".repeat(600)), "INVALID_FIELD"),
        (format!("metadata{}", ".a".repeat(1_000)), "INVALID_FIELD"),
        (format!("port{}", "+1".repeat(1_000)), "INVALID_FIELD"),
        (format!("port == 1{}", "?1:1".repeat(500)), "INVALID_FIELD"),
        // Within the bounds of the text, and too deep to be evaluated.
        (format!("true{}", " == true".repeat(32)), "INVALID_FIELD"),
        (format!("metadata{}", ".a".repeat(120)), "INVALID_FIELD"),
        (format!("port == 1{}:true", "?1:true".repeat(40)), "INVALID_FIELD"),
    ];
    for (filter, reason) in cases {
        let select = Some(InstanceSelector { filter: filter.clone(), ..Default::default() });
        let request = v1::ListInstancesRequest { select, ..all_of("web") };
        let refused = c.client.list_instances(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{filter}");
        assert_eq!(refusal(&refused).reason, reason, "{filter}: {refused:?}");
    }
}

#[tokio::test]
async fn services_are_listed_with_what_their_instances_come_to() {
    let mut c = many().await;
    c.register_in(instance("s1", "bad"), HealthStatus::Critical).await;
    let settings = Some(v1::ServiceSettings { protect_threshold: 50, ..Default::default() });
    let configure = v1::ConfigureServiceRequest { service: "quiet".into(), settings, ..Default::default() };
    c.client.configure_service(configure).await.unwrap();
    for page_size in [1, 2, 100] {
        let mut request = v1::ListServicesRequest { page_size, ..Default::default() };
        let mut services = Vec::new();
        loop {
            let page = c.client.list_services(request.clone()).await.unwrap().into_inner();
            services.extend(page.services);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        let told: Vec<_> = services.iter().map(|s| (s.name.as_str(), s.passing, s.critical)).collect();
        let want = [("quiet", 0, 0), ("s0", 7, 0), ("s1", 7, 1), ("s2", 7, 0), ("s3", 7, 0), ("s4", 7, 0)];
        assert_eq!(told, want, "{page_size}");
        assert_eq!(services[1].tags, ["even"]);
    }
    let request = v1::ListServicesRequest { prefix: "s".into(), page_size: 3, ..Default::default() };
    let page = c.client.list_services(request.clone()).await.unwrap().into_inner();
    assert_eq!(page.services.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["s0", "s1", "s2"]);
    // A token is good for its own request alone.
    let other = v1::ListServicesRequest { page_token: page.next_page_token, ..Default::default() };
    let refused = c.client.list_services(other).await.unwrap_err();
    assert_eq!(refusal(&refused).reason, "INVALID_PAGE_TOKEN");
}

#[tokio::test]
async fn nodes_are_listed_in_pages() {
    let mut c = catalog().await;
    for i in 0..5 {
        let metadata = [("rack".to_owned(), (i % 2).to_string())].into();
        let node = v1::Node { metadata, ..node(&format!("n{i}")) };
        c.client.register(v1::RegisterRequest { node: Some(node), ..Default::default() }).await.unwrap();
    }
    let mut request = v1::ListNodesRequest { page_size: 2, ..Default::default() };
    let mut names = Vec::new();
    loop {
        let page = c.client.list_nodes(request.clone()).await.unwrap().into_inner();
        names.extend(page.nodes.into_iter().map(|info| info.node.unwrap().name));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["n0", "n1", "n2", "n3", "n4"]);
    let metadata = [("rack".to_owned(), "1".to_owned())].into();
    let request = v1::ListNodesRequest { metadata, ..Default::default() };
    let page = c.client.list_nodes(request).await.unwrap().into_inner();
    assert_eq!(page.nodes.len(), 2);
}

#[tokio::test]
async fn namespaces_do_not_see_each_other() {
    let mut c = catalog().await;
    c.register(instance("web", "a")).await;
    let other = v1::RegisterRequest {
        namespace: "other".into(),
        instance: Some(instance("web", "b")),
        ..Default::default()
    };
    c.client.register(other).await.unwrap();
    assert_eq!(c.instances(v1::ListInstancesRequest::default()).await, ["a"]);
    let other = v1::ListInstancesRequest { namespace: "other".into(), ..all_of("web") };
    let found = c.client.list_instances(other).await.unwrap().into_inner();
    assert_eq!(ids(&found.instances), ["b"]);
}
