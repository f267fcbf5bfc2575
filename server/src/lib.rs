//! Config, boot, telemetry and shutdown of a Konsul server.
