//! The list of settings: name, range, meaning, and where the value goes. A new setting is a field and an entry here;
//! its environment variable, its errors and its line in docs/configuration.md follow.

use super::Settings;
use super::value::{Value, parse_bytes, parse_filter, parse_name, show_bytes};

/// One setting.
pub struct Setting {
    /// Its section and name in the file: `server.listen`.
    pub path: &'static str,
    /// What it does, its unit and range.
    pub doc: &'static str,
    pub(super) set: fn(&mut Settings, &str) -> Result<(), String>,
    pub(super) show: fn(&Settings) -> String,
}

impl Setting {
    /// Its environment variable: `KONSUL_SERVER_LISTEN`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("KONSUL_{}", self.path.replace('.', "_").to_uppercase())
    }

    /// Its value among `settings`, as it would be written.
    #[must_use]
    pub fn show(&self, settings: &Settings) -> String {
        (self.show)(settings)
    }
}

/// A setting of a kind that has a text form by itself, within a range if one is given.
macro_rules! plain {
    ($path:literal, $($field:ident).+, $doc:literal $(, $range:expr)?) => {
        Setting {
            path: $path,
            doc: $doc,
            set: |settings, text| {
                let value = Value::parse(text)?;
                $(within(&value, &$range)?;)?
                settings.$($field).+ = value;
                Ok(())
            },
            show: |settings| Value::show(&settings.$($field).+),
        }
    };
}

/// A number of bytes within a range.
macro_rules! bytes {
    ($path:literal, $($field:ident).+, $doc:literal, $range:expr) => {
        Setting {
            path: $path,
            doc: $doc,
            set: |settings, text| {
                let value = parse_bytes(text)?;
                let range = $range;
                if !range.contains(&value) {
                    return Err(format!("from {} to {}", show_bytes(*range.start()), show_bytes(*range.end())));
                }
                settings.$($field).+ = value;
                Ok(())
            },
            show: |settings| show_bytes(settings.$($field).+),
        }
    };
}

/// A name as in DNS.
macro_rules! name {
    ($path:literal, $($field:ident).+, $doc:literal) => {
        Setting {
            path: $path,
            doc: $doc,
            set: |settings, text| {
                settings.$($field).+ = parse_name(text)?;
                Ok(())
            },
            show: |settings| settings.$($field).+.clone(),
        }
    };
}

fn within<V: Value + PartialOrd>(value: &V, range: &std::ops::RangeInclusive<V>) -> Result<(), String> {
    if range.contains(value) {
        return Ok(());
    }
    Err(format!("from {} to {}", range.start().show(), range.end().show()))
}

const fn seconds(n: u64) -> std::time::Duration {
    std::time::Duration::from_secs(n)
}

const fn millis(n: u64) -> std::time::Duration {
    std::time::Duration::from_millis(n)
}

const MILLISECOND: std::time::Duration = std::time::Duration::from_millis(1);
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: u64 = 1 << 30;

