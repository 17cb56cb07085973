//! A tokio program that serves an onion address by an axum router of its own, without a socket: how
//! to embed RustBalance.
//!
//! ```text
//! cargo run --example embed_axum -- STATE_DIR [ARTI.toml]
//! ```
//!
//! Prints the onion address, `ready` once clients can come, and then takes a word a line on
//! standard input: `status`, `maintenance` (the built-in page instead of the router), `open`,
//! `stop`.
//!
//! The program has its own allocator, logger, runtime and rustls provider: the library sets none of
//! them. It may be built with `panic = "abort"`; a data core that panics then ends the program
//! instead of being started anew.

use std::alloc::System;
use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::routing::get;
use axum::serve::{IncomingStream, Listener};
use rustbalance::app::{Launch, Running};
use rustbalance::base::stream::CircuitId;
use rustbalance::config::Config;
use rustbalance::plane::config::{BackendAddress, PortConfig, PortTarget};
use rustbalance::plane::handler::{HandlerStream, Handlers, Inbox};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[global_allocator]
static ALLOCATOR: System = System;

/// The configuration, as the program keeps it: any type that serde writes as the tables of a
/// configuration file will do.
#[derive(Serialize)]
struct Settings {
    /// Where keys and state lie.
    state_dir: PathBuf,
    /// Seconds for which open streams are served after a drain has begun.
    drain_s: u64,
    /// The services.
    service: Vec<Service>,
    /// Tor's own configuration; empty for the public network.
    arti: toml::Table,
}

/// One onion address.
#[derive(Serialize)]
struct Service {
    /// Its name.
    name: &'static str,
    /// Its ports.
    port: Vec<Port>,
}

/// One port of an onion address.
#[derive(Serialize)]
struct Port {
    /// The port that clients ask for.
    #[serde(rename = "virtual")]
    virtual_port: u16,
    /// Who serves it.
    backends: Vec<&'static str>,
}

/// Which client asks: requests with the same circuit come from the same one.
#[derive(Clone, Copy, Debug)]
struct Client(Option<CircuitId>);

/// Clients' streams, as axum takes them.
struct OnionListener(Inbox);

impl Listener for OnionListener {
    type Io = HandlerStream;
    type Addr = Client;

    async fn accept(&mut self) -> (HandlerStream, Client) {
        match self.0.next().await {
            Some(stream) => {
                let client = Client(Some(stream.circuit_id()));
                (stream, client)
            }
            // The service has ended; so will the program.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Client> {
        Ok(Client(None))
    }
}

impl Connected<IncomingStream<'_, OnionListener>> for Client {
    fn connect_info(stream: IncomingStream<'_, OnionListener>) -> Client {
        *stream.remote_addr()
    }
}

/// The application.
async fn page(ConnectInfo(client): ConnectInfo<Client>) -> String {
    match client.0 {
        Some(circuit) => format!("Hello, circuit {circuit}\n"),
        None => "Hello\n".to_owned(),
    }
}

/// What is behind port 80.
fn port_80(target: PortTarget) -> Vec<PortConfig> {
    vec![PortConfig::new(80, target)]
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    // Installed by the program, because there is one for a process.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        bail!("somebody has installed a rustls provider already");
    }
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let state_dir = arguments.next().context("usage: embed_axum STATE_DIR [ARTI.toml]")?;
    let arti = match arguments.next() {
        Some(file) => std::fs::read_to_string(file)?.parse()?,
        None => toml::Table::new(),
    };
    let port = vec![Port { virtual_port: 80, backends: vec!["handler:shop"] }];
    let service = vec![Service { name: "main", port }];
    let settings = Settings { state_dir, drain_s: 5, service, arti };

    let mut handlers = Handlers::default();
    let listener = OnionListener(handlers.add("shop", 256));
    let config = Config::from_value(&settings, &std::env::current_dir()?)?;
    let running =
        Launch::new(config).handlers(handlers).start(|notice| tracing::info!("{notice:?}"))?;

    let router = Router::new().route("/", get(page));
    let service = router.into_make_service_with_connect_info::<Client>();
    let serving = tokio::spawn(async move { axum::serve(listener, service).await });
    follow(&running).await?;
    steer(&running).await?;
    running.drain();
    tokio::task::spawn_blocking(move || running.join()).await?;
    serving.abort();
    Ok(())
}

/// Tell the address, and wait until clients can come.
async fn follow(running: &Running) -> Result<()> {
    let mut progress = running.progress();
    for onion in &progress.borrow().onions {
        println!("onion {onion}");
    }
    let ready = progress.wait_for(|now| now.ready || now.ended.is_some()).await?.clone();
    match ready.ended {
        Some(why) => bail!("the service ended: {why}"),
        None => println!("ready"),
    }
    Ok(())
}

/// Do what is said on standard input, until it is `stop` or its end.
async fn steer(running: &Running) -> Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match line.trim() {
            "status" => println!("{}", serde_json::to_string(&running.status())?),
            "maintenance" => running.set_ports("main", port_80(PortTarget::Hello))?,
            "open" => {
                let shop = BackendAddress::Handler("shop".to_owned());
                running.set_ports("main", port_80(PortTarget::backends([shop])))?;
            }
            "stop" => break,
            other => println!("{other}? status, maintenance, open or stop"),
        }
    }
    Ok(())
}
