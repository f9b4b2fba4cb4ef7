//! How a command on the same machine speaks with the collector that runs on a data directory: over a socket in it.
//!
//! ```text
//! DATA_DIR/control.sock    whoever may enter the directory may ask; nothing listens on the network
//! asked                    one line: "backup"
//! answered                 records (lampad_proto::record), by kind:
//! 1 begin                  u64 LE values that will come
//! 2 file                   u16 LE length of the name, name, bytes that follow those before
//! 3 value                  u32 LE partition, u32 LE number, bytes
//! 4 end                    u64 LE values, u64 LE bytes, u64 LE values that could not be read
//! 5 trouble                text
//! ```
//! The command writes the copy, with its own rights and where it likes; the collector only reads, and writes nowhere outside
//! its directory. An answer that ends without kind 4 is no backup.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lampad_proto::record;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::store::{Backed, BackupSink, Store};

const BEGIN: u8 = 1;
const FILE: u8 = 2;
const VALUE: u8 = 3;
const END: u8 = 4;
const TROUBLE: u8 = 5;

/// A client that neither asks nor reads for so long is let go, and with it what a backup holds back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Backups at once; each reads all there is.
const BACKUPS_MAX: usize = 1;

/// Connections that are served at once; the others are told so.
const ASKED_MAX: usize = 4;

const BACKUP: &str = "backup\n";

/// Files beside the store's own that belong to a backup.
const BESIDE: [&str; 1] = ["agents.json"];

/// Where the collector on this directory listens.
pub fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// Serves the socket until `end`. Without one a running collector cannot be backed up, and all else works.
pub async fn serve(store: Arc<Store>, data_dir: PathBuf, end: CancellationToken) {
    let path = socket(&data_dir);
    // The directory is locked: what is left there is of a collector that has ended.
    let _ = std::fs::remove_file(&path);
    let listener = match tokio::net::UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no control socket: `lampad-collector backup` works on the stopped directory only");
            return;
        }
    };
    let (asked, backups) = (Arc::new(Semaphore::new(ASKED_MAX)), Arc::new(Semaphore::new(BACKUPS_MAX)));
    loop {
        let accepted = tokio::select! {
            () = end.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors: come again when some are free.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = asked.clone().try_acquire_owned() else { continue };
        let (store, data_dir, backups) = (store.clone(), data_dir.clone(), backups.clone());
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let answered = stream.into_std().and_then(|stream| answer(stream, &store, &data_dir, &backups));
            if let Err(error) = answered {
                tracing::warn!(%error, "a backup was not finished");
            }
        });
    }
    let _ = std::fs::remove_file(path);
}

fn answer(stream: UnixStream, store: &Store, data_dir: &Path, backups: &Semaphore) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(&stream).take(BACKUP.len() as u64 + 1).read_line(&mut line)?;
    let mut out = Sender(BufWriter::new(stream));
    let Ok(_permit) = backups.try_acquire() else {
        return out.trouble("another backup is being made; wait for its end");
    };
    if line != BACKUP {
        return out.trouble("this collector does not know what is asked; use the command of its own version");
    }
    tracing::info!("a backup begins");
    let backed = match store.backup(&mut out) {
        Ok(backed) => backed,
        Err(error) => {
            out.trouble(&error.to_string())?;
            return Err(io::Error::other(error));
        }
    };
    for name in BESIDE {
        if let Ok(bytes) = std::fs::read(data_dir.join(name)) {
            out.file(name, &bytes)?;
        }
    }
    let Backed { values, bytes, missing } = backed;
    out.record(END, &[&values.to_le_bytes(), &bytes.to_le_bytes(), &missing.to_le_bytes()])?;
    out.0.flush()?;
    tracing::info!(values, bytes, missing, "a backup was made");
    Ok(())
}

/// The collector's end of a backup.
struct Sender(BufWriter<UnixStream>);

impl Sender {
    fn record(&mut self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        let mut bytes = Vec::new();
        record::append(&mut bytes, kind, |out| parts.iter().for_each(|part| out.extend_from_slice(part)));
        self.0.write_all(&bytes)
    }

    fn trouble(&mut self, text: &str) -> io::Result<()> {
        self.record(TROUBLE, &[text.as_bytes()])?;
        self.0.flush()
    }
}

impl BackupSink for Sender {
    fn begin(&mut self, values: u64) -> io::Result<()> {
        self.record(BEGIN, &[&values.to_le_bytes()])
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.record(FILE, &[&(name.len() as u16).to_le_bytes(), name.as_bytes(), bytes])
    }

    fn value(&mut self, partition: u32, number: u32, bytes: &[u8]) -> io::Result<()> {
        self.record(VALUE, &[&partition.to_le_bytes(), &number.to_le_bytes(), bytes])
    }
}

/// Asks the collector on this directory for a backup; `None` where none listens.
pub fn fetch(data_dir: &Path, sink: &mut dyn BackupSink) -> io::Result<Option<Backed>> {
    let mut stream = match UnixStream::connect(socket(data_dir)) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(PATIENCE * 2))?;
    stream.write_all(BACKUP.as_bytes())?;
    let mut incoming = BufReader::new(stream);
    loop {
        let (kind, payload) = next(&mut incoming)?;
        let number = |at: usize| payload.get(at..at + 8).and_then(|some| some.try_into().ok()).map(u64::from_le_bytes);
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "the collector's answer makes no sense");
        match kind {
            BEGIN => sink.begin(number(0).ok_or_else(odd)?)?,
            FILE => {
                let (length, rest) = payload.split_first_chunk::<2>().ok_or_else(odd)?;
                let (name, bytes) = rest.split_at_checked(u16::from_le_bytes(*length).into()).ok_or_else(odd)?;
                sink.file(std::str::from_utf8(name).map_err(|_| odd())?, bytes)?;
            }
            VALUE => {
                let (partition, rest) = payload.split_first_chunk::<4>().ok_or_else(odd)?;
                let (key, bytes) = rest.split_first_chunk::<4>().ok_or_else(odd)?;
                sink.value(u32::from_le_bytes(*partition), u32::from_le_bytes(*key), bytes)?;
            }
            END => {
                let (values, bytes, missing) = (number(0), number(8), number(16));
                let all = values.zip(bytes).zip(missing).ok_or_else(odd)?;
                return Ok(Some(Backed { values: all.0.0, bytes: all.0.1, missing: all.1 }));
            }
            TROUBLE => return Err(io::Error::other(String::from_utf8_lossy(&payload).into_owned())),
            _ => return Err(odd()),
        }
    }
}

/// One record, checked.
fn next(incoming: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut bytes = vec![0; record::HEADER_BYTES];
    incoming.read_exact(&mut bytes)?;
    let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the collector's answer is damaged");
    if length > record::PAYLOAD_BYTES_MAX {
        return Err(damaged());
    }
    bytes.resize(record::HEADER_BYTES + length, 0);
    incoming.read_exact(&mut bytes[record::HEADER_BYTES..])?;
    let kind = record::Scan::new(&bytes).next().ok_or_else(damaged)?.kind;
    Ok((kind, bytes.split_off(record::HEADER_BYTES)))
}
