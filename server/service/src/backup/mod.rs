//! Backups of the whole store: `save` streams one out, `restore` puts one back through the log.

mod restore;
mod save;

pub(crate) use restore::restore;
pub(crate) use save::{Pieces, save};
