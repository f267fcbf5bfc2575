//! Konsul's client for Rust: KV, retries, and a watch that resumes by itself.
