//! As much of D-Bus as it takes to ask systemd: calls with text arguments, one at a time, on the system bus.
//!
//! Own code because the libraries bring a runtime, a serializer and some megabytes for what is five calls here.
//!
//! Source: the bus' socket; the protocol is that of the D-Bus specification, version 1.
//! Shape:  login: NUL, `AUTH EXTERNAL` uid as hex of its digits CR LF; answer `OK ...`; `BEGIN` CR LF. Then messages:
//!           byte order 'l', type u8, flags u8, version 1, body length u32, serial u32,
//!           header fields: array of (code u8, variant), padded to 8; then the body.
//!         Values are aligned to their size, structs to 8; text is length u32, bytes, NUL; a signature has its length in a byte.
//! Errors: of input and output, and `InvalidData` for what is not the protocol. After any of them the connection is of no use;
//!         an answer of the other side that it cannot do this is [`CallError::Refused`] and leaves it whole.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The list of ten thousand units has about 3 MB; what says more is not a list of units.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// For one answer. The bus is on this host, and a manager that reloads may take a second.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest line of the login.
const LINE_BYTES_MAX: usize = 1024;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Lost(#[from] io::Error),
    /// The other side says no: its name for the error.
    #[error("{0}")]
    Refused(String),
}

/// Whom a call is for.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    pub service: &'a str,
    pub path: &'a str,
}

pub struct Bus {
    stream: UnixStream,
    serial: u32,
}

/// Where the system bus listens.
pub fn socket(rootfs: &Path) -> PathBuf {
    rootfs.join("run/dbus/system_bus_socket")
}

impl Bus {
    /// Logs in as the user that this process runs as.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let uid: String =
            rustix::process::geteuid().as_raw().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
        let answer = line(&mut stream)?;
        if !answer.starts_with("OK ") {
            return Err(io::Error::other(format!("the bus does not let us in: {}", answer.trim())));
        }
        stream.write_all(b"BEGIN\r\n")?;
        let mut bus = Self { stream, serial: 0 };
        let itself = Object { service: "org.freedesktop.DBus", path: "/org/freedesktop/DBus" };
        bus.call(itself, "org.freedesktop.DBus", "Hello", &[]).map_err(io::Error::other)?;
        Ok(bus)
    }

    /// Calls a method whose arguments are all text; returns the body of the answer.
    pub fn call(&mut self, object: Object, interface: &str, method: &str, args: &[&str]) -> Result<Body, CallError> {
        self.serial += 1;
        self.stream.write_all(&message(self.serial, object, interface, method, args))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Signals and what others say in between have no serial of ours.
            let (kind, answers, error, body) = self.receive(deadline)?;
            match (kind, answers == Some(self.serial)) {
                (RETURN, true) => return Ok(body),
                (ERROR, true) => return Err(CallError::Refused(error)),
                _ => {}
            }
        }
    }

    /// A property that is a plain value.
    pub fn property(&mut self, object: Object, interface: &str, name: &str) -> Result<Value, CallError> {
        let mut body = self.call(object, "org.freedesktop.DBus.Properties", "Get", &[interface, name])?;
        Ok(body.variant()?)
    }

    /// Type, serial that it answers, name of the error, body.
    fn receive(&mut self, deadline: Instant) -> io::Result<(u8, Option<u32>, String, Body)> {
        let mut head = Body(vec![0; 16], 0);
        read_exact(&mut self.stream, &mut head.0, deadline)?;
        if head.0[0] != b'l' {
            return Err(odd("an answer of the other byte order"));
        }
        let kind = head.0[1];
        head.1 = 4;
        let body_bytes = head.u32()? as usize;
        head.1 = 12;
        let field_bytes = head.u32()? as usize;
        if body_bytes.saturating_add(field_bytes) > MESSAGE_BYTES_MAX {
            return Err(odd("a message that is too long"));
        }
        let mut fields = Body(vec![0; field_bytes.next_multiple_of(8)], 0);
        read_exact(&mut self.stream, &mut fields.0, deadline)?;
        let mut body = Body(vec![0; body_bytes], 0);
        read_exact(&mut self.stream, &mut body.0, deadline)?;
        let (mut answers, mut error) = (None, String::new());
        while fields.1 < field_bytes {
            fields.align(8);
            match (fields.byte()?, fields.variant()?) {
                (4, Value::Text(name)) => error = name,
                (5, Value::Number(serial)) => answers = Some(serial as u32),
                _ => {}
            }
        }
        Ok((kind, answers, error, body))
    }
}

/// Reads all of it, or fails at the deadline however slowly it trickles.
fn read_exact(stream: &mut UnixStream, mut into: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !into.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer from the bus"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(into) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => into = &mut into[read..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
        if line.len() > LINE_BYTES_MAX {
            return Err(odd("a login that is no line"));
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the bus sent {what}"))
}

fn message(serial: u32, object: Object, interface: &str, method: &str, args: &[&str]) -> Vec<u8> {
    let mut body = Writer::default();
    args.iter().for_each(|arg| body.text(arg));
    let mut out = Writer::default();
    out.0.extend([b'l', CALL, 0, 1]);
    out.u32(body.0.len() as u32);
    out.u32(serial);
    let mut fields = Writer::default();
    for (code, kind, text) in [(1, "o", object.path), (2, "s", interface), (3, "s", method), (6, "s", object.service)] {
        fields.align(8);
        fields.0.push(code);
        fields.signature(kind);
        fields.text(text);
    }
    if !args.is_empty() {
        fields.align(8);
        fields.0.push(8);
        fields.signature("g");
        fields.signature(&"s".repeat(args.len()));
    }
    out.u32(fields.0.len() as u32);
    out.0.extend(fields.0);
    out.align(8);
    out.0.extend(body.0);
    out.0
}

#[derive(Default)]
pub(super) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    pub fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    pub fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }
}

