//! What every client command works with: a client and an output, on a runtime of its own.

use std::future::Future;
use std::time::Duration;

use konsul_client::Client;

use crate::args::{ClientArgs, DEFAULT_ADDRESS};
use crate::failure::Failure;
use crate::output::Output;

/// How often a call is tried: about a second in all when nobody listens, which spans the start of a server, and keeps
/// nobody waiting who mistyped an address. Who waits for a lock has been answered before, and goes on until it has it.
const MAX_ATTEMPTS: u32 = 7;

/// The client and the output of one command.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) output: Output,
    /// The namespace of the command's keys; `default` if none was named.
    pub(crate) namespace: String,
    /// How long one call may take.
    pub(crate) timeout: Duration,
}

/// Runs a command to its end.
pub(crate) fn run<C, F>(args: ClientArgs, command: C) -> Result<(), Failure>
where
    C: FnOnce(Session) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Start { what: "the runtime".into(), error })?;
    runtime.block_on(async {
        let output = Output::new(args.output);
        let namespace = if args.namespace.is_empty() { "default" } else { &args.namespace }.to_owned();
        let timeout = args.timeout;
        command(Session { client: connect(args)?, output, namespace, timeout }).await
    })
}

fn connect(args: ClientArgs) -> Result<Client, Failure> {
    // An environment variable that is set to nothing is as good as not set.
    let mut addresses: Vec<String> = args.addr.into_iter().filter(|address| !address.is_empty()).collect();
    if addresses.is_empty() {
        addresses.push(DEFAULT_ADDRESS.into());
    }
    let mut builder = Client::builder()
        .addresses(addresses)
        .namespace(args.namespace)
        .timeout(args.timeout)
        .max_attempts(MAX_ATTEMPTS)
        .user_agent(concat!("konsul-cli/", env!("CARGO_PKG_VERSION")));
    if let Some(token) = args.token.filter(|token| !token.is_empty()) {
        builder = builder.token(token);
    }
    Ok(builder.build()?)
}
