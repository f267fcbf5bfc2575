//! A server in this process, with a switch on its consensus, and short ways to make requests and check refusals.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use konsul_proto::v1::admin_client::AdminClient;
use konsul_proto::v1::kv_client::KvClient;
use konsul_proto::v1::{self, WatchRequest, WatchTarget, watch_target};
use konsul_service::{About, Door, Hub, Limits, Parts, Readers};
use konsul_state::cluster::{Change, Member};
use konsul_state::propose::{BatchSink, Changing, Proposal, Propose, ProposeError, Solo, Standing};
use konsul_state::{Batch, Command, Durability, Outcome, Persistence, Revision, State, StoreOptions};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;

pub(crate) type Kv = KvClient<Channel>;
pub(crate) type Admin = AdminClient<Channel>;

/// A server over a throwaway store.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) state: State,
    pub(crate) hub: Arc<Hub>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) limits: Limits,
    pub(crate) consensus: Arc<Consensus>,
    pub(crate) compacted: Arc<Notify>,
    pub(crate) door: Door,
    _dir: tempfile::TempDir,
}

/// `Solo`, until it is told to fail or to wait.
pub(crate) struct Consensus {
    solo: Solo,
    failure: Mutex<Option<ProposeError>>,
    failed: watch::Sender<u64>,
    standing: Mutex<Option<Standing>>,
    open: watch::Sender<bool>,
}

impl Consensus {
    /// Fails every proposal and barrier from now on, or none.
    pub(crate) fn fail(&self, failure: Option<ProposeError>) {
        *self.failure.lock().unwrap() = failure;
    }

    /// Returns when so many more proposals and barriers have failed.
    pub(crate) async fn failing(&self, count: u64) {
        let mut failed = self.failed.subscribe();
        let before = *failed.borrow_and_update();
        soon(failed.wait_for(|failed| *failed >= before + count)).await.unwrap();
    }

    /// Stands otherwise from now on.
    pub(crate) fn stand(&self, standing: Standing) {
        *self.standing.lock().unwrap() = Some(standing);
    }

    /// Holds every proposal and barrier up, or lets them go.
    pub(crate) fn hold(&self, hold: bool) {
        self.open.send_replace(!hold);
    }

    async fn pass(&self) -> Result<(), ProposeError> {
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        let failure = self.failure.lock().unwrap().clone();
        if failure.is_some() {
            self.failed.send_modify(|failed| *failed += 1);
        }
        failure.map_or(Ok(()), Err)
    }
}

impl Propose for Consensus {
    fn propose(&self, command: Command) -> Proposal<'_, Outcome> {
        Box::pin(async move {
            self.pass().await?;
            self.solo.propose(command).await
        })
    }

    fn read_barrier(&self) -> Proposal<'_, ()> {
        Box::pin(self.pass())
    }

    fn ask_leader(&self, question: Bytes) -> Proposal<'_, Bytes> {
        Box::pin(async move {
            self.pass().await?;
            self.solo.ask_leader(question).await
        })
    }

    fn standing(&self) -> Standing {
        self.standing.lock().unwrap().unwrap_or_else(|| self.solo.standing())
    }

    fn unfit(&self) -> Option<ProposeError> {
        None
    }

    fn format(&self) -> u32 {
        self.solo.format()
    }

    fn cluster_id(&self) -> String {
        "a cluster".to_owned()
    }

    fn members(&self) -> Vec<Member> {
        self.solo.members()
    }

    fn shrink(&self) -> konsul_state::propose::Changing<'_> {
        self.solo.shrink()
    }

    fn change(&self, change: Change) -> Changing<'_> {
        self.solo.change(change)
    }
}

pub(crate) fn store(dir: PathBuf) -> StoreOptions {
    StoreOptions {
        dir,
        map_bytes: 4 << 30,
        persistence: Persistence::Memory,
        durability: Durability::Log,
        boot_id: "test".to_owned(),
    }
}

/// Publishes nothing: stands between a store's writer and a hub that a test publishes to by hand.
pub(crate) struct Nowhere;

impl BatchSink for Nowhere {
    fn publish(&self, _: &[Arc<Batch>]) {}
    fn reset(&self, _: Revision) {}
}

pub(crate) async fn start() -> Server {
    start_with(Limits::default()).await
}

pub(crate) async fn start_with(limits: Limits) -> Server {
    start_publishing(limits, true).await
}

/// A server whose hub is told of changes, or not.
pub(crate) async fn start_publishing(limits: Limits, publishing: bool) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let (state, writer, _) = konsul_state::store::open(store(dir.path().join("state"))).unwrap();
    let readers = Readers::new(state.clone(), limits.clone()).unwrap();
    let sink: Arc<dyn BatchSink> = if publishing { readers.clone() } else { Arc::new(Nowhere) };
    let consensus = Arc::new(Consensus {
        solo: Solo::new(state.clone(), writer, sink),
        failure: Mutex::default(),
        failed: watch::Sender::new(0),
        standing: Mutex::default(),
        open: watch::Sender::new(true),
    });
    consensus.solo.answer_with(readers.clone());
    let compacted = Arc::new(Notify::new());
    let parts = Parts {
        state: state.clone(),
        propose: consensus.clone(),
        readers: readers.clone(),
        limits: limits.clone(),
        about: About { version: "1.2.3".to_owned(), persistence: "memory" },
        compacted: compacted.clone(),
        observer: None,
    };
    let (door, _health) = Door::new(parts).await.unwrap();
    let address = serve(door.clone()).await;
    let hub = readers.hub.clone();
    Server { address, state, hub, readers, limits, consensus, compacted, door, _dir: dir }
}

