//! A SOCKS5 proxy with a web server right behind it, on one port of loopback.
//!
//! The port that a client asks the proxy for says how the *proxy* behaves, the path of a request
//! how the *service* does:
//!
//! ```text
//!   port 80            the stream opens            /hello        "hello world"
//!        1             closes in the handshake     /big          a million bytes
//!        2             never replies               /status/N     status N
//!        1000 + N      replies code N              /short        half a body
//!                                                  /mute         closes without a response
//!                                                  /hang         never responds
//!                                                  /gate         responds once the gate is open
//!                                                  /closing      closes after each response
//!                                                  /second       closes at a second request
//! ```

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustbalance_load::{Plan, Target};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What `/hello` answers.
pub const HELLO: &str = "hello world";

/// Its SHA-256.
pub const HELLO_SHA256: &str = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";

/// Bytes of `/big`.
pub const BIG: usize = 1_000_000;

/// A server; it ends with its runtime.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
}

/// What the connections share.
struct State {
    /// The user name of each stream that was asked for.
    users: Mutex<Vec<String>>,
    /// Requests that have come: connections write, tests wait for a number.
    requests: watch::Sender<usize>,
    /// Whether `/gate` responds.
    gate: watch::Sender<bool>,
}

/// An onion address that is well-formed and nobody's.
pub fn url(port: u16, path: &str) -> String {
    format!("http://{}d.onion:{port}{path}", "a".repeat(55))
}

/// A plan for some servers.
pub fn plan(servers: &[&Server], port: u16, path: &str) -> Plan {
    let target: Target = url(port, path).parse().expect("a good URL");
    Plan::new(servers.iter().map(|server| server.address).collect(), target)
}

impl Server {
    /// A server on the runtime of the caller.
    pub async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (users, requests, gate) =
            (Mutex::default(), watch::Sender::new(0), watch::Sender::new(false));
        let state = Arc::new(State { users, requests, gate });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                // Whatever a client does wrong shows on its side.
                tokio::spawn(async move { serve(stream, &state).await });
            }
        });
        Server { address, state }
    }

    /// A server on a thread of its own, for tests that run the binary.
    pub fn start_apart() -> Server {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                sender.send(Server::start().await).expect("the test waits for it");
                std::future::pending::<()>().await;
            });
        });
        receiver.recv().expect("the server starts")
    }

    /// The user name of each stream that was asked for, sorted.
    pub fn users(&self) -> Vec<String> {
        let mut users = self.state.users.lock().expect("no test panics with it").clone();
        users.sort_unstable();
        users
    }

    /// How many different user names there were.
    pub fn different_users(&self) -> usize {
        let mut users = self.users();
        users.dedup();
        users.len()
    }

    /// Wait until so many requests have come.
    pub async fn wait_for_requests(&self, count: usize) {
        let mut requests = self.state.requests.subscribe();
        requests.wait_for(|now| *now >= count).await.expect("the server runs");
    }

    /// Let `/gate` respond from now on.
    pub fn open_gate(&self) {
        self.state.gate.send_replace(true);
    }
}

/// Carry one connection: handshake, then requests.
async fn serve(stream: TcpStream, state: &State) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let mut methods = vec![0; usize::from(head[1])];
    stream.read_exact(&mut methods).await?;
    stream.write_all(&[5, 2]).await?;
    let mut version = [0];
    stream.read_exact(&mut version).await?;
    let (user, _password) = (field(&mut stream).await?, field(&mut stream).await?);
    stream.write_all(&[1, 0]).await?;
    let mut request = [0; 4];
    stream.read_exact(&mut request).await?;
    assert_eq!(request, [5, 1, 0, 3], "a name is asked for, so that nobody resolves it");
    let host = field(&mut stream).await?;
    assert!(host.ends_with("d.onion"), "{host}");
    let port = stream.read_u16().await?;
    state.users.lock().expect("no test panics with it").push(user);
    let code = match port {
        1 => return Ok(()),
        2 => return std::future::pending().await,
        80 => 0,
        code => u8::try_from(code - 1000).expect("a reply code"),
    };
    stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    if code != 0 {
        return Ok(());
    }
    while let Some(path) = path(&mut stream).await? {
        state.requests.send_modify(|count| *count += 1);
        if !respond(&mut stream, &path, state).await? {
            break;
        }
    }
    Ok(())
}

/// A field with its length before it.
async fn field(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut text = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut text).await?;
    Ok(String::from_utf8(text).expect("text"))
}

/// The path of the next request; `None` at the end.
async fn path(stream: &mut BufReader<TcpStream>) -> Result<Option<String>> {
    let mut path = None;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        match line.trim_end() {
            "" => return Ok(path),
            text if path.is_none() => path = text.split(' ').nth(1).map(str::to_owned),
            _ => {}
        }
        line.clear();
    }
    Ok(None)
}

/// Respond, and say whether the connection goes on.
async fn respond(stream: &mut BufReader<TcpStream>, path: &str, state: &State) -> Result<bool> {
    let (status, length, body, goes_on) = match path {
        "/hang" => return std::future::pending().await,
        "/mute" => return Ok(false),
        "/gate" => {
            state.gate.subscribe().wait_for(|open| *open).await.expect("the server runs");
            (200, HELLO.len(), HELLO.to_owned(), true)
        }
        "/big" => (200, BIG, "x".repeat(BIG), true),
        "/short" => (200, 2 * HELLO.len(), HELLO.to_owned(), false),
        "/closing" => (200, HELLO.len(), HELLO.to_owned(), false),
        _ => {
            let status = path.strip_prefix("/status/").and_then(|status| status.parse().ok());
            (status.unwrap_or(200), HELLO.len(), HELLO.to_owned(), true)
        }
    };
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    if path == "/second" {
        // The second request comes, and finds a server that has had enough.
        stream.read_u8().await?;
        return Ok(false);
    }
    Ok(goes_on)
}
