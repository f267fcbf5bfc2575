//! How long applying a put takes, without consensus or RPC: `cargo run --release -p konsul-state --example apply_rate
//! [KEYS] [GROUP]`. Prints microseconds a put while the store grows to KEYS keys in groups of GROUP, then of
//! overwriting, then a read.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::Instant;

use konsul_state::command::{self, KvOperation, KvPut, KvTxn, command::Op, kv_operation};
use konsul_state::store::{self, StoreOptions};
use konsul_state::{
    Command, CommandGroup, Durability, Entry, Key, LogPosition, Namespace, Payload, Persistence, StateWriter,
};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<u64>().unwrap());
    let (keys, group) = (arguments.next().unwrap_or(1_000_000), arguments.next().unwrap_or(64));
    let dir = tempfile::tempdir_in(".").unwrap();
    let options = StoreOptions {
        dir: dir.path().to_owned(),
        map_bytes: 64 << 30,
        persistence: Persistence::Lmdb,
        durability: Durability::Log,
        boot_id: "boot".into(),
    };
    let (state, mut writer, _) = store::open(options).unwrap();
    let mut index = 0;
    let mut mark = 100_000;
    let mut started = Instant::now();
    for first in (0..keys).step_by(group as usize) {
        put(&mut writer, &mut index, first..first + group);
        if first + group >= mark {
            println!("{mark:>9} keys: {:.2} us a put", started.elapsed().as_micros() as f64 / 100_000.0);
            mark += 100_000;
            started = Instant::now();
        }
    }
    let started = Instant::now();
    for n in (0..100_000u64).step_by(group as usize) {
        put(&mut writer, &mut index, n..n + group);
    }
    println!("overwriting: {:.2} us a put", started.elapsed().as_micros() as f64 / 100_000.0);
    let namespace = Namespace::parse("").unwrap();
    let started = Instant::now();
    for n in 0..100_000 {
        let key = Key::parse(&name(n)).unwrap();
        assert!(state.view().unwrap().kv_get(&namespace, &key, None).unwrap().is_some());
    }
    println!("reading: {:.2} us a get", started.elapsed().as_micros() as f64 / 100_000.0);
}

/// Spread over the key space, as keys of real users are.
fn name(n: u64) -> String {
    format!("bench/{:020x}/key", n.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

fn put(writer: &mut StateWriter, index: &mut u64, keys: std::ops::Range<u64>) {
    *index += 1;
    let commands = keys
        .map(|n| {
            let put = KvPut { key: name(n), value: vec![7; 128].into(), ..KvPut::default() };
            let then = vec![KvOperation { op: Some(kv_operation::Op::Put(put)) }];
            let op = Op::Kv(KvTxn { namespace: "default".into(), then, ..KvTxn::default() });
            Command { format: command::FORMAT, time_ms: n, op: Some(op), ..Command::default() }
        })
        .collect();
    let position = LogPosition { term: 1, leader: 1, index: *index };
    writer.apply(vec![Entry { position, payload: Payload::Commands(CommandGroup { commands }) }]).unwrap();
}
