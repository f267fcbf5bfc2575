//! Everything that speaks: the listener, the metrics and health pages.
