//! Encoded answers, as they are kept: records one by one, so that each answer has them in another order and as many as fit.
//!
//! Every record names its owner by a pointer into the question, which stands at the same place in each message, and has no
//! pointer to anywhere else. So the bytes of a record don't depend on where it stands.

use super::wire::{HEADER, TO_QUESTION, class};

/// Records of an answer.
#[derive(Debug, Default)]
pub(super) struct Template {
    bytes: Vec<u8>,
    pub(super) items: Vec<Item>,
    /// All items have one weight.
    pub(super) uniform: bool,
    /// An answer has one of the items only: a name has no two aliases (RFC 1034 §3.6.2).
    pub(super) single: bool,
}

/// A record of the answer section and what belongs to it in the additional section.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    answer: (u32, u32),
    glue: (u32, u32),
    glue_records: u16,
    pub(super) weight: u32,
}

impl Template {
    pub(super) fn new() -> Self {
        Self { uniform: true, ..Self::default() }
    }

    /// The item's record.
    pub(super) fn answer(&self, item: &Item) -> &[u8] {
        &self.bytes[item.answer.0 as usize..item.answer.1 as usize]
    }

    /// The item's additional records, and how many they are.
    pub(super) fn glue(&self, item: &Item) -> (&[u8], u16) {
        (&self.bytes[item.glue.0 as usize..item.glue.1 as usize], item.glue_records)
    }

    /// What it takes in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        self.bytes.capacity() + self.items.capacity() * size_of::<Item>()
    }

    /// Appends a record of the question's name.
    pub(super) fn push(&mut self, rtype: u16, ttl: u32, weight: u32, data: impl FnOnce(&mut Vec<u8>)) {
        let start = self.mark();
        write_record(&mut self.bytes, |out| out.extend_from_slice(&TO_QUESTION), rtype, ttl, data);
        let end = self.mark();
        if self.items.first().is_some_and(|first| first.weight != weight) {
            self.uniform = false;
        }
        self.items.push(Item { answer: (start, end), glue: (end, end), glue_records: 0, weight });
    }

    /// Appends an additional record that belongs to the record that was pushed last.
    pub(super) fn push_glue(
        &mut self,
        owner: impl FnOnce(&mut Vec<u8>),
        rtype: u16,
        ttl: u32,
        data: impl FnOnce(&mut Vec<u8>),
    ) {
        write_record(&mut self.bytes, owner, rtype, ttl, data);
        let end = self.mark();
        if let Some(item) = self.items.last_mut() {
            item.glue.1 = end;
            item.glue_records += 1;
        }
    }

    fn mark(&self) -> u32 {
        // 10,000 instances with the longest records are some 10 MB.
        self.bytes.len() as u32
    }
}

/// Writes a record: owner, type, class, TTL, and data behind its length.
pub(super) fn write_record(
    out: &mut Vec<u8>,
    owner: impl FnOnce(&mut Vec<u8>),
    rtype: u16,
    ttl: u32,
    data: impl FnOnce(&mut Vec<u8>),
) {
    owner(out);
    out.extend_from_slice(&rtype.to_be_bytes());
    out.extend_from_slice(&class::IN.to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    let length_at = out.len();
    out.extend_from_slice(&[0, 0]);
    data(out);
    let length = (out.len() - length_at - 2) as u16;
    out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
}

/// A pointer to an offset within the question's name.
pub(super) fn pointer(at: usize) -> [u8; 2] {
    debug_assert!(at <= 255, "a name is no longer");
    (0xc000 | (HEADER + at) as u16).to_be_bytes()
}
