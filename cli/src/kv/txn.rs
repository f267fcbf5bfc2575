//! `konsul kv txn`.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;
use crate::output::json;
use crate::session::Session;
use crate::value;

const EXAMPLES: &str = r#"Example: move 10 from one key to another, if the first still has what was read.
Values are in base64.

  konsul kv txn - <<'END'
  {
    "compare": [{"key": "blue/weight", "value": "MTAw"}],
    "then": [
      {"put": {"key": "blue/weight", "value": "OTA="}},
      {"put": {"key": "green/weight", "value": "MTA="}}
    ],
    "otherwise": [{"get": {"key": "blue/weight"}}]
  }
  END

A compare has a key, one of exists, createRevision, modRevision, version or value, and
an operator: OPERATOR_EQUAL (the default), OPERATOR_NOT_EQUAL, OPERATOR_GREATER or
OPERATOR_LESS. An operation is one of put, delete, deleteRange, get, list, lock or
unlock."#;

/// Compare, then do one list of operations or the other, all at one revision
///
/// Reads a TxnRequest in the API's JSON. Whichever list of operations was done, the exit code is 0; the output tells
/// which one.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Txn {
    /// File with the transaction; `-` reads stdin
    #[arg(default_value = "-", hide_default_value = true)]
    file: PathBuf,
}

impl Txn {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let text = value::read_file(&self.file)?;
        let request = json::txn_request(&text, &self.file)?;
        let outcome = session.client.kv().txn().request(request).await?;
        session.output.message(&outcome)
    }
}
