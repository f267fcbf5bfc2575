//! `konsul kv`, but for the watch, and `konsul compact` and `konsul status`: text, JSON and errors.

use crate::server::Server;

#[test]
fn a_value_comes_back_exactly() {
    let server = Server::start();
    let revision = server.put("app/port", "8080");
    assert_eq!(server.ok(&["kv", "get", "app/port"]), "8080", "no newline is added to a pipe");
    assert_eq!(server.ok(&["kv", "put", "app/port", "8081"]), format!("revision {}\n", revision + 1));
    assert_eq!(server.ok(&["kv", "get", "app/port", "--stale"]), "8081");
    assert_eq!(server.ok(&["kv", "get", "app/port", "--revision", &revision.to_string()]), "8080");

    let bytes: Vec<u8> = (0..=255).collect();
    server.run_with_stdin(&["kv", "put", "app/bytes", "-"], &bytes).success();
    assert_eq!(server.run(&["kv", "get", "app/bytes"]).stdout, bytes);
    std::fs::write(server.path("file.bin"), &bytes).unwrap();
    server.ok(&["kv", "put", "app/file", "@file.bin"]);
    assert_eq!(server.run(&["kv", "get", "app/file"]).stdout, bytes);

    server.ok(&["kv", "put", "app/handle", "@home", "--literal"]);
    assert_eq!(server.ok(&["kv", "get", "app/handle"]), "@home");
    server.ok(&["kv", "put", "app/offset", "--", "-5"]);
    assert_eq!(server.ok(&["kv", "get", "app/offset"]), "-5");
    server.ok(&["kv", "put", "app/empty", ""]);
    assert_eq!(server.ok(&["kv", "get", "app/empty"]), "");

    let line = server.run(&["kv", "put", "app/none", "@nowhere"]).failure(1);
    assert!(line.starts_with("cannot read nowhere: "), "{line}");
}

