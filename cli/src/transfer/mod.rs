//! `konsul export` and `konsul import`: keys as JSON lines, and from other stores. `format` is what a file looks like, `source`
//! where keys come from (`etcd` over its API), `export` and `import` the commands.

mod etcd;
mod export;
mod format;
mod import;
mod source;

pub(crate) use export::Export;
pub(crate) use import::Import;
