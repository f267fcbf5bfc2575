//! How long the catalog takes, without consensus or RPC: `cargo run --release -p konsul-state --example catalog_rate [INSTANCES]
//! [GROUP]`. Prints registrations and check transitions a second while Commands come in groups of GROUP, and what the end of a
//! node, of a lease and the transition of a node's check take.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::Instant;

use konsul_state::command::{
    self, CatalogDeregister, CatalogRegister, CheckDefinition, CheckName, CheckReport, CheckSet, Health,
    InstanceDefinition, InstanceKey, InstanceRegistration, Item, LeaseGrant, LeaseRevoke, NamedCheck,
    NodeDefinition, NodeRegistration, Owner, Registration, check_definition::Kind, check_report::Report,
    command::Op, outcome, owner,
};
use konsul_state::store::{self, StoreOptions};
use konsul_state::{
    Command, CommandGroup, Durability, Entry, LogPosition, Payload, Persistence, StateWriter,
};

/// Instances of a service, and on a node.
const OF_A_SERVICE: u64 = 100;
const ON_A_NODE: u64 = 50;

struct Bench {
    writer: StateWriter,
    index: u64,
    group: usize,
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<u64>().unwrap());
    let (instances, group) = (arguments.next().unwrap_or(100_000), arguments.next().unwrap_or(64));
    let dir = tempfile::tempdir_in(".").unwrap();
    let options = StoreOptions {
        dir: dir.path().to_owned(),
        map_bytes: 64 << 30,
        persistence: Persistence::Lmdb,
        durability: Durability::Log,
        boot_id: "boot".into(),
    };
    let (_state, writer, _) = store::open(options).unwrap();
    let mut bench = Bench { writer, index: 0, group: group as usize };
    bench.run("nodes registered", (0..instances / ON_A_NODE + 1).map(node));
    let grant = LeaseGrant { namespace: "default".into(), id: 1, ttl_ms: 10_000, ..LeaseGrant::default() };
    bench.run("leases granted", [Op::LeaseGrant(grant)]);
    bench.run("instances registered", (0..instances).map(|n| instance(n, 0)));
    bench.run("the same registered again", (0..instances).map(|n| instance(n, 0)));
    bench.run("checks turned critical", (0..instances).map(|n| report(n, Health::Critical)));
    bench.run("checks turned passing", (0..instances).map(|n| report(n, Health::Passing)));
    bench.run("passes that change nothing", (0..instances).map(|n| report(n, Health::Passing)));
    let many = (0..instances).map(|n| result(instance_owner(n), Health::Critical)).collect::<Vec<_>>();
    let batches = many
        .chunks(200)
        .map(|reports| Op::CheckReport(CheckReport { reports: reports.to_vec(), ..CheckReport::default() }));
    bench.run("Commands of 200 transitions", batches.collect::<Vec<_>>());
    let on_node = |status| {
        let reports = vec![result(owner::Owner::Node("node-1".into()), status)];
        Op::CheckReport(CheckReport { reports, ..CheckReport::default() })
    };
    bench.run("transitions of a node of 50", [on_node(Health::Critical)]);
    let what = Some(Owner { owner: Some(owner::Owner::Node(format!("node-{}", instances / ON_A_NODE - 1))) });
    let deregister = CatalogDeregister { namespace: "default".into(), what };
    bench.run("ends of a node of 50", [Op::CatalogDeregister(deregister)]);
    bench.run("instances bound to a lease", (0..10_000).map(|n| instance(n % instances, 1)));
    let revoke = LeaseRevoke { namespace: "default".into(), id: 1 };
    bench.run("ends of a lease of 10,000", [Op::LeaseRevoke(revoke)]);
}

impl Bench {
    fn run(&mut self, what: &str, ops: impl IntoIterator<Item = Op>) {
        let commands = ops.into_iter().map(|op| Command {
            format: command::FORMAT,
            time_ms: 1_000 + self.index,
            op: Some(op),
            ..Command::default()
        });
        let commands: Vec<_> = commands.collect();
        let started = Instant::now();
        for group in commands.chunks(self.group) {
            self.index += 1;
            let position = LogPosition { term: 1, leader: 1, index: self.index };
            let payload = Payload::Commands(CommandGroup { commands: group.to_vec() });
            let run = self.writer.apply(vec![Entry { position, payload }]).unwrap();
            for outcome in run.outcomes.iter().flatten() {
                assert!(!matches!(outcome.result, Some(outcome::Result::Refused(_))), "{what}: {outcome:?}");
            }
        }
        let each_us = started.elapsed().as_micros() as f64 / commands.len() as f64;
        println!("{what}: {each_us:.1} us each, {:.0} a second", 1e6 / each_us);
    }
}

fn node(n: u64) -> Op {
    let definition =
        NodeDefinition { address: format!("10.0.{}.{}", n / 250, n % 250), ..NodeDefinition::default() };
    let checks = Some(CheckSet { checks: vec![check("alive")] });
    let node = NodeRegistration { name: format!("node-{n}"), definition: Some(definition), checks };
    register(Registration { node: Some(node), instance: None })
}

fn instance(n: u64, lease: u64) -> Op {
    let InstanceKey { service, id } = key(n);
    let definition = InstanceDefinition {
        node: format!("node-{}", n / ON_A_NODE),
        port: 8080,
        tags: vec!["v1".into(), format!("shard-{}", n % 16)],
        metadata: vec![Item { name: "zone".into(), value: format!("z{}", n % 3) }],
        version: "1.2.3".into(),
        weight_passing: 1,
        weight_warning: 1,
        lease,
        ..InstanceDefinition::default()
    };
    let checks = Some(CheckSet { checks: vec![check("alive")] });
    let instance = InstanceRegistration { service, id, definition: Some(definition), checks };
    register(Registration { node: None, instance: Some(instance) })
}

fn register(registration: Registration) -> Op {
    let registrations = vec![registration];
    Op::CatalogRegister(CatalogRegister { namespace: "default".into(), registrations })
}

fn check(id: &str) -> NamedCheck {
    let definition = CheckDefinition {
        kind: Some(Kind::TtlMs(30_000)),
        initial: Health::Passing.into(),
        ..CheckDefinition::default()
    };
    NamedCheck { id: id.into(), definition: Some(definition) }
}

fn key(n: u64) -> InstanceKey {
    InstanceKey { service: format!("service-{}", n / OF_A_SERVICE), id: format!("instance-{n}") }
}

fn instance_owner(n: u64) -> owner::Owner {
    owner::Owner::Instance(key(n))
}

fn report(n: u64, status: Health) -> Op {
    let reports = vec![result(instance_owner(n), status)];
    Op::CheckReport(CheckReport { reports, ..CheckReport::default() })
}

fn result(owner: owner::Owner, status: Health) -> Report {
    let check = CheckName {
        namespace: "default".into(),
        owner: Some(Owner { owner: Some(owner) }),
        id: "alive".into(),
    };
    Report { check: Some(check), status: status.into(), output: format!("{status:?}"), create_revision: 0 }
}
