//! How messages are written to and read off a stream: as prost has them, with buffers for what an agent and a collector say.
//!
//! A collector has a stream per agent for months. What comes first, all names, is much longer than any message after it, and a
//! buffer that has grown for it would stay that long. So a long message at a stream's begin is taken out of the buffer with the
//! memory that it lies in, which is held until the stream has moved on to a new one.

use std::marker::PhantomData;

use prost::Message;
use prost::bytes::{Buf, Bytes};
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Most frames are shorter, and all acks.
const READ_BYTES: usize = 4 << 10;
const WRITE_BYTES: usize = 1 << 10;

/// What is written at once, at most: gRPC's own bound.
const AT_ONCE_BYTES: usize = 32 << 10;

/// A message that a stream's buffer grows for.
const LONG_BYTES: usize = 2 * READ_BYTES;

/// Messages at the begin of a stream. Where later ones are long too, it needs the buffer.
const BEGIN_MESSAGES: u32 = 256;

/// What may come of HTTP/2 at once beside a message, and make the buffer grow too, which is doubled then.
const BESIDE_BYTES: usize = 32 << 10;

/// The codec of the generated client and server.
#[derive(Debug, Clone, Copy)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(WRITE_BYTES, AT_ONCE_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        let short = ProstDecoder::new(BufferSettings::new(READ_BYTES, AT_ONCE_BYTES));
        Decoder { short, messages: 0, held: Held::default() }
    }
}

/// Reads messages, and leaves no long buffer behind.
#[derive(Debug)]
pub struct Decoder<U> {
    short: ProstDecoder<U>,
    messages: u32,
    held: Held,
}

/// The memory of a long message, which the stream reads into until it is used up.
#[derive(Debug, Default)]
struct Held {
    memory: Option<Bytes>,
    /// Bytes that may still be read into it.
    left: usize,
}

impl Held {
    fn hold(&mut self, memory: Bytes) {
        (self.left, self.memory) = (2 * (memory.len() + BESIDE_BYTES), Some(memory));
    }

    /// So many bytes were read since.
    fn read(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        if self.left == 0 {
            self.memory = None;
        }
    }
}

impl<U: Message + Default> tonic::codec::Decoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let length = buf.remaining();
        self.held.read(length);
        let is_begin = self.messages < BEGIN_MESSAGES;
        self.messages = self.messages.saturating_add(1);
        if !is_begin || length < LONG_BYTES {
            return self.short.decode(buf);
        }
        let memory = buf.copy_to_bytes(length);
        let message = U::decode(&*memory).map(Some).map_err(|error| Status::internal(error.to_string()));
        self.held.hold(memory);
        message
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.short.buffer_settings()
    }
}

#[cfg(test)]
mod tests {
    use prost::bytes::{BufMut, BytesMut};

    use super::*;

    /// What a stream does with its buffer, by the frames of HTTP/2 that come and the messages that they make.
    #[test]
    fn a_long_message_leaves_no_long_buffer() {
        for long in [LONG_BYTES, 17_000, 40_000, 300_000] {
            let (mut buffer, mut held) = (BytesMut::with_capacity(READ_BYTES), Held::default());
            for frame in vec![7; long].chunks(16 << 10) {
                buffer.put(frame);
            }
            assert!(buffer.capacity() >= long);
            held.hold(buffer.split_to(long).freeze());
            while held.memory.is_some() {
                buffer.put(&[7; 1500][..]);
                buffer.advance(1500);
                held.read(1500);
            }
            let freed = (0..20).all(|_| {
                buffer.put(&[7; 1500][..]);
                buffer.advance(1500);
                buffer.capacity() <= READ_BYTES
            });
            assert!(freed, "{} after {long}", buffer.capacity());
        }
    }
}
