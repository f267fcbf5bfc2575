//! Chains: how the changes of one row find each other. Only this file knows the bytes of a [`Link`], which stand
//! before the record in an object row, before the change in a row of `history`, and alone in a row of `gone`.
//!
//! A row's last change is named by the row itself; each change names the one before it, and one further back to jump
//! to, so that any change is found in O(log n) steps: Myers, "An applicative random-access stack", Information
//! Processing Letters 17 (1983). Nothing but the row being written is touched when a change is added.
//!
//! Invariants: revisions fall along a chain; the first change that was not compacted when it was made, or the first
//! of all, has depth 1; each change's depth is one more than that of the change before it; the change to jump to has
//! the depth [`jump_depth`]. What lies at or below the compacted revision may be trimmed and is never followed to.

use prost::encoding::{decode_varint, encode_varint};

use crate::error::StateError;
use crate::ids::Revision;

/// Where a change is in `history`: its revision and its place within it. Revision 0 has no changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) revision: Revision,
    pub(crate) place: u32,
}

/// A change's place in the chain of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// Where the change is.
    pub(crate) at: Position,
    /// How many changes the chain has up to this one.
    pub(crate) depth: u64,
    /// The row's change before this one; `None` if it is the first, or that one was compacted when this was made.
    previous: Option<Position>,
    /// The row's change of depth [`jump_depth`]; `None` as above.
    jump: Option<Position>,
}

/// Reads the link of a change that is not compacted.
pub(crate) trait ReadLink: Fn(Position) -> Result<Link, StateError> {}
impl<F: Fn(Position) -> Result<Link, StateError>> ReadLink for F {}

impl Link {
    /// The link of a row's next change, made at `at`, when everything up to `compacted` is compacted.
    pub(crate) fn next(
        last: Option<Link>,
        at: Position,
        compacted: Revision,
        read: impl ReadLink,
    ) -> Result<Self, StateError> {
        let is_kept = |position: &Position| position.revision > compacted;
        let Some(last) = last.filter(|last| is_kept(&last.at)) else {
            return Ok(Self { at, depth: 1, previous: None, jump: None });
        };
        let depth = last.depth + 1;
        let jump = match (jump_depth(depth), last.jump.filter(is_kept)) {
            (to, _) if to == last.depth => Some(last.at),
            (0, _) | (_, None) => None,
            // Two jumps of the same length in a row are joined into one.
            (_, Some(to)) => read(to)?.jump.filter(is_kept),
        };
        Ok(Self { at, depth, previous: Some(last.at), jump })
    }

    /// The first change of the chain after a revision that is not compacted; `None` if there is none.
    pub(crate) fn first_after(
        self,
        revision: Revision,
        read: impl ReadLink,
    ) -> Result<Option<Self>, StateError> {
        if self.at.revision <= revision {
            return Ok(None);
        }
        let mut link = self;
        let is_after = |position: &Position| position.revision > revision;
        while let Some(to) = link.jump.filter(is_after).or(link.previous.filter(is_after)) {
            link = read(to)?;
        }
        Ok(Some(link))
    }

    /// The last change of the chain up to a revision; `None` if that is compacted.
    pub(crate) fn last_until(
        self,
        revision: Revision,
        compacted: Revision,
        read: impl ReadLink,
    ) -> Result<Option<Self>, StateError> {
        if revision <= compacted {
            return Ok(None);
        }
        match self.first_after(revision, &read)? {
            None => Ok(Some(self).filter(|link| link.at.revision > compacted)),
            Some(later) => later.before(compacted, &read),
        }
    }

    /// The change before this one, unless it is compacted.
    pub(crate) fn before(self, compacted: Revision, read: impl ReadLink) -> Result<Option<Self>, StateError> {
        self.previous.filter(|position| position.revision > compacted).map(read).transpose()
    }

