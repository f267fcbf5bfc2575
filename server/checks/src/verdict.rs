//! What a check found. A target's own words are part of it, and are made harmless here, and nowhere else.

use crate::limits::OUTPUT_BYTES;

/// How a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It works.
    Passing,
    /// It works, but somebody should look at it.
    Warning,
    /// It does not work, or can't be said to.
    Critical,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How the target is.
    pub status: Status,
    /// What was done and what came of it, for people who look: up to 4 KiB, without control characters but line feeds and tabs.
    pub output: String,
}

impl Verdict {
    /// A verdict, with its output cut and made harmless.
    pub(crate) fn new(status: Status, output: &str) -> Self {
        Self { status, output: harmless(output) }
    }

    /// A verdict that ends with a target's own words, if it had any.
    pub(crate) fn quoting(status: Status, what: &str, words: &[u8]) -> Self {
        let words = String::from_utf8_lossy(whole_characters(words));
        match words.trim() {
            "" => Self::new(status, what),
            words => Self::new(status, &format!("{what}\n{words}")),
        }
    }
}

/// The text without what could move a terminal's cursor, hide its neighbours or turn their order; cut at a character.
fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len().min(OUTPUT_BYTES));
    for character in text.chars() {
        let character = match character {
            '\r' => continue,
            '\n' | '\t' => character,
            // Overrides and isolates of the direction of writing (UAX #9).
            '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
            // Line and paragraph separators.
            '\u{2028}' | '\u{2029}' => '\n',
            _ if character.is_control() => char::REPLACEMENT_CHARACTER,
            _ => character,
        };
        if harmless.len() + character.len_utf8() > OUTPUT_BYTES {
            break;
        }
        harmless.push(character);
    }
    harmless
}

/// The bytes without a character at their end that was cut.
fn whole_characters(bytes: &[u8]) -> &[u8] {
    let mut start = bytes.len().saturating_sub(3);
    while start < bytes.len() {
        // A leading byte that announces more bytes than there are.
        let length = match bytes[start] {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        if start + length > bytes.len() {
            return &bytes[..start];
        }
        start += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_cut_between_characters() {
        for (character, length) in [("a", 4096), ("ü", 4096), ("€", 4095), ("😀", 4096)] {
            let verdict = Verdict::new(Status::Passing, &character.repeat(5000));
            assert_eq!(verdict.output.len(), length, "{character}");
            assert!(verdict.output.chars().all(|c| c.to_string() == character));
        }
        // One byte before the characters moves where the cut falls.
        assert_eq!(Verdict::new(Status::Passing, &format!("x{}", "€".repeat(2000))).output.len(), 4096);
    }

    #[test]
    fn what_could_harm_a_terminal_is_replaced() {
        for (text, harmless) in [
            ("a\x1b[2Jb", "a\u{FFFD}[2Jb"),
            ("a\0b\x07\x7f", "a\u{FFFD}b\u{FFFD}\u{FFFD}"),
            ("\u{9b}31m", "\u{FFFD}31m"),
            ("line\r\nline\tend", "line\nline\tend"),
            ("abc\u{202E}cba\u{2066}", "abc\u{FFFD}cba\u{FFFD}"),
            ("a\u{2028}b", "a\nb"),
        ] {
            assert_eq!(Verdict::new(Status::Passing, text).output, harmless, "{text:?}");
        }
    }

    #[test]
    fn words_that_are_no_utf8_are_told_as_far_as_they_are() {
        let told = |words: &[u8]| Verdict::quoting(Status::Passing, "said", words).output;
        assert_eq!(told(b""), "said");
        assert_eq!(told(b" \r\n"), "said");
        assert_eq!(told(b"a\xffb"), "said\na\u{FFFD}b");
        for cut in ["€".as_bytes(), "😀".as_bytes(), "ü".as_bytes()] {
            for end in 1..cut.len() {
                assert_eq!(told(&[b"whole ", &cut[..end]].concat()), "said\nwhole", "{cut:?} {end}");
            }
            assert_eq!(told(cut), format!("said\n{}", std::str::from_utf8(cut).unwrap()));
        }
    }
}
