//! Names of metrics and labels for readers that may know only letters, digits and `_`.
//!
//! Any UTF-8 is a name here. A reader's `Accept` says with `escaping=` what it understands; without, what it cannot know
//! becomes `_`, as Prometheus has it.

use std::borrow::Cow;
use std::fmt::Write as _;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Escaping {
    /// Names as they are; in text those that need it are quoted.
    AllowUtf8,
    /// `a.b` becomes `a_b`.
    #[default]
    Underscores,
    /// `a.b_c` becomes `a_dot_b__c`.
    Dots,
    /// `a.b_c` becomes `U__a_2e_b__c`, which can be read back.
    Values,
}

impl Escaping {
    pub fn read(name: &str) -> Option<Self> {
        let all = [Self::AllowUtf8, Self::Underscores, Self::Dots, Self::Values];
        all.into_iter().find(|escaping| escaping.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }

    /// Plain names stay as they are.
    pub fn escape(self, name: &str) -> Cow<'_, str> {
        if self == Self::AllowUtf8 || is_plain(name) {
            return Cow::Borrowed(name);
        }
        let mut out = String::with_capacity(name.len() + 8);
        if self == Self::Values {
            out.push_str("U__");
        }
        for (at, letter) in name.chars().enumerate() {
            match (self, letter) {
                (Self::Dots, '.') => out.push_str("_dot_"),
                (Self::Dots | Self::Values, '_') => out.push_str("__"),
                (_, letter) if is_plain_letter(letter, at) => out.push(letter),
                (Self::Dots, _) => out.push_str("__"),
                // Writing to a String does not fail.
                (Self::Values, letter) => drop(write!(out, "_{:x}_", u32::from(letter))),
                _ => out.push('_'),
            }
        }
        Cow::Owned(out)
    }
}

fn is_plain_letter(letter: char, at: usize) -> bool {
    letter.is_ascii_alphabetic() || letter == '_' || letter == ':' || (at > 0 && letter.is_ascii_digit())
}

/// Whether every reader knows such names: `[a-zA-Z_:][a-zA-Z0-9_:]*`.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().enumerate().all(|(at, letter)| is_plain_letter(letter, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_prometheus_does() {
        let name = "a.b_c/ß";
        for (escaping, expected) in [
            (Escaping::AllowUtf8, "a.b_c/ß"),
            (Escaping::Underscores, "a_b_c__"),
            (Escaping::Dots, "a_dot_b__c____"),
            (Escaping::Values, "U__a_2e_b__c_2f__df_"),
        ] {
            assert_eq!(escaping.escape(name), expected);
            assert_eq!(escaping.escape("plain_name:x"), "plain_name:x");
            assert_eq!(Escaping::read(escaping.name()), Some(escaping));
        }
        assert_eq!(Escaping::Underscores.escape("1a"), "_a");
    }
}