    /// The change of a depth that is not greater than this one's and not compacted.
    pub(crate) fn at_depth(self, depth: u64, read: impl ReadLink) -> Result<Self, StateError> {
        let mut link = self;
        while link.depth > depth {
            let jump = link.jump.filter(|_| jump_depth(link.depth) >= depth);
            let to = jump.or(link.previous).ok_or_else(|| malformed("a chain ends too soon"))?;
            link = read(to)?;
        }
        Ok(link)
    }

    /// Appends the link as it stands in rows that don't have its position as their key.
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        encode_position(self.at, into);
        self.encode_without_position(into);
    }

    /// Appends the link without its position.
    pub(crate) fn encode_without_position(&self, into: &mut Vec<u8>) {
        encode_varint(self.depth, into);
        if self.depth > 1 {
            encode_position(self.previous.unwrap_or(NOWHERE), into);
        }
        if has_jump_of_its_own(self.depth) {
            encode_position(self.jump.unwrap_or(NOWHERE), into);
        }
    }

    /// Takes a link apart from what follows it.
    pub(crate) fn split(row: &[u8]) -> Result<(Self, &[u8]), StateError> {
        let mut rest = row;
        let at = decode_position(&mut rest)?.ok_or_else(|| malformed("a link is nowhere"))?;
        Self::split_without_position(at, rest)
    }

    /// Takes a link that stands without its position apart from what follows it.
    pub(crate) fn split_without_position(at: Position, row: &[u8]) -> Result<(Self, &[u8]), StateError> {
        let mut rest = row;
        let depth = decode_number(&mut rest)?;
        if depth == 0 {
            return Err(malformed("a link has no depth"));
        }
        let previous = if depth > 1 { decode_position(&mut rest)? } else { None };
        let jump = match jump_depth(depth) {
            0 => None,
            to if to == depth - 1 => previous,
            _ => decode_position(&mut rest)?,
        };
        Ok((Self { at, depth, previous, jump }, rest))
    }
}

/// The depth that a change jumps to; 0 if to none. A depth is a sum of numbers 2^k - 1 (its skew binary digits,
/// greatest first), and the jump takes away the last of them.
fn jump_depth(depth: u64) -> u64 {
    let mut rest = depth;
    while rest > 0 {
        let ones = u64::MAX >> rest.leading_zeros();
        let digit = if rest == ones { ones } else { ones >> 1 };
        rest -= digit;
        if rest == 0 {
            return depth - digit;
        }
    }
    0
}

/// Whether a jump is neither nowhere nor to the change before.
fn has_jump_of_its_own(depth: u64) -> bool {
    let to = jump_depth(depth);
    to > 0 && to < depth - 1
}

/// How no position is written down.
const NOWHERE: Position = Position { revision: Revision(0), place: 0 };

fn encode_position(position: Position, into: &mut Vec<u8>) {
    encode_varint(position.revision.0, into);
    encode_varint(position.place.into(), into);
}

fn decode_position(from: &mut &[u8]) -> Result<Option<Position>, StateError> {
    let revision = Revision(decode_number(from)?);
    let place = decode_number(from)?.try_into().map_err(|_| malformed("a place is too great"))?;
    Ok(Some(Position { revision, place }).filter(|position| *position != NOWHERE))
}

fn decode_number(from: &mut &[u8]) -> Result<u64, StateError> {
    decode_varint(from).map_err(|_| malformed("a link is cut off"))
}