/// Every setting there is, in the order of the documentation.
pub const SETTINGS: &[Setting] = &[
    plain!(
        "server.listen",
        server.listen,
        "Address and port of gRPC, the metrics and the health pages. Port 0 takes a free one."
    ),
    plain!(
        "server.data_dir",
        server.data_dir,
        "Directory of the log, the state and the snapshots; made if it is not there. One server a directory."
    ),
    plain!(
        "server.address_file",
        server.address_file,
        "File that is told the bound address (`host:port`) once the server is ready. Empty: none."
    ),
    plain!(
        "server.runtimes",
        server.runtimes,
        "Single-threaded runtimes that serve calls. 0: one a core.",
        0..=256
    ),
    plain!(
        "server.max_connections",
        server.bounds.max_connections,
        "Most connections at a time; further ones wait in the kernel's queue.",
        1..=1_000_000
    ),
    plain!(
        "server.max_streams_per_connection",
        server.bounds.max_streams,
        "Most calls at a time on one connection, streams included.",
        1..=1_000_000
    ),
    plain!(
        "server.keepalive_interval",
        server.bounds.keepalive_interval,
        "How long a connection may be silent before it is asked for a sign of life.",
        seconds(1)..=seconds(7200)
    ),
    plain!(
        "server.keepalive_timeout",
        server.bounds.keepalive_timeout,
        "How long a connection has for that sign before it is closed.",
        seconds(1)..=seconds(600)
    ),
    plain!(
        "server.shutdown_grace",
        server.bounds.grace,
        "How long calls in flight may take to end after SIGTERM before they are cut.",
        MILLISECOND..=seconds(3600)
    ),
    plain!(
        "store.persistence",
        store.persistence,
        "Where the store is kept: `lmdb` in the data directory, or `memory` (gone at exit)."
    ),
    plain!(
        "store.durability",
        store.durability,
        "What the state waits for: `log` (the synced log and the snapshots are what is durable) or `synced` (the state is synced too, 5 to 15 times slower)."
    ),
    bytes!(
        "store.max_unused_bytes",
        store.max_unused_bytes,
        "Bytes of the state's file that may be unused. Beyond that, and if they are more than half of it, the file is rewritten without them while everything goes on. 0: never.",
        0..=16_384 * GIB
    ),
    plain!(
        "raft.max_waiting_writes",
        raft.max_waiting_writes,
        "Most writes that wait to be put into the log; further ones are refused.",
        1..=1_000_000
    ),
    plain!(
        "raft.max_entries_in_flight",
        raft.max_entries_in_flight,
        "Most log entries that are being made durable at a time; each is a group of writes.",
        1..=64
    ),
    bytes!(
        "raft.snapshot_log_bytes",
        raft.snapshot_log_bytes,
        "A snapshot is taken, and the log before it dropped, when the log has grown by this much, or by half the store if that is more.",
        1 << 20..=1024 * GIB
    ),
    plain!(
        "raft.log_max_age",
        raft.log_max_age,
        "A snapshot is taken, and the log before it dropped, also when entries of the log have become this old, and before they are twice as old; a server that is started again counts anew.",
        seconds(60)..=seconds(365 * 24 * 60 * 60)
    ),
    bytes!(
        "raft.snapshot_bytes_per_second",
        raft.snapshot_bytes_per_second,
        "Most bytes of a snapshot that are written in a second: faster ones disturb reads and writes, slower ones let the store grow more meanwhile.",
        1 << 20..=1024 * GIB
    ),
    bytes!(
        "raft.disk_reserve_bytes",
        raft.disk_reserve_bytes,
        "Free space of the disk below which writes are refused, so that what was accepted can be finished.",
        1 << 20..=1024 * GIB
    ),
    plain!(
        "raft.heartbeat",
        raft.heartbeat,
        "How often a leader tells the other members that it is there.",
        millis(10)..=seconds(10)
    ),
    plain!(
        "raft.election_timeout",
        raft.election_timeout,
        "How long a member hears of no leader before it asks for votes, and up to a quarter longer; at least three heartbeats. The same on all members.",
        millis(100)..=seconds(60)
    ),
    name!(
        "cluster.name",
        cluster.name,
        "Name of the cluster; servers of differently named clusters refuse each other."
    ),
    name!(
        "cluster.member_name",
        cluster.member_name,
        "Name of this member, unique in the cluster; it belongs to the data directory. Empty: what it is there, for a new one the machine's name."
    ),
    plain!(
        "cluster.peer_listen",
        cluster.peer_listen,
        "Address and port to listen on for other members. Empty: the server is a cluster of its own."
    ),
    plain!(
        "cluster.peer_advertise",
        cluster.peer_advertise,
        "Address and port that other members reach this one at. Empty: `peer_listen`."
    ),
    plain!(
        "cluster.client_advertise",
        cluster.client_advertise,
        "Address and port that clients reach this member at, as the list of members shows it. Empty: `server.listen`."
    ),
    plain!(
        "cluster.bootstrap_expect",
        cluster.bootstrap_expect,
        "How many servers without a cluster make one together, once they see each other; the same on all of them. 0: 1 without `join`, otherwise this server only joins a cluster that is there.",
        0..=15
    ),
    plain!(
        "cluster.join",
        cluster.join,
        "Where other members may be found: addresses or DNS names with their peer ports, a list or separated by commas. Tried until one answers."
    ),
    plain!(
        "cluster.join_token",
        cluster.join_token,
        "Secret that a server has to know to become a member; the same on all of them."
    ),
    plain!(
        "cluster.role",
        cluster.role,
        "What this member is to be: `voter` (as soon as it has caught up), `standby` (when it is promoted) or `replica` (never votes, serves reads). Changed later by `konsul cluster promote` and `demote`."
    ),
    plain!(
        "cluster.replace_dead_after",
        cluster.replace_dead_after,
        "How long a voter may be dead before a member that has caught up takes its place, if the others are a quorum without it. 0s: never by itself.",
        seconds(0)..=seconds(30 * 86_400)
    ),
    plain!(
        "cluster.tls_ca",
        cluster.tls_ca,
        "File with the certificate of the authority that signs the members' certificates, in PEM. Without TLS members listen on loopback only."
    ),
    plain!(
        "cluster.tls_cert",
        cluster.tls_cert,
        "File with this member's certificate, in PEM, for the name `peer.konsul`."
    ),
    plain!("cluster.tls_key", cluster.tls_key, "File with its private key, in PEM."),
    plain!(
        "dns.listen",
        dns.listen,
        "Address and port of DNS, over UDP and TCP. Port 0 takes a free one. Empty: no DNS."
    ),
    plain!(
        "dns.tls_listen",
        dns.tls_listen,
        "Address and port of DNS over TLS (RFC 7858), mostly port 853. Needs `tls_cert` and `tls_key`. Empty: none."
    ),
    plain!(
        "dns.https_listen",
        dns.https_listen,
        "Address and port of DNS over HTTPS (RFC 8484), at `/dns-query`. Needs `tls_cert` and `tls_key`. Empty: none."
    ),
    plain!("dns.tls_cert", dns.tls_cert, "File with the certificate for DNS over TLS and HTTPS, in PEM."),
    plain!("dns.tls_key", dns.tls_key, "File with its private key, in PEM."),
    plain!(
        "dns.address_file",
        dns.address_file,
        "File that is told the bound addresses of DNS, a line each with its kind: `dns`, `tls`, `https`. Empty: none."
    ),
    plain!("dns.domain", dns.domain, "The domain that is answered for."),
    plain!(
        "dns.alternative_domains",
        dns.alternative_domains,
        "Other domains that mean the same, separated by commas."
    ),
    name!(
        "dns.datacenter",
        dns.datacenter,
        "The data center that a name may end with, before the domain: `web.service.dc1.konsul`."
    ),
    plain!(
        "dns.service_ttl",
        dns.service_ttl,
        "How long answers about a service may be kept that has no time of its own.",
        seconds(0)..=seconds(86_400)
    ),
    plain!(
        "dns.node_ttl",
        dns.node_ttl,
        "How long answers about a node may be kept.",
        seconds(0)..=seconds(86_400)
    ),
    plain!(
        "dns.negative_ttl",
        dns.negative_ttl,
        "How long it may be kept that there is no such name or record (RFC 2308).",
        seconds(0)..=seconds(86_400)
    ),
    plain!("dns.only_passing", dns.only_passing, "Answer no instances that warn either: `true` or `false`."),
    plain!(
        "dns.max_stale",
        dns.max_stale,
        "How old the catalog of a member without a leader may be to be answered from. 0s: however old it is.",
        seconds(0)..=seconds(30 * 86_400)
    ),
    plain!(
        "dns.max_udp_bytes",
        dns.max_udp_bytes,
        "Most bytes of an answer over UDP, whatever a client asks for.",
        512..=4_096
    ),
    plain!(
        "dns.answers_per_second",
        dns.answers_per_second,
        "Answers a second over UDP to a network (/24, /56) whose clients have not proved their address by a cookie; loopback and private networks are not limited. 0: no network is.",
        0..=100_000
    ),
    plain!(
        "dns.recursors",
        dns.recursors,
        "Servers that are asked for names of other domains, separated by commas, the first that answers. Empty: such names are refused."
    ),
    plain!(
        "dns.recursor_timeout",
        dns.recursor_timeout,
        "How long each of them has before the next is asked.",
        millis(50)..=seconds(30)
    ),
    plain!(
        "checks.allow",
        checks.allow,
        "Networks that active checks may connect to, in CIDR form, separated by commas. Of all entries of `allow` and `deny` that hold an address the most specific one decides. Empty: all that are not denied."
    ),
    plain!(
        "checks.deny",
        checks.deny,
        "Networks that active checks may not connect to, beside those that never may unless `allow` names them: link-local and metadata addresses, multicast and broadcast."
    ),
    plain!(
        "checks.ca_file",
        checks.ca_file,
        "File of certificates, in PEM, whose authorities active checks believe beside those that browsers believe."
    ),
    plain!(
        "checks.max_concurrent",
        checks.max_concurrent,
        "Most active checks that this server carries out at a time; each has one socket.",
        1..=65_535
    ),
    plain!(
        "backup.folder",
        backup.folder,
        "Folder that this server backs the whole store up to, by itself; made if it is not there. Each backup is restored for a trial before it appears. Every member that has this setting makes its own. Empty: none."
    ),
    plain!(
        "backup.interval",
        backup.interval,
        "How often a backup is made. After a start the next one is due when the newest in the folder is this old.",
        seconds(1)..=seconds(10 * 365 * 86_400)
    ),
    plain!("backup.keep", backup.keep, "How many backups are kept; older ones are removed.", 1..=100_000),
    bytes!(
        "limits.max_value_bytes",
        limits.max_value_bytes,
        "Most bytes of a value.",
        1..=konsul_service::limits::GREATEST_VALUE_BYTES
    ),
    bytes!(
        "limits.max_request_bytes",
        limits.max_request_bytes,
        "Most bytes of a request after decompression; raised to two values and 64 KiB where it is less.",
        64 * KIB..=64 * MIB
    ),
    bytes!(
        "limits.max_store_bytes",
        limits.max_store_bytes,
        "Bytes of data from which on writes that grow the store are refused; deletes and compaction go on.",
        1 << 20..=16_384 * GIB
    ),
    plain!(
        "limits.store_warning_percent",
        limits.store_warning_percent,
        "Per cent of `max_store_bytes` from which on the server warns: in `konsul status`, in the metric `konsul_store_nearly_full` and in the log.",
        1..=100
    ),
    plain!(
        "limits.max_waiting_reads",
        limits.max_waiting_reads,
        "Most reads that wait at a time for a `min_revision`.",
        1..=10_000_000
    ),
    plain!(
        "limits.max_waiting_locks",
        limits.max_waiting_locks,
        "Most calls that wait at a time for a lock or an election, or observe one.",
        1..=10_000_000
    ),
    plain!(
        "limits.max_keep_alive_streams",
        limits.max_keep_alive_streams,
        "Most streams of lease refreshes (Lease.KeepAlive) of this member; each carries as many leases as one likes.",
        1..=10_000_000
    ),
    plain!(
        "limits.max_heartbeat_streams",
        limits.max_heartbeat_streams,
        "Most streams of heartbeats (Health.Heartbeat) of this member; each passes the checks of as many instances as one likes.",
        1..=10_000_000
    ),
    plain!(
        "limits.max_watch_streams",
        limits.max_watch_streams,
        "Most watch streams of this member.",
        1..=10_000_000
    ),
    plain!(
        "limits.max_watch_targets",
        limits.max_watch_targets,
        "Most targets of all watch streams of this member.",
        1..=100_000_000
    ),
    bytes!(
        "limits.watch_ring_bytes",
        limits.watch_ring_bytes,
        "Most bytes of recent changes kept in memory for watchers; older ones are read from the store.",
        64 * KIB..=16_384 * MIB
    ),
    plain!(
        "limits.watch_ring_batches",
        limits.watch_ring_batches,
        "Most recent revisions kept in memory for watchers.",
        16..=16_777_216
    ),
    bytes!(
        "limits.watch_batch_bytes",
        limits.watch_batch_bytes,
        "Bytes after which a watch message takes in no further revision.",
        KIB..=16 * MIB
    ),
    bytes!(
        "limits.watch_fragment_bytes",
        limits.watch_fragment_bytes,
        "Bytes from which on the changes of one revision are sent in fragments.",
        KIB..=16 * MIB
    ),
    bytes!(
        "limits.watch_shared_bytes",
        limits.watch_shared_bytes,
        "Most bytes of encoded watch messages kept for other watchers of the same target, for each runtime.",
        KIB..=1024 * MIB
    ),
    plain!(
        "limits.history_min_age",
        limits.history_min_age,
        "How long history is kept at least, unless it outgrows `history_max_bytes`.",
        MILLISECOND..=seconds(10 * 365 * 86_400)
    ),
    bytes!(
        "limits.history_max_bytes",
        limits.history_max_bytes,
        "Most bytes of history. From half of it on, what is older than `history_min_age` is compacted; beyond it the older half is, whatever its age.",
        1 << 20..=16_384 * GIB
    ),
    Setting {
        path: "log.filter",
        doc: "What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`) or a filter such as `info,openraft=debug`.",
        set: |settings, text| {
            settings.log.filter = parse_filter(text)?;
            Ok(())
        },
        show: |settings| settings.log.filter.clone(),
    },
    plain!(
        "log.format",
        log.format,
        "How a line looks: `text`, `json`, or `auto` (text on a terminal, JSON otherwise)."
    ),
];
