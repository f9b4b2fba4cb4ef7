//! Option files of the MySQL clients: `~/.my.cnf` and what it includes.
//!
//! Source: groups `[client]`, `[client-server]`, `[client-mariadb]` and, last and so strongest, `[lampad]`.
//! Shape:  `name = value` or a bare `name`; `-` and `_` are the same; values may be quoted with `'` or `"` and use the
//!         escapes `\b \t \n \r \s \\ \" \'`; a line that begins with `#` or `;` is a comment, and so is what follows
//!         ` #` behind an unquoted value; `!include FILE` and `!includedir DIR` (its `*.cnf`, by name) read further files.
//! Errors: a file that exists and cannot be read or is not UTF-8 is named; lines of other groups are left alone.

use std::path::{Path, PathBuf};

/// Includes within includes; deeper ones are a loop.
const DEPTH_MAX: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum OptionFileError {
    #[error("cannot read the option file {}: {cause}", path.display())]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("{}: files include each other more than {DEPTH_MAX} deep; remove the loop", path.display())]
    Loop { path: PathBuf },
}

/// What the groups for us said; of several values for one name the last counts, `[lampad]` above the others.
#[derive(Debug, Default)]
pub struct Options {
    client: Vec<(String, String)>,
    lampad: Vec<(String, String)>,
}

impl Options {
    pub fn read(path: &Path) -> Result<Self, OptionFileError> {
        let mut options = Self::default();
        options.read_into(path, 0)?;
        Ok(options)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let last = |group: &'_ [(String, String)]| group.iter().rposition(|(key, _)| key == name);
        last(&self.lampad)
            .map(|at| self.lampad[at].1.as_str())
            .or_else(|| last(&self.client).map(|at| self.client[at].1.as_str()))
    }

    fn read_into(&mut self, path: &Path, depth: usize) -> Result<(), OptionFileError> {
        if depth > DEPTH_MAX {
            return Err(OptionFileError::Loop { path: path.to_owned() });
        }
        let read = |cause| OptionFileError::Read { path: path.to_owned(), cause };
        let text = std::fs::read_to_string(path).map_err(read)?;
        let mut group = Group::Other;
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                group = Group::of(name.trim());
            } else if let Some(dir) = directive(line, "!includedir") {
                for file in cnf_files(&beside(path, dir)).map_err(read)? {
                    self.read_into(&file, depth + 1)?;
                }
            } else if let Some(file) = directive(line, "!include") {
                self.read_into(&beside(path, file), depth + 1)?;
            } else if group != Group::Other {
                let (name, value) = line.split_once('=').unwrap_or((line, ""));
                let entry = (name.trim().to_ascii_lowercase().replace('_', "-"), value_of(value));
                match group {
                    Group::Lampad => self.lampad.push(entry),
                    _ => self.client.push(entry),
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Group {
    Client,
    Lampad,
    Other,
}

impl Group {
    fn of(name: &str) -> Self {
        match name {
            "client" | "client-server" | "client-mariadb" => Self::Client,
            "lampad" => Self::Lampad,
            _ => Self::Other,
        }
    }
}

fn directive<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(name)?;
    rest.starts_with(char::is_whitespace).then(|| rest.trim())
}

fn beside(file: &Path, named: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new(".")).join(named)
}

fn cnf_files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "cnf"));
    files.sort();
    Ok(files)
}

/// The value as written behind `=`: without quotes or comment, escapes resolved.
fn value_of(written: &str) -> String {
    let written = written.trim();
    let quote = written.chars().next().filter(|first| matches!(first, '"' | '\''));
    let mut value = String::with_capacity(written.len());
    let mut chars = written.chars().skip(usize::from(quote.is_some())).peekable();
    while let Some(next) = chars.next() {
        if Some(next) == quote {
            return value;
        }
        if quote.is_none() && next == '#' && value.ends_with(char::is_whitespace) {
            break;
        }
        if next != '\\' {
            value.push(next);
            continue;
        }
        match chars.next() {
            Some('b') => value.push('\u{8}'),
            Some('t') => value.push('\t'),
            Some('n') => value.push('\n'),
            Some('r') => value.push('\r'),
            Some('s') => value.push(' '),
            Some(same @ ('\\' | '"' | '\'')) => value.push(same),
            // Not an escape: the clients keep both characters.
            Some(other) => value.extend(['\\', other]),
            None => value.push('\\'),
        }
    }
    if quote.is_some() {
        // The quote was never closed, so it was meant as a character.
        return written.to_owned();
    }
    value.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_unquoted_as_the_clients_do() {
        let table = [
            (r#"plain"#, "plain"),
            (r#"  spaced  "#, "spaced"),
            (r#""p#ss; w'rd""#, "p#ss; w'rd"),
            (r#"'a"b' # note"#, "a\"b"),
            (r#"p#ss"#, "p#ss"),
            (r#"pass # note"#, "pass"),
            (r#""a\"b\\c\sd\te""#, "a\"b\\c d\te"),
            (r#"C:\x"#, r"C:\x"),
            (r#""open"#, "\"open"),
            ("", ""),
        ];
        for (written, expected) in table {
            assert_eq!(value_of(written), expected, "{written}");
        }
    }

    proptest::proptest! {
        /// Quoted, with backslash, quote and line ends escaped, any text is a value.
        #[test]
        fn any_password_passes_through_an_option_file(password in "(?s).{0,40}") {
            let mut written = String::from('"');
            for character in password.chars() {
                match character {
                    '\\' => written.push_str("\\\\"),
                    '"' => written.push_str("\\\""),
                    '\n' => written.push_str("\\n"),
                    '\r' => written.push_str("\\r"),
                    other => written.push(other),
                }
            }
            written.push('"');
            proptest::prop_assert_eq!(value_of(&written), password);
        }
    }

    #[test]
    fn groups_includes_and_comments() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::create_dir(dir.path().join("more")).unwrap();
        write(
            "main.cnf",
            "; c\n[mysqld]\nport=1\n[client]\nUser = a\npassword=\"x\"\n!include other.cnf\n!includedir more\n",
        );
        write("other.cnf", "[lampad]\nuser=lampad\n[client]\nssl_ca = /ca.pem\n");
        write("more/b.cnf", "[client]\nhost=later\n");
        write("more/a.cnf", "[client]\nhost=sooner\n");
        write("more/no.txt", "[client]\nhost=never\n");
        let options = Options::read(&dir.path().join("main.cnf")).unwrap();
        let got = ["user", "password", "ssl-ca", "host", "port"].map(|name| options.get(name));
        assert_eq!(got, [Some("lampad"), Some("x"), Some("/ca.pem"), Some("later"), None]);
    }

    #[test]
    fn a_loop_of_includes_ends_with_a_message() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.cnf");
        std::fs::write(&file, "!include a.cnf\n").unwrap();
        assert!(matches!(Options::read(&file), Err(OptionFileError::Loop { .. })));
    }
}
