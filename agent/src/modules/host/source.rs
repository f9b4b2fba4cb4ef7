//! Reading the kernel's text files cheaply, and saying well what went wrong.
//!
//! A file of `/proc` is opened once and read again at offset 0 with `pread`: the kernel writes it anew for each such read,
//! and no path is walked. `/sys` attributes are many, small and come and go, so those are opened each time.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lampad_proto::Number;

use crate::module::ModuleError;

/// First size of a buffer; it grows to what the file needs and stays there.
const BUFFER_BYTES: usize = 4 * 1024;

/// Longest file that is taken: `/proc/stat` of 2,048 cores has about 0.4 MB, `/proc/net/tcp` of 100,000 sockets 15 MB.
const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A file of `/proc` that stays open. Not for files that are replaced by renaming: their old content would be read on.
pub struct ProcFile {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl ProcFile {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None, buffer: Vec::new() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole content now. A missing file is [`ModuleError::Absent`].
    pub fn bytes(&mut self) -> Result<&[u8], ModuleError> {
        let reused = self.file.is_some();
        let len = match self.fill() {
            Ok(len) => len,
            // What was open may be gone with its device or process; the path may have a new one.
            Err(_) if reused => {
                self.file = None;
                self.fill().map_err(|source| read_error(&self.path, source))?
            }
            Err(source) => return Err(read_error(&self.path, source)),
        };
        Ok(&self.buffer[..len])
    }

    /// The same as text.
    pub fn text(&mut self) -> Result<&str, ModuleError> {
        self.bytes()?;
        let len = self.buffer.len();
        let path = &self.path;
        std::str::from_utf8(&self.buffer[..len]).map_err(|_| parse_error(path, "it is not UTF-8 text"))
    }

    fn fill(&mut self) -> io::Result<usize> {
        let result = self.fill_from_open_file();
        if result.is_err() {
            self.file = None;
        }
        result
    }

    fn fill_from_open_file(&mut self) -> io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path)?),
        };
        // All of the capacity is offered, so that the kernel can write the file in one go: only then is it of one moment.
        let room = self.buffer.capacity().max(BUFFER_BYTES);
        self.buffer.resize(room, 0);
        let mut len = 0;
        loop {
            match file.read_at(&mut self.buffer[len..], len as u64) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if len == self.buffer.len() {
                if len >= FILE_BYTES_MAX {
                    return Err(io::Error::other(format!("is longer than {FILE_BYTES_MAX} bytes")));
                }
                self.buffer.resize(len * 2, 0);
            }
        }
        self.buffer.truncate(len);
        Ok(len)
    }
}

/// An attribute of `/sys` without the white space around it. `None` when it is not there or the driver does not give it:
/// attributes that answer `EINVAL`, `ENODATA` or `EACCES` are usual, and the series is then left out.
pub fn attribute(path: impl AsRef<Path>) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// A numeric attribute of `/sys`.
pub fn number(path: impl AsRef<Path>) -> Option<f64> {
    parse_number(&attribute(path)?)
}

/// A number as the kernel prints it: decimal, or hexadecimal after `0x`.
pub fn parse_number(text: &str) -> Option<f64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(|value| value as f64),
        None => parse_decimal(text),
    }
}

/// A decimal number. Integers go first: they are nearly all, and quicker.
pub fn parse_decimal(text: &str) -> Option<f64> {
    match text.parse::<u64>() {
        Ok(value) => Some(value as f64),
        Err(_) => text.parse().ok(),
    }
}

/// A counter of the kernel, to its last digit: nothing is calculated with it here.
pub fn parse_counter(text: &str) -> Option<Number> {
    match text.parse::<u64>() {
        Ok(value) => Some(value.into()),
        Err(_) => Number::parse(text),
    }
}

/// The names in a directory, sorted; a missing directory is [`ModuleError::Absent`].
pub fn names_in(dir: &Path) -> Result<Vec<String>, ModuleError> {
    let entries = fs::read_dir(dir).map_err(|source| read_error(dir, source))?;
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

/// The last part of the path that a symbolic link points to.
pub fn link_name(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_link(path).ok()?.file_name()?.to_string_lossy().into_owned())
}

/// What reading a source comes to.
pub type ModuleResult = Result<(), ModuleError>;

/// "Not on this machine" for what is not there, else "cannot read".
pub fn read_error(path: &Path, source: io::Error) -> ModuleError {
    use io::ErrorKind::{NotADirectory, NotFound};
    match source.kind() {
        NotFound | NotADirectory => absent(path),
        _ => ModuleError::Read { path: path.to_owned(), source },
    }
}

pub fn absent(path: &Path) -> ModuleError {
    ModuleError::Absent { what: path.display().to_string() }
}

pub fn parse_error(path: &Path, detail: impl Into<String>) -> ModuleError {
    ModuleError::Parse { path: path.to_owned(), detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_anew_each_time_and_in_full() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut file = ProcFile::new(&path);
        assert!(matches!(file.text(), Err(ModuleError::Absent { .. })));
        fs::write(&path, "one\n").unwrap();
        assert_eq!(file.text().unwrap(), "one\n");
        let long = "0123456789".repeat(10_000);
        fs::write(&path, &long).unwrap();
        assert_eq!(file.text().unwrap(), long, "longer than the buffer was");
        fs::write(&path, "2").unwrap();
        assert_eq!(file.text().unwrap(), "2", "nothing left of the longer content");
        fs::write(&path, [0xff, b'\n']).unwrap();
        assert!(matches!(file.text(), Err(ModuleError::Parse { .. })));
        assert_eq!(file.bytes().unwrap(), [0xff, b'\n']);
    }

    #[test]
    fn numbers_are_what_the_kernel_prints() {
        for (text, value) in [
            ("12", Some(12.0)),
            ("-7", Some(-7.0)),
            ("0x1f", Some(31.0)),
            ("0.25", Some(0.25)),
            ("", None),
            ("a", None),
        ] {
            assert_eq!(parse_number(text), value, "{text:?}");
        }
    }
}
