//! The list of metrics: each one's name, unit and where it is read. All are read when they are scraped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use konsul_raft::Stats;
use konsul_service::observe::CallObserver;
use konsul_service::{Hub, Readers};
use konsul_state::State;
use konsul_state::propose::Propose;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder, Registry, TextEncoder};

use super::calls::Calls;
use super::histograms::{Histograms, Reading};
use super::process;
use crate::backup::BackupStats;
use crate::dns;

/// What the metrics are read from.
#[derive(Clone)]
pub(crate) struct Sources {
    /// The state.
    pub(crate) state: State,
    /// The readers of the stream of changes.
    pub(crate) readers: Arc<Readers>,
    /// The log and the proposer.
    pub(crate) stats: Arc<Stats>,
    /// The store's hard and soft limit in bytes.
    pub(crate) limits: (u64, u64),
    /// Consensus.
    pub(crate) propose: Arc<dyn Propose>,
    /// What DNS counts, if there is DNS.
    pub(crate) dns: Option<Arc<dns::Counters>>,
    /// Backups made by the server itself.
    pub(crate) backups: Arc<BackupStats>,
}

/// All metrics of a server.
pub(crate) struct Metrics {
    registry: Registry,
    calls: Arc<Calls>,
    // Keeps the instruments' callbacks alive.
    _provider: SdkMeterProvider,
}

/// Why metrics could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up metrics: {0}")]
pub(crate) struct MetricsError(String);

impl Metrics {
    /// Sets up all instruments.
    ///
    /// # Errors
    /// When two have one name.
    pub(crate) fn new(sources: Sources) -> Result<Self, MetricsError> {
        let failed = |e: &dyn std::fmt::Display| MetricsError(e.to_string());
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()
            .map_err(|e| failed(&e))?;
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let meter = provider.meter("konsul");
        let calls = Arc::new(Calls::new());
        observe_calls(&meter, &calls);
        observe_process(&meter);
        observe_state(&meter, &sources);
        observe_watches(&meter, &sources.readers.hub);
        observe_coordination(&meter, &sources.readers);
        observe_raft(&meter, &sources);
        observe_backups(&meter, &sources.backups);
        observe_catalog(&meter, &sources.readers);
        if let Some(dns) = &sources.dns {
            dns::observe(&meter, dns);
        }
        register_histograms(&registry, &calls, &sources.stats).map_err(|e| failed(&e))?;
        Ok(Self { registry, calls, _provider: provider })
    }

    /// What the Door tells of calls.
    #[must_use]
    pub(crate) fn observer(&self) -> Arc<dyn CallObserver> {
        self.calls.clone()
    }