#[test]
fn json_is_the_api_s_own() {
    let server = Server::start();
    let first = server.put("k", "old");
    let put =
        server.json(&["kv", "put", "k", "new", "--flags", "7", "--content-type", "text/plain", "--previous"]);
    assert_eq!(put["revision"], (first + 1).to_string());
    assert_eq!(put["previous"]["value"], "b2xk");
    let get = server.json(&["kv", "get", "k"]);
    assert_eq!(get["entry"]["value"], "bmV3");
    assert_eq!(get["entry"]["flags"], "7");
    assert_eq!(get["entry"]["contentType"], "text/plain");
    assert_eq!(get["entry"]["version"], "2");
    assert_eq!(get["entry"]["createRevision"], first.to_string());
    assert!(get["entry"]["updateTime"].as_str().unwrap().ends_with('Z'));

    let detail = server.ok(&["kv", "get", "k", "--detail"]);
    for line in ["key              k", "version          2", "flags            7", "value            new"] {
        assert!(detail.lines().any(|found| found == line), "{line}: {detail}");
    }

    let history = server.json(&["kv", "history", "k"]);
    assert_eq!(history["versions"].as_array().unwrap().len(), 2);
    assert_eq!(history["versions"][0]["revision"], (first + 1).to_string());
    let deleted = server.json(&["kv", "delete", "k", "--previous"]);
    assert_eq!((&deleted["deleted"], &deleted["previous"]["value"]), (&"1".into(), &"bmV3".into()));
    let status = server.json(&["status"]);
    assert_eq!(status["revision"], (first + 2).to_string());
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn conditions_that_do_not_hold_are_errors() {
    let server = Server::start();
    let revision = server.put("k", "1");
    for condition in [vec!["--if-absent"], vec!["--if-revision", "0"], vec!["--if-revision", "99999"]] {
        let arguments: Vec<&str> = ["kv", "put", "k", "2"].into_iter().chain(condition).collect();
        server.run(&arguments).failure(1);
    }
    server.run(&["kv", "put", "none", "2", "--if-exists"]).failure(1);
    server.run(&["kv", "delete", "k", "--if-revision", "99999"]).failure(1);
    assert_eq!(server.ok(&["kv", "get", "k"]), "1");
    server.ok(&["kv", "put", "k", "2", "--if-revision", &revision.to_string()]);
    server.ok(&["kv", "put", "k", "3", "--if-exists"]);
    server.ok(&["kv", "put", "new", "1", "--if-absent"]);
    server.ok(&["kv", "delete", "new", "--if-revision", &(revision + 3).to_string()]);
}

#[test]
fn a_missing_key_is_an_error_in_one_line() {
    let server = Server::start();
    for format in ["text", "json"] {
        let line = server.run(&["kv", "get", "nothing", "-o", format]).failure(1);
        assert!(line.contains("nothing"), "{line}");
    }
}

#[test]
fn keys_are_listed_as_lines_folders_or_json() {
    let server = Server::start();
    for key in ["a/1", "a/2", "a/b/1", "a/b/2", "c"] {
        server.put(key, key);
    }
    let list = |arguments: &[&str]| server.ok(&[&["kv", "list"], arguments].concat());
    assert_eq!(list(&[]), "a/1\na/2\na/b/1\na/b/2\nc\n");
    assert_eq!(list(&["a/", "--separator", "/"]), "a/1\na/2\na/b/\n");
    assert_eq!(list(&["a/", "--reverse"]), "a/b/2\na/b/1\na/2\na/1\n");
    assert_eq!(list(&["a/", "--separator", "/", "--reverse"]), "a/b/\na/2\na/1\n");
    assert_eq!(list(&["--limit", "2"]), "a/1\na/2\n");
    assert_eq!(list(&["--count"]), "5\n");
    assert_eq!(list(&["--revision", "1"]), "a/1\n");
    assert_eq!(list(&["nothing/"]), "");
    let long = list(&["c", "--long"]);
    let columns: Vec<&str> = long.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((columns[0], columns[1], columns[2], columns[4]), ("5", "1", "1", "c"), "{long}");

    let json = server.json(&["kv", "list", "a/", "--separator", "/", "--keys"]);
    assert_eq!(json["commonPrefixes"][0], "a/b/");
    assert_eq!(json["entries"][1]["key"], "a/2");
    assert!(json["entries"][1].get("value").is_none());
    assert_eq!(server.json(&["kv", "list", "c"])["entries"][0]["value"], "Yw==");
    assert_eq!(server.json(&["kv", "list", "--count"])["count"], "5");
}

#[test]
fn a_long_listing_has_all_its_pages() {
    let server = Server::start();
    // Ten transactions of 256 keys: more than one page of the API's default 1,000.
    for batch in 0..10 {
        let puts: Vec<_> = (0..256)
            .map(|n| serde_json::json!({"put": {"key": format!("k{:04}", batch * 256 + n)}}))
            .collect();
        let txn = serde_json::json!({ "then": puts }).to_string();
        server.run_with_stdin(&["kv", "txn"], txn.as_bytes()).success();
    }
    let listed = server.ok(&["kv", "list"]);
    assert_eq!(listed.lines().count(), 2560);
    assert!(listed.lines().is_sorted());
    assert_eq!(server.json(&["kv", "list"])["entries"].as_array().unwrap().len(), 2560);
    assert_eq!(server.ok(&["kv", "list", "--limit", "1500"]).lines().last(), Some("k1499"));
}

#[test]
fn deletes_tell_what_they_did() {
    let server = Server::start();
    for key in ["a/1", "a/2", "b"] {
        server.put(key, "v");
    }
    assert_eq!(server.ok(&["kv", "delete", "b"]), "deleted 1 key at revision 4\n");
    assert_eq!(server.ok(&["kv", "delete", "b"]), "nothing to delete\n");
    server.run(&["kv", "delete", "--prefix", "a/", "--if-revision", "1"]).failure(1);
    let deleted = server.ok(&["kv", "delete", "--prefix", "a/", "--previous"]);
    assert!(deleted.starts_with("deleted 2 keys at revision 5\n"), "{deleted}");
    assert!(deleted.contains("was at revision 2: a/2 v"), "{deleted}");
    assert_eq!(server.ok(&["kv", "list"]), "");
}

#[test]
fn history_shows_versions_until_they_are_compacted() {
    let server = Server::start();
    server.put("k", "one");
    server.put("k", "two");
    server.ok(&["kv", "delete", "k"]);
    let history = server.ok(&["kv", "history", "k"]);
    let rows: Vec<Vec<&str>> = history.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["REVISION", "TIME", "VERSION", "VALUE"]);
    let versions: Vec<_> = rows[1..].iter().map(|row| (row[0], row[2], row[3])).collect();
    assert_eq!(versions, [("3", "-", "deleted"), ("2", "2", "two"), ("1", "1", "one")]);
    let oldest = server.ok(&["kv", "history", "k", "--oldest-first", "--limit", "1"]);
    assert!(oldest.lines().nth(1).unwrap().starts_with("1 "), "{oldest}");
    assert_eq!(oldest.lines().count(), 2);

    assert_eq!(server.ok(&["compact", "2"]), "compacted up to revision 2\n");
    let line = server.run(&["kv", "get", "k", "--revision", "1"]).failure(1);
    assert!(line.contains("compacted"), "{line}");
    server.run(&["compact", "99"]).failure(1);
    assert_eq!(server.ok(&["kv", "history", "unknown"]), "");
}

