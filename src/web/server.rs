//! Connections: TLS, then HTTP/1.1 or HTTP/2 as the browser chose, with a deadline or a bound on everything.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use super::{Front, session::ClientAddress};

/// A browser holds one or two; what comes beyond waits.
const MAX_CONNECTIONS: usize = 1_000;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For the head of a request, and for how long a connection may stay without one.
const HEAD: Duration = Duration::from_secs(30);
const PING: Duration = Duration::from_secs(20);
const DRAIN: Duration = Duration::from_secs(7);
const MAX_HEAD_BYTES: usize = 32 << 10;
const STREAMS_PER_CONNECTION: u32 = 100;

/// A bound socket.
pub struct Listening(TcpListener);

impl Listening {
    pub async fn on(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self)
    }

    /// Takes a socket that systemd has bound.
    pub fn activated(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Self)
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Serves until `shutdown` resolves, then lets what is being answered finish, within seven seconds.
pub async fn serve(
    listening: Listening,
    tls: Arc<rustls::ServerConfig>,
    front: impl Into<Front>,
    shutdown: impl Future<Output = ()>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let front = front.into();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let place = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listening.0.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let talk = converse(stream, peer, acceptor.clone(), front.clone(), graceful.watcher());
                connections.spawn(async move {
                    talk.await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: those in use come free.
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listening);
    front.close();
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::info!("connections that did not end in time are cut off");
    }
    connections.shutdown().await;
}

async fn converse(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, front: Front, watcher: Watcher) {
    // Small answers are not to wait for more; a failure here shows at the first read.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    let chose_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let address = ClientAddress(peer.ip().to_canonical());
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut app = front.app();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(address);
            app.call(request).await.map_err(|never: Infallible| match never {})
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_header_list_size(MAX_HEAD_BYTES as u32);
    // The handshake has settled the version, so nothing waits for a first byte without a deadline.
    let builder = if chose_http2 { builder.http2_only() } else { builder.http1_only() };
    if let Err(error) = watcher.watch(builder.serve_connection(TokioIo::new(stream), service)).await {
        tracing::debug!(error, "a connection ended early");
    }
}