/// A plain value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Number(f64),
}

impl Value {
    pub fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) => None,
        }
    }

    pub fn number(self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Text(_) => None,
        }
    }
}

/// Bytes of a message, and how far they have been read.
#[derive(Debug)]
pub struct Body(pub(super) Vec<u8>, pub(super) usize);

impl Body {
    pub fn align(&mut self, to: usize) {
        self.1 = self.1.next_multiple_of(to);
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.align(N);
        let bytes = self.0.get(self.1..self.1 + N).and_then(|bytes| bytes.try_into().ok());
        self.1 += N;
        bytes.ok_or_else(|| odd("a message that ends too soon"))
    }

    pub fn byte(&mut self) -> io::Result<u8> {
        self.take().map(|[byte]: [u8; 1]| byte)
    }

    pub fn u32(&mut self) -> io::Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn text(&mut self) -> io::Result<String> {
        let length = self.u32()? as usize;
        self.bytes(length)
    }

    fn signature(&mut self) -> io::Result<String> {
        let length = usize::from(self.byte()?);
        self.bytes(length)
    }

    fn bytes(&mut self, length: usize) -> io::Result<String> {
        let bytes =
            self.0.get(self.1..self.1.saturating_add(length)).ok_or_else(|| odd("a text that ends too soon"))?;
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.1 += length + 1;
        Ok(text)
    }

    /// Where the array of structs ends that begins here.
    pub fn structs(&mut self) -> io::Result<usize> {
        let length = self.u32()? as usize;
        self.align(8);
        Ok(self.1.saturating_add(length))
    }

    /// Whether a further struct begins before `end`; goes to its beginning.
    pub fn next_struct(&mut self, end: usize) -> bool {
        self.align(8);
        self.1 < end
    }

    pub fn variant(&mut self) -> io::Result<Value> {
        Ok(match &*self.signature()? {
            "s" | "o" => Value::Text(self.text()?),
            "g" => Value::Text(self.signature()?),
            "y" => Value::Number(f64::from(self.byte()?)),
            "b" | "u" => Value::Number(f64::from(self.u32()?)),
            "n" => Value::Number(f64::from(self.take().map(i16::from_le_bytes)?)),
            "q" => Value::Number(f64::from(self.take().map(u16::from_le_bytes)?)),
            "i" => Value::Number(f64::from(self.take().map(i32::from_le_bytes)?)),
            "x" => Value::Number(self.take().map(i64::from_le_bytes)? as f64),
            "t" => Value::Number(self.take().map(u64::from_le_bytes)? as f64),
            "d" => Value::Number(self.take().map(f64::from_le_bytes)?),
            other => return Err(odd(&format!("a value of type {other}, which is no plain one"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    const BUS: Object = Object { service: "org.freedesktop.DBus", path: "/org/freedesktop/DBus" };

    struct Daemon(Child, tempfile::TempDir);

    impl Drop for Daemon {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A bus of the test's own, where the program is installed.
    fn daemon() -> Option<Daemon> {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("--address=unix:path={}", dir.path().join("bus").display());
        let mut command = Command::new("dbus-daemon");
        command.args(["--session", "--nofork", "--print-address", &address]).stdout(Stdio::piped());
        let Ok(mut child) = command.spawn() else {
            println!("skipped: dbus-daemon is not installed");
            return None;
        };
        // It listens once it has told its address.
        let mut told = [0];
        child.stdout.take().unwrap().read_exact(&mut told).unwrap();
        Some(Daemon(child, dir))
    }

    #[test]
    fn a_real_bus_answers() {
        let Some(daemon) = daemon() else { return };
        let mut bus = Bus::connect(&daemon.1.path().join("bus")).unwrap();
        let owner = bus.call(BUS, BUS.service, "GetNameOwner", &[BUS.service]).unwrap().text().unwrap();
        assert_eq!(owner, BUS.service);
        let refused = bus.call(BUS, BUS.service, "GetNameOwner", &["no.such.name"]).unwrap_err();
        assert!(matches!(&refused, CallError::Refused(name) if name.ends_with("NameHasNoOwner")), "{refused}");
        let odd = bus.property(BUS, BUS.service, "Features").unwrap_err();
        assert!(odd.to_string().contains("a value of type as"), "{odd}");
    }

    #[test]
    fn plain_values_are_read_at_their_places() {
        let mut out = Writer::default();
        out.signature("t");
        out.align(8);
        out.0.extend(u64::MAX.to_le_bytes());
        out.signature("s");
        out.text("ä");
        out.signature("n");
        out.align(2);
        out.0.extend((-3_i16).to_le_bytes());
        let mut body = Body(out.0, 0);
        assert_eq!(body.variant().unwrap(), Value::Number(u64::MAX as f64));
        assert_eq!(body.variant().unwrap(), Value::Text("ä".into()));
        assert_eq!(body.variant().unwrap(), Value::Number(-3.0));
        assert!(body.variant().is_err(), "there is no more");
    }

    proptest::proptest! {
        /// Whatever a bus sends, it is read or refused.
        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(0_u8..=255, 0..64)) {
            let mut body = Body(bytes, 0);
            let _ = body.variant();
            if let Ok(end) = body.structs() {
                while body.next_struct(end) && body.text().is_ok() {}
            }
        }
    }
}
