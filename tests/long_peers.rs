//! The programs that people run today, as the lab starts them: OnionBalance over two C tor onion
//! services, HAProxy behind those, nginx behind that. What comparisons stand on has to serve.

use rustbalance_lab::client::{random_file, sha256};
use rustbalance_lab::{Lab, LabOptions, Size, free_port, wait_until};

#[test]
fn onionbalance_c_tor_haproxy_and_nginx_serve_one_page_together() {
    let options = LabOptions { size: Size::Full, quiet: true, ..LabOptions::default() };
    let lab = Lab::start(options).expect("a lab can be had");
    let client = lab.client("test").expect("a client starts");
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let hash = random_file(root.path(), "page", 100_000).expect("it can be written");
    let nginx = lab.nginx(root.path()).expect("nginx starts");
    let port = free_port().expect("loopback has ports");
    let haproxy = lab
        .haproxy(&format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  \
             timeout server 60s\nlisten web\n  bind 127.0.0.1:{port}\n  server nginx {}\n",
            nginx.address
        ))
        .expect("HAProxy starts");
    let ports = [(80, format!("127.0.0.1:{port}"))];
    let (balance, services) = lab.onionbalance(2, &ports).expect("OnionBalance starts");
    assert_eq!(services.len(), 2);
    assert!(services.iter().all(|one| one.hostname != balance.hostname));
    let answer = wait_until("OnionBalance has published", 240, || {
        client.fetch_fresh(&balance.hostname, 80, "/page").ok()
    })
    .expect("the address is served");
    assert_eq!(sha256(&answer.body), hash);
    // The page came through HAProxy: without it there is none.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(haproxy.pid).expect("pids are small"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it runs");
    client
        .fetch_fresh(&balance.hostname, 80, "/page")
        .expect_err("HAProxy is gone and the page came all the same");
}
