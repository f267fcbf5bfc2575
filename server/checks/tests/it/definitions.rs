//! Each definition that is refused, with its field and what is wrong; and those at the limits, which are not.

use konsul_checks::{HttpDefinition, Invalid, Probe, TlsDefinition};

fn http(change: impl FnOnce(&mut HttpDefinition)) -> Result<Probe, Invalid> {
    let mut definition =
        HttpDefinition { url: "http://192.0.2.10/health".into(), ..HttpDefinition::default() };
    change(&mut definition);
    Probe::http(&definition)
}

#[track_caller]
fn is_refused(outcome: Result<Probe, Invalid>, field: &str, words: &str) {
    let invalid = outcome.unwrap_err();
    assert_eq!(invalid.field, field, "{invalid}");
    assert!(invalid.problem.contains(words), "{words:?} is not in {invalid}");
}

fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn urls_that_are_refused() {
    for (url, words) in [
        ("", "must be a URL"),
        ("/health", "must be a URL"),
        ("192.0.2.10:80", "must be a URL"),
        ("ftp://192.0.2.10/", "http:// or https://"),
        ("file:///etc/passwd", "http:// or https://"),
        ("gopher://192.0.2.10/", "http:// or https://"),
        ("http://", "must be a URL"),
        ("http://user@192.0.2.10/", "user name"),
        ("http://user:secret@192.0.2.10/", "user name"),
        ("http://:secret@192.0.2.10/", "user name"),
        ("http://192.0.2.10/#here", "fragment"),
        ("http://192.0.2.10:0/", "port"),
        ("http://192.0.2.10:65536/", "must be a URL"),
        ("http://192.0.2.10:x/", "must be a URL"),
        ("http://[::1/", "must be a URL"),
        ("http://a b/", "spaces"),
        ("http://192.0.2.10/a b", "spaces"),
        ("http://192.0.2.10/\r\nx: y", "spaces"),
        ("http://192.0.2.10\\@10.0.0.1/", "backslashes"),
        ("ht\ttp://192.0.2.10/", "spaces"),
        ("http://a..b/", "DNS name"),
        ("http://-!/", "DNS name"),
    ] {
        is_refused(http(|http| http.url = url.into()), "url", words);
    }
    let long = |length: usize| format!("http://192.0.2.10/{}", "a".repeat(length - 18));
    assert!(http(|http| http.url = long(2048)).is_ok());
    is_refused(http(|http| http.url = long(2049)), "url", "2,048");
}

#[test]
fn urls_that_are_taken_and_how_they_show() {
    for (url, shown) in [
        ("http://192.0.2.10/health?deep=1", "HTTP GET http://192.0.2.10/health?deep=1"),
        ("HTTP://Web.Example:8080", "HTTP GET http://web.example:8080/"),
        ("https://[2001:DB8::1]:8443/x", "HTTP GET https://[2001:db8::1]:8443/x"),
        ("http://my_app.local./", "HTTP GET http://my_app.local./"),
        // However an address is written, it is told as what it is.
        ("http://2130706433/", "HTTP GET http://127.0.0.1/"),
        ("http://0x7f.1/", "HTTP GET http://127.0.0.1/"),
        ("http://192.0.2.10/ü", "HTTP GET http://192.0.2.10/%C3%BC"),
        ("http://bücher.example/", "HTTP GET http://xn--bcher-kva.example/"),
    ] {
        assert_eq!(http(|http| http.url = url.into()).unwrap().to_string(), shown);
    }
}

#[test]
fn methods_statuses_and_bodies_that_are_refused() {
    for method in ["get", "DELETE", "PATCH", "CONNECT", "TRACE", "GET ", "GET / HTTP/1.1\r\n"] {
        is_refused(http(|http| http.method = method.into()), "method", "GET, HEAD");
    }
    for method in ["", "GET", "HEAD", "POST", "PUT", "OPTIONS"] {
        assert!(http(|http| http.method = method.into()).is_ok(), "{method}");
    }
    for (range, words) in [
        ("", "status"),
        ("99", "status"),
        ("600", "status"),
        ("2xx", "status"),
        ("+20", "status"),
        ("0200", "status"),
        ("200-", "status"),
        ("-299", "status"),
        ("200-299-300", "status"),
        ("200 - 299", "status"),
        ("299-200", "smaller"),
    ] {
        let refused = http(|http| http.expect_status = vec!["200".into(), range.into()]);
        is_refused(refused, "expect_status[1]", words);
    }
    assert!(http(|http| http.expect_status = vec!["100-599".into(); 16]).is_ok());
    is_refused(http(|http| http.expect_status = vec!["200".into(); 17]), "expect_status", "16");
    assert!(http(|http| http.body = vec![0; 4096].into()).is_ok());
    is_refused(http(|http| http.body = vec![0; 4097].into()), "body", "4096");
    assert!(http(|http| http.expect_body = "a".repeat(256)).is_ok());
    is_refused(http(|http| http.expect_body = "a".repeat(257)), "expect_body", "256");
    let head = http(|http| (http.method, http.expect_body) = ("HEAD".into(), "x".into()));
    is_refused(head, "expect_body", "HEAD");
}

