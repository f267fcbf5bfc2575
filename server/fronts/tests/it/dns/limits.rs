//! What answers may take: sizes, truncation, how many a network gets, and the age of what is answered.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use konsul_fronts::dns::settings::RateLimit;
use konsul_fronts::dns::{Handler, Outcome, Settings, Transport};

use super::fixture::{Fake, Running, catalog, crowd, question, settings, show};

/// RFC 2181 §9, RFC 6891 §6.2.3: as many whole records as fit and TC; over TCP all of them.
#[tokio::test]
async fn what_does_not_fit_is_cut_by_whole_records() {
    let server = Running::start(settings());
    for (asked, most, record) in [
        ("big.service.konsul. A", 512, 16),
        ("big.service.konsul. A edns=512", 512, 16),
        ("big.service.konsul. A edns=900", 900, 16),
        ("big.service.konsul. A edns=4096", 1_232, 16),
        ("big.service.konsul. SRV edns=1232", 1_232, 70),
    ] {
        let wire = server.ask_udp(&question(asked).to_vec().unwrap()).await;
        let answer = Message::from_vec(&wire).unwrap();
        assert!(answer.metadata.truncation, "{asked}");
        assert!(wire.len() <= most, "{asked}: {} bytes", wire.len());
        assert!(
            wire.len() + record > most,
            "{asked}: {} bytes, although one more record would fit",
            wire.len()
        );
        assert!(answer.answers.len() < 200);
    }
    for kind in ["A", "SRV"] {
        let answer = server.ask(&format!("big.service.konsul. {kind} tcp")).await;
        assert!(!answer.metadata.truncation, "{kind}");
        assert_eq!(answer.answers.len(), 200, "{kind}");
        assert_eq!(answer.additionals.len(), if kind == "SRV" { 200 } else { 0 });
    }
    server.stop().await;
}

/// RFC 2181 §9: that addresses of SRV targets did not fit is not told.
#[tokio::test]
async fn what_is_additional_may_be_missing() {
    let fake = Fake::default();
    fake.put("default", "some", crowd(8));
    let server = Running::with(settings(), fake);
    let answer = server.ask("some.service.konsul. SRV").await;
    assert_eq!(answer.answers.len(), 8);
    assert!((1..8).contains(&answer.additionals.len()), "{}", show(&answer));
    assert!(!answer.metadata.truncation);
    server.stop().await;
}

/// RFC 1035 §4.2.2: a message has no more than 65,535 bytes; what is over TCP is cut as well, and says so.
#[tokio::test]
async fn an_answer_over_tcp_ends_at_64_kib() {
    let fake = Fake::default();
    fake.put("default", "huge", crowd(10_000));
    let server = Running::with(settings(), fake);
    let wire = server.ask_tcp(&question("huge.service.konsul. A").to_vec().unwrap()).await;
    assert!((65_535 - 16..=65_535).contains(&wire.len()), "{}", wire.len());
    let answer = Message::from_vec(&wire).unwrap();
    assert!(answer.metadata.truncation);
    let mut seen: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), answer.answers.len(), "each once");
    server.stop().await;
}

#[tokio::test]
async fn no_more_records_than_set_go_over_udp() {
    let server = Running::start(Settings { max_udp_answers: 2, ..settings() });
    let answer = server.ask("guarded.service.konsul. A").await;
    assert_eq!((answer.answers.len(), answer.metadata.truncation), (2, true));
    let answer = server.ask("guarded.service.konsul. A tcp").await;
    assert_eq!((answer.answers.len(), answer.metadata.truncation), (3, false));
    server.stop().await;
}

/// The ratio that docs/dns.md promises: whatever is asked over UDP, an answer has at most 1,232 bytes.
#[tokio::test]
async fn nobody_gets_more_over_udp_whatever_he_says_he_takes() {
    let server = Running::start(settings());
    for kind in ["A", "AAAA", "SRV", "TXT", "ANY"] {
        let wire = server
            .ask_udp(&question(&format!("big.service.konsul. {kind} edns=65535")).to_vec().unwrap())
            .await;
        assert!(wire.len() <= 1_232, "{kind}");
        assert!(kind != "ANY" || wire.len() < 100, "ANY is minimal");
    }
    server.stop().await;
}

struct Asker {
    handler: Handler,
    out: Vec<u8>,
}

