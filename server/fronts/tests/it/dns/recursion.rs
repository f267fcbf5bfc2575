//! Names that are not ours, asked of other servers that are made up.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use konsul_fronts::dns::Settings;
use konsul_fronts::dns::settings::Recursion;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::fixture::{Running, question, receive_message, send_message, settings, show};

/// A server that answers as it is told, and counts what it is asked.
struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

type Answering = fn(&Message) -> Vec<Message>;

impl Upstream {
    /// Answers datagrams with all that `answering` gives, and connections with the first without TC.
    async fn start(answering: Answering) -> Self {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4_096];
            loop {
                let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                for answer in answering(&Message::from_vec(&buffer[..length]).unwrap()) {
                    udp.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let asked = Message::from_vec(&receive_message(&mut stream).await).unwrap();
                let mut answer = respond(&asked);
                for last in 0..100 {
                    push(&mut answer, 60, last);
                }
                send_message(&mut stream, &answer.to_vec().unwrap()).await;
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn respond(asked: &Message) -> Message {
    let mut answer = Message::new(asked.metadata.id, MessageType::Response, asked.metadata.op_code);
    answer.metadata.recursion_available = true;
    answer.metadata.authentic_data = true;
    answer.queries.clone_from(&asked.queries);
    answer
}

fn push(answer: &mut Message, ttl: u32, last: u8) {
    let name = answer.queries[0].name.to_lowercase();
    answer.add_answer(Record::from_rdata(name, ttl, RData::A(A(Ipv4Addr::new(203, 0, 113, last)))));
}

fn one_address(asked: &Message) -> Vec<Message> {
    let mut answer = respond(asked);
    push(&mut answer, 60, 1);
    vec![answer]
}

fn forgotten_at_once(asked: &Message) -> Vec<Message> {
    let mut answer = respond(asked);
    push(&mut answer, 0, 1);
    vec![answer]
}

fn fails(asked: &Message) -> Vec<Message> {
    let mut answer = respond(asked);
    answer.metadata.response_code = ResponseCode::ServFail;
    vec![answer]
}

fn never(_: &Message) -> Vec<Message> {
    Vec::new()
}

fn truncated(asked: &Message) -> Vec<Message> {
    let mut answer = respond(asked);
    answer.metadata.truncation = true;
    vec![answer]
}

/// RFC 5452: answers to another id and to another question come before the right one.
fn spoofed(asked: &Message) -> Vec<Message> {
    let mut other_id = respond(asked);
    other_id.metadata.id = asked.metadata.id.wrapping_add(1);
    push(&mut other_id, 60, 66);
    let mut other_name = respond(asked);
    other_name.queries[0].name = Name::from_ascii("evil.example.").unwrap();
    push(&mut other_name, 60, 66);
    let mut query = respond(asked);
    query.metadata.message_type = MessageType::Query;
    vec![other_id, other_name, query, one_address(asked).remove(0)]
}

fn no_such_name(asked: &Message) -> Vec<Message> {
    let mut answer = respond(asked);
    answer.metadata.response_code = ResponseCode::NXDomain;
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let soa = SOA::new(name("ns.example."), name("who.example."), 1, 2, 3, 4, 30);
    answer.add_authority(Record::from_rdata(name("example."), 600, RData::SOA(soa)));
    vec![answer]
}

fn through(servers: &[&Upstream]) -> Settings {
    let servers = servers.iter().map(|server| server.address).collect();
    let recursion = Recursion { timeout: Duration::from_millis(300), ..Recursion::to(servers) };
    Settings { recursion: Some(recursion), ..settings() }
}

const ONE: &str = "NOERROR rd ra\nanswer WWW.example. 60 A 203.0.113.1";

#[tokio::test]
async fn names_of_others_are_asked_of_others_and_kept() {
    let upstream = Upstream::start(one_address).await;
    let server = Running::start(through(&[&upstream]));
    for transport in ["", " tcp"] {
        assert_eq!(show(&server.ask(&format!("WWW.example. A rd{transport}")).await), ONE);
    }
    let edns = server.ask("www.EXAMPLE. A rd edns=1232").await;
    assert_eq!(show(&edns), "NOERROR rd ra\nanswer www.EXAMPLE. 60 A 203.0.113.1\nopt version=0 size=1232");
    assert_eq!(upstream.asked(), 1, "once for all three");
    assert_eq!(server.count_of("events", "recursion_cache_hit", 2).await, 2);
    server.ask("www.example. A rd do").await;
    server.ask("www.example. AAAA rd").await;
    assert_eq!(upstream.asked(), 3, "other questions are others");
    // Ours are ours, and say that others may be asked.
    assert_eq!(
        show(&server.ask("kept.service.konsul. A rd").await),
        "NOERROR aa rd ra\nanswer kept.service.konsul. 30 A 192.0.2.50"
    );
    assert_eq!(
        show(&server.ask("www.example. A").await),
        "REFUSED ra",
        "RFC 1034 §4.3.1: who does not want it"
    );
    server.stop().await;
}

#[tokio::test]
async fn the_next_one_is_asked_when_one_fails_or_is_silent() {
    let (silent, failing, good) =
        (Upstream::start(never).await, Upstream::start(fails).await, Upstream::start(one_address).await);
    let server = Running::start(through(&[&silent, &failing, &good]));
    assert_eq!(show(&server.ask("WWW.example. A rd").await), ONE);
    assert_eq!((silent.asked(), failing.asked(), good.asked()), (1, 1, 1));
    server.stop().await;

    let server = Running::start(through(&[&silent, &failing]));
    assert_eq!(show(&server.ask("www.example. A rd").await), "SERVFAIL rd ra");
    server.ask("www.example. A rd").await;
    assert_eq!(failing.asked(), 3, "a failure is not kept");
    server.stop().await;

    let server = Running::start(through(&[&silent]));
    assert_eq!(show(&server.ask("www.example. A rd").await), "SERVFAIL rd ra");
    assert_eq!(server.count_of("events", "recursion_failed", 1).await, 1);
    server.stop().await;
}

#[tokio::test]
async fn what_is_too_long_for_udp_is_fetched_by_tcp() {
    let upstream = Upstream::start(truncated).await;
    let server = Running::start(through(&[&upstream]));
    let answer = server.ask("www.example. A rd tcp").await;
    assert_eq!((answer.answers.len(), answer.metadata.truncation), (100, false));
    let answer = server.ask("www.example. A rd edns=1232").await;
    assert!(answer.metadata.truncation && (30..100).contains(&answer.answers.len()), "{}", show(&answer));
    server.stop().await;
}

#[tokio::test]
async fn answers_of_somebody_else_are_not_taken() {
    let upstream = Upstream::start(spoofed).await;
    let server = Running::start(through(&[&upstream]));
    assert_eq!(show(&server.ask("WWW.example. A rd").await), ONE);
    server.stop().await;
}

/// RFC 2308 §5: a negative answer is kept as long as its SOA says; one with a TTL of 0 is not.
#[tokio::test]
async fn answers_are_kept_as_long_as_they_say() {
    let upstream = Upstream::start(no_such_name).await;
    let server = Running::start(through(&[&upstream]));
    for _ in 0..3 {
        let answer = server.ask("none.example. A rd").await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    }
    assert_eq!(upstream.asked(), 1);
    server.stop().await;

    let upstream = Upstream::start(forgotten_at_once).await;
    let server = Running::start(through(&[&upstream]));
    for _ in 0..3 {
        server.ask("www.example. A rd").await;
    }
    assert_eq!(upstream.asked(), 3);
    server.stop().await;
}

/// RFC 1035 §3.2.1: what is kept grows old, and is asked for again when its time is over.
#[tokio::test]
async fn answers_that_are_kept_grow_old() {
    let upstream = Upstream::start(one_address).await;
    let server = Running::start(through(&[&upstream]));
    for (after_s, ttl, asked) in [(0, 60, 1), (25, 35, 1), (34, 1, 1), (2, 60, 2)] {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(after_s)).await;
        tokio::time::resume();
        let answer = server.ask("www.example. A rd").await;
        assert_eq!((answer.answers[0].ttl, upstream.asked()), (ttl, asked), "{after_s} s later");
    }
    server.stop().await;
}

#[tokio::test]
async fn questions_under_way_are_bounded() {
    let upstream = Upstream::start(never).await;
    let mut settings = through(&[&upstream]);
    let recursion = settings.recursion.as_mut().unwrap();
    (recursion.max_in_flight, recursion.timeout) = (2, Duration::from_secs(60));
    let server = Running::start(settings);
    let mut streams = Vec::new();
    for name in ["a", "b"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        send_message(&mut stream, &question(&format!("{name}.example. A rd")).to_vec().unwrap()).await;
        streams.push(stream);
    }
    while upstream.asked() < 2 {
        tokio::task::yield_now().await;
    }
    for transport in ["", " tcp"] {
        assert_eq!(show(&server.ask(&format!("c.example. A rd{transport}")).await), "SERVFAIL rd ra");
    }
    // RFC 7766 §6.2.1.1: what can be answered is answered first.
    send_message(&mut streams[0], &question("kept.service.konsul. A").to_vec().unwrap()).await;
    let answer = Message::from_vec(&receive_message(&mut streams[0]).await).unwrap();
    assert_eq!(answer.answers.len(), 1);
    server.stop().await;
}

/// Nobody makes an open resolver by accident.
#[tokio::test]
async fn others_are_asked_only_for_those_who_may() {
    let upstream = Upstream::start(one_address).await;
    let mut settings = through(&[&upstream]);
    settings.recursion.as_mut().unwrap().networks = vec!["192.0.2.0/24".parse().unwrap()];
    let server = Running::start(settings);
    assert_eq!(show(&server.ask("www.example. A rd").await), "REFUSED rd");
    assert_eq!(upstream.asked(), 0);
    server.stop().await;
}
