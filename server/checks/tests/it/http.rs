//! HTTP checks of servers that answer.

use std::sync::Arc;

use konsul_checks::{HttpDefinition, Probe, Status};
use seen::Seen;
use tokio::io::AsyncWriteExt;

use crate::fixture::{Target, answer, closed, is, probe, read_head};

/// What a target saw.
mod seen {
    use std::sync::Mutex;

    #[derive(Default)]
    pub struct Seen(Mutex<Vec<String>>);

    impl Seen {
        pub fn note(&self, head: String) {
            self.0.lock().unwrap().push(head);
        }

        pub fn all(&self) -> Vec<String> {
            self.0.lock().unwrap().clone()
        }
    }
}

fn following(url: String) -> Probe {
    Probe::http(&HttpDefinition { url, follow_redirects: true, ..HttpDefinition::default() }).unwrap()
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
}

#[tokio::test]
async fn a_status_decides() {
    for (status, expected, verdict, words) in [
        ("200 OK", &[][..], Status::Passing, ": 200 OK\nhello"),
        ("204 No Content", &[], Status::Passing, ": 204 No Content"),
        ("299 Whatever", &[], Status::Passing, ": 299"),
        ("302 Found", &[], Status::Critical, ": 302 Found, expected 200-299"),
        ("404 Not Found", &[], Status::Critical, ": 404 Not Found, expected 200-299\nhello"),
        ("500 Internal Server Error", &[], Status::Critical, ": 500 Internal Server Error"),
        ("503 Service Unavailable", &["200", "500-503"], Status::Passing, ": 503 Service Unavailable"),
        ("200 OK", &["201", "300-399"], Status::Critical, ": 200 OK, expected 201, 300-399"),
        ("429 Too Many Requests", &[], Status::Warning, ": 429 Too Many Requests, expected 200-299"),
        ("429 Too Many Requests", &["429"], Status::Passing, ": 429 Too Many Requests"),
        ("429 Too Many Requests", &["400-499"], Status::Passing, ": 429 Too Many Requests"),
    ] {
        let body = if status.starts_with("204") { "" } else { "hello" };
        let target = Target::says(answer(status, body)).await;
        let expect_status = expected.iter().map(|range| (*range).to_owned()).collect();
        let definition = HttpDefinition { url: target.url("/x"), expect_status, ..HttpDefinition::default() };
        let told = probe(&Probe::http(&definition).unwrap()).await;
        is(&told, verdict, words);
        assert!(told.output.starts_with(&format!("HTTP GET {}", target.url("/x"))), "{}", told.output);
    }
}

#[tokio::test]
async fn a_body_must_have_what_is_expected_in_its_first_4_kib() {
    let at_the_end = format!("{}ready", "a".repeat(4091));
    let behind = format!("{}ready", "a".repeat(4092));
    for (body, status) in [
        ("ready", Status::Passing),
        ("we are ready, sir", Status::Passing),
        ("not read", Status::Critical),
        ("", Status::Critical),
        (&at_the_end, Status::Passing),
        (&behind, Status::Critical),
    ] {
        let target = Target::says(answer("200 OK", body)).await;
        let expect_body = "ready".to_owned();
        let definition = HttpDefinition { url: target.url("/"), expect_body, ..HttpDefinition::default() };
        let words = if status == Status::Passing { ": 200 OK" } else { "are without \"ready\"" };
        is(&probe(&Probe::http(&definition).unwrap()).await, status, words);
    }
}

#[tokio::test]
async fn a_request_has_what_was_asked_for_and_no_more() {
    let seen = Arc::new(Seen::default());
    let noted = seen.clone();
    let target = Target::serve(move |mut stream| {
        let noted = noted.clone();
        async move {
            noted.note(read_head(&mut stream).await);
            let _ = stream.write_all(answer("200 OK", "").as_bytes()).await;
        }
    })
    .await;
    probe(&target.get("/a/b?c=d")).await;
    let definition = HttpDefinition {
        url: target.url("/post"),
        method: "POST".into(),
        headers: vec![("User-Agent".into(), "mine".into()), ("Host".into(), "web.example".into())],
        body: "payload".into(),
        ..HttpDefinition::default()
    };
    is(&probe(&Probe::http(&definition).unwrap()).await, Status::Passing, "HTTP POST ");
    let heads = seen.all();
    let get = format!(
        "GET /a/b?c=d HTTP/1.1\r\nuser-agent: konsul-check\r\naccept: */*\r\nconnection: close\r\nhost: {}\r\n\r\n",
        target.address
    );
    assert_eq!(heads[0], get);
    assert!(heads[1].starts_with("POST /post HTTP/1.1\r\n"), "{}", heads[1]);
    for part in ["user-agent: mine\r\n", "host: web.example\r\n", "content-length: 7\r\n", "\r\n\r\npayload"]
    {
        assert!(heads[1].contains(part), "{part} is not in {}", heads[1]);
    }
}

