//! One pattern, sign by sign, from Go's language into the library's, and the states that it will have.

use super::STATES_MAX;
use super::signs::{POSIX, escaped, named_class, perl_class, repetition};

/// What a class by Unicode's names counts: as many as the larger of them have.
const NAMED_CLASS_STATES: usize = 2_000;
/// Any character but a few, in UTF-8.
pub(super) const WIDE_CLASS_STATES: usize = 10;
/// Go's bound on `x{n}`, and on the product of those that lie in each other.
const REPEATS_MAX: usize = 1_000;
/// How deep groups may lie in each other, as in Go.
const DEPTH_MAX: usize = 1_000;

/// What a group that is still open counts so far.
#[derive(Default)]
struct Level {
    /// Before the last item, and the last item itself: what a repetition repeats.
    states: usize,
    last: usize,
    /// The largest product of repetitions in it.
    repeats: usize,
    last_repeats: usize,
}

impl Level {
    fn item(&mut self, states: usize, repeats: usize) {
        self.states = self.states.saturating_add(self.last);
        self.repeats = self.repeats.max(self.last_repeats);
        (self.last, self.last_repeats) = (states, repeats);
    }

    fn total(&self) -> usize {
        self.states.saturating_add(self.last)
    }
}

pub(super) struct Translation<'a> {
    pattern: &'a str,
    rest: &'a str,
    pub out: String,
    /// The open groups, the pattern itself being the first.
    levels: Vec<Level>,
    /// The repetition that was just read, for which another one has nothing to repeat.
    repetition: Option<&'a str>,
    /// A group or an alternative has just begun: there is nothing to repeat.
    begins: bool,
}

type Done = Result<(), String>;

impl<'a> Translation<'a> {
    pub fn new(pattern: &'a str) -> Self {
        let out = String::with_capacity(pattern.len() + 16);
        Self { pattern, rest: pattern, out, levels: vec![Level::default()], repetition: None, begins: true }
    }

    pub fn total(&self) -> usize {
        self.levels.iter().fold(0, |sum, level| sum.saturating_add(level.total()))
    }

