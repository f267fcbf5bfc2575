//! The single-threaded runtimes that calls are served on. The first runs on the thread that started the server, and
//! drives Raft and everything else too; the others have a thread each and serve nothing but calls.

use std::future::Future;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

pub(crate) struct Runtimes {
    first: Runtime,
    others: Vec<(Handle, JoinHandle<()>)>,
    stop: CancellationToken,
}

impl Runtimes {
    /// Starts `count` of them, at least one.
    pub(crate) fn start(count: usize) -> std::io::Result<Self> {
        let stop = CancellationToken::new();
        let mut others = Vec::new();
        for n in 1..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let until = stop.clone();
            let thread = std::thread::Builder::new().name(format!("calls-{n}"));
            let thread = thread.spawn(move || runtime.block_on(until.cancelled()))?;
            others.push((handle, thread));
        }
        Ok(Self { first: Builder::new_current_thread().enable_all().build()?, others, stop })
    }

    /// The runtimes that connections are handed to; none if there is only the first.
    pub(crate) fn handles(&self) -> Vec<Handle> {
        if self.others.is_empty() {
            return Vec::new();
        }
        std::iter::once(self.first.handle())
            .chain(self.others.iter().map(|(handle, _)| handle))
            .cloned()
            .collect()
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.first.block_on(future)
    }

    /// Ends the threads.
    pub(crate) fn stop(self) {
        self.stop.cancel();
        for (_, thread) in self.others {
            if thread.join().is_err() {
                tracing::error!("a thread that served calls panicked");
            }
        }
    }
}