impl Asker {
    fn new(settings: Settings) -> Self {
        Self { handler: Handler::new(settings, Arc::new(catalog())).unwrap(), out: Vec::new() }
    }

    fn ask(&mut self, asked: &Message, source: &str, transport: Transport) -> Option<Message> {
        let source: IpAddr = source.parse().unwrap();
        match self.handler.handle(&asked.to_vec().unwrap(), source, transport, &mut self.out) {
            Outcome::Answered => Some(Message::from_vec(&self.out).unwrap()),
            _ => None,
        }
    }

    fn count(&mut self, label: &str) -> u64 {
        self.handler.tick();
        self.handler.counters().get("events", label)
    }
}

fn with_cookie(text: &str, cookie: &[u8]) -> Message {
    let mut asked = question(text);
    let edns = asked.edns.get_or_insert_with(Default::default);
    edns.options_mut().insert(EdnsOption::Unknown(10, cookie.to_vec()));
    asked
}

fn cookie_of(answer: &Message) -> Vec<u8> {
    match answer.edns.as_ref().unwrap().option(EdnsCode::Cookie) {
        Some(EdnsOption::Unknown(10, cookie)) => cookie.clone(),
        other => panic!("no cookie but {other:?}"),
    }
}

fn limited() -> Settings {
    let limit = RateLimit { answers_per_second: 1, burst: 5, ..RateLimit::default() };
    Settings { rate_limit: Some(limit), ..settings() }
}

/// Response-rate limiting: a network that gets too many answers is sent to TCP with half of the rest, and gets none of the other half.
#[test]
fn a_network_gets_so_many_answers() {
    let mut asker = Asker::new(limited());
    let asked = question("kept.service.konsul. A");
    let mut ask = |source: &str, transport| {
        let answers: Vec<_> = (0..25).filter_map(|_| asker.ask(&asked, source, transport)).collect();
        let truncated =
            answers.iter().filter(|answer| answer.metadata.truncation && answer.answers.is_empty());
        (answers.len() - truncated.clone().count(), truncated.count())
    };
    assert_eq!(ask("192.0.2.1", Transport::Udp), (5, 10));
    assert_eq!(ask("192.0.2.200", Transport::Udp), (0, 13), "of the same /24");
    assert_eq!(ask("::ffff:192.0.2.7", Transport::Udp), (0, 12), "the same, to an IPv6 socket");
    assert_eq!(ask("192.0.3.1", Transport::Udp), (5, 10), "of another network");
    assert_eq!(ask("192.0.2.1", Transport::Tcp), (25, 0), "an address that is proved");
    assert_eq!(ask("10.1.2.3", Transport::Udp), (25, 0), "an exempt one");
    assert_eq!(asker.count("limited_slipped"), 45);
    assert_eq!(asker.count("limited_dropped"), 45);
}

/// What is refused or malformed is counted too: errors can be reflected as well.
#[test]
fn errors_are_limited_as_answers_are() {
    let mut asker = Asker::new(Settings {
        rate_limit: Some(RateLimit { answers_per_second: 1, burst: 5, slip: 0, ..RateLimit::default() }),
        ..settings()
    });
    let asked = question("www.example.com. A");
    let answers = (0..25).filter_map(|_| asker.ask(&asked, "192.0.2.1", Transport::Udp)).count();
    assert_eq!(answers, 5);
}

/// RFC 7873 §5.2, RFC 9018: who shows our cookie has the address he says he has, and is not limited; who has none yet is sent one.
#[test]
fn a_cookie_proves_an_address() {
    let mut asker = Asker::new(limited());
    let first =
        asker.ask(&with_cookie("kept.service.konsul. A", b"clientid"), "192.0.2.1", Transport::Udp).unwrap();
    let cookie = cookie_of(&first);
    assert_eq!((cookie.len(), &cookie[..8]), (24, &b"clientid"[..]));
    for _ in 0..25 {
        let asked = with_cookie("kept.service.konsul. A", &cookie);
        let answer = asker.ask(&asked, "192.0.2.1", Transport::Udp).unwrap();
        assert_eq!((answer.answers.len(), answer.metadata.truncation), (1, false));
    }
    assert_eq!(asker.count("cookie_good"), 25);
    // Of another address, the same cookie proves nothing; nor does one that was changed.
    let mut changed = cookie.clone();
    changed[23] ^= 1;
    for (source, cookie) in [("192.0.2.2", &cookie), ("192.0.2.1", &changed)] {
        let asked = with_cookie("kept.service.konsul. A", cookie);
        let codes: Vec<_> = (0..40)
            .filter_map(|_| asker.ask(&asked, source, Transport::Udp))
            .map(|answer| answer.metadata.response_code)
            .collect();
        assert!(codes.len() <= 24, "{source}: {codes:?}");
        // RFC 7873 §5.2.3: he is told the right one.
        assert!(codes.contains(&ResponseCode::BADCOOKIE), "{source}: {codes:?}");
    }
    assert_eq!(asker.count("cookie_good"), 25);
}