#[test]
fn a_transaction_is_json_and_does_one_branch() {
    let server = Server::start();
    server.put("blue", "100");
    let txn = r#"{
        "compare": [{"key": "blue", "value": "MTAw"}],
        "then": [{"put": {"key": "blue", "value": "OTA=", "previous": true}}, {"get": {"key": "blue"}}],
        "otherwise": [{"list": {"prefix": ""}}]
    }"#;
    let done = server.run_with_stdin(&["kv", "txn"], txn.as_bytes()).success();
    assert!(done.starts_with("the comparisons held: `then` was done at revision 2\n"), "{done}");
    assert!(done.contains("was at revision 1: blue 100") && done.contains("2. blue 90"), "{done}");

    std::fs::write(server.path("txn.json"), txn).unwrap();
    let json = server.json(&["kv", "txn", "txn.json"]);
    assert!(json.get("succeeded").is_none(), "false is the default, which proto3 JSON leaves out");
    assert_eq!(json["results"][0]["list"]["entries"][0]["value"], "OTA=");

    for (wrong, part) in [("{", "EOF"), (r#"{"thn": []}"#, "thn"), ("{} {}", "trailing")] {
        let line = server.run_with_stdin(&["kv", "txn", "-"], wrong.as_bytes()).failure(1);
        assert!(line.starts_with("- is not a TxnRequest in JSON: ") && line.contains(part), "{line}");
    }
}

#[test]
fn namespaces_are_apart() {
    let server = Server::start();
    server.put("k", "default's");
    server.ok(&["kv", "put", "k", "team's", "-n", "team"]);
    assert_eq!(server.ok(&["kv", "get", "k"]), "default's");
    assert_eq!(server.ok(&["kv", "get", "k", "--namespace", "default"]), "default's");
    let mut command = server.command(&["kv", "get", "k"]);
    let run = crate::konsul::Run::of(command.env("KONSUL_NAMESPACE", "team"), b"");
    assert_eq!(run.success(), "team's");
    server.run(&["kv", "get", "k", "-n", "Not A Name"]).failure(1);
}

