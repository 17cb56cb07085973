//! An inbox as axum takes its connections: `axum::serve(OnionListener::from(inbox), router)`.

use std::io;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};

use super::{HandlerStream, Inbox};
use crate::base::stream::CircuitId;

/// Clients' streams for an axum server. What a handler may extract of a client is its circuit:
/// `ConnectInfo<CircuitId>`, with `Router::into_make_service_with_connect_info::<CircuitId>()`.
///
/// Once the service has ended there are no more, and the server waits: give it
/// [`crate::app::Running::ended`] as its graceful shutdown.
#[derive(Debug)]
pub struct OnionListener(Inbox);

impl From<Inbox> for OnionListener {
    fn from(inbox: Inbox) -> OnionListener {
        OnionListener(inbox)
    }
}

impl Listener for OnionListener {
    type Io = HandlerStream;
    type Addr = CircuitId;

    async fn accept(&mut self) -> (HandlerStream, CircuitId) {
        match self.0.next().await {
            Some(stream) => {
                let circuit = stream.circuit_id();
                (stream, circuit)
            }
            None => std::future::pending().await,
        }
    }

    /// There is no address on this side.
    fn local_addr(&self) -> io::Result<CircuitId> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Connected<IncomingStream<'_, OnionListener>> for CircuitId {
    fn connect_info(stream: IncomingStream<'_, OnionListener>) -> CircuitId {
        *stream.remote_addr()
    }
}
