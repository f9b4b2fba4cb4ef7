//! The first login of a caching_sha2_password account over a socket without TLS.
//!
//! A socket counts as safe for MySQL, so the server wants the password as it is. The driver asks for the server's RSA
//! key instead, as over plain TCP; the server takes that question for the password and refuses. Once an account has logged in
//! in full, the server keeps a digest and the short login, which the driver does right, suffices until FLUSH PRIVILEGES
//! or a restart. So this logs in once, by hand, and leaves.
//!
//! Packets (protocol 4.1): 3 bytes length (little endian), 1 byte sequence, then the payload.
//!   greeting, server: 10, version NUL, id u32, nonce[8], 0, capabilities u16, charset u8, status u16, capabilities u16,
//!             length of nonce u8, 10 x 0, nonce[12] NUL, plugin NUL
//!   answer, client:   capabilities u32, largest packet u32, charset u8, 23 x 0, user NUL, length u8, digest[32], plugin NUL
//!   then, server: 01 03 (digest known) 00 (OK), or 01 04 (send the password), client: password NUL, server: 00 (OK);
//!   FE plugin NUL nonce[20] NUL asks to answer again for another nonce.

use std::io;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::target::{Address, Target};

const PLUGIN: &str = "caching_sha2_password";
/// Long password, protocol 4.1, transactions, secure connection, plugin authentication.
const CAPABILITIES: u32 = 0x1 | 0x200 | 0x2000 | 0x8000 | 0x80000;
const CHARSET_UTF8MB4: u8 = 45;
/// Packets of a login are some hundred bytes; what says more is not one.
const PACKET_MAX: usize = 64 * 1024;
/// Switch, more data, OK: a login that takes more turns is none that we know.
const TURNS_MAX: usize = 8;

/// Logs in and out once. Fails where the account is of another plugin, or is refused.
pub async fn log_in_once(target: &Target) -> io::Result<()> {
    let Address::Socket(path) = &target.address else {
        return Err(io::Error::other("not a socket"));
    };
    let password = target.password.as_ref().map_or("", |password| password.reveal());
    let mut wire = Wire { stream: UnixStream::connect(path).await?, sequence: 0 };
    let nonce = nonce_of_greeting(&wire.read().await?).ok_or_else(|| io::Error::other("not a MySQL greeting"))?;
    wire.write(&answer(&target.user, password, &nonce)).await?;
    for _ in 0..TURNS_MAX {
        let packet = wire.read().await?;
        match packet.as_slice() {
            [0x00, ..] => {
                wire.sequence = 0;
                return wire.write(&[0x01]).await; // COM_QUIT
            }
            [0x01, 0x03] => {}
            [0x01, 0x04] => wire.write(&[password.as_bytes(), &[0]].concat()).await?,
            [0xfe, rest @ ..] => {
                let nonce = rest.strip_prefix(PLUGIN.as_bytes()).and_then(|rest| rest.get(1..21));
                let nonce = nonce.ok_or_else(|| io::Error::other("another plugin"))?;
                wire.write(&scramble(password, nonce)).await?;
            }
            _ => break,
        }
    }
    Err(io::Error::other("refused"))
}

struct Wire {
    stream: UnixStream,
    sequence: u8,
}

impl Wire {
    async fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).await?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
        if length > PACKET_MAX {
            return Err(io::Error::other("packet too large for a login"));
        }
        self.sequence = head[3].wrapping_add(1);
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await?;
        Ok(payload)
    }

    async fn write(&mut self, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?.to_le_bytes();
        let head = [length[0], length[1], length[2], self.sequence];
        self.stream.write_all(&[&head, payload].concat()).await
    }
}

fn nonce_of_greeting(packet: &[u8]) -> Option<Vec<u8>> {
    let rest = packet.strip_prefix(&[10])?;
    let version_end = rest.iter().position(|byte| *byte == 0)?;
    let rest = rest.get(version_end + 1 + 4..)?;
    // 8 bytes, then 19 of other things, then the other 12.
    Some([rest.get(..8)?, rest.get(27..39)?].concat())
}

fn answer(user: &str, password: &str, nonce: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(128);
    packet.extend(CAPABILITIES.to_le_bytes());
    packet.extend((PACKET_MAX as u32).to_le_bytes());
    packet.push(CHARSET_UTF8MB4);
    packet.extend([0; 23]);
    packet.extend(user.as_bytes());
    packet.push(0);
    let digest = scramble(password, nonce);
    packet.push(digest.len() as u8);
    packet.extend(digest);
    packet.extend(PLUGIN.as_bytes());
    packet.push(0);
    packet
}

/// SHA256(password) XOR SHA256(SHA256(SHA256(password)), nonce).
fn scramble(password: &str, nonce: &[u8]) -> Vec<u8> {
    let once = Sha256::digest(password.as_bytes());
    let mask = Sha256::new().chain_update(Sha256::digest(once)).chain_update(nonce).finalize();
    once.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nonce_is_found_in_a_greeting() {
        let mut greeting = vec![10];
        greeting.extend(b"9.7.4\0");
        greeting.extend(7u32.to_le_bytes());
        greeting.extend(b"abcdefgh\0");
        greeting.extend([0; 2 + 1 + 2 + 2 + 1 + 10]);
        greeting.extend(b"ijklmnopqrst\0caching_sha2_password\0");
        assert_eq!(nonce_of_greeting(&greeting).unwrap(), b"abcdefghijklmnopqrst");
        assert_eq!(nonce_of_greeting(&greeting[..20]), None);
        assert_eq!(nonce_of_greeting(b"SSH-2.0"), None);
    }
}
