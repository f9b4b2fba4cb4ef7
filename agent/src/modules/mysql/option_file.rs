//! Option files of the MySQL clients: `~/.my.cnf` and what it includes.
//!
//! Source: groups `[client]`, `[client-server]`, `[client-mariadb]` and, last and so strongest, `[lampad]`.
//! Shape:  `name = value` or a bare `name`; `-` and `_` are the same; a value within two `'` or two `"` is what stands between
//!         them; the escapes are `\b \t \n \r \s \\ \" \'`; a line that begins with `#` or `;` is a comment, and so is what
//!         follows a `#` outside of quotes, also without a blank before it: my_print_defaults(1) tells the same values.
//!         `!include FILE` and `!includedir DIR` (its `*.cnf`, by name) read further files.
//! Errors: a file that exists and cannot be read is named, and a line for us that is not UTF-8, which is what the driver takes a
//!         password in; comments and lines of other groups are left alone.

use std::path::{Path, PathBuf};

/// Includes within includes; deeper ones are a loop.
const DEPTH_MAX: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum OptionFileError {
    #[error("cannot read the option file {}: {cause}", path.display())]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("{}: files include each other more than {DEPTH_MAX} deep; remove the loop", path.display())]
    Loop { path: PathBuf },
    #[error("{}:{line}: this is not UTF-8; write the value in UTF-8, a password with ALTER USER as well", path.display())]
    NotText { path: PathBuf, line: usize },
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
        let bytes = std::fs::read(path).map_err(read)?;
        let mut group = Group::Other;
        for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = match std::str::from_utf8(line) {
                Ok(line) => trimmed(line),
                Err(_) if group == Group::Other || is_comment(line) => continue,
                Err(_) => return Err(OptionFileError::NotText { path: path.to_owned(), line: at + 1 }),
            };
            if line.is_empty() || is_comment(line.as_bytes()) {
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
                self.keep(group, without_comment(line));
            }
        }
        Ok(())
    }

    fn keep(&mut self, group: Group, line: &str) {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        let entry = (trimmed(name).to_ascii_lowercase().replace('_', "-"), value_of(value));
        match group {
            Group::Lampad => self.lampad.push(entry),
            _ => self.client.push(entry),
        }
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

/// Without blanks of ASCII at its ends; a password may end in others.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}')
}

fn is_comment(line: &[u8]) -> bool {
    matches!(line.trim_ascii_start().first(), Some(b'#' | b';'))
}

/// The line up to a `#` that stands in no quotes. Within them a quote may be escaped.
fn without_comment(line: &str) -> &str {
    let (mut quote, mut escaped) = (None, false);
    for (at, next) in line.char_indices() {
        match next {
            '"' | '\'' if !escaped => match quote {
                None => quote = Some(next),
                Some(open) if open == next => quote = None,
                Some(_) => {}
            },
            '#' if quote.is_none() => return &line[..at],
            _ => {}
        }
        escaped = quote.is_some() && next == '\\' && !escaped;
    }
    line
}

/// The value as written behind `=`: without quotes, escapes resolved.
fn value_of(written: &str) -> String {
    let written = trimmed(written);
    let within = |quote| written.strip_prefix(quote)?.strip_suffix(quote);
    let mut chars = within('"').or_else(|| within('\'')).unwrap_or(written).chars();
    let mut value = String::with_capacity(written.len());
    while let Some(next) = chars.next() {
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
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a line of ours says.
    fn read(written: &str) -> String {
        let mut options = Options::default();
        options.keep(Group::Client, without_comment(&format!("x={written}")));
        options.get("x").unwrap().to_owned()
    }

    #[test]
    fn values_are_unquoted_as_the_clients_do() {
        let table = [
            ("plain", "plain"),
            (r#"  spaced  "#, "spaced"),
            (r#""p#ss; w'rd""#, "p#ss; w'rd"),
            (r#"'a"b' # note"#, "a\"b"),
            (r#""p#s" # note"#, "p#s"),
            ("p#ss", "p"),
            ("pass # note", "pass"),
            (r#""a\"b\\c\sd\te""#, "a\"b\\c d\te"),
            (r#""a"b""#, "a\"b"),
            ("'it''s'", "it''s"),
            (r#"a"b"#, "a\"b"),
            (r#""a" b"#, "\"a\" b"),
            (r"C:\x", r"C:\x"),
            (r#""open"#, "\"open"),
            (r#"""#, "\""),
            ("", ""),
        ];
        for (written, expected) in table {
            assert_eq!(read(written), expected, "{written}");
        }
    }

    #[test]
    fn only_what_is_for_us_has_to_be_text() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("my.cnf");
        std::fs::write(&file, b"# caf\xe9\n[mysqld]\nx=\xff\n[client]\n ; \xe9\nuser=a\n").unwrap();
        assert_eq!(Options::read(&file).unwrap().get("user"), Some("a"));
        std::fs::write(&file, b"[client]\npassword=\xe9\n").unwrap();
        let error = Options::read(&file).unwrap_err().to_string();
        assert!(error.contains("my.cnf:2: this is not UTF-8"), "{error}");
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
            proptest::prop_assert_eq!(read(&written), password);
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
