//! Numbers, durations and strings as Go reads them.

/// `1e3`, `0x1f`, `1_000`, `017` (octal), `.5`; NaN and Inf are words and read elsewhere. The reason is worded as Go has it.
pub fn number(text: &str) -> Result<f64, &'static str> {
    match digits(text) {
        Some(number) if number.is_infinite() => Err("value out of range"),
        found => found.ok_or("invalid syntax"),
    }
}

fn digits(text: &str) -> Option<f64> {
    let parted = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_hexdigit());
    for (at, _) in parted.match_indices('_') {
        let before = digit(parted[..at].chars().next_back()) || (at == 0 && parted.len() < text.len());
        if !before || !digit(parted[at + 1..].chars().next()) {
            return None;
        }
    }
    let plain: String = parted.chars().filter(|c| *c != '_').collect();
    if parted.len() < text.len() {
        return u64::from_str_radix(&plain, 16).ok().map(|number| number as f64);
    }
    if plain.len() > 1 && plain.starts_with('0') && plain.bytes().all(|c| (b'0'..=b'7').contains(&c)) {
        return u64::from_str_radix(&plain, 8).ok().map(|number| number as f64);
    }
    plain.parse().ok()
}

/// `1h30m` in seconds.
pub fn duration(text: &str) -> Result<f64, String> {
    Ok(duration_ms(text)? as f64 / 1000.0)
}

/// `1h30m` in milliseconds: units from the largest to the smallest, each at most once.
pub fn duration_ms(text: &str) -> Result<i64, String> {
    const UNITS: [(&str, i64); 7] = [
        ("y", 365 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    let trouble = || format!("not a valid duration string: {text:?}");
    // The first unit that may come next.
    let mut units = 0;
    let mut rest = text;
    let mut total_ms: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0).ok_or_else(trouble)?;
        let number: u64 = rest[..digits].parse().map_err(|_| trouble())?;
        let end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let unit = Some(&rest[digits..end]).filter(|unit| !unit.is_empty()).ok_or_else(trouble)?;
        let at = UNITS.iter().position(|(known, _)| *known == unit);
        let at = at.ok_or_else(|| format!("unknown unit {unit:?} in duration {text:?}"))?;
        if at < units {
            return Err(trouble());
        }
        let part = i64::try_from(number).ok().and_then(|number| number.checked_mul(UNITS[at].1));
        let total = part.and_then(|part| total_ms.checked_add(part)).filter(|ms| *ms <= LONGEST_MS);
        total_ms = total.ok_or("duration out of range")?;
        (units, rest) = (at + 1, &rest[end..]);
    }
    Ok(total_ms)
}

/// What Go's durations hold, which count nanoseconds: 292 years.
pub const LONGEST_MS: i64 = i64::MAX / 1_000_000;

/// The bytes of a string literal: Go's escapes may make any bytes, not only UTF-8.
pub fn unquoted(literal: &str) -> Result<Vec<u8>, String> {
    let quote = literal.chars().next().unwrap_or('"');
    let inside = &literal[1..literal.len().max(2) - 1];
    if quote == '`' {
        return Ok(inside.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(inside.len());
    // With the quote at the end, which errors show where an escape runs into it.
    let mut rest = &literal[1..];
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = escape(&rest[at + 1..], quote, &mut out)?;
    }
    out.extend_from_slice(rest.strip_suffix(quote).unwrap_or(rest).as_bytes());
    Ok(out)
}

/// Adds what the escape stands for; gives what follows it. Errors are worded as Prometheus has them.
fn escape<'a>(text: &'a str, quote: char, out: &mut Vec<u8>) -> Result<&'a str, String> {
    let first = text.chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
    let plain = match first {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        c if c == quote => c as u8,
        'x' => {
            let (number, rest) = digits_of(&text[1..], 2, 16)?;
            out.push(number as u8);
            return Ok(rest);
        }
        '0'..='7' => {
            let (number, rest) = digits_of(text, 3, 8)?;
            out.push(u8::try_from(number).map_err(|_| NO_CHARACTER)?);
            return Ok(rest);
        }
        'u' | 'U' => {
            let (number, rest) = digits_of(&text[1..], if first == 'u' { 4 } else { 8 }, 16)?;
            let c = char::from_u32(number).ok_or(NO_CHARACTER)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(rest);
        }
        odd => return Err(format!("unknown escape sequence {}", described(odd))),
    };
    out.push(plain);
    Ok(&text[first.len_utf8()..])
}

