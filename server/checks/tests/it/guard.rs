//! What may not be connected to is not, by whatever name and kind of check; the table of addresses is beside the guard itself.

use konsul_checks::{HttpDefinition, Probe, Prober, Settings, Status};

use crate::fixture::{PATIENCE, Target, is};

fn http(url: String) -> Probe {
    Probe::http(&HttpDefinition { url, follow_redirects: true, ..HttpDefinition::default() }).unwrap()
}

#[tokio::test]
async fn no_kind_of_check_connects_to_what_is_denied() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let (port, udp_port) = (listener.local_addr().unwrap().port(), socket.local_addr().unwrap().port());
    let deny = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    let prober = Prober::new(&Settings { deny, ..Settings::default() }).unwrap();
    for host in
        ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"]
    {
        let address = format!("{host}:{port}");
        for probe in [
            http(format!("http://{address}/")),
            http(format!("https://{address}/")),
            Probe::tcp(&address, None).unwrap(),
            Probe::grpc(&address, "", None).unwrap(),
            Probe::udp(&format!("{host}:{udp_port}"), "x".into(), "".into()).unwrap(),
        ] {
            is(&prober.probe(&probe, PATIENCE).await, Status::Critical, "is denied by checks.deny (");
        }
    }
    for url in ["http://2130706433", "http://0x7f.1", "http://0177.0.0.1", "http://127.1"] {
        let told = prober.probe(&http(format!("{url}:{port}/")), PATIENCE).await;
        is(&told, Status::Critical, "target 127.0.0.1 is denied by checks.deny (127.0.0.0/8)");
    }
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody connected");
    assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody sent");
}

#[tokio::test]
async fn metadata_is_denied_by_default() {
    let prober = Prober::new(&Settings::default()).unwrap();
    for (host, told) in [
        ("169.254.169.254", "target 169.254.169.254 is denied by checks.deny (169.254.0.0/16)"),
        ("[fd00:ec2::254]", "target fd00:ec2::254 is denied by checks.deny (fd00:ec2::254/128)"),
        ("[fe80::1]", "target fe80::1 is denied by checks.deny (fe80::/10)"),
        ("0.0.0.0", "target 0.0.0.0 is denied by checks.deny (0.0.0.0/8)"),
        ("[::]", "target :: is denied by checks.deny (::/128)"),
    ] {
        let url = format!("http://{host}/latest/meta-data/");
        let expected = format!("HTTP GET {url}: {told}");
        is(&prober.probe(&http(url), PATIENCE).await, Status::Critical, &expected);
    }
}

#[tokio::test]
async fn with_an_allow_list_the_rest_is_not_allowed() {
    let allow = vec!["127.0.0.2/32".parse().unwrap()];
    let prober = Prober::new(&Settings { allow, ..Settings::default() }).unwrap();
    let target = Target::says("").await;
    let probe = Probe::tcp(&target.address.to_string(), None).unwrap();
    is(
        &prober.probe(&probe, PATIENCE).await,
        Status::Critical,
        &format!("TCP connect {}: target 127.0.0.1 is not allowed by checks.allow", target.address),
    );
}

#[tokio::test]
async fn of_a_names_addresses_only_those_permitted_are_tried() {
    // `localhost` is 127.0.0.1 and mostly ::1 too.
    let target = Target::says("").await;
    let deny = vec!["::1/128".parse().unwrap()];
    let prober = Prober::new(&Settings { deny, ..Settings::default() }).unwrap();
    let address = format!("localhost:{}", target.address.port());
    is(&prober.probe(&Probe::tcp(&address, None).unwrap(), PATIENCE).await, Status::Passing, ": ok");
}

#[tokio::test]
async fn a_redirect_leads_to_no_denied_address() {
    for to in [
        "http://169.254.169.254/latest/meta-data/",
        "//169.254.169.254/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://2852039166/",
        "http://0.0.0.0/",
    ] {
        let answer = format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
        let target = Target::says(answer).await;
        let prober = Prober::new(&Settings::default()).unwrap();
        let told = prober.probe(&http(target.url("/")), PATIENCE).await;
        is(&told, Status::Critical, &format!("redirected to {to}, which is another host: not followed"));
    }
}
