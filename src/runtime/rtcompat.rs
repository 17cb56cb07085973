//! arti's `Runtime`, as a type without any size.
//!
//! arti clones and boxes its runtime for every cell sent: a type without a size costs nothing
//! there. Everything it does goes to the *calling thread's* core, so a circuit's reactor runs on
//! the core that asked for the circuit. The one exception is a link's reactor: arti spawns it on
//! whichever core asked first, and [`CoreRuntime`] moves it to a data core, because a link on the
//! control core would take a third of a data core's work there.
//!
//! How a link's reactor is told from other tasks: `spawn_obj` is `#[track_caller]` and arti's
//! `SpawnExt::spawn` hands the location on, so the source file of the spawn is known. This holds
//! for the pinned arti version only; `tests/stack_placement.rs` fails when it stops to hold.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::channel::oneshot;
use futures::task::{FutureObj, Spawn, SpawnError};
use tor_rtcompat::tls::RustlsProvider;
use tor_rtcompat::unimpl::{FakeListener, FakeStream};
use tor_rtcompat::{
    Blocking, CoarseInstant, CoarseTimeProvider, NetStreamListener, NetStreamProvider,
    RealCoarseTimeProvider, SleepProvider, TcpListenOptions, TlsProvider, UdpProvider, UdpSocket,
    UnixListenOptions,
};

use super::blocking;
use super::core::{SpawnKind, current_core, current_group, tls};
use super::executor;
use super::link_stream::LinkStream;
use super::time::{self, Sleep};

/// The runtime of the calling core.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoreRuntime;

/// What the source file of a spawn says about the task.
fn spawn_kind(caller: &Location<'_>) -> Option<SpawnKind> {
    let file = caller.file();
    if file.contains("tor-chanmgr") && file.ends_with("builder.rs") {
        return Some(SpawnKind::Link);
    }
    if file.contains("tor-circmgr") && file.ends_with("build.rs") {
        return Some(SpawnKind::Circuit);
    }
    None
}

impl Spawn for CoreRuntime {
    #[track_caller]
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        let kind = spawn_kind(Location::caller());
        let group = kind.and_then(|_| current_group());
        if let (Some(kind), Some(group)) = (kind, group) {
            let place = match kind {
                SpawnKind::Link => group.place_link(),
                SpawnKind::Circuit => None,
            };
            if let Some(core) = place {
                // The caller must hear of it: arti would blame the guard for a link that is dead.
                if !core.spawn(future) {
                    return Err(SpawnError::shutdown());
                }
                group.count_spawn(kind, core.id());
                return Ok(());
            }
            if let Some(here) = current_core() {
                group.count_spawn(kind, here);
            }
        }
        // A core that is ending has no queue: nothing is spawned there any more.
        let spawned = executor::current_queue().is_some_and(|queue| queue.spawn(future));
        if spawned { Ok(()) } else { Err(SpawnError::shutdown()) }
    }
}

impl SleepProvider for CoreRuntime {
    type SleepFuture = Sleep;

    fn sleep(&self, duration: Duration) -> Self::SleepFuture {
        time::sleep(duration)
    }

    fn now(&self) -> Instant {
        time::now()
    }
}

impl CoarseTimeProvider for CoreRuntime {
    fn now_coarse(&self) -> CoarseInstant {
        RealCoarseTimeProvider::new().now_coarse()
    }
}

/// The answer of a blocking job, or the panic that it ended with.
pub struct ThreadHandle<T>(oneshot::Receiver<std::thread::Result<T>>);

impl<T> Future for ThreadHandle<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match std::task::ready!(Pin::new(&mut self.0).poll(cx)) {
            Ok(Ok(answer)) => Poll::Ready(answer),
            // As the trait asks: a panic of the job goes on in whoever waits for it.
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // No thread could be started.
            Err(oneshot::Canceled) => panic!("no thread for a blocking job"),
        }
    }
}

impl Blocking for CoreRuntime {
    type ThreadHandle<T: Send + 'static> = ThreadHandle<T>;

