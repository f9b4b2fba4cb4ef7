//! What single signs of a pattern mean: classes by letter or name, repetitions, escapes.

use regex::Regex;

pub(super) const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

pub(super) fn perl_class(letter: char) -> &'static str {
    match letter.to_ascii_lowercase() {
        'd' => "0-9",
        's' => "\\t\\n\\x0c\\r\\x20",
        _ => "0-9A-Za-z_",
    }
}

/// How long `{3}`, `{3,}` or `{3,5}` is; `None` where the brace is itself.
pub(super) fn repetition(text: &str) -> Option<usize> {
    let (inside, _) = text[1..].split_once('}')?;
    let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
    let is_number = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|digit| digit.is_ascii_digit())
            && (text.len() == 1 || !text.starts_with('0'))
    };
    (is_number(least) && (most.is_empty() || is_number(most))).then_some(inside.len() + 2)
}

/// `\pL`, `\p{Greek}` or `\p{^Greek}`, which is `\P{Greek}`, and its length.
pub(super) fn named_class(text: &str) -> Result<(String, usize), String> {
    let unknown = || format!("invalid character class range: `{text}`");
    let (name, length) = match text[2..].chars().next() {
        Some('{') => text[3..].split_once('}').map(|(name, _)| (name, name.len() + 4)).ok_or_else(unknown)?,
        Some(letter) => (&text[2..2 + letter.len_utf8()], 2 + letter.len_utf8()),
        None => return Err(unknown()),
    };
    let (name, negated) = name.strip_prefix('^').map_or((name, false), |name| (name, true));
    if name.is_empty() || !name.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'_') {
        return Err(unknown());
    }
    let sign = if negated == text.starts_with("\\p") { 'P' } else { 'p' };
    let class = format!("\\{sign}{{{name}}}");
    // The library knows which names there are, and has other words for one that is none.
    if Regex::new(&class).is_err() {
        return Err(format!("invalid character class range: `{}`", &text[..length]));
    }
    Ok((class, length))
}

/// The character that an escape stands for, and the escape's length.
pub(super) fn escaped(text: &str) -> Result<(char, usize), String> {
    let Some(letter) = text[1..].chars().next() else {
        return Err("trailing backslash at end of expression: ``".to_owned());
    };
    let invalid = || format!("invalid escape sequence: `\\{letter}`");
    let plain = |letter: char| Ok((letter, 2));
    match letter {
        'a' => plain('\x07'),
        'f' => plain('\x0c'),
        'n' => plain('\n'),
        'r' => plain('\r'),
        't' => plain('\t'),
        'v' => plain('\x0b'),
        '0'..='7' => {
            let digits = text[1..].bytes().take(3).take_while(|digit| (b'0'..b'8').contains(digit)).count();
            // A single digit but 0 would refer to a group, which no pattern that ends in time can.
            if digits == 1 && letter != '0' {
                return Err(invalid());
            }
            let code = u32::from_str_radix(&text[1..=digits], 8).ok().and_then(char::from_u32);
            code.map(|code| (code, 1 + digits)).ok_or_else(invalid)
        }
        'x' => {
            let (digits, length) = match text[2..].strip_prefix('{') {
                Some(rest) => rest.split_once('}').map(|(digits, _)| (digits, digits.len() + 4)),
                None => text.get(2..4).map(|digits| (digits, 4)),
            }
            .filter(|(digits, _)| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .ok_or_else(invalid)?;
            let code = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
            code.map(|code| (code, length)).ok_or_else(invalid)
        }
        _ if letter.is_ascii() && !letter.is_ascii_alphanumeric() => plain(letter),
        _ => Err(invalid()),
    }
}
