//! Which instances come first, that a change is seen at once, and who sees what.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use konsul_fronts::dns::settings::Access;
use konsul_fronts::dns::{Directory, Health, Instance, Service, Settings};

use super::fixture::{Fake, Running, crowd, in_health, instance, settings, show};

/// How often each first record was answered, in `rounds` answers.
async fn firsts(server: &Running, asked: &str, rounds: usize) -> HashMap<String, usize> {
    let mut firsts = HashMap::new();
    for _ in 0..rounds {
        let answer = server.ask(asked).await;
        *firsts.entry(answer.answers[0].data.to_string()).or_insert(0) += 1;
    }
    firsts
}

#[tokio::test]
async fn equal_instances_come_first_in_turn() {
    let server = Running::start(settings());
    // With 200 equal chances, that one of three comes first fewer than 20 times in 200 has a chance below one in 10^12.
    let firsts = firsts(&server, "guarded.service.konsul. A", 200).await;
    assert_eq!(firsts.len(), 3, "{firsts:?}");
    assert!(firsts.values().all(|&times| times > 20), "{firsts:?}");
    server.stop().await;
}

/// RFC 2782: weights are in SRV records, and order the other records.
#[tokio::test]
async fn instances_with_more_weight_come_first_more_often() {
    let fake = Fake::default();
    let weighing = |weight, instance| Instance { weight, ..instance };
    let instances =
        vec![weighing(90, instance("a", "192.0.2.1", 1)), weighing(10, instance("b", "192.0.2.2", 1))];
    fake.put("default", "web", Service::new(instances, None, false));
    let server = Running::with(settings(), fake);
    for (kind, heavy) in [("A", "192.0.2.1"), ("SRV", "1 90 1 a.instance.web.service.konsul.")] {
        let firsts = firsts(&server, &format!("web.service.konsul. {kind}"), 200).await;
        let times = firsts.get(heavy).copied().unwrap_or_default();
        assert!((150..200).contains(&times), "{firsts:?}");
    }
    server.stop().await;
}

/// RFC 1034 §3.6.2: of instances that are at names, each answer has one.
#[tokio::test]
async fn aliases_take_turns() {
    let server = Running::start(settings());
    let firsts = firsts(&server, "exts.service.konsul. A", 100).await;
    assert_eq!(firsts.len(), 2, "{firsts:?}");
    assert_eq!(server.ask("exts.service.konsul. A").await.answers.len(), 1);
    server.stop().await;
}

/// Answers that were encoded are never answered once what they were made of has changed.
#[tokio::test]
async fn a_change_is_seen_with_the_next_answer() {
    let server = Running::start(settings());
    for round in 0..50 {
        let address = format!("192.0.2.{round}");
        server.fake.put("default", "new", Service::new(vec![instance("n", &address, 1)], None, false));
        let wanted = format!("NOERROR aa\nanswer new.service.konsul. 0 A {address}");
        assert_eq!(show(&server.ask("new.service.konsul. A").await), wanted);
        let ill = vec![in_health(Health::Critical, instance("n", &address, 1))];
        server.fake.put("default", "new", Service::new(ill, None, false));
        assert!(server.ask("new.service.konsul. A").await.answers.is_empty());
        server.fake.remove("default", "new");
        assert!(show(&server.ask("new.service.konsul. A").await).starts_with("NXDOMAIN"));
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_asked_again_is_not_made_again() {
    let server = Running::start(Settings { udp_sockets: 1, ..settings() });
    for name in
        ["kept.service.konsul. A", "KEPT.service.konsul. A", "n1.node.konsul. A", "kept.service.konsul. MX"]
    {
        for _ in 0..10 {
            server.ask(name).await;
        }
    }
    assert_eq!(server.count_of("events", "cache_hit", 37).await, 37);
    assert_eq!(server.count_of("events", "cache_miss", 3).await, 3);
    assert_eq!(server.count_of("queries_by_type", "other", 10).await, 10);
    server.stop().await;
}

/// What an answer was made of goes when the directory lets go of it, although the answer is kept.
#[tokio::test]
async fn answers_that_are_kept_keep_no_services() {
    let server = Running::start(settings());
    server.ask("big.service.konsul. A").await;
    let before = Arc::downgrade(&server.fake.service("default", "big").unwrap());
    server.fake.put("default", "big", crowd(1));
    assert!(before.upgrade().is_none());
    assert_eq!(server.ask("big.service.konsul. A").await.answers.len(), 1);
    server.stop().await;
}

struct NotWeb;

impl Access for NotWeb {
    fn may_see(&self, source: IpAddr, namespace: &str, name: &str) -> bool {
        assert!(source.is_loopback() && matches!(namespace, "default" | "team"));
        !matches!(name, "web" | "hidden" | "n1")
    }
}

/// Who may not see something is not told whether it is there.
#[tokio::test]
async fn what_may_not_be_seen_is_refused() {
    let server = Running::start(Settings { access: Arc::new(NotWeb), ..settings() });
    for name in [
        "web.service.konsul. A",
        "v1.web.service.konsul. A",
        "hidden.service.konsul. A",
        "_web._tcp.service.konsul. SRV",
        "none.instance.web.service.konsul. A",
        "n1.node.konsul. A",
        "10.2.0.192.in-addr.arpa. PTR",
    ] {
        assert_eq!(show(&server.ask(name).await), "REFUSED", "{name}");
    }
    assert!(show(&server.ask("c000020a.addr.konsul. A").await).starts_with("NXDOMAIN"));
    assert_eq!(server.ask("kept.service.konsul. A").await.answers.len(), 1);
    assert_eq!(server.ask("c0000232.addr.konsul. A").await.answers.len(), 1);
    server.stop().await;
}

/// What was kept for one who may see it is not answered to one who may not.
#[tokio::test]
async fn what_is_kept_is_refused_as_well() {
    struct Once(std::sync::atomic::AtomicBool);
    impl Access for Once {
        fn may_see(&self, _: IpAddr, _: &str, _: &str) -> bool {
            self.0.load(std::sync::atomic::Ordering::Relaxed)
        }
    }
    let once = Arc::new(Once(true.into()));
    let server = Running::start(Settings { access: once.clone(), udp_sockets: 1, ..settings() });
    for _ in 0..2 {
        assert_eq!(server.ask("kept.service.konsul. A").await.answers.len(), 1);
    }
    once.0.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(show(&server.ask("kept.service.konsul. A").await), "REFUSED");
    server.stop().await;
}
