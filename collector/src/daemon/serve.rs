//! The two servers: where they listen, and how they deal with clients that say nothing.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context;
use axum_server::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use crate::config::{Config, Listen};
use crate::ingest::{self, Gate};
use crate::telemetry::Telemetry;
use crate::tls::{self, Tls};
use crate::web::{self, Door};

/// Connections that wait to be taken in; the kernel may allow fewer. After a restart all agents come at once, and who finds the
/// queue full tries again seconds later.
const WAITING_MAX: i32 = 4096;

/// Binds an address, and refuses one that strangers can reach unless there is TLS or somebody said so.
pub async fn listen(setting: &str, listen: &Listen, config: &Config) -> anyhow::Result<TcpListener> {
    let flag = format!("--{}", setting.replace('_', "-"));
    let addresses = listen.resolve().await.with_context(|| format!("{flag} {listen}: no such host"))?;
    anyhow::ensure!(!addresses.is_empty(), "{flag} {listen}: the name has no address");
    if addresses.iter().any(|address| !address.ip().is_loopback()) && config.tls.is_none() {
        anyhow::ensure!(
            config.insecure,
            "{flag} {listen} can be reached from other machines without TLS; give --tls-cert and --tls-key, or say --insecure"
        );
        tracing::warn!(
            "{flag} {listen} is open to other machines without TLS, as --insecure says: anybody can read and push"
        );
    }
    let listener = TcpListener::bind(&*addresses).map_err(|error| {
        let hint = way_out(error.kind());
        anyhow::Error::new(error).context(format!("cannot listen on {flag} {listen}{hint}"))
    })?;
    listener.set_nonblocking(true)?;
    // Once more, since the standard library lets 128 wait.
    rustix::net::listen(&listener, WAITING_MAX).context("cannot let more connections wait")?;
    Ok(listener)
}

fn way_out(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::AddrInUse => "; something listens there: another collector, or HTTP and gRPC on one port?",
        ErrorKind::AddrNotAvailable => "; name an address of this machine, or 0.0.0.0 for all of them",
        ErrorKind::PermissionDenied => "; ports below 1024 are root's: name a higher one",
        _ => "",
    }
}

pub type Server = JoinHandle<anyhow::Result<()>>;

pub fn http(
    listener: TcpListener,
    tls: Option<&Tls>,
    door: Door,
    handle: Handle<SocketAddr>,
) -> anyhow::Result<Server> {
    let app = door.router().into_make_service();
    Ok(match tls {
        None => {
            let mut server = axum_server::from_tcp(listener)?.map(web::Lenient).handle(handle);
            patient(server.http_builder());
            tokio::spawn(async move { server.serve(app).await.context("the HTTP server ended") })
        }
        Some(tls) => {
            let mut server = axum_server::from_tcp_rustls(listener, tls.http.clone())?.map(web::Lenient).handle(handle);
            patient(server.http_builder());
            tokio::spawn(async move { server.serve(app).await.context("the HTTP server ended") })
        }
    })
}

/// Ends connections whose client does not say what it wants.
fn patient(builder: &mut hyper_util::server::conn::auto::Builder<hyper_util::rt::TokioExecutor>) {
    builder.http1().timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(web::HEAD_WITHIN);
}

pub fn grpc(
    listener: TcpListener,
    tls: Option<&Tls>,
    gate: Gate,
    telemetry: Arc<Telemetry>,
    shutdown: CancellationToken,
) -> anyhow::Result<Server> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let ended = |result: Result<(), Box<dyn std::error::Error + Send + Sync>>| {
        result.map_err(|error| anyhow::anyhow!("the gRPC server ended: {error}"))
    };
    Ok(match tls {
        None => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            tokio::spawn(async move { ended(ingest::serve(gate, incoming, shutdown.cancelled_owned()).await) })
        }
        Some(tls) => {
            let incoming = tls::accept(listener, tls.grpc.clone(), telemetry, shutdown.clone());
            tokio::spawn(async move { ended(ingest::serve(gate, incoming, shutdown.cancelled_owned()).await) })
        }
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::config::Args;

    /// Of a thousand agents that came at once most waited for seconds, and some gave up.
    #[tokio::test]
    async fn a_fleet_that_comes_at_once_finds_room_to_wait() {
        let config = Config::load(&Args::parse_from(["x", "--grpc-listen", "127.0.0.1:0"])).unwrap();
        let listener = listen("grpc_listen", &config.grpc_listen, &config).await.unwrap();
        let address = listener.local_addr().unwrap();
        // More than 128, if the kernel lets so many wait. It keeps trying where no room is, and nobody is taken in here.
        let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let fleet = most.trim().parse::<usize>().unwrap().min(300);
        let come = |_| TcpStream::connect_timeout(&address, Duration::from_secs(3));
        let waiting: Result<Vec<TcpStream>, _> = (0..fleet).map(come).collect();
        assert_eq!(waiting.unwrap().len(), fleet);
    }
}