    fn spawn_blocking<F, T>(&self, job: F) -> ThreadHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        ThreadHandle(blocking::spawn(job))
    }

    fn reenter_block_on<F>(&self, future: F) -> F::Output
    where
        F: Future,
        F::Output: Send + 'static,
    {
        // Called on a thread of the pool, which drives nothing itself.
        futures::executor::block_on(future)
    }
}

/// The error of what a service never does.
fn unsupported(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

#[async_trait]
impl NetStreamProvider<SocketAddr> for CoreRuntime {
    type Stream = LinkStream;
    type Listener = NoListener;
    type ConnectOptions = tor_rtcompat::TcpConnectOptions;
    type ListenOptions = TcpListenOptions;

    async fn connect(
        &self,
        addr: &SocketAddr,
        _options: &Self::ConnectOptions,
    ) -> io::Result<LinkStream> {
        LinkStream::connect(*addr).await
    }

    async fn listen(&self, _: &SocketAddr, _: &TcpListenOptions) -> io::Result<NoListener> {
        Err(unsupported("a service opens no Tor listener"))
    }
}

/// A listener for links: a service has none, and no value of this type exists.
pub enum NoListener {}

/// What would come out of a [`NoListener`].
pub enum NoStreams {}

impl futures::Stream for NoStreams {
    type Item = io::Result<(LinkStream, SocketAddr)>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match *self {}
    }
}

impl NetStreamListener<SocketAddr> for NoListener {
    type Stream = LinkStream;
    type Incoming = NoStreams;

    fn incoming(self) -> NoStreams {
        match self {}
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match *self {}
    }
}

/// arti's name for the address of a unix socket.
type UnixAddr = std::os::unix::net::SocketAddr;

#[async_trait]
impl NetStreamProvider<UnixAddr> for CoreRuntime {
    type Stream = FakeStream;
    type Listener = FakeListener<UnixAddr>;
    type ConnectOptions = tor_rtcompat::UnixConnectOptions;
    type ListenOptions = UnixListenOptions;

    async fn connect(&self, _: &UnixAddr, _: &Self::ConnectOptions) -> io::Result<FakeStream> {
        Err(unsupported("no relay is behind a unix socket"))
    }

    async fn listen(
        &self,
        _: &UnixAddr,
        _: &UnixListenOptions,
    ) -> io::Result<FakeListener<UnixAddr>> {
        Err(unsupported("a service opens no Tor listener"))
    }
}

/// A UDP socket: a service has none, and no value of this type exists.
pub enum NoUdpSocket {}

#[async_trait]
impl UdpSocket for NoUdpSocket {
    async fn recv(&self, _: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match *self {}
    }

    async fn send(&self, _: &[u8], _: &SocketAddr) -> io::Result<usize> {
        match *self {}
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match *self {}
    }
}

#[async_trait]
impl UdpProvider for CoreRuntime {
    type UdpSocket = NoUdpSocket;

    async fn bind(&self, _: &SocketAddr) -> io::Result<NoUdpSocket> {
        Err(unsupported("Tor runs over TCP"))
    }
}

impl TlsProvider<LinkStream> for CoreRuntime {
    type Connector = <RustlsProvider as TlsProvider<LinkStream>>::Connector;
    type TlsStream = <RustlsProvider as TlsProvider<LinkStream>>::TlsStream;
    type Acceptor = <RustlsProvider as TlsProvider<LinkStream>>::Acceptor;
    type TlsServerStream = <RustlsProvider as TlsProvider<LinkStream>>::TlsServerStream;

    fn tls_connector(&self) -> Self::Connector {
        TlsProvider::<LinkStream>::tls_connector(tls())
    }

    fn tls_acceptor(
        &self,
        settings: tor_rtcompat::tls::TlsAcceptorSettings,
    ) -> io::Result<Self::Acceptor> {
        TlsProvider::<LinkStream>::tls_acceptor(tls(), settings)
    }

    fn supports_keying_material_export(&self) -> bool {
        TlsProvider::<LinkStream>::supports_keying_material_export(tls())
    }
}
