//! Packets that are no queries, or not quite.

use super::fixture::{Running, question, settings, show};
use hickory_proto::op::Message;

/// A header with counts, and what follows it.
fn packet(flags: u16, counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xab, 0xcd];
    packet.extend(flags.to_be_bytes());
    packet.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    packet.extend(rest);
    packet
}

const QUESTION: &[u8] = b"\x04kept\x07service\x06konsul\0\0\x01\0\x01";
const OPT: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";

fn opt(options: &[u8]) -> Vec<u8> {
    [&OPT[..9], &(options.len() as u16).to_be_bytes(), options].concat()
}

/// What can be answered is answered with the code that says why not, and its question if that could be read.
#[tokio::test]
async fn are_answered_with_what_is_wrong() {
    let server = Running::start(settings());
    let long_name = [&[63; 64][..]; 4].concat();
    let with = |rest: &[u8]| [QUESTION, rest].concat();
    let record = b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x0a\0\0\x01";
    let tsig = b"\x01k\0\0\xfa\0\xff\0\0\0\0\0\x1d\x0bhmac-sha256\0\0\0\0\0\0\0\x01\x2c\0\0\xab\xcd\0\0\0\0";
    let rows: &[(&str, Vec<u8>, &str)] = &[
        ("RFC 9619: no question", packet(0, [0, 0, 0, 0], &[]), "FORMERR"),
        ("RFC 9619: two questions", packet(0, [2, 0, 0, 0], &with(QUESTION)), "FORMERR"),
        ("RFC 1035 §4.1.2: no type", packet(0, [1, 0, 0, 0], &QUESTION[..21]), "FORMERR"),
        ("RFC 1035 §4.1.2: half a class", packet(0, [1, 0, 0, 0], &QUESTION[..24]), "FORMERR"),
        ("RFC 1035 §3.1: a name without end", packet(0, [1, 0, 0, 0], b"\x04kept"), "FORMERR"),
        (
            "RFC 1035 §2.3.4: a name of 256 bytes",
            packet(0, [1, 0, 0, 0], &[&long_name[..], b"\0\0\x01\0\x01"].concat()),
            "FORMERR",
        ),
        (
            "RFC 1035 §2.3.4: a label of 64 bytes",
            packet(0, [1, 0, 0, 0], &[&[64; 65][..], b"\0\0\x01\0\x01"].concat()),
            "FORMERR",
        ),
        (
            "RFC 1035 §4.1.4: a name that points to itself",
            packet(0, [1, 0, 0, 0], b"\xc0\x0c\0\x01\0\x01"),
            "FORMERR",
        ),
        (
            "RFC 1035 §4.1.4: a name that points ahead",
            packet(0, [1, 0, 0, 0], b"\xc0\x20\0\x01\0\x01"),
            "FORMERR",
        ),
        (
            "RFC 1035 §4.1.4: a record that points to itself",
            packet(0, [1, 1, 0, 0], &with(b"\xc0\x1d\0\x01\0\x01\0\0\0\0\0\x04\x0a\0\0\x01")),
            "FORMERR",
        ),
        ("RFC 6895 §2.2: STATUS", packet(0x1000, [1, 0, 0, 0], QUESTION), "NOTIMP"),
        ("RFC 1996: NOTIFY", packet(0x2000, [1, 0, 0, 0], QUESTION), "NOTIMP"),
        ("RFC 2136: UPDATE", packet(0x2800, [1, 0, 1, 0], &with(record)), "NOTIMP"),
        ("RFC 8490: DSO", packet(0x3000, [0, 0, 0, 0], &[]), "NOTIMP"),
        ("RFC 6891 §6.1.1: two OPT records", packet(0, [1, 0, 0, 2], &with(&[OPT, OPT].concat())), "FORMERR"),
        (
            "RFC 6891 §6.1.2: an OPT record of a name",
            packet(0, [1, 0, 0, 1], &with(b"\x01a\0\x29\x04\xd0\0\0\0\0\0\0")),
            "FORMERR",
        ),
        (
            "RFC 6891 §6.1.2: options longer than their record",
            packet(0, [1, 0, 0, 1], &with(&opt(b"\0\x0a\0\x20"))),
            "FORMERR",
        ),
        (
            "RFC 7873 §5.2.2: a cookie of 7 bytes",
            packet(0, [1, 0, 0, 1], &with(&opt(b"\0\x0a\0\x07abcdefg"))),
            "FORMERR",
        ),
        (
            "RFC 7873 §5.2.2: a cookie of 12 bytes",
            packet(0, [1, 0, 0, 1], &with(&opt(b"\0\x0a\0\x0cabcdefghijkl"))),
            "FORMERR",
        ),
        (
            "RFC 7873 §5.2.2: a cookie of 41 bytes",
            packet(0, [1, 0, 0, 1], &with(&opt(&[b"\0\x0a\0\x29", &[1; 41][..]].concat()))),
            "FORMERR",
        ),
        ("RFC 8945 §5.2: a key that we don't have", packet(0, [1, 0, 0, 1], &with(tsig)), "NOTAUTH"),
        ("RFC 6895 §3.1: OPT as a type", packet(0, [1, 0, 0, 0], b"\x06konsul\0\0\x29\0\x01"), "FORMERR"),
        ("RFC 1035 §3.2.3: MAILA", packet(0, [1, 0, 0, 0], b"\x06konsul\0\0\xfe\0\x01"), "NOTIMP"),
        (
            "an answer nobody needs to ask along",
            packet(0, [1, 1, 0, 0], &with(record)),
            "NOERROR aa\nanswer kept.service.konsul. 30 A 192.0.2.50",
        ),
        (
            "the same and OPT",
            packet(0, [1, 0, 1, 1], &with(&[&record[..], OPT].concat())),
            "NOERROR aa\nanswer kept.service.konsul. 30 A 192.0.2.50\nopt version=0 size=1232",
        ),
        (
            "options that we don't know",
            packet(0, [1, 0, 0, 1], &with(&opt(b"\xff\xff\0\x02ab\0\x03\0\0"))),
            "NOERROR aa\nanswer kept.service.konsul. 30 A 192.0.2.50\nopt version=0 size=1232",
        ),
    ];
    for (rule, packet, wanted) in rows {
        for by_tcp in [false, true] {
            let wire = if by_tcp { server.ask_tcp(packet).await } else { server.ask_udp(packet).await };
            assert_eq!(wire[..2], [0xab, 0xcd], "{rule}");
            assert_eq!(wire[2] & 0xf8, 0x80 | packet[2] & 0x78, "{rule}: an answer to the operation");
            let text = shown(&wire);
            let text = if wanted.contains("opt ") {
                text
            } else {
                text.lines().filter(|line| !line.starts_with("opt ")).collect::<Vec<_>>().join("\n")
            };
            assert_eq!(&text, wanted, "{rule}");
        }
    }
    server.stop().await;
}