#[test]
fn headers_that_are_refused() {
    for (pairs, field, words) in [
        (&[("", "x")][..], "headers[\"\"]", "header's name"),
        (&[("a b", "x")], "headers[\"a b\"]", "header's name"),
        (&[("a:", "x")], "headers[\"a:\"]", "header's name"),
        (&[("a\r\nb", "x")], "headers[\"a\\r\\nb\"]", "header's name"),
        (&[("a", "x\r\ny: z")], "headers[\"a\"]", "line ends"),
        (&[("a", "x\0")], "headers[\"a\"]", "control characters"),
        (&[("Content-Length", "5")], "headers[\"Content-Length\"]", "itself"),
        (&[("transfer-encoding", "chunked")], "headers[\"transfer-encoding\"]", "itself"),
        (&[("connection", "keep-alive")], "headers[\"connection\"]", "itself"),
        (&[("upgrade", "h2c")], "headers[\"upgrade\"]", "itself"),
        (&[("expect", "100-continue")], "headers[\"expect\"]", "itself"),
        (&[("X-A", "1"), ("x-a", "2")], "headers[\"x-a\"]", "twice"),
    ] {
        is_refused(http(|http| http.headers = headers(pairs)), field, words);
    }
    let many = |count: usize| (0..count).map(|n| (format!("x-{n}"), "y".into())).collect();
    assert!(http(|http| http.headers = many(32)).is_ok());
    is_refused(http(|http| http.headers = many(33)), "headers", "32");
    assert!(http(|http| http.headers = vec![("x".into(), "y".repeat(4095))]).is_ok());
    is_refused(http(|http| http.headers = vec![("x".into(), "y".repeat(4096))]), "headers", "4096");
}

#[test]
fn addresses_that_are_refused() {
    let label = "a".repeat(64);
    let name = format!("{}:80", ["a".repeat(63).as_str(); 4].join("."));
    for (address, words) in [
        ("", "host:port"),
        ("192.0.2.10", "host:port"),
        ("192.0.2.10:", "port must be"),
        ("192.0.2.10:0", "port must be"),
        ("192.0.2.10:65536", "port must be"),
        ("192.0.2.10:+80", "port must be"),
        ("192.0.2.10:http", "port must be"),
        (":80", "IP address or a DNS name"),
        ("2001:db8::1:80", "brackets"),
        ("[2001:db8::1]", "host:port"),
        ("[2001:db8::1:80", "host:port"),
        ("[192.0.2.10]:80", "host:port"),
        ("[fe80::1%eth0]:80", "host:port"),
        ("a b:80", "DNS name"),
        ("a..b:80", "DNS name"),
        ("user@host:80", "DNS name"),
        ("127.1:80", "DNS name"),
        ("0x7f.0x1:80", "DNS name"),
        ("2130706433:80", "DNS name"),
        (&format!("{label}:80"), "DNS name"),
        (&name, "DNS name"),
    ] {
        is_refused(Probe::tcp(address, None), "address", words);
        is_refused(Probe::udp(address, "".into(), "".into()), "address", words);
        is_refused(Probe::grpc(address, "", None), "address", words);
    }
    for address in
        ["192.0.2.10:80", "[2001:db8::1]:80", "db.example:5432", "db.example.:1", "localhost:65535"]
    {
        assert_eq!(Probe::tcp(address, None).unwrap().to_string(), format!("TCP connect {address}"));
    }
}

#[test]
fn what_else_is_refused() {
    let address = "192.0.2.10:80";
    assert!(Probe::udp(address, vec![0; 512].into(), vec![0; 256].into()).is_ok());
    is_refused(Probe::udp(address, vec![0; 513].into(), "".into()), "payload", "512");
    is_refused(Probe::udp(address, "".into(), vec![0; 257].into()), "expect", "256");
    assert!(Probe::grpc(address, &"a".repeat(256), None).is_ok());
    is_refused(Probe::grpc(address, &"a".repeat(257), None), "service", "256");
    let tls = TlsDefinition { server_name: "a b".into(), insecure_skip_verify: true };
    is_refused(Probe::tcp(address, Some(&tls)), "tls.server_name", "DNS name");
    is_refused(Probe::grpc(address, "", Some(&tls)), "tls.server_name", "DNS name");
    is_refused(
        http(|http| (http.url, http.tls) = ("https://192.0.2.10/".into(), tls.clone())),
        "tls.server_name",
        "DNS name",
    );
    is_refused(Probe::script("", &[]), "script", "must name");
    assert!(Probe::script(&"a".repeat(128), &[]).is_ok());
    is_refused(Probe::script(&"a".repeat(129), &[]), "script", "128");
    for (name, value) in [("", "x"), ("lower", "x"), ("A=B", "x"), ("A", "x\0y")] {
        is_refused(Probe::script("x", &headers(&[(name, value)])), "variables", "NUL");
    }
    let many = |count| vec![("A".to_owned(), "x".to_owned()); count];
    assert!(Probe::script("x", &many(32)).is_ok());
    is_refused(Probe::script("x", &many(33)), "variables", "32");
    is_refused(Probe::script("x", &headers(&[("A", &"x".repeat(4096))])), "variables", "4096");
}
