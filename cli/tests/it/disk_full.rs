//! A disk that fills up: writes are refused, reads and watches go on, and all is well again when there is space. On a real
//! file system of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use konsul_proto::v1::admin_client::AdminClient;
use konsul_proto::v1::watch_response::Kind;
use konsul_proto::v1::{
    CompactRequest, DeleteRequest, GetRequest, PutRequest, WatchRequest, WatchResponse, WatchTarget,
    watch_target,
};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tempfile::TempDir;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use crate::konsul::LIMIT;
use crate::server::{Kv, Server};

const DISK_BYTES: u64 = 320 << 20;
const RESERVE_BYTES: u64 = 24 << 20;
/// The size of a log file.
const LOG_FILE_BYTES: u64 = 32 << 20;
/// The deadline of a put.
const PATIENCE: Duration = Duration::from_secs(5);

/// A small file system, gone when this is dropped.
struct Disk {
    folder: TempDir,
}

impl Disk {
    /// Mounts one; `None` where the environment says that nothing may be mounted.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (image, point) = (folder.path().join("image"), folder.path().join("disk"));
        fs::create_dir(&point).unwrap();
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        let looped = run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))
            .and_then(|()| run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&point)));
        let size = format!("size={DISK_BYTES}");
        let mounted = looped.or_else(|loop_error| {
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&point))
                .map_err(|error| format!("{loop_error}; {error}"))
        });
        match mounted {
            Ok(()) => Some(Self { folder }),
            Err(_) if std::env::var("KONSUL_TEST_NO_MOUNT").is_ok_and(|value| value == "1") => None,
            Err(error) => panic!(
                "this test fills up a file system that it mounts, and may not mount one ({error}): \
                 run it as root, or set KONSUL_TEST_NO_MOUNT=1 to leave it out"
            ),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("disk").join(name)
    }

    fn free_bytes(&self) -> u64 {
        let disk = statvfs(self.path("")).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Takes space until no more than this is left.
    fn leave(&self, name: &str, bytes: u64) {
        let ballast = File::create(self.path(name)).unwrap();
        let mut taken = 0;
        while let Some(more) = self.free_bytes().checked_sub(bytes).filter(|more| *more > 64 << 10) {
            // File systems need some blocks for themselves, so the last ones are taken piecemeal.
            let more = if more > 1 << 20 { more - (512 << 10) } else { 32 << 10 };
            if fallocate(&ballast, FallocateFlags::empty(), taken, more).is_err() {
                return;
            }
            taken += more;
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let point = self.path("");
        let unmounted = run(Command::new("umount").arg(&point));
        if let Err(error) = unmounted.or_else(|_| run(Command::new("umount").arg("-l").arg(&point))) {
            eprintln!("{} stays mounted: {error}", point.display());
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

async fn start(dir: &Path, reserve_bytes: u64) -> Server {
    let server = Server::launch().set("KONSUL_RAFT_DISK_RESERVE_BYTES", reserve_bytes).data_dir(dir).start();
    until_a_log_file_is_spare(dir).await;
    server
}

/// A server with space prepares a log file, and gives the space back should it run out meanwhile. Whoever wants to take
/// all there is takes it afterwards.
async fn until_a_log_file_is_spare(dir: &Path) {
    let is_whole = |path: &Path| {
        let bytes = fs::metadata(path).map_or(0, |found| found.len());
        path.extension().is_some_and(|extension| extension == "spare") && bytes == LOG_FILE_BYTES
    };
    until("a log file is spare", async || {
        let found = fs::read_dir(dir.join("log")).unwrap();
        found.flatten().any(|entry| is_whole(&entry.path())).then_some(())
    })
    .await;
}

async fn put(kv: &mut Kv, key: &str, value: &[u8]) -> Result<u64, Status> {
    let put = PutRequest { key: key.to_owned(), value: value.to_vec().into(), ..PutRequest::default() };
    let mut put = tonic::Request::new(put);
    put.set_timeout(PATIENCE);
    Ok(kv.put(put).await?.into_inner().revision)
}

async fn get(kv: &mut Kv, key: &str) -> Vec<u8> {
    let get = GetRequest { key: key.to_owned(), ..GetRequest::default() };
    kv.get(get).await.unwrap().into_inner().entry.unwrap().value.into()
}

fn is_disk_full(status: &Status) {
    let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
    assert_eq!(
        (status.code(), reason.as_deref()),
        (Code::ResourceExhausted, Some("DISK_FULL")),
        "{status:?}"
    );
}

/// Tries until it is as it should be: the server looks at the disk ten times a second.
async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(done) = attempt().await {
            return done;
        }
        assert!(began.elapsed() < LIMIT, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The revision of the next change of a watch.
async fn next_change(watch: &mut Streaming<WatchResponse>) -> u64 {
    loop {
        let message = tokio::time::timeout(LIMIT, watch.message()).await.expect("nothing comes");
        let message = message.expect("the watch broke").expect("the watch ended");
        match message.kind() {
            Kind::Events => return message.revision,
            other => assert!(matches!(other, Kind::Opened | Kind::Progress), "{message:?}"),
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_nothing_else() {
    let Some(disk) = Disk::mount() else { return };
    let mut server = start(&disk.path("data"), RESERVE_BYTES).await;
    let mut kv = server.kv();
    let selector = Some(watch_target::Selector::Key("watched".to_owned()));
    let target = WatchTarget { id: 1, selector, ..WatchTarget::default() };
    let watch = WatchRequest { targets: vec![target], ..WatchRequest::default() };
    let mut watch = kv.watch(watch).await.unwrap().into_inner();
    for key in ["watched", "first", "second", "third"] {
        put(&mut kv, key, b"before").await.unwrap();
    }
    assert_eq!(next_change(&mut watch).await, 1);

    // Into the reserve: only what frees space is taken.
    let delete = |key: &str| DeleteRequest { key: key.to_owned(), ..DeleteRequest::default() };
    let mut admin = AdminClient::new(server.channel());
    until("what frees space is taken and a put is not", async || {
        // The server takes space as well, for files that it prepares.
        if !(RESERVE_BYTES * 5 / 8..RESERVE_BYTES).contains(&disk.free_bytes()) {
            disk.leave("ballast", RESERVE_BYTES * 3 / 4);
        }
        is_disk_full(&put(&mut kv, "refused", b"").await.err()?);
        let revision = kv.delete(delete("second")).await.ok()?.into_inner().revision;
        admin.compact(CompactRequest { revision: revision - 1 }).await.ok()
    })
    .await;
    assert_eq!(get(&mut kv, "first").await, b"before");
    assert_eq!(server.page("/health/ready").unwrap().0, 200);

    // Nothing left: not even a delete is taken.
    disk.leave("more-ballast", 0);
    let refusal = until("full", async || kv.delete(delete("nothing")).await.err()).await;
    is_disk_full(&refusal);
    is_disk_full(&put(&mut kv, "watched", b"").await.unwrap_err());
    assert_eq!(get(&mut kv, "third").await, b"before");

    // All of it comes back without a restart, and the watch was there all the time.
    fs::remove_file(disk.path("more-ballast")).unwrap();
    fs::remove_file(disk.path("ballast")).unwrap();
    let revision = until("free again", async || put(&mut kv, "watched", b"after").await.ok()).await;
    assert_eq!(next_change(&mut watch).await, revision);
    server.restart();
    assert_eq!(get(&mut server.kv(), "watched").await, b"after");
}

#[tokio::test]
async fn a_server_that_dies_on_a_full_disk_has_lost_nothing() {
    dies_on_a_full_disk(RESERVE_BYTES, RESERVE_BYTES + (8 << 20)).await;
}

/// With hardly a reserve, writes that were accepted meet the end of the disk itself.
#[tokio::test]
async fn a_server_with_hardly_a_reserve_has_lost_nothing_either() {
    dies_on_a_full_disk(1 << 20, 8 << 20).await;
}

/// Writes until the disk, of which so much is left, is full, and kills the server.
async fn dies_on_a_full_disk(reserve_bytes: u64, left_bytes: u64) {
    let Some(disk) = Disk::mount() else { return };
    let mut server = start(&disk.path("data"), reserve_bytes).await;
    let mut kv = server.kv();
    disk.leave("ballast", left_bytes);
    let value = vec![7; 512 << 10];
    let mut acknowledged: Vec<String> = Vec::new();
    let refusal = loop {
        let key = format!("key-{}", acknowledged.len());
        match put(&mut kv, &key, &value).await {
            Ok(_) => acknowledged.push(key),
            Err(status) => break status,
        }
    };
    // One that was accepted before the disk was full waits for space.
    if !matches!(refusal.code(), Code::DeadlineExceeded | Code::Cancelled) {
        is_disk_full(&refusal);
    }
    assert!(acknowledged.len() > 2, "{}", acknowledged.len());
    disk.leave("more-ballast", 0);
    assert!(server.is_up());
    let before = server.status().await;

    server.kill();
    // A start writes a little, for which the reserve is enough, or what somebody frees.
    fs::remove_file(disk.path("more-ballast")).unwrap();
    if reserve_bytes < RESERVE_BYTES {
        fs::remove_file(disk.path("ballast")).unwrap();
    }
    server.restart();
    if reserve_bytes < RESERVE_BYTES {
        until_a_log_file_is_spare(&disk.path("data")).await;
    }
    let after = server.status().await;
    // What waited may have been made durable meanwhile.
    assert!(after.revision >= before.revision, "{before:?}, {after:?}");
    let mut kv = server.kv();
    for key in &acknowledged {
        assert_eq!(get(&mut kv, key).await, value, "{key}");
    }
    // A start may have freed what a crash left over.
    disk.leave("yet-more-ballast", 0);
    until("full again", async || put(&mut kv, "refused", b"").await.err()).await;
    for ballast in ["ballast", "more-ballast", "yet-more-ballast"] {
        let _ = fs::remove_file(disk.path(ballast));
    }
    until("free again", async || put(&mut kv, "accepted", b"").await.ok()).await;
    server.terminate();
    assert!(server.wait().success());
    server.restart();
    let mut kv = server.kv();
    for key in &acknowledged {
        assert_eq!(get(&mut kv, key).await, value, "{key}");
    }
    assert_eq!(get(&mut kv, "accepted").await, b"");
}
