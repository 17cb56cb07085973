//! An onion address served by an axum router, without a socket: `README.md` has it in fewer lines.
//! `embed_axum.rs` shows how such a program is steered.
//!
//! ```text
//! cargo run --features axum --example embed_hello -- STATE_DIR [ARTI.toml]
//! ```

use axum::{Router, routing::get};
use rustbalance::app::{Launch, install_crypto};
use rustbalance::config::builder::{ConfigBuilder, PortBuilder, ServiceBuilder};
use rustbalance::plane::handler::{Handlers, OnionListener};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    install_crypto();
    let mut arguments = std::env::args().skip(1);
    let state_dir = arguments.next().unwrap_or_else(|| "state".to_owned());
    // Of a network for tests, say.
    let arti = arguments.next().map(std::fs::read_to_string).transpose()?.unwrap_or_default();

    let mut handlers = Handlers::default();
    let listener = OnionListener::from(handlers.add("app", 256));
    let service = ServiceBuilder::new("main").port(PortBuilder::new(80).handler("app"));
    let config = ConfigBuilder::new(state_dir).service(service).arti(arti.parse()?).build()?;
    let running = Launch::new(config).handlers(handlers).start(|notice| eprintln!("{notice:?}"))?;
    println!("http://{}/", running.onions()[0]);

    let router = Router::new().route("/", get(|| async { "Hello\n" }));
    axum::serve(listener, router).with_graceful_shutdown(running.ended()).await?;
    Ok(())
}