#[test]
fn keys_are_compared_over_time_and_reverted() {
    let server = Server::start();
    server.put("app/a", "1");
    server.put("app/b", "1");
    let then = server.put("app/c", "1");
    let point = then.to_string();
    server.put("app/a", "2");
    server.ok(&["kv", "delete", "app/b"]);
    server.put("app/d", "1");
    server.put("other", "1");
    assert_eq!(
        server.ok(&["kv", "diff", "app/", &point]),
        "- app/a  1\n+ app/a  2\n- app/b  1\n+ app/d  1\n"
    );
    assert_eq!(server.ok(&["kv", "diff", "app/a", "1", &point]), "");
    let dry = server.ok(&["kv", "revert", "app/", "--to", &point, "--dry-run"]);
    assert_eq!(dry, "- app/a  2\n+ app/a  1\n+ app/b  1\n- app/d  1\n");
    let reverted = server.json(&["kv", "revert", "app/", "--to", &point]);
    assert_eq!(reverted["changes"].as_array().unwrap().len(), 3);
    assert_eq!(reverted["revision"], (then + 5).to_string(), "all at one revision");
    assert_eq!(server.ok(&["kv", "diff", "app/", &point]), "");
    let nothing = server.ok(&["kv", "revert", "app/", "--to", &point]);
    assert_eq!(nothing, format!("nothing differs, as of revision {}\n", then + 5));
    assert_eq!(server.ok(&["kv", "get", "other"]), "1");

    // Times: the newest write, and long before the first.
    let now = server.json(&["kv", "get", "app/a"])["entry"]["updateTime"].as_str().unwrap().to_owned();
    assert_eq!(server.ok(&["kv", "diff", "app/", &now]), "");
    assert_eq!(server.run(&["kv", "diff", "app/", "24h"]).failure(1), "nothing had been written then");
    assert!(server.run(&["kv", "diff", "app/", "soon"]).code == Some(2));
    server.ok(&["compact", &(then + 1).to_string()]);
    let compacted = server.run(&["kv", "revert", "app/", "--to", &point]).failure(1);
    assert!(compacted.contains("compacted"), "{compacted}");
    assert!(server.run(&["kv", "diff", "app/", "24h"]).failure(1).contains("compacted"));
}

#[test]
fn no_more_is_reverted_than_one_transaction_holds() {
    let server = Server::start();
    let then = server.put("other", "1").to_string();
    for n in 0..257 {
        server.put(&format!("app/{n:03}"), "v");
    }
    let refused = server.run(&["kv", "revert", "app/", "--to", &then]).failure(1);
    assert!(refused.contains("257 keys differ") && refused.contains("narrower"), "{refused}");
    let reverted = server.ok(&["kv", "revert", "app/0", "--prefix", "--to", &then]);
    assert!(reverted.ends_with(&format!("reverted 100 keys at revision {}\n", 259)), "{reverted}");
}

#[test]
fn keys_of_leases_are_left_alone_by_a_revert() {
    let server = Server::start();
    let lease = server.ok(&["lease", "grant", "1h"]).trim().to_owned();
    server.ok(&["kv", "put", "app/gone", "1", "--lease", &lease]);
    server.put("app/bound", "1");
    let then = server.put("app/plain", "1").to_string();
    server.ok(&["kv", "delete", "app/gone"]);
    server.ok(&["kv", "put", "app/bound", "2", "--lease", &lease]);
    server.put("app/plain", "2");
    let diff = server.ok(&["kv", "diff", "app/", &then]);
    assert!(diff.contains("- app/gone  1  (bound to a lease)\n"), "{diff}");
    let left = "left alone, bound to a lease: app/bound and 1 more\n";
    let dry = server.ok(&["kv", "revert", "app/", "--to", &then, "--dry-run"]);
    assert_eq!(dry, format!("- app/plain  2\n+ app/plain  1\n{left}"));
    let reverted = server.json(&["kv", "revert", "app/", "--to", &then]);
    assert_eq!(reverted["leftAlone"], serde_json::json!(["app/bound", "app/gone"]));
    assert_eq!(server.json(&["kv", "get", "app/bound"])["entry"]["lease"], lease);
    server.run(&["kv", "get", "app/gone"]).failure(1);
    assert_eq!(server.ok(&["kv", "get", "app/plain"]), "1");
}

#[test]
fn all_keys_of_a_namespace_are_meant_only_when_that_is_said() {
    let server = Server::start();
    let then = server.put("a", "1").to_string();
    server.put("a", "2");
    for command in [vec!["kv", "diff", "", &then], vec!["kv", "revert", "", "--to", &then]] {
        assert!(server.run(&command).failure(2).contains("--prefix"), "{command:?}");
        assert_eq!(server.ok(&["kv", "get", "a"]), "2");
        server.ok(&[&command[..], &["--prefix"]].concat());
    }
}
