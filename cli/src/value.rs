//! Values from the command line: the argument itself, a file, or stdin.

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::failure::Failure;

/// The bytes that an argument stands for: `-` is stdin, `@file` is a file, anything else is itself.
pub(crate) fn read(argument: &str) -> Result<Bytes, Failure> {
    match argument.strip_prefix('@') {
        _ if argument == "-" => stdin(),
        Some(path) => file(Path::new(path)),
        None => Ok(Bytes::copy_from_slice(argument.as_bytes())),
    }
}

/// The bytes of a file, or of stdin for `-`.
pub(crate) fn read_file(path: &Path) -> Result<Bytes, Failure> {
    if path == Path::new("-") { stdin() } else { file(path) }
}

fn file(path: &Path) -> Result<Bytes, Failure> {
    std::fs::read(path).map(Bytes::from).map_err(|error| Failure::Read { path: path.into(), error })
}

fn stdin() -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Read { path: PathBuf::from("stdin"), error })?;
    Ok(bytes.into())
}
