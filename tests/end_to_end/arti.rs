//! An arti client fetches as well, and so reads the descriptor that tor reads.

use arti_client::{IsolationToken, StreamPrefs, TorClient, TorClientConfig};
use rustbalance_lab::client::{random_file, sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tor_config::{ConfigurationSource, ConfigurationSources, sources::MustRead};

use crate::service::{Service, Spec};

/// The configuration of an arti client on the lab's network.
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

#[test]
fn an_arti_client_fetches_too() {
    let (lab, _) = crate::lab();
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let hash = random_file(root.path(), "page", 200_000).expect("it can be written");
    let nginx = lab.nginx(root.path()).expect("nginx starts");
    let spec = Spec { backends: vec![nginx.address.to_string()], ..Spec::default() };
    let service = Service::start(lab, &spec);
    let files = tempfile::tempdir().expect("a temporary directory can be made");
    let config = config(&lab.arti_toml(), files.path());
    // The process's TLS provider, as every program with arti in it needs one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let driver = tokio::runtime::Runtime::new().expect("threads can be had");
    driver.block_on(async {
        let client = TorClient::create_bootstrapped(config).await.expect("arti bootstraps");
        for _ in 0..5 {
            let mut prefs = StreamPrefs::new();
            prefs.connect_to_onion_services(arti_client::config::BoolOrAuto::Explicit(true));
            prefs.set_isolation(IsolationToken::new());
            let mut stream = client
                .connect_with_prefs((service.onion.as_str(), 80), &prefs)
                .await
                .unwrap_or_else(|error| panic!("{error:?}\n{}", service.log()));
            stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").await.expect("the stream is open");
            stream.flush().await.expect("the stream is open");
            // tor-proto 0.47 ends every stream with MISC, which it reads as an error itself: the
            // body is taken by its length, and what the end looks like does not matter here.
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            let head = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
            assert_eq!(sha256(&answer[head + 4..]), hash);
        }
    });
}
