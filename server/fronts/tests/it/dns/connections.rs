//! Connections: many questions on one, their bounds, and their end.

use std::time::Duration;

use hickory_proto::op::Message;
use konsul_fronts::dns::Settings;
use konsul_fronts::dns::settings::Bounds;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fixture::{Running, question, receive_message, send_message, settings};

/// RFC 7766 §6.2.1.1: questions need not wait for answers.
#[tokio::test]
async fn many_questions_go_over_one_connection() {
    let server = Running::start(settings());
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let asked: Vec<Message> = (0..200).map(|_| question("big.service.konsul. SRV")).collect();
    let (mut reader, mut writer) = stream.split();
    let write = async {
        for message in &asked {
            let wire = message.to_vec().unwrap();
            writer.write_all(&[&(wire.len() as u16).to_be_bytes(), &wire[..]].concat()).await.unwrap();
        }
    };
    let read = async {
        let mut ids = Vec::new();
        for _ in 0..asked.len() {
            let mut wire = vec![0; reader.read_u16().await.unwrap().into()];
            reader.read_exact(&mut wire).await.unwrap();
            ids.push(Message::from_vec(&wire).unwrap().metadata.id);
        }
        ids
    };
    let ((), mut ids) = tokio::join!(write, read);
    let mut wanted: Vec<u16> = asked.iter().map(|message| message.metadata.id).collect();
    ids.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(ids, wanted);
    server.stop().await;
}

/// RFC 7766 §8: a message may come in pieces.
#[tokio::test]
async fn a_question_may_come_byte_by_byte() {
    let server = Running::start(settings());
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let wire = question("kept.service.konsul. A").to_vec().unwrap();
    for byte in [&(wire.len() as u16).to_be_bytes(), &wire[..]].concat() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = Message::from_vec(&receive_message(&mut stream).await).unwrap();
    assert_eq!(answer.answers.len(), 1);
    // What the client ends, the server ends too, after the last answer.
    send_message(&mut stream, &wire).await;
    stream.shutdown().await.unwrap();
    receive_message(&mut stream).await;
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    server.stop().await;
}

fn with(bounds: Bounds) -> Settings {
    Settings { bounds, ..settings() }
}

/// RFC 7766 §6.2.3: a silent connection is closed, and so is one that drips bytes of a message that never ends.
#[tokio::test]
async fn a_silent_or_dripping_connection_is_closed() {
    let idle_timeout = Duration::from_millis(300);
    let server = Running::start(with(Bounds { idle_timeout, ..Bounds::default() }));
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut dripping = TcpStream::connect(server.address).await.unwrap();
    let drip = async {
        dripping.write_all(&[0xff, 0xff]).await.unwrap();
        let (mut reader, mut writer) = dripping.split();
        let mut byte = [0];
        let dripped = async {
            let mut interval = tokio::time::interval(Duration::from_millis(20));
            loop {
                interval.tick().await;
                if writer.write_all(&[0]).await.is_err() {
                    break;
                }
            }
        };
        // Closed with bytes unread, it may end by a reset.
        tokio::select! {
            read = reader.read(&mut byte) => assert!(matches!(read, Ok(0) | Err(_))),
            () = dripped => {}
        }
    };
    let ended = async {
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    };
    let both = async { tokio::join!(drip, ended) };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("both are closed");
    server.stop().await;
}

/// One connection more than there may be waits until another ends.
#[tokio::test]
async fn connections_are_bounded() {
    let server = Running::start(with(Bounds { max_connections: 2, ..Bounds::default() }));
    let wire = question("kept.service.konsul. A").to_vec().unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        send_message(&mut stream, &wire).await;
        receive_message(&mut stream).await;
        held.push(stream);
    }
    let mut third = TcpStream::connect(server.address).await.unwrap();
    send_message(&mut third, &wire).await;
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(200), third.read(&mut byte)).await;
    assert!(early.is_err(), "answered beyond the limit");
    held.pop();
    receive_message(&mut third).await;
    server.stop().await;
}

/// A client that never reads is cut, and the rest is served meanwhile.
#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let idle_timeout = Duration::from_millis(300);
    let server = Running::start(with(Bounds { idle_timeout, ..Bounds::default() }));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let wire = question("big.service.konsul. SRV").to_vec().unwrap();
    let framed = [&(wire.len() as u16).to_be_bytes(), &wire[..]].concat();
    let flood = async {
        // Ends when the server has closed the connection, which it does while we never read.
        while stream.write_all(&framed).await.is_ok() {}
    };
    tokio::time::timeout(Duration::from_secs(20), flood).await.expect("the connection is cut");
    assert_eq!(server.ask("kept.service.konsul. A tcp").await.answers.len(), 1);
    server.stop().await;
}

/// When the front is told to stop, idle connections end, and nothing runs any more.
#[tokio::test]
async fn a_front_that_stops_closes_its_connections() {
    let server = Running::start(settings());
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    send_message(&mut stream, &question("kept.service.konsul. A").to_vec().unwrap()).await;
    receive_message(&mut stream).await;
    let address = server.address;
    server.stop().await;
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert!(TcpStream::connect(address).await.is_err());
}
