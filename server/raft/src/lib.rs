//! How it is agreed: openraft, the log, group commit, snapshots.
