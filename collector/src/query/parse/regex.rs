//! Regular expressions as Prometheus reads them, that is as Go's `regexp/syntax` does, for the library that runs them here.
//!
//! Both come from RE2, and most of a pattern means the same to both. This translation is for the rest:
//!
//! | pattern | in Go | in the library, left as it is |
//! |---|---|---|
//! | `\w` `\d` `\s` `\b` | of ASCII | of Unicode |
//! | `\<` `\>` | the sign itself | where a word begins, ends |
//! | `[a&&b]` `[a--b]` `[a[b]` | a set of these signs | an operation on sets |
//! | `\Qa.b\E` `\123` `x{,3}` | text, the octal number, text | refused, refused, a repetition |
//! | `(?x)` `a**` `\u0061` | refused | known |
//!
//! A pattern may also be small to write and large to run. While it is translated the states are counted that it will have, so
//! that one which is too large is refused before anything is made of it.

mod signs;
mod translation;

use regex::Regex;

use self::translation::Translation;

/// States of all patterns of one request, each some hundred bytes. A list of all hosts of a large fleet has a state per letter.
pub const STATES_MAX: usize = 1 << 18;
/// What every pattern takes, however short.
const STATES_EACH: usize = 64;

/// States that may still be made.
#[derive(Debug)]
pub struct States {
    left: usize,
}

impl Default for States {
    fn default() -> Self {
        Self { left: STATES_MAX }
    }
}

/// A pattern over a whole value, `.` matching newlines too.
pub fn anchored(pattern: &str, states: &mut States) -> Result<Regex, String> {
    let mut translation = Translation::new(pattern);
    translation.whole().map_err(|reason| format!("error parsing regexp: {reason}"))?;
    let Some(left) = states.left.checked_sub(translation.total().saturating_add(STATES_EACH)) else {
        return Err(format!(
            "error parsing regexp: the regular expressions of one query may have {STATES_MAX} states in all, these have more; \
             match literal texts, or ask in several queries"
        ));
    };
    states.left = left;
    Regex::new(&format!("^(?s:{})$", translation.out))
        .map_err(|error| format!("error parsing regexp: {}: `{pattern}`", last_line(&error.to_string())))
}

/// The library draws the pattern and an arrow before it says what is wrong. What is wrong most often is worded as Go has it.
fn last_line(text: &str) -> &str {
    match text.lines().last().unwrap_or_default().trim_start_matches("error: ") {
        "unclosed group" => "missing closing )",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::translation::WIDE_CLASS_STATES;
    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        anchored(pattern, &mut States::default()).unwrap().is_match(value)
    }

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        for (pattern, value) in [
            ("\\w+", "aZ_9"),
            ("[\\w]", "x"),
            ("[^\\W]", "x"),
            ("\\W", "\u{e4}"),
            ("a\\b.*", "a\u{e4}"),
            ("\\s", "\x0c"),
            ("\\S", "\x0b"),
            ("\\<\\>", "<>"),
            ("[a&&b]+", "a&b"),
            ("[+--]+", "+,-"),
            ("[a[b]+", "[ab"),
            ("[@[:]oh", ":oh"),
            ("[]a-]+", "]a-"),
            ("[[:alpha:][:^word:]]+", "a-"),
            ("\\Qa.[b\\E+", "a.[bb"),
            ("\\Qa\\", "a\\"),
            ("\\101\\x42\\x{43}\\0", "ABC\0"),
            ("x{,3}", "x{,3}"),
            ("x{01}{", "x{01}{"),
            ("x{2}?y{0,}", "xxyyy"),
            ("(?i)S", "\u{17f}"),
            ("(?i:\u{c4})x", "\u{e4}x"),
            ("(?P<a>.)(?<1>.)", "a\n"),
            ("\\pL\\p{^Greek}", "ab"),
            (" #", " #"),
            ("^a$|b", "b"),
            ("\\.\\-\\/\\~", ".-/~"),
        ] {
            assert!(matches(pattern, value), "{pattern} {value}");
        }
        for (pattern, value) in [
            ("\\w", "\u{e4}"),
            ("\\d", "\u{663}"),
            ("[\\w]", "\u{e4}"),
            ("\\s", "\x0b"),
            ("[a&&b]", "c"),
            ("a|b", "ab"),
        ] {
            assert!(!matches(pattern, value), "{pattern} {value}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for pattern in [
            "(?x)a",
            "(?u)a",
            "(?R)a",
            "(?=a)",
            "(?",
            "(?)",
            "(?-)",
            "a**",
            "a{2}{3}",
            "a*?*",
            "*a",
            "a{1001}",
            "a{3,2}",
            "(a{100}){100}",
            "\\u0061",
            "\\8",
            "\\1",
            "\\C",
            "\\Z",
            "a\\",
            "[a",
            "[z-a]",
            "[[:foo:]]",
            "[\\Qa\\E]",
            "a)",
            "(a",
            "\\pX",
            "\\x{110000}",
            "\\xg1",
            "[a-\\d]",
        ] {
            let error = anchored(pattern, &mut States::default()).map(|regex| regex.to_string());
            assert!(
                error.as_ref().is_err_and(|text| text.starts_with("error parsing regexp: ")),
                "{pattern}: {error:?}"
            );
        }
    }

    #[test]
    fn what_grows_too_large_is_refused_before_it_is_made() {
        for (pattern, fits) in [
            ("\\w{1,255}", true),
            (".{1000}", true),
            ("(.{10}){100}", true),
            ("\\pL{100}", true),
            ("\\pL{1000}", false),
            ("(\\pL{10}x){100}", false),
        ] {
            assert_eq!(anchored(pattern, &mut States::default()).is_ok(), fits, "{pattern}");
        }
        // All patterns of a request draw on one count.
        let mut states = States::default();
        let taken = (0..1000).take_while(|_| anchored(".{1000}", &mut states).is_ok()).count();
        assert_eq!(taken, STATES_MAX / (WIDE_CLASS_STATES * 1001 + STATES_EACH));
    }
}
