//! Lets in what people type: `curl 'http://host:9390/api/v1/query?query=up{job="mysql"}>0'`.
//!
//! Quotes and angle brackets must be percent-encoded in a request's target, and the HTTP library refuses those that are not
//! before any of our code runs. Prometheus takes them, so that many a note and script has them. They are encoded here in the
//! first line of each connection, which is the only one for a shell; everything else passes as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum_server::accept::Accept;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A first line that is longer passes as it is; the HTTP library refuses it.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// An acceptor whose connections are lenient.
#[derive(Debug, Clone)]
pub struct Lenient<A>(pub A);

impl<A, I, S> Accept<I, S> for Lenient<A>
where
    A: Accept<I, S>,
    A::Future: Send + 'static,
{
    type Stream = FirstLine<A::Stream>;
    type Service = A::Service;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let accepted = self.0.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            Ok((FirstLine { stream, head: Some(Vec::new()), ready: Vec::new() }, service))
        })
    }
}

/// A connection whose first line is made what it should have been.
#[derive(Debug)]
pub struct FirstLine<S> {
    stream: S,
    /// What was read of the first line; `None` once it is whole.
    head: Option<Vec<u8>>,
    /// What is to be handed on before anything else, last byte first.
    ready: Vec<u8>,
}

impl<S: AsyncRead + Unpin> FirstLine<S> {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(head) = &mut self.head {
            let mut bytes = [0; 4096];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            head.extend_from_slice(read.filled());
            let end = head.iter().position(|byte| *byte == b'\n');
            if end.is_some() || read.filled().is_empty() || head.len() > LINE_BYTES_MAX {
                let mut head = self.head.take().unwrap_or_default();
                if let Some(end) = end {
                    let line = encoded(&head[..end]);
                    head.splice(..end, line);
                }
                head.reverse();
                self.ready = head;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A request's first line with quotes and angle brackets percent-encoded; they stand in nothing but its target.
fn encoded(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len() + 16);
    for byte in line {
        match byte {
            b'"' => out.extend_from_slice(b"%22"),
            b'<' => out.extend_from_slice(b"%3C"),
            b'>' => out.extend_from_slice(b"%3E"),
            byte => out.push(*byte),
        }
    }
    out
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstLine<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_head(cx))?;
        if self.ready.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let rest = self.ready.len().saturating_sub(buf.remaining());
        let mut next = self.ready.split_off(rest);
        next.reverse();
        buf.put_slice(&next);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstLine<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What comes out when so many bytes arrive at a time.
    async fn through(request: &[u8], at_a_time: usize) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(at_a_time);
        let mut server = FirstLine { stream: server, head: Some(Vec::new()), ready: Vec::new() };
        let mut out = Vec::new();
        let write = async {
            client.write_all(request).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let (read, ()) = tokio::join!(server.read_to_end(&mut out), write);
        read.unwrap();
        out
    }

    #[tokio::test]
    async fn the_first_line_is_encoded_and_the_rest_passes() {
        let request = b"GET /q?query=up{a=\"b\"}>0 HTTP/1.1\r\nX: \"y\"\r\n\r\n\"<>\n";
        let wanted = b"GET /q?query=up{a=%22b%22}%3E0 HTTP/1.1\r\nX: \"y\"\r\n\r\n\"<>\n";
        for at_a_time in [1, 7, 30, 4096] {
            assert_eq!(through(request, at_a_time).await, wanted);
        }
    }

    #[tokio::test]
    async fn what_has_no_end_of_line_passes_as_it_is() {
        assert_eq!(through(b"GET \"<", 3).await, b"GET \"<");
        assert_eq!(through(b"", 3).await, b"");
        let long = [&vec![b'"'; LINE_BYTES_MAX + 4096][..], b"\n\""].concat();
        assert_eq!(through(&long, 512).await, long);
    }
}
