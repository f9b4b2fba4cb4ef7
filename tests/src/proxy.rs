//! A TCP link that the test can cut: everything between an agent and a collector goes through it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::free_port;

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Whole,
    /// Nothing passes and nobody is told, as when a cable is pulled. New connections are accepted and stay dumb.
    Silent,
    /// Connections end, new ones end at once, as when a firewall answers.
    Refused,
}

/// Bytes that went each way, as the kernel hands them over: the payload of TCP.
#[derive(Debug, Default)]
struct Counters {
    up: AtomicU64,
    down: AtomicU64,
}

pub struct Proxy {
    listen: SocketAddr,
    link: watch::Sender<Link>,
    counters: Arc<Counters>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> anyhow::Result<Self> {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
        let (link, watching) = watch::channel(Link::Whole);
        let counters = Arc::new(Counters::default());
        let accepting = tokio::spawn(accept(listener, target, watching, counters.clone()));
        Ok(Self { listen, link, counters, accepting })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }

    /// Bytes towards the target, and back.
    pub fn bytes(&self) -> (u64, u64) {
        (self.counters.up.load(Ordering::Relaxed), self.counters.down.load(Ordering::Relaxed))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, link: watch::Receiver<Link>, counters: Arc<Counters>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(carry(client, target, link.clone(), counters.clone()));
    }
}

async fn carry(client: TcpStream, target: SocketAddr, mut link: watch::Receiver<Link>, counters: Arc<Counters>) {
    // A connection made while the link is silent reaches nobody until the link is whole again.
    if link.wait_for(|link| *link != Link::Silent).await.is_err() || *link.borrow() == Link::Refused {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = copy(from_client, to_server, link.clone(), &counters.up) => {}
        () = copy(from_server, to_client, link.clone(), &counters.down) => {}
        _ = link.wait_for(|link| *link == Link::Refused) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut link: watch::Receiver<Link>, count: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        // What was read when the link fell silent waits in the proxy, as it would in the sender's kernel.
        if link.wait_for(|link| *link == Link::Whole).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        count.fetch_add(read as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_cut_link_carries_nothing_and_a_whole_one_everything() -> anyhow::Result<()> {
        let echo = TcpListener::bind("127.0.0.1:0").await?;
        let proxy = Proxy::to(echo.local_addr()?).await?;
        tokio::spawn(async move {
            while let Ok((mut peer, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = peer.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        let mut stream = TcpStream::connect(proxy.address()).await?;
        let mut back = [0; 3];
        stream.write_all(b"one").await?;
        stream.read_exact(&mut back).await?;
        assert_eq!(&back, b"one");

        proxy.set(Link::Silent);
        stream.write_all(b"two").await?;
        let early = tokio::time::timeout(Duration::from_millis(100), stream.read_exact(&mut back)).await;
        assert!(early.is_err(), "a silent link let {back:?} through");
        proxy.set(Link::Whole);
        let mut back = [0; 3];
        stream.read_exact(&mut back).await?;
        assert_eq!(&back, b"two");
        assert_eq!(proxy.bytes(), (6, 6));

        proxy.set(Link::Refused);
        assert_eq!(stream.read(&mut back).await?, 0, "a refused connection ends");
        Ok(())
    }
}