fn shown(wire: &[u8]) -> String {
    let mut wire = wire.to_vec();
    // hickory reads no question of an update or notification as one of a query.
    wire[2] &= !0x78;
    show(&Message::from_vec(&wire).unwrap())
}

/// What would make two servers answer each other for ever, or is no message, is not answered.
#[tokio::test]
async fn are_dropped_if_they_are_no_query() {
    let server = Running::start(settings());
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.address).await.unwrap();
    let response = packet(0x8000, [1, 0, 0, 0], QUESTION);
    for dropped in [&[][..], &[0], &[0; 11], &response] {
        socket.send(dropped).await.unwrap();
    }
    // Of one socket, so of one queue: what comes back first is the answer to the last.
    let asked = question("kept.service.konsul. A").to_vec().unwrap();
    socket.send(&asked).await.unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).await.unwrap();
    assert_eq!(buffer[..2], asked[..2]);
    assert_eq!(Message::from_vec(&buffer[..length]).unwrap().answers.len(), 1);
    // One had nothing in it that could be counted.
    assert_eq!(server.count_of("events", "dropped", 3).await, 3);
    server.stop().await;
}

/// RFC 7873 §5.4: a query without a question but with a cookie asks for ours.
#[tokio::test]
async fn a_question_may_be_left_out_to_get_a_cookie() {
    let server = Running::start(settings());
    let asked = packet(0, [0, 0, 0, 1], &opt(b"\0\x0a\0\x08abcdefgh"));
    let wire = server.ask_udp(&asked).await;
    let answer = Message::from_vec(&wire).unwrap();
    assert_eq!(show(&answer), "NOERROR\nopt version=0 size=1232");
    assert_eq!(wire.len(), 12 + 11 + 4 + 8 + 16);
    server.stop().await;
}

/// draft-vixie-dnsext-dns0x20: the question comes back bit by bit, and the records are of its name.
#[tokio::test]
async fn case_is_kept_and_ignored() {
    let server = Running::start(settings());
    for name in ["KEPT.Service.kOnSuL.", "kept.SERVICE.konsul.", "kept.service.konsul."] {
        let asked = question(&format!("{name} A")).to_vec().unwrap();
        let wire = server.ask_udp(&asked).await;
        assert_eq!(wire[12..asked.len()], asked[12..], "{name}");
        let answer = Message::from_vec(&wire).unwrap();
        assert_eq!(answer.answers[0].name.to_ascii(), name);
    }
    server.stop().await;
}

/// RFC 1035 §4.1.4: each record's owner is a pointer to the question.
#[tokio::test]
async fn names_are_compressed() {
    let server = Running::start(settings());
    let asked = question("guarded.service.konsul. A").to_vec().unwrap();
    let wire = server.ask_udp(&asked).await;
    assert_eq!(wire.len(), asked.len() + 3 * 16);
    server.stop().await;
}