/// RFC 8467 §4.1, RFC 7830 §3: encrypted answers have a multiple of 468 bytes for whoever asks for padding; others are not padded.
#[test]
fn encrypted_answers_are_padded() {
    let mut asker = Asker::new(settings());
    let mut padded = question("guarded.service.konsul. A edns=1232");
    let plain = padded.clone();
    padded.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Unknown(12, vec![0; 31]));
    for (asked, transport, is_padded) in [
        (&padded, Transport::Tls, true),
        (&padded, Transport::Https, true),
        (&plain, Transport::Tls, false),
        (&padded, Transport::Tcp, false),
        (&padded, Transport::Udp, false),
    ] {
        let answer = asker.ask(asked, "127.0.0.1", transport).unwrap();
        assert_eq!(answer.answers.len(), 3);
        assert_eq!(
            asker.out.len().is_multiple_of(468),
            is_padded,
            "{transport:?}: {} bytes",
            asker.out.len()
        );
    }
}

/// RFC 7828 §3.1: who asks how long a connection may be silent is told, unless there is none.
#[test]
fn the_idle_timeout_is_told() {
    let mut asker = Asker::new(settings());
    let mut asked = question("kept.service.konsul. A edns=1232");
    asked.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Unknown(11, Vec::new()));
    let keepalive = |answer: &Message| answer.edns.as_ref().unwrap().option(EdnsCode::Keepalive).cloned();
    let answer = asker.ask(&asked, "127.0.0.1", Transport::Tcp).unwrap();
    assert_eq!(keepalive(&answer), Some(EdnsOption::Unknown(11, vec![0, 100])));
    let answer = asker.ask(&asked, "127.0.0.1", Transport::Udp).unwrap();
    assert_eq!(keepalive(&answer), None);
}

/// A member without a leader goes on answering, unless what it knows is older than set.
#[tokio::test]
async fn what_is_too_old_is_not_answered() {
    let server = Running::start(Settings { max_stale: Some(Duration::from_secs(60)), ..settings() });
    server.fake.age_s.store(59, Ordering::Relaxed);
    assert_eq!(server.ask("kept.service.konsul. A").await.answers.len(), 1);
    server.fake.age_s.store(61, Ordering::Relaxed);
    for name in ["kept.service.konsul. A", "none.service.konsul. A", "konsul. SOA"] {
        assert_eq!(show(&server.ask(name).await), "SERVFAIL", "{name}");
    }
    assert_eq!(show(&server.ask("www.example.com. A").await), "REFUSED", "which has no age");
    server.fake.age_s.store(0, Ordering::Relaxed);
    assert_eq!(server.ask("kept.service.konsul. A").await.answers.len(), 1);
    server.stop().await;

    let server = Running::start(settings());
    server.fake.age_s.store(1_000_000, Ordering::Relaxed);
    assert_eq!(server.ask("kept.service.konsul. A").await.answers.len(), 1, "by default however old");
    server.stop().await;
}

/// A cache too small for anything changes no answer.
#[test]
fn a_full_cache_changes_no_answer() {
    for cache_bytes in [0, 2_000, 1 << 20] {
        let mut settings = settings();
        settings.bounds.cache_bytes = cache_bytes;
        let mut asker = Asker::new(settings);
        for round in 0..3 {
            for name in ["web", "kept", "none", "ext", "big"] {
                let asked = question(&format!("{name}.service.konsul. A"));
                let answer = asker.ask(&asked, "127.0.0.1", Transport::Tcp).unwrap();
                let count = match name {
                    "web" => 2,
                    "none" => 0,
                    "big" => 200,
                    _ => 1,
                };
                assert_eq!(answer.answers.len(), count, "{name}, round {round}, {cache_bytes} bytes");
            }
        }
        assert!(cache_bytes == 0 || asker.count("cache_hit") > 0, "{cache_bytes}");
    }
}
