//! Text of others in messages: its beginning is enough to find it by.

use std::borrow::Cow;

/// Bytes of a text that a message shows.
const SHOWN_BYTES: usize = 100;

/// The text, or as much of its beginning as a message should show.
pub fn shown(text: &str) -> Cow<'_, str> {
    if text.len() <= SHOWN_BYTES {
        return text.into();
    }
    let end = (0..=SHOWN_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}...", &text[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(shown("db7"), "db7");
        let long = format!("{}\u{e9}\u{e9}", "x".repeat(SHOWN_BYTES - 1));
        assert_eq!(shown(&long), format!("{}...", "x".repeat(SHOWN_BYTES - 1)));
    }
}
