//! Lists that the kernel gives by rtnetlink and by no file.
//!
//! A request goes out on a socket of its own, and what comes back is parted into messages and attributes. See netlink(7)
//! and rtnetlink(7). All numbers are of this machine's byte order.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

use super::source::names_in;
use crate::module::ModuleError;

const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// A request, for all there are.
const NLM_F_REQUEST_DUMP: u16 = 0x0001 | 0x0300;
/// The kernel answers from memory, at once.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// What the kernel puts into one answer at most.
const BUFFER_BYTES: usize = 64 * 1024;

/// A message without its header.
pub type Message = Vec<u8>;

/// All messages that answer a request of type `kind`, whose body is `body` zero bytes.
pub fn dump(kind: u16, body: usize) -> Result<Vec<Message>, ModuleError> {
    ask(kind, body).map_err(|source| ModuleError::Read { path: "rtnetlink".into(), source })
}

fn ask(kind: u16, body: usize) -> io::Result<Vec<Message>> {
    // Protocol 0 of netlink is rtnetlink.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_MAX))?;
    let mut request = Vec::with_capacity(HEADER_BYTES + body);
    request.extend(((HEADER_BYTES + body) as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.resize(HEADER_BYTES + body, 0); // sequence and port are ours alone, and may be zero
    sendto(&socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut messages = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let (read, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if part(&buffer[..read], &mut messages)? {
            return Ok(messages);
        }
    }
}

/// Parts one answer; whether it was the last.
fn part(mut answer: &[u8], messages: &mut Vec<Message>) -> io::Result<bool> {
    while let (Some(length), Some(kind)) = (u32_at(answer, 0), u16_at(answer, 4)) {
        let length = length as usize;
        let Some(body) = answer.get(HEADER_BYTES..length) else {
            return Err(io::Error::other("a message is longer than its answer"));
        };
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let number = u32_at(body, 0).map_or(0, |number| number as i32);
                return Err(io::Error::from_raw_os_error(-number));
            }
            _ => messages.push(body.to_vec()),
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Attributes as (type, content), the type without its flags.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const FLAGS: u16 = 0xc000;
    std::iter::from_fn(move || {
        let (length, kind) = (u16_at(bytes, 0)? as usize, u16_at(bytes, 2)?);
        let content = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !FLAGS, content))
    })
}

pub fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, content)| content)
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Names of network devices by their numbers.
pub fn device_names(sysfs: &Path) -> Vec<(u32, String)> {
    let class = sysfs.join("class/net");
    let numbered = |name: String| Some((super::source::number(class.join(&name).join("ifindex"))? as u32, name));
    names_in(&class).unwrap_or_default().into_iter().filter_map(numbered).collect()
}

pub fn name_of(names: &[(u32, String)], index: u32) -> &str {
    names.iter().find(|(number, _)| *number == index).map_or("", |(_, name)| name)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An attribute with its padding.
    pub fn attribute_bytes(kind: u16, content: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + content.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_BYTES + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn answers_are_parted() {
        let mut messages = Vec::new();
        let answer = [message(24, b"abc"), message(24, b"defg")].concat();
        assert!(!part(&answer, &mut messages).unwrap());
        assert_eq!(messages, [b"abc".to_vec(), b"defg".to_vec()]);
        assert!(part(&message(NLMSG_DONE, &[0; 4]), &mut messages).unwrap());
        let denied = part(&message(NLMSG_ERROR, &(-1i32).to_ne_bytes()), &mut messages).unwrap_err();
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
        assert!(part(&answer[..18], &mut messages).is_err(), "cut off");
    }

    #[test]
    fn attributes_are_parted_and_odd_ones_end_it() {
        let bytes = [attribute_bytes(1, b"abc"), attribute_bytes(0x8000 | 7, b"x")].concat();
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(1, &b"abc"[..]), (7, b"x")]);
        assert_eq!(attribute(&bytes, 7), Some(&b"x"[..]));
        assert_eq!(attributes(&[9, 0, 1, 0, 1]).count(), 0);
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0);
    }
}