    /// Reads everything, in Prometheus' text format.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// A gauge that is read when it is scraped.
fn gauge(
    meter: &Meter,
    name: &'static str,
    help: &'static str,
    read: impl Fn() -> u64 + Send + Sync + 'static,
) {
    meter
        .u64_observable_gauge(name)
        .with_description(help)
        .with_callback(move |o| o.observe(read(), &[]))
        .build();
}

/// A counter that is read when it is scraped.
fn counter(
    meter: &Meter,
    name: &'static str,
    help: &'static str,
    read: impl Fn() -> u64 + Send + Sync + 'static,
) {
    meter
        .u64_observable_counter(name)
        .with_description(help)
        .with_callback(move |o| o.observe(read(), &[]))
        .build();
}

fn observe_catalog(meter: &Meter, readers: &Arc<Readers>) {
    let read = |number: fn((usize, usize, usize)) -> usize| {
        let readers = readers.clone();
        move || number(readers.directory.counts()) as u64
    };
    gauge(meter, "konsul_catalog_services", "Services in the catalog", read(|(services, _, _)| services));
    gauge(meter, "konsul_catalog_instances", "Instances of services in the catalog", read(|(_, n, _)| n));
    let active = readers.clone();
    let count = move || active.active_checks() as u64;
    gauge(meter, "konsul_catalog_active_checks", "Active checks, which all members share", count);
    gauge(meter, "konsul_catalog_nodes", "Nodes in the catalog", read(|(_, _, nodes)| nodes));
}

fn observe_backups(meter: &Meter, stats: &Arc<BackupStats>) {
    let read = |number: fn(&BackupStats) -> &AtomicU64| {
        let stats = stats.clone();
        move || number(&stats).load(Relaxed)
    };
    gauge(
        meter,
        "konsul_backup_last_time_seconds",
        "When the newest backup in backup.folder was made, in seconds since 1970; 0 if there is none",
        read(|stats| &stats.last_s),
    );
    gauge(
        meter,
        "konsul_backup_last_bytes",
        "Bytes of the last backup this server made since its start",
        read(|stats| &stats.last_bytes),
    );
    counter(
        meter,
        "konsul_backups_made",
        "Backups made and restored for a trial since the start",
        read(|stats| &stats.made),
    );
    counter(
        meter,
        "konsul_backups_failed",
        "Backups that failed since the start",
        read(|stats| &stats.failed),
    );
}

fn observe_calls(meter: &Meter, calls: &Arc<Calls>) {
    let ended = calls.clone();
    meter
        .u64_observable_counter("konsul_rpc_calls")
        .with_description("Calls that ended, by method and code")
        .with_callback(move |o| {
            for (method, code, count) in ended.ended() {
                let code = format!("{code:?}");
                o.observe(count, &[KeyValue::new("method", method), KeyValue::new("code", code)]);
            }
        })
        .build();
    let in_flight = calls.clone();
    meter
        .u64_observable_gauge("konsul_rpc_in_flight")
        .with_description("Calls that have not ended, streams included, by method")
        .with_callback(move |o| {
            for (method, count) in in_flight.in_flight() {
                o.observe(count, &[KeyValue::new("method", method)]);
            }
        })
        .build();
}

fn observe_process(meter: &Meter) {
    meter
        .u64_observable_gauge("konsul_build_info")
        .with_description("1, labelled with the version that runs")
        .with_callback(|o| o.observe(1, &[KeyValue::new("version", crate::VERSION)]))
        .build();
    gauge(meter, "process_resident_memory_bytes", "Memory in use, pages of the store included", || {
        process::read().resident_bytes
    });
    gauge(meter, "konsul_process_anonymous_memory_bytes", "Memory in use that belongs to no file", || {
        process::read().anonymous_bytes
    });
    gauge(meter, "process_open_fds", "Open file descriptors", || process::read().open_files);
    gauge(meter, "process_threads", "Threads", || process::read().threads);
    meter
        .f64_observable_counter("process_cpu_seconds")
        .with_description("CPU time used, user and system")
        .with_callback(|o| o.observe(process::read().cpu_seconds, &[]))
        .build();
}

fn observe_state(meter: &Meter, sources: &Sources) {
    /// Reads a number off a view; 0 when the store can't be read, which `/health/ready` tells.
    fn of_view(
        state: &State,
        read: impl Fn(&konsul_state::View) -> u64 + Send + Sync + 'static,
    ) -> impl Fn() -> u64 + Send + Sync + 'static {
        let state = state.clone();
        move || state.view().map_or(0, |view| read(&view))
    }
    let state = &sources.state;
    gauge(meter, "konsul_revision", "Revision of the store", of_view(state, |v| v.revision().0));
    gauge(
        meter,
        "konsul_compact_revision",
        "History up to this revision is compacted",
        of_view(state, |v| v.compact_revision().0),
    );
    gauge(
        meter,
        "konsul_store_entries",
        "KV entries in all namespaces",
        of_view(state, |v| v.entries().unwrap_or(0)),
    );
    gauge(
        meter,
        "konsul_store_used_bytes",
        "Bytes of the state that hold data",
        of_view(state, |v| v.used_bytes().unwrap_or(0)),
    );
    let limits = sources.limits;
    gauge(
        meter,
        "konsul_store_max_bytes",
        "Limit of the store, after which writes that grow it are refused",
        move || limits.0,
    );
    gauge(
        meter,
        "konsul_store_nearly_full",
        "1 while the store has more than limits.store_warning_percent of its limit",
        of_view(state, move |v| v.used_bytes().is_ok_and(|used| used >= limits.1).into()),
    );
    gauge(meter, "konsul_store_history_bytes", "Bytes of history", of_view(state, |v| v.history_bytes()));
    let of_file = state.clone();
    gauge(meter, "konsul_store_file_bytes", "Bytes of the state's file on the disk", move || {
        of_file.size_bytes().map_or(0, |(_, file)| file)
    });
}