    fn level(&mut self) -> &mut Level {
        if self.levels.is_empty() {
            self.levels.push(Level::default());
        }
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    pub fn whole(&mut self) -> Done {
        while let Some(letter) = self.rest.chars().next() {
            let before = self.repetition.take();
            match letter {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.open()?,
                ')' => self.close()?,
                '*' | '+' | '?' => self.repeat(1, before)?,
                '{' => match repetition(self.rest) {
                    Some(length) => self.repeat(length, before)?,
                    None => self.literal(letter),
                },
                '.' | '^' | '$' | '|' => self.copy(1, if letter == '.' { WIDE_CLASS_STATES } else { 1 }),
                _ => self.literal(letter),
            }
            self.begins = matches!(letter, '(' | '|');
            // What is too large ends here, and not after a long text was read.
            if self.levels.last().is_some_and(|level| level.total() > STATES_MAX) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Hands on what means the same to both.
    fn copy(&mut self, bytes: usize, states: usize) {
        let (text, rest) = self.rest.split_at(bytes);
        self.out.push_str(text);
        self.rest = rest;
        self.level().item(states, 1);
    }

    /// One character that is itself.
    fn literal(&mut self, letter: char) {
        self.rest = &self.rest[letter.len_utf8()..];
        self.push(letter);
        self.level().item(letter.len_utf8(), 1);
    }

    fn push(&mut self, letter: char) {
        if letter.is_ascii() && !letter.is_ascii_alphanumeric() {
            self.out.push_str(&format!("\\x{{{:x}}}", u32::from(letter)));
        } else {
            self.out.push(letter);
        }
    }

    fn escape(&mut self) -> Done {
        let Some(letter) = self.rest[1..].chars().next() else {
            return Err("trailing backslash at end of expression: ``".to_owned());
        };
        let known = |text: &str| text.to_owned();
        let text = match letter {
            'Q' => {
                let text = &self.rest[2..];
                let (text, rest) = text.split_once("\\E").unwrap_or((text, ""));
                text.chars().for_each(|letter| {
                    self.push(letter);
                    self.level().item(letter.len_utf8(), 1);
                });
                self.rest = rest;
                return Ok(());
            }
            'A' => known("\\A"),
            'z' => known("\\z"),
            'b' => known("(?-u:\\b)"),
            'B' => known("(?-u:\\B)"),
            'd' | 's' | 'w' => format!("[{}]", perl_class(letter)),
            'D' | 'S' | 'W' => format!("[^{}]", perl_class(letter)),
            'p' | 'P' => {
                let (class, length) = named_class(self.rest)?;
                self.out.push_str(&class);
                self.rest = &self.rest[length..];
                self.level().item(NAMED_CLASS_STATES, 1);
                return Ok(());
            }
            _ => {
                let (letter, length) = escaped(self.rest)?;
                self.rest = &self.rest[length..];
                self.push(letter);
                self.level().item(letter.len_utf8(), 1);
                return Ok(());
            }
        };
        self.out.push_str(&text);
        self.rest = &self.rest[2..];
        self.level().item(if letter.is_ascii_uppercase() { WIDE_CLASS_STATES } else { 2 }, 1);
        Ok(())
    }

    fn class(&mut self) -> Done {
        let whole = self.rest;
        self.rest = &self.rest[1..];
        self.out.push('[');
        let mut states = 2;
        if let Some(rest) = self.rest.strip_prefix('^') {
            self.out.push('^');
            self.rest = rest;
            states = WIDE_CLASS_STATES;
        }
        let mut first = true;
        loop {
            let Some(letter) = self.rest.chars().next() else {
                return Err(format!("missing closing ]: `{whole}`"));
            };
            if letter == ']' && !first {
                break;
            }
            first = false;
            states += 1;
            // One colon cannot both open and close: `[:]` is no name.
            if let Some(end) = self.rest.strip_prefix("[:").and_then(|name| name.find(":]")).map(|end| end + 2) {
                let (name, rest) = self.rest.split_at(end + 2);
                if !POSIX.contains(&name[2..end].trim_start_matches('^')) {
                    return Err(format!("invalid character class range: `{name}`"));
                }
                self.out.push_str(name);
                self.rest = rest;
                continue;
            }
            match self.rest.as_bytes() {
                [b'\\', b'd' | b's' | b'w', ..] => self.out.push_str(perl_class(self.rest.as_bytes()[1].into())),
                [b'\\', b'D' | b'S' | b'W', ..] => {
                    let class = perl_class(self.rest.as_bytes()[1].into());
                    self.out.push_str(&format!("[^{class}]"));
                    states += WIDE_CLASS_STATES;
                }
                [b'\\', b'p' | b'P', ..] => {
                    let (class, length) = named_class(self.rest)?;
                    self.out.push_str(&class);
                    self.rest = &self.rest[length..];
                    states += NAMED_CLASS_STATES;
                    continue;
                }
                _ => {
                    self.range()?;
                    continue;
                }
            }
            self.rest = &self.rest[2..];
        }
        self.out.push(']');
        self.rest = &self.rest[1..];
        self.level().item(states, 1);
        Ok(())
    }

    /// A character of a class, or all from one to another.
    fn range(&mut self) -> Done {
        let text = self.rest;
        let low = self.member()?;
        let mut high = low;
        if self.rest.starts_with('-') && !self.rest[1..].starts_with(']') && self.rest.len() > 1 {
            self.rest = &self.rest[1..];
            high = self.member()?;
        }
        if high < low {
            let range = &text[..text.len() - self.rest.len()];
            return Err(format!("invalid character class range: `{range}`"));
        }
        self.push(low);
        if high != low {
            self.out.push('-');
            self.push(high);
        }
        Ok(())
    }

    fn member(&mut self) -> Result<char, String> {
        let (letter, length) = match self.rest.chars().next() {
            Some('\\') => escaped(self.rest)?,
            Some(letter) => (letter, letter.len_utf8()),
            None => return Err("missing closing ]: ``".to_owned()),
        };
        self.rest = &self.rest[length..];
        Ok(letter)
    }

    fn open(&mut self) -> Done {
        if self.levels.len() > DEPTH_MAX {
            return Err(format!("expression nests too deeply: `{}`", self.rest));
        }
        let length = match self.rest.strip_prefix("(?") {
            None => 1,
            // What ends right there is no name that lacks its end, but no syntax at all.
            Some(rest) if ["P<", "<"].iter().any(|sign| rest.starts_with(sign) && rest != *sign) => {
                let end = rest.find('>').ok_or_else(|| format!("invalid named capture: `{}`", self.rest))?;
                let name = rest[..end].trim_start_matches('P').trim_start_matches('<');
                if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                    return Err(format!("invalid named capture: `(?{}`", &rest[..=end]));
                }
                // Nothing here asks for a group by a name that begins with a digit, which the library would refuse.
                self.out.push_str("(?P<");
                if name.starts_with(|c: char| c.is_ascii_digit()) {
                    self.out.push('_');
                }
                self.out.push_str(name);
                self.out.push('>');
                self.rest = &rest[end + 1..];
                self.levels.push(Level::default());
                return Ok(());
            }
            Some(rest) => {
                let end = rest.find(|c: char| !"imsU-".contains(c)).unwrap_or(rest.len());
                let (flags, after) = rest.split_at(end);
                let switches = flags.trim_start_matches("imsU") != "-" && !flags.ends_with('-');
                let fits = flags.matches('-').count() < 2 && switches;
                match after.chars().next() {
                    Some(':') if fits => end + 3,
                    // Flags for the rest of the group: nothing opens.
                    Some(')') if fits && !flags.is_empty() => {
                        self.copy(end + 3, 0);
                        return Ok(());
                    }
                    Some(odd) => {
                        return Err(format!("invalid or unsupported Perl syntax: `(?{flags}{odd}`"));
                    }
                    None => return Err(format!("invalid or unsupported Perl syntax: `{}`", self.rest)),
                }
            }
        };
        let (text, rest) = self.rest.split_at(length);
        self.out.push_str(text);
        self.rest = rest;
        self.levels.push(Level::default());
        Ok(())
    }

    fn close(&mut self) -> Done {
        if self.levels.len() < 2 {
            return Err(format!("unexpected ): `{}`", self.pattern));
        }
        let Some(inner) = self.levels.pop() else { return Ok(()) };
        self.out.push(')');
        self.rest = &self.rest[1..];
        self.level().item(inner.total().saturating_add(2), inner.repeats.max(inner.last_repeats));
        Ok(())
    }

    /// A repetition of `length` bytes, with the `?` that makes it take as little as it can.
    fn repeat(&mut self, length: usize, before: Option<&'a str>) -> Done {
        let lazy = usize::from(self.rest[length..].starts_with('?'));
        let (text, rest) = self.rest.split_at(length + lazy);
        if let Some(before) = before {
            return Err(format!("invalid nested repetition operator: `{before}{text}`"));
        }
        if self.begins {
            return Err(format!("missing argument to repetition operator: `{text}`"));
        }
        let bounds = text.trim_end_matches('?').trim_matches(['{', '}']);
        let number = |text: &str| text.parse().unwrap_or(usize::MAX);
        let (least, most) = match bounds.split_once(',') {
            _ if !text.starts_with('{') => (0, 1),
            None => (number(bounds), number(bounds)),
            Some((least, "")) => (number(least), number(least)),
            Some((least, most)) => (number(least), number(most)),
        };
        let level = self.level();
        level.last_repeats = level.last_repeats.max(1).saturating_mul(most.max(1));
        level.last = level.last.saturating_mul(most.saturating_add(1));
        if least > most || level.last_repeats > REPEATS_MAX {
            return Err(format!("invalid repeat count: `{text}`"));
        }
        self.out.push_str(text);
        self.rest = rest;
        self.repetition = Some(text);
        Ok(())
    }
}
