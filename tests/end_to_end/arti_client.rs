//! A client that is arti, on the lab's network. It knows an introduction point by its key: of two
//! at one relay it uses both, where C tor's uses the first alone (`hs_client.c`,
//! `find_desc_intro_point_by_legacy_id`). A lab has about as many relays as descriptors have
//! points.

use std::sync::Arc;
use std::time::Duration;

use arti_client::config::BoolOrAuto;
use arti_client::{IsolationToken, StreamPrefs, TorClient, TorClientConfig};
use rustbalance_lab::Lab;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tor_config::{ConfigurationSource, ConfigurationSources, sources::MustRead};
use tor_rtcompat::PreferredRuntime;

/// Somebody who shares no circuit with anybody before.
pub fn new_user() -> IsolationToken {
    IsolationToken::new()
}

/// Longest wait for an answer: arti itself gives a service's introduction points up later.
const FETCH_SECONDS_MAX: u64 = 90;

/// A client with a thread of its own.
pub struct ArtiClient {
    /// What runs it.
    driver: tokio::runtime::Runtime,
    /// arti.
    client: Arc<TorClient<PreferredRuntime>>,
    /// Its files.
    _files: tempfile::TempDir,
}

/// Its configuration, from the tables that a service has for arti.
fn config(tables: &str, dir: &std::path::Path) -> TorClientConfig {
    let tables = tables.replace("[arti.", "[");
    let text = format!(
        "{tables}\n[storage]\ncache_dir = \"{0}/cache\"\nstate_dir = \"{0}/state\"\n\
         [storage.permissions]\ndangerously_trust_everyone = true\n",
        dir.display()
    );
    let mut sources = ConfigurationSources::new_empty();
    sources.push_source(ConfigurationSource::from_verbatim(text), MustRead::MustRead);
    let tree = sources.load().expect("the tables are TOML");
    tor_config::load::resolve_ignore_warnings(&tree).expect("the tables are arti's")
}

impl ArtiClient {
    /// One that has a directory.
    pub fn start(lab: &Lab) -> ArtiClient {
        let files = tempfile::tempdir().expect("a temporary directory can be made");
        let config = config(&lab.arti_toml(), files.path());
        // The process's TLS provider, as every program with arti in it needs one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let driver = tokio::runtime::Runtime::new().expect("threads can be had");
        let client = driver.block_on(TorClient::create_bootstrapped(config));
        ArtiClient { driver, client: client.expect("arti bootstraps"), _files: files }
    }

    /// What a service answers to a GET, over a circuit that requests of this `user` alone share.
    pub fn fetch(&self, onion: &str, path: &str, user: IsolationToken) -> Result<Vec<u8>, String> {
        let mut prefs = StreamPrefs::new();
        prefs.connect_to_onion_services(BoolOrAuto::Explicit(true));
        prefs.set_isolation(user);
        let text = |error: std::io::Error| error.to_string();
        let fetched = async {
            let stream = self.client.connect_with_prefs((onion, 80), &prefs).await;
            let mut stream = stream.map_err(|error| format!("{error:?}"))?;
            let request = format!("GET {path} HTTP/1.0\r\n\r\n");
            stream.write_all(request.as_bytes()).await.map_err(text)?;
            stream.flush().await.map_err(text)?;
            // tor-proto 0.47 ends every stream with MISC, which it reads as an error itself: the
            // body is taken as it is, and what the end looks like does not matter here.
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
            head.map(|head| answer.split_off(head + 4)).ok_or_else(|| "no head".to_owned())
        };
        let patience = Duration::from_secs(FETCH_SECONDS_MAX);
        let fetched = self.driver.block_on(async { timeout(patience, fetched).await });
        fetched.unwrap_or_else(|_| Err(format!("nothing came within {FETCH_SECONDS_MAX} s")))
    }
}
