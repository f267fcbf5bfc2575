//! Holds packets back: a process in a member's namespace that lets what the kernel queues for it go after a while. tc's netem would do
//! the same, but small kernels (those of microVMs, for one) come without it, and none without a packet queue.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use nfq::{Message, Queue, Verdict};
use rand::Rng;
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::firewall::Rule;

/// The queue's number; each namespace has its own.
const QUEUE: u16 = 0;
/// Packets beyond this many are lost.
const QUEUE_MAX_PACKETS: u32 = 8_192;
/// How exact delays are: the queue is looked at once in this time.
const TICK: Duration = Duration::from_millis(1);
/// Printed when packets may come.
const READY: &str = "ready";

/// How long packets are held back.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct DelayOptions {
    /// Milliseconds that every packet waits at least
    #[arg(long)]
    pub(crate) least_ms: u64,
    /// Milliseconds that a packet waits at most; packets overtake each other
    #[arg(long)]
    pub(crate) most_ms: u64,
}

/// Packets that a namespace sends are late while this is there.
#[derive(Debug)]
pub(crate) struct Delay {
    holder: Child,
    rule: Rule,
}

impl Delay {
    /// Begins to hold back what the namespace sends.
    ///
    /// # Errors
    /// When the process that holds it can't be started, or the packet filter refuses.
    pub(crate) async fn begin(namespace: &str, options: DelayOptions) -> Result<Self> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(std::env::current_exe()?).arg("delay");
        command.arg("--least-ms").arg(options.least_ms.to_string());
        command.arg("--most-ms").arg(options.most_ms.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut holder = command.spawn().context("can't run ip")?;
        let said = holder.stdout.take().context("the process that delays packets has no stdout")?;
        let line = BufReader::new(said).lines().next_line().await?;
        if line.as_deref() != Some(READY) {
            bail!("the process that delays packets did not begin");
        }
        let rule = Rule::queue(namespace, QUEUE);
        rule.add().await?;
        Ok(Self { holder, rule })
    }

    /// Packets are on time again. Those that are held back are lost.
    ///
    /// # Errors
    /// When the packet filter refuses, or the process can't be ended.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.rule.remove().await?;
        self.holder.kill().await.context("can't end the process that delays packets")
    }
}

/// Holds packets back until it is killed.
///
/// # Errors
/// When the kernel refuses the queue.
pub(crate) fn run(options: &DelayOptions) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut queue = Queue::open().context("can't open a packet queue")?;
    queue.bind(QUEUE)?;
    queue.set_copy_range(QUEUE, 0)?;
    queue.set_queue_max_len(QUEUE, QUEUE_MAX_PACKETS)?;
    queue.set_nonblocking(true);
    println!("{READY}");
    io::stdout().flush()?;
    let mut held = Held::default();
    loop {
        let now = Instant::now();
        while let Some(packet) = next(&mut queue)? {
            let wait_ms = rand::rng().random_range(options.least_ms..=options.most_ms.max(options.least_ms));
            held.hold(packet, now + Duration::from_millis(wait_ms));
        }
        for mut packet in held.due(now) {
            packet.set_verdict(Verdict::Accept);
            queue.verdict(packet)?;
        }
        thread::sleep(TICK);
    }
}

fn next(queue: &mut Queue) -> Result<Option<Message>> {
    match queue.recv() {
        Ok(packet) => Ok(Some(packet)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("can't read the packet queue"),
    }
}

/// Packets by when they may go, and in the order they came where that is the same.
#[derive(Default)]
struct Held {
    packets: BTreeMap<(Instant, u64), Message>,
    taken: u64,
}

impl Held {
    fn hold(&mut self, packet: Message, until: Instant) {
        self.packets.insert((until, self.taken), packet);
        self.taken += 1;
    }

    fn due(&mut self, now: Instant) -> impl Iterator<Item = Message> {
        let later = self.packets.split_off(&(now + Duration::from_nanos(1), 0));
        std::mem::replace(&mut self.packets, later).into_values()
    }
}