const NO_CHARACTER: &str = "escape sequence is an invalid Unicode code point";

/// So many digits as a number, and what follows them.
fn digits_of(text: &str, count: usize, radix: u32) -> Result<(u32, &str), String> {
    let mut chars = text.chars();
    let mut number: u32 = 0;
    for _ in 0..count {
        let odd = chars.next().unwrap_or(char::REPLACEMENT_CHARACTER);
        let digit =
            odd.to_digit(radix).ok_or_else(|| format!("illegal character {} in escape sequence", described(odd)))?;
        number = number.wrapping_mul(radix).wrapping_add(digit);
    }
    Ok((number, chars.as_str()))
}

/// As Go's `%#U` writes a character.
fn described(c: char) -> String {
    let number = format!("U+{:04X}", c as u32);
    if c.is_control() { number } else { format!("{number} '{c}'") }
}

/// Bytes between double quotes, as Go's `%q` writes them.
pub fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                '\x07' => out.push_str("\\a"),
                '\x08' => out.push_str("\\b"),
                '\x0b' => out.push_str("\\v"),
                '\x0c' => out.push_str("\\f"),
                c if (c as u32) < 0x20 || c == '\x7f' => out.push_str(&format!("\\x{:02x}", c as u32)),
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_does() {
        for (text, value) in
            [("1_000", 1000.0), ("0x_1F", 31.0), ("017", 15.0), ("08", 8.0), ("1e-3", 0.001), (".5", 0.5), ("1.", 1.0)]
        {
            assert_eq!(number(text), Ok(value), "{text}");
        }
        for text in ["1__0", "1_", "0x", "1_.5", "1.2.3"] {
            assert_eq!(number(text), Err("invalid syntax"), "{text}");
        }
    }

    #[test]
    fn what_no_float_holds_is_no_number() {
        for text in ["1e400", "9e999"] {
            assert_eq!(number(text), Err("value out of range"), "{text}");
        }
        assert_eq!(number("1e-400"), Ok(0.0));
    }

    #[test]
    fn durations_fall_from_unit_to_unit() {
        assert_eq!(duration("1h30m"), Ok(5400.0));
        assert_eq!(duration("1s500ms"), Ok(1.5));
        for (text, reason) in [
            ("30m1h", "not a valid duration string: \"30m1h\""),
            ("1m1m", "not a valid duration string: \"1m1m\""),
            ("m", "not a valid duration string: \"m\""),
            ("5", "not a valid duration string: \"5\""),
            ("5hs", "unknown unit \"hs\" in duration \"5hs\""),
            ("1.5m", "unknown unit \".\" in duration \"1.5m\""),
            ("300y", "duration out of range"),
            ("99999999999999999999s", "not a valid duration string: \"99999999999999999999s\""),
        ] {
            assert_eq!(duration(text), Err(reason.to_owned()));
        }
    }

    #[test]
    fn strings_may_hold_any_bytes() {
        assert_eq!(unquoted(r#""a\xc5z\n\u00e4\101""#).unwrap(), b"a\xc5z\n\xc3\xa4A");
        assert_eq!(unquoted(r"'it\'s'").unwrap(), b"it's");
        assert_eq!(unquoted(r"`\n`").unwrap(), br"\n");
        for wrong in [r#""\'""#, r#""\q""#, r#""\x1""#, r#""\ud800""#, r#""\777""#] {
            assert!(unquoted(wrong).is_err(), "{wrong}");
        }
        assert_eq!(quoted(b"a\xc5z\"\n"), r#""a\xc5z\"\n""#);
    }
}
