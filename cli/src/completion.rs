//! `konsul completion`: prints a script that completes command lines.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  konsul completion bash > /etc/bash_completion.d/konsul
  konsul completion zsh > \"${fpath[1]}/_konsul\"
  konsul completion fish > ~/.config/fish/completions/konsul.fish";

/// Print a script that completes konsul's command line in a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completion {
    /// Shell to complete in
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "konsul", &mut script);
        Ok(std::io::stdout().write_all(&script)?)
    }
}