fn observe_watches(meter: &Meter, hub: &Arc<Hub>) {
    let of_hub = |read: fn(&konsul_service::WatchStats) -> u64| {
        let hub = hub.clone();
        move || read(&hub.stats())
    };
    gauge(meter, "konsul_watch_streams", "Open watch streams", of_hub(|s| s.streams as u64));
    gauge(meter, "konsul_watch_targets", "Targets of all watch streams", of_hub(|s| s.targets as u64));
    gauge(
        meter,
        "konsul_watch_lag_revisions",
        "Revisions that are published but not yet matched to watchers",
        of_hub(|s| s.lag_revisions),
    );
    gauge(meter, "konsul_watch_ring_bytes", "Recent changes kept in memory", of_hub(|s| s.ring_bytes as u64));
    counter(meter, "konsul_watch_events", "Events sent to watchers", of_hub(|s| s.events_sent));
}

fn observe_coordination(meter: &Meter, readers: &Arc<Readers>) {
    let of_readers = |read: fn(&Readers) -> usize| {
        let readers = readers.clone();
        move || read(&readers) as u64
    };
    gauge(
        meter,
        "konsul_leases",
        "Leases that this member looks after as leader",
        of_readers(Readers::leases),
    );
    gauge(
        meter,
        "konsul_lock_waiters",
        "Calls that wait for a lock or an election, or observe one",
        of_readers(Readers::waiting_for_locks),
    );
}

fn observe_raft(meter: &Meter, sources: &Sources) {
    let of_stats = |read: fn(&Stats) -> &AtomicU64| {
        let stats = sources.stats.clone();
        move || read(&stats).load(Relaxed)
    };
    gauge(
        meter,
        "konsul_raft_waiting_writes",
        "Writes that wait for their outcome",
        of_stats(|s| &s.waiting),
    );
    counter(
        meter,
        "konsul_raft_refused_writes",
        "Writes refused before they were proposed",
        of_stats(|s| &s.refused),
    );
    counter(meter, "konsul_raft_read_rounds", "Rounds of read-index", of_stats(|s| &s.read_rounds));
    counter(meter, "konsul_raft_reads", "Reads served by rounds of read-index", of_stats(|s| &s.reads));
    counter(
        meter,
        "konsul_raft_log_written_bytes",
        "Bytes written to the log",
        of_stats(|s| &s.log_written_bytes),
    );
    counter(
        meter,
        "konsul_raft_snapshot_sent_bytes",
        "Bytes of snapshots sent to other members",
        of_stats(|s| &s.snapshot_sent_bytes),
    );
    gauge(
        meter,
        "konsul_raft_snapshot_received_bytes",
        "Bytes that are here of the snapshot that comes in, or came in last",
        of_stats(|s| &s.snapshot_received_bytes),
    );
    gauge(
        meter,
        "konsul_raft_snapshot_expected_bytes",
        "Size of that snapshot",
        of_stats(|s| &s.snapshot_expected_bytes),
    );
    counter(
        meter,
        "konsul_raft_hash_comparisons",
        "Hashes of other members' states that were compared with this one's",
        of_stats(|s| &s.hash_comparisons),
    );
    counter(
        meter,
        "konsul_raft_divergences",
        "How often this member's state was found to differ from the others'",
        of_stats(|s| &s.divergences),
    );
    counter(meter, "konsul_raft_snapshots", "Snapshots made", of_stats(|s| &s.snapshots));
    gauge(
        meter,
        "konsul_out_of_space",
        "1 while writes are refused for lack of disk space",
        of_stats(|s| &s.out_of_space),
    );
    let of_standing = |read: fn(&konsul_state::propose::Standing) -> u64| {
        let propose = sources.propose.clone();
        move || read(&propose.standing())
    };
    gauge(meter, "konsul_raft_term", "The current term", of_standing(|s| s.term));
    gauge(
        meter,
        "konsul_raft_is_leader",
        "Whether this member leads",
        of_standing(|s| u64::from(s.leader_id == Some(s.member_id))),
    );
    gauge(
        meter,
        "konsul_raft_committed_index",
        "The last log entry that is known to be committed",
        of_standing(|s| s.committed_index),
    );
    gauge(
        meter,
        "konsul_raft_applied_index",
        "The last log entry that is applied here",
        of_standing(|s| s.applied_index),
    );
    gauge(
        meter,
        "konsul_raft_last_contact_milliseconds",
        "How long ago this member last had word of the leader, or as leader of a quorum; one day if never",
        of_standing(|s| s.last_contact_ms.unwrap_or(86_400_000)),
    );
    let propose = sources.propose.clone();
    gauge(
        meter,
        "konsul_serving",
        "1 while this member serves, 0 while its storage failed or its state differs",
        move || u64::from(propose.unfit().is_none()),
    );
    observe_members(meter, sources);
    gauge(meter, "konsul_raft_log_bytes", "Bytes of the log on the disk", of_standing(|s| s.log_bytes));
}