/// Serves a Door on loopback for as long as the test's runtime lives.
pub(crate) async fn serve(door: Door) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            connection.set_nodelay(true).unwrap();
            let service = TowerToHyperService::new(door.clone());
            tokio::spawn(async move {
                let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
                builder.http2().max_concurrent_streams(100_000);
                // A client that goes away is none of the server's errors.
                let _ = builder.serve_connection(TokioIo::new(connection), service).await;
            });
        }
    });
    address
}

impl Server {
    pub(crate) async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn kv(&self) -> Kv {
        KvClient::new(self.channel().await).max_decoding_message_size(64 << 20)
    }

    /// A client in this process. Its deadlines are the server's to keep: a channel keeps them itself.
    pub(crate) fn in_process(&self) -> KvClient<Door> {
        KvClient::new(self.door.clone())
    }

    pub(crate) async fn admin(&self) -> Admin {
        AdminClient::new(self.channel().await)
    }

    /// The store's revision and hash: equal before and after what must change nothing.
    pub(crate) fn fingerprint(&self) -> (u64, String) {
        let view = self.state.view().unwrap();
        (view.revision().0, view.hash().to_string())
    }
}

/// Puts a key and returns its revision.
pub(crate) async fn put(kv: &mut Kv, key: &str, value: &str) -> u64 {
    let request = v1::PutRequest { key: key.into(), value: value.to_owned().into(), ..Default::default() };
    kv.put(request).await.unwrap().into_inner().revision
}

/// Deletes a key and returns its revision.
pub(crate) async fn delete(kv: &mut Kv, key: &str) -> u64 {
    let request = v1::DeleteRequest { key: key.into(), ..Default::default() };
    kv.delete(request).await.unwrap().into_inner().revision
}

pub(crate) async fn compact(admin: &mut Admin, revision: u64) {
    admin.compact(v1::CompactRequest { revision }).await.unwrap();
}

pub(crate) fn get(key: &str) -> v1::GetRequest {
    v1::GetRequest { key: key.into(), ..Default::default() }
}

pub(crate) fn stale() -> v1::ReadOptions {
    v1::ReadOptions { consistency: v1::Consistency::Stale.into(), ..Default::default() }
}

pub(crate) fn min_revision(min_revision: u64) -> v1::ReadOptions {
    v1::ReadOptions { min_revision, ..stale() }
}

pub(crate) fn range(start: &str, end: &str) -> v1::KeyRange {
    v1::KeyRange { start: start.into(), end: end.into() }
}

pub(crate) fn watch_key(id: u64, key: &str) -> WatchTarget {
    WatchTarget { id, selector: Some(watch_target::Selector::Key(key.into())), ..Default::default() }
}

pub(crate) fn watch_prefix(id: u64, prefix: &str) -> WatchTarget {
    WatchTarget { id, selector: Some(watch_target::Selector::Prefix(prefix.into())), ..Default::default() }
}

pub(crate) fn watching(targets: Vec<WatchTarget>) -> WatchRequest {
    WatchRequest { targets, ..Default::default() }
}

/// What a refusal says, for comparison with what it should say.
#[derive(Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) reason: String,
    pub(crate) fields: Vec<String>,
}

pub(crate) fn refusal(status: &Status) -> Refusal {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{status:?} has no ErrorInfo"));
    assert_eq!(info.domain, "konsul");
    assert!(!status.message().is_empty() && !status.message().contains('\n'), "{status:?}");
    let fields = details.bad_request().map(|b| b.field_violations.iter().map(|v| v.field.clone()).collect());
    Refusal { code: status.code(), reason: info.reason.clone(), fields: fields.unwrap_or_default() }
}

pub(crate) fn refused(code: Code, reason: &str) -> Refusal {
    Refusal { code, reason: reason.into(), fields: vec![] }
}

pub(crate) fn invalid(field: &str) -> Refusal {
    Refusal { code: Code::InvalidArgument, reason: "INVALID_FIELD".into(), fields: vec![field.into()] }
}

/// A value of the refusal's `ErrorInfo`.
pub(crate) fn metadata(status: &Status, name: &str) -> Option<String> {
    status.get_error_details().error_info().and_then(|info| info.metadata.get(name).cloned())
}

/// Waits for what has to happen soon, and fails the test if it doesn't.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("this should have happened by now")
}

/// The seed of a randomised test, printed so that a failure can be repeated.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("KONSUL_TEST_SEED").ok();
    let seed = given.map_or_else(rand::random, |seed| seed.parse().expect("KONSUL_TEST_SEED is a number"));
    println!("KONSUL_TEST_SEED={seed}");
    seed
}

/// Starts the leader's duties for a server.
pub(crate) fn start_duties(server: &Server, limits: &Limits) -> konsul_service::duties::Duties {
    let propose: Arc<dyn Propose> = server.consensus.clone();
    konsul_service::duties::Duties::start(
        server.state.clone(),
        propose,
        &server.readers,
        limits,
        server.compacted.clone(),
        Arc::new(konsul_checks::Prober::new(&konsul_checks::Settings::default()).unwrap()),
    )
}