#[tokio::test]
async fn head_has_no_body_and_is_not_waited_for_one() {
    let target = Target::says("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
    let definition =
        HttpDefinition { url: target.url("/"), method: "HEAD".into(), ..HttpDefinition::default() };
    is(&probe(&Probe::http(&definition).unwrap()).await, Status::Passing, ": 200 OK");
}

#[tokio::test]
async fn redirects_are_followed_when_asked_for_and_on_the_same_host_alone() {
    let target = Target::answers(|path| match path {
        "/1" => redirect("/2?x=y"),
        "/2?x=y" => redirect("3"),
        "/3" => answer("200 OK", "arrived"),
        "/scheme" => redirect("https://127.0.0.1/"),
        "/host" => redirect("http://127.0.0.2/"),
        "/relative-host" => redirect("//192.0.2.1/x"),
        "/file" => redirect("file:///etc/passwd"),
        "/user" => redirect("http://user@127.0.0.1/3"),
        "/nothing" => "HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".into(),
        "/long" => redirect(&"a".repeat(2049)),
        n => redirect(&format!("{n}x")),
    })
    .await;
    is(&probe(&target.get("/1")).await, Status::Critical, ": 302 Found, expected 200-299");
    is(&probe(&following(target.url("/1"))).await, Status::Passing, ": 200 OK\narrived");
    for (path, words) in [
        ("/scheme", "redirected to https://127.0.0.1/, which is of another scheme: not followed"),
        ("/host", "redirected to http://127.0.0.2/, which is another host: not followed"),
        ("/relative-host", "redirected to //192.0.2.1/x, which is another host"),
        ("/file", "which is of another scheme"),
        ("/user", "which is no URL to follow"),
        ("/long", "which is longer than 2,048 bytes"),
        ("/nothing", ": 302 Found, expected 200-299"),
        ("/e", "redirected more than 5 times"),
    ] {
        is(&probe(&following(target.url(path))).await, Status::Critical, words);
    }
}

#[tokio::test]
async fn five_redirects_are_followed_and_a_sixth_is_not() {
    let target = Target::answers(|path| match path[1..].parse::<u32>() {
        Ok(0) => answer("200 OK", ""),
        Ok(left) => redirect(&format!("/{}", left - 1)),
        Err(_) => answer("404 Not Found", ""),
    })
    .await;
    is(&probe(&following(target.url("/5"))).await, Status::Passing, ": 200 OK");
    is(&probe(&following(target.url("/6"))).await, Status::Critical, "redirected more than 5 times");
}

#[tokio::test]
async fn what_is_secret_is_not_sent_to_another_port_and_a_post_becomes_a_get() {
    let seen = Arc::new(Seen::default());
    let noted = seen.clone();
    let other = Target::serve(move |mut stream| {
        let noted = noted.clone();
        async move {
            noted.note(read_head(&mut stream).await);
            let _ = stream.write_all(answer("200 OK", "").as_bytes()).await;
        }
    })
    .await;
    let to = other.url("/there");
    let target = Target::answers(move |_| redirect(&to)).await;
    let definition = HttpDefinition {
        url: target.url("/"),
        method: "POST".into(),
        headers: vec![("Authorization".into(), "Bearer secret".into()), ("X-Kept".into(), "yes".into())],
        body: "payload".into(),
        follow_redirects: true,
        ..HttpDefinition::default()
    };
    is(&probe(&Probe::http(&definition).unwrap()).await, Status::Passing, "200 OK");
    let head = &seen.all()[0];
    assert!(head.starts_with("GET /there HTTP/1.1\r\n") && head.contains("x-kept: yes"), "{head}");
    assert!(!head.contains("secret") && !head.contains("payload"), "{head}");
}

#[tokio::test]
async fn nobody_listens() {
    let (address, _client, _server) = closed();
    let definition = HttpDefinition { url: format!("http://{address}/"), ..HttpDefinition::default() };
    let told = probe(&Probe::http(&definition).unwrap()).await;
    is(&told, Status::Critical, &format!("HTTP GET http://{address}/: connection refused (127.0.0.1)"));
}

#[tokio::test]
async fn bodies_are_told_without_what_could_do_harm() {
    let body = format!("\x1b[2J{}", "€".repeat(3000));
    let target = Target::says(answer("200 OK", &body)).await;
    let told = probe(&target.get("/")).await;
    is(&told, Status::Passing, "200 OK\n\u{FFFD}[2J€€");
    assert!(told.output.ends_with('€') && told.output.len() > 4090, "{}", told.output.len());
}