/// What the leader knows of the others; on other members there is nothing of it.
fn observe_members(meter: &Meter, sources: &Sources) {
    let propose = sources.propose.clone();
    meter
        .u64_observable_gauge("konsul_raft_member_lag_entries")
        .with_description("Log entries that a member lacks, by member; told by the leader")
        .with_callback(move |o| {
            let newest = propose.standing().committed_index;
            for member in propose.members() {
                if let Some(index) = member.matching_index.filter(|_| leads(&*propose)) {
                    o.observe(newest.saturating_sub(index), &[KeyValue::new("member", member.name)]);
                }
            }
        })
        .build();
    let propose = sources.propose.clone();
    meter
        .u64_observable_gauge("konsul_raft_member_last_contact_milliseconds")
        .with_description("How long ago a member answered the leader last, by member; told by the leader")
        .with_callback(move |o| {
            for member in propose.members() {
                if let Some(ms) = member.last_contact_ms.filter(|_| leads(&*propose)) {
                    o.observe(ms, &[KeyValue::new("member", member.name)]);
                }
            }
        })
        .build();
}

fn leads(propose: &dyn Propose) -> bool {
    let standing = propose.standing();
    standing.leader_id == Some(standing.member_id)
}

fn register_histograms(
    registry: &Registry,
    calls: &Arc<Calls>,
    stats: &Arc<Stats>,
) -> prometheus::Result<()> {
    let durations = calls.clone();
    registry.register(Box::new(Histograms::new(
        "konsul_rpc_duration_seconds",
        "Time from a call's headers to its answer, by method; streams are left out",
        &["method"],
        move || durations.durations(),
    )?))?;
    type Pick = fn(&Stats) -> &konsul_raft::Histogram;
    let families: [(&str, &str, f64, Pick); 5] = [
        ("konsul_commit_batch_size", "Writes of each log entry", 1.0, |s| &s.group_commands),
        ("konsul_commit_duration_seconds", "Time from accepting a write to its outcome", 1e6, |s| {
            &s.propose_us
        }),
        ("konsul_log_append_duration_seconds", "Time to write entries and sync them", 1e6, |s| &s.append_us),
        ("konsul_log_sync_duration_seconds", "Time of each sync of the log", 1e6, |s| &s.sync_us),
        ("konsul_apply_duration_seconds", "Time of each transaction of the state", 1e6, |s| &s.apply_us),
    ];
    for (name, help, per_unit, pick) in families {
        let stats = stats.clone();
        let read = move || {
            let histogram = pick(&stats);
            vec![Reading {
                labels: Vec::new(),
                bounds: histogram.bounds().iter().map(|bound| *bound as f64 / per_unit).collect(),
                counts: histogram.counts(),
                sum: histogram.sum() as f64 / per_unit,
            }]
        };
        registry.register(Box::new(Histograms::new(name, help, &[], read)?))?;
    }
    Ok(())
}
