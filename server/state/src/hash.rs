//! A hash of the whole state that is kept up to date row by row, so that members can compare states at
//! any index for the price of hashing what they write.

use std::fmt;

use crate::command::Progress;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

/// The sum, modulo 2^128, of the hashes of all rows (a multiset hash): equal states have equal hashes
/// whatever the order of the writes that made them. It tells honest members apart; it is not meant to
/// withstand somebody who crafts rows.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct StateHash(u128);

impl StateHash {
    /// Its bytes, to be sent.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    pub(crate) fn add(&mut self, table: u32, key: &[u8], row: &[u8]) {
        self.0 = self.0.wrapping_add(row_hash(table, key, row));
    }

    pub(crate) fn remove(&mut self, table: u32, key: &[u8], row: &[u8]) {
        self.0 = self.0.wrapping_sub(row_hash(table, key, row));
    }

    /// The hash that a Progress carries.
    pub(crate) fn of(progress: &Progress) -> Self {
        Self::from_halves((progress.hash_high, progress.hash_low))
    }

    pub(crate) fn write_to(self, progress: &mut Progress) {
        (progress.hash_high, progress.hash_low) = self.halves();
    }

    /// Its upper and its lower half.
    #[must_use]
    pub fn halves(self) -> (u64, u64) {
        ((self.0 >> 64) as u64, self.0 as u64)
    }

    /// The hash of these halves.
    #[must_use]
    pub fn from_halves((high, low): (u64, u64)) -> Self {
        Self(u128::from(high) << 64 | u128::from(low))
    }
}

fn row_hash(table: u32, key: &[u8], row: &[u8]) -> u128 {
    xxh3_128_with_seed(row, xxh3_64_with_seed(key, u64::from(table)))
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
