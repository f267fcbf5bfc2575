//! Where work runs that takes too long for a runtime: on threads of its own. A simulation puts tasks in their place, so that
//! one thing happens after the other and a seed decides which. What the work is, is not known here.

use std::io;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// Where a member's long work runs.
#[derive(Debug, Clone, Copy, Default)]
pub enum Threads {
    /// On threads of its own.
    #[default]
    Own,
    /// In tasks of the runtime that opened the member, each piece after such a pause. What a pause interrupts for good was
    /// not done.
    Tasks {
        /// How long the next piece of work is waited for.
        pause: fn() -> Duration,
    },
}

/// Works off a queue.
pub(crate) trait Worker: Send + 'static {
    /// What is asked of it.
    type Job: Send + 'static;

    /// Does a job, and as many of those that wait behind it as it likes.
    fn work(&mut self, first: Self::Job, waiting: &mut mpsc::Receiver<Self::Job>);

    /// What is left to do when nobody can ask any more.
    fn end(self);
}

/// A worker that was started.
pub(crate) enum Working {
    Thread {
        thread: std::thread::JoinHandle<()>,
        /// Dropped, not sent, when the thread is done.
        end: oneshot::Receiver<()>,
    },
    Task(tokio::task::JoinHandle<()>),
}

impl Threads {
    /// Starts a worker. It ends when every sender of its jobs is gone.
    pub(crate) fn start<W: Worker>(
        self,
        name: &str,
        mut worker: W,
        mut jobs: mpsc::Receiver<W::Job>,
    ) -> io::Result<Working> {
        match self {
            Self::Own => {
                let (ended, end) = oneshot::channel();
                let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
                    while let Some(first) = jobs.blocking_recv() {
                        worker.work(first, &mut jobs);
                    }
                    worker.end();
                    drop(ended);
                })?;
                Ok(Working::Thread { thread, end })
            }
            Self::Tasks { pause } => Ok(Working::Task(tokio::spawn(async move {
                while let Some(first) = jobs.recv().await {
                    tokio::time::sleep(pause()).await;
                    worker.work(first, &mut jobs);
                }
                worker.end();
            }))),
        }
    }

    /// Does what takes long on a thread made for it, and joins it.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        name: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::Own => {
                let (done, answer) = oneshot::channel();
                let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
                    // Whoever asked may have gone away.
                    let _: Result<(), _> = done.send(work());
                })?;
                let result = answer.await;
                thread.join().map_err(|_| io::Error::other("the thread panicked"))?;
                result.map_err(io::Error::other)?
            }
            Self::Tasks { pause } => later(pause, work).await,
        }
    }

    /// Does what may wait for the disk a moment, on a thread that is there for such things.
    pub(crate) async fn run_briefly<T: Send + 'static>(
        self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::Own => tokio::task::spawn_blocking(work).await?,
            Self::Tasks { pause } => later(pause, work).await,
        }
    }
}

async fn later<T>(pause: fn() -> Duration, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    tokio::time::sleep(pause()).await;
    work()
}

impl Working {
    /// Waits for its end, without holding up the tasks that it waits for.
    pub(crate) async fn join(self) {
        let ended = match self {
            Self::Thread { thread, end } => {
                drop(end.await);
                thread.join().is_ok()
            }
            Self::Task(task) => task.await.is_ok(),
        };
        if !ended {
            tracing::error!("a worker of consensus panicked");
        }
    }
}