fn malformed(what: &str) -> StateError {
    StateError::corrupt(super::history::TABLE.name, what)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A chain of changes at every second revision, the first at 2, and how many links were read.
    struct Chain {
        links: Vec<Link>,
        reads: Cell<u64>,
    }

    impl Chain {
        fn of(changes: u64, compacted_at: impl Fn(u64) -> u64) -> Self {
            let mut chain = Self { links: Vec::new(), reads: Cell::new(0) };
            for n in 1..=changes {
                let at = Position { revision: Revision(n * 2), place: (n % 3) as u32 };
                let last = chain.links.last().copied();
                let link = Link::next(last, at, Revision(compacted_at(n)), |p| chain.read(p)).unwrap();
                chain.links.push(link);
            }
            chain
        }

        fn read(&self, at: Position) -> Result<Link, StateError> {
            self.reads.set(self.reads.get() + 1);
            let link = self.links[at.revision.0 as usize / 2 - 1];
            assert_eq!(link.at, at);
            Ok(link)
        }

        fn last(&self) -> Link {
            *self.links.last().unwrap()
        }
    }

    #[test]
    fn jumps_are_those_of_myers() {
        let mut jumps = vec![0, 0];
        for depth in 2..10_000usize {
            let (p, jump) = (depth - 1, jumps[depth - 1]);
            let joined = p - jump == jump - jumps[jump];
            jumps.push(if joined && p > 0 { jumps[jump] } else { p });
        }
        for (depth, jump) in jumps.into_iter().enumerate() {
            assert_eq!(jump_depth(depth as u64), jump as u64, "{depth}");
        }
        assert_eq!(jump_depth(u64::MAX), 0);
    }

    #[test]
    fn any_change_of_a_long_chain_is_found_in_few_reads() {
        let changes = 100_000;
        let chain = Chain::of(changes, |_| 0);
        // One read at most for each change made.
        assert!(chain.reads.get() < changes);
        let mut most = 0;
        for revision in (0..changes * 2).step_by(7) {
            chain.reads.set(0);
            let found = chain.last().first_after(Revision(revision), |p| chain.read(p)).unwrap();
            assert_eq!(found, Some(chain.links[revision as usize / 2]));
            most = most.max(chain.reads.get());
            chain.reads.set(0);
            let depth = revision / 2 + 1;
            let found = chain.last().at_depth(depth, |p| chain.read(p)).unwrap();
            assert_eq!(found, chain.links[depth as usize - 1]);
            most = most.max(chain.reads.get());
        }
        // Myers: at most 3 * log2(n + 1) - 2 steps, rounded down.
        assert!(most <= 3 * (changes + 1).ilog2() as u64 - 2, "{most}");
        let end = Revision(changes * 2);
        assert_eq!(chain.last().first_after(end, |p| chain.read(p)).unwrap(), None);
    }

    #[test]
    fn nothing_compacted_is_read_and_the_rest_is_found() {
        // The line follows at a distance, and stands still now and then.
        let line = |n: u64| (n * 2).saturating_sub(601) / 100 * 100;
        let chain = Chain::of(5_000, line);
        let compacted = Revision(line(5_000));
        let read = |p: Position| {
            assert!(p.revision > compacted);
            chain.read(p)
        };
        assert_eq!(chain.last().last_until(Revision(3), compacted, read).unwrap(), None);
        for revision in compacted.0..10_000 {
            let (from, first) = (Revision(revision), chain.links[revision as usize / 2]);
            assert_eq!(chain.last().first_after(from, read).unwrap(), Some(first));
            assert_eq!(chain.last().at_depth(first.depth, read).unwrap(), first);
            let until = chain.last().last_until(from, compacted, read).unwrap();
            let wanted = (from.0 / 2).checked_sub(1).map(|n| chain.links[n as usize]);
            assert_eq!(until, wanted.filter(|link| link.at.revision > compacted));
        }
    }

    #[test]
    fn a_chain_begins_anew_after_what_is_compacted() {
        let chain = Chain::of(10, |n| if n == 6 { 10 } else { 0 });
        assert_eq!(chain.links[5], Link { at: chain.links[5].at, depth: 1, previous: None, jump: None });
        assert_eq!(chain.last().depth, 5);
    }

    #[test]
    fn a_link_is_read_back_as_it_was_written() {
        for link in Chain::of(200, |n| if n > 150 { 120 } else { 0 }).links {
            let mut row = Vec::new();
            link.encode(&mut row);
            row.extend_from_slice(b"record");
            assert_eq!(Link::split(&row).unwrap(), (link, &b"record"[..]));
            for cut in 0..row.len() - 6 {
                assert!(Link::split(&row[..cut]).is_err());
            }
        }
        assert!(Link::split(&[2, 0, 0]).is_err());
        assert!(Link::split(&[0, 0, 1]).is_err());
    }
}
