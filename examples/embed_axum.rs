//! A tokio program that serves an onion address by an axum router of its own, without a socket, and
//! steers the service: how to embed RustBalance. `embed_hello.rs` is the least that it takes.
//!
//! ```text
//! cargo run --features axum --example embed_axum -- STATE_DIR [ARTI.toml]
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
use axum::routing::get;
use rustbalance::app::{Launch, Running, install_crypto};
use rustbalance::base::stream::CircuitId;
use rustbalance::config::builder::{ConfigBuilder, PortBuilder, ServiceBuilder};
use rustbalance::plane::config::{BackendAddress, PortConfig, PortTarget};
use rustbalance::plane::handler::{Handlers, OnionListener};
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[global_allocator]
static ALLOCATOR: System = System;

/// The application.
async fn page(ConnectInfo(client): ConnectInfo<CircuitId>) -> String {
    // Requests with the same circuit come from the same client.
    format!("Hello, circuit {client}\n")
}

/// What is behind port 80.
fn port_80(target: PortTarget) -> Vec<PortConfig> {
    vec![PortConfig::new(80, target)]
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    // Installed by the program, because there is one for a process.
    if !install_crypto() {
        bail!("somebody has installed a rustls provider already");
    }
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let state_dir = arguments.next().context("usage: embed_axum STATE_DIR [ARTI.toml]")?;
    let arti = match arguments.next() {
        Some(file) => std::fs::read_to_string(file)?.parse()?,
        None => toml::Table::new(),
    };
    let service = ServiceBuilder::new("main").port(PortBuilder::new(80).handler("shop"));
    let config = ConfigBuilder::new(state_dir).set("drain_s", 5).arti(arti).service(service);
    let config = config.build()?;

    let mut handlers = Handlers::default();
    let listener = OnionListener::from(handlers.add("shop", 256));
    let running =
        Launch::new(config).handlers(handlers).start(|notice| tracing::info!("{notice:?}"))?;

    let router = Router::new().route("/", get(page));
    let service = router.into_make_service_with_connect_info::<CircuitId>();
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
    running.onions().iter().for_each(|onion| println!("onion {onion}"));
    if !running.ready().await {
        bail!(
            "the service ended: {}",
            running.progress().borrow().ended.clone().unwrap_or_default()
        );
    }
    println!("ready");
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
