//! How many probes are under way at a time, and settings that are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use konsul_checks::{Probe, Prober, Settings, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::fixture::{BRIEF, PATIENCE, Target, answer, is, read_head, settings};

#[tokio::test]
async fn no_more_probes_at_a_time_than_are_allowed() {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, seen) = (open.clone(), most.clone());
    let target = Target::serve(move |mut stream| {
        let (open, most) = (counted.clone(), seen.clone());
        async move {
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            read_head(&mut stream).await;
            // Time for the others to come, if they may.
            tokio::time::sleep(Duration::from_millis(50)).await;
            open.fetch_sub(1, Ordering::SeqCst);
            let _ = stream.write_all(answer("200 OK", "").as_bytes()).await;
        }
    })
    .await;
    let prober = Arc::new(Prober::new(&Settings { max_concurrent: 3, ..settings() }).unwrap());
    let mut probing = JoinSet::new();
    for _ in 0..12 {
        let (prober, probe) = (prober.clone(), target.get("/"));
        probing.spawn(async move { prober.probe(&probe, PATIENCE).await });
    }
    for told in probing.join_all().await {
        is(&told, Status::Passing, "200 OK");
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn whoever_waits_for_its_turn_has_all_of_its_time() {
    let target = Target::serve(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let prober = Prober::new(&Settings { max_concurrent: 1, ..settings() }).unwrap();
    let started = Instant::now();
    let probe = target.get("/");
    let (first, second) = tokio::join!(prober.probe(&probe, BRIEF), prober.probe(&probe, BRIEF));
    for told in [first, second] {
        is(&told, Status::Critical, "timed out after 300ms waiting for an answer");
    }
    assert!(started.elapsed() >= 2 * BRIEF);
}

#[tokio::test]
async fn any_timeout_is_taken() {
    let target = Target::says("").await;
    let prober = Prober::new(&settings()).unwrap();
    let probe = Probe::tcp(&target.address.to_string(), None).unwrap();
    is(&prober.probe(&probe, Duration::MAX).await, Status::Passing, ": ok");
    let silent = Target::serve(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let told = prober.probe(&silent.await.get("/"), Duration::ZERO).await;
    is(&told, Status::Critical, "timed out after 0ns");
}

#[test]
fn settings_that_are_refused() {
    let script = |arguments: &[&str]| Settings {
        scripts: [("x".to_owned(), arguments.iter().map(|a| (*a).to_owned()).collect())].into(),
        ..settings()
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    let missing = file.path().with_extension("missing");
    for (settings, words) in [
        (Settings { max_concurrent: 0, ..settings() }, "max_concurrent must be 1 to 65535"),
        (Settings { max_concurrent: 65_536, ..settings() }, "max_concurrent must be 1 to 65535"),
        (Settings { max_lookups: 0, ..settings() }, "max_lookups must be 1 to 256"),
        (Settings { max_lookups: 257, ..settings() }, "max_lookups must be 1 to 256"),
        (script(&[]), "script \"x\": names no program"),
        (script(&[""]), "script \"x\": names no program"),
        (script(&["./x"]), "script \"x\": must be an absolute path"),
        (script(&["x", "\0"]), "script \"x\": must not have NUL"),
        (Settings { ca_file: Some(missing), ..settings() }, "No such file"),
        (Settings { ca_file: Some(file.path().to_owned()), ..settings() }, "has none in PEM"),
    ] {
        let error = Prober::new(&settings).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(words), "{words:?} is not in {error:?}");
    }
    assert!(Prober::new(&Settings { max_concurrent: 65_535, max_lookups: 256, ..settings() }).is_ok());
}
