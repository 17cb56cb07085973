//! An arti client fetches as well, and so reads the descriptor that tor reads.

use rustbalance_lab::client::{random_file, sha256};

use crate::arti_client::{ArtiClient, new_user};
use crate::service::{Service, Spec};

#[test]
fn an_arti_client_fetches_too() {
    let (lab, _) = crate::lab();
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let hash = random_file(root.path(), "page", 200_000).expect("it can be written");
    let nginx = lab.nginx(root.path()).expect("nginx starts");
    let spec = Spec { backends: vec![nginx.address.to_string()], ..Spec::default() };
    let service = Service::start(lab, &spec);
    let client = ArtiClient::start(lab);
    for _ in 0..5 {
        let body = client.fetch(&service.onion, "/page", new_user());
        let body = body.unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
        assert_eq!(sha256(&body), hash);
    }
}
