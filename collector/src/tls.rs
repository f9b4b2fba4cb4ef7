//! TLS for HTTP and gRPC, by rustls: one pair of configurations, replaced as a whole by a reload.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::config::TlsFiles;
use crate::telemetry::Telemetry;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {what} from {}: {detail}", path.display())]
    Read { what: &'static str, path: PathBuf, detail: String },
    #[error("{} holds no certificate; it must be PEM with BEGIN CERTIFICATE", path.display())]
    Empty { path: PathBuf },
    #[error("certificate {} and key {} do not fit or are refused: {source}", cert.display(), key.display())]
    Pair { cert: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("certificates of {} cannot verify clients: {detail}", path.display())]
    ClientCa { path: PathBuf, detail: String },
}

/// The configurations in force. Cheap to clone; all clones change with a reload.
#[derive(Clone, Debug)]
pub struct Tls {
    pub http: RustlsConfig,
    pub grpc: RustlsConfig,
}

impl Tls {
    /// With `token_set` clients may come without a certificate: the token lets them in, and agents are checked one by one.
    pub fn load(files: &TlsFiles, token_set: bool) -> Result<Self, TlsError> {
        let config =
            |protocols: &[&[u8]]| Ok(RustlsConfig::from_config(Arc::new(server(files, token_set, protocols)?)));
        Ok(Self { http: config(HTTP)?, grpc: config(GRPC)? })
    }

    /// Reads the files again; on an error all stays as it was.
    pub fn reload(&self, files: &TlsFiles, token_set: bool) -> Result<(), TlsError> {
        let (http, grpc) = (server(files, token_set, HTTP)?, server(files, token_set, GRPC)?);
        self.http.reload_from_config(Arc::new(http));
        self.grpc.reload_from_config(Arc::new(grpc));
        Ok(())
    }
}

const HTTP: &[&[u8]] = &[b"http/1.1"];
const GRPC: &[&[u8]] = &[b"h2"];

fn server(files: &TlsFiles, token_set: bool, protocols: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let refused = |source| TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), source };
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(refused)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let bad = |detail: String| TlsError::ClientCa { path: path.clone(), detail };
            let mut roots = RootCertStore::empty();
            for certificate in certificates("client authorities", path)? {
                roots.add(certificate).map_err(|error| bad(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if token_set { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| bad(error.to_string()))?)
        }
    };
    let chain = certificates("certificates", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| TlsError::Read {
        what: "a private key",
        path: files.key.clone(),
        detail: error.to_string(),
    })?;
    let mut config = builder.with_single_cert(chain, key).map_err(refused)?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad =
        |error: rustls::pki_types::pem::Error| TlsError::Read { what, path: path.into(), detail: error.to_string() };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(bad)?.collect();
    let certificates = certificates.map_err(bad)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { path: path.into() });
    }
    Ok(certificates)
}

/// Handshakes at once; more wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 256;

/// Longest handshake. A client that opens a connection and says nothing holds one place for so long.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// Connections that are ready and not yet taken.
const READY_MAX: usize = 64;

/// Takes connections and shakes hands with each in a task of its own, so that a slow one delays nobody.
pub fn accept(
    listener: TcpListener,
    config: RustlsConfig,
    telemetry: Arc<Telemetry>,
    shutdown: CancellationToken,
) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (ready, incoming) = mpsc::channel(READY_MAX);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            let place = tokio::select! {
                () = shutdown.cancelled() => return,
                place = places.clone().acquire_owned() => place,
            };
            let Ok(place) = place else { return };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection; trying again");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let (ready, telemetry) = (ready.clone(), telemetry.clone());
            let acceptor = TlsAcceptor::from(config.get_inner());
            tokio::spawn(async move {
                let _place = place;
                // Small messages must not wait for an ack of the ones before.
                let _ = stream.set_nodelay(true);
                match timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => drop(ready.send(Ok(stream)).await),
                    Ok(Err(error)) => {
                        telemetry.tls_failed.one();
                        tracing::debug!(%error, "TLS handshake failed");
                    }
                    Err(_) => telemetry.tls_failed.one(),
                }
            });
        }
    });
    ReceiverStream::new(incoming)
}
