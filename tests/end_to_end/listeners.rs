//! Listeners behind real C tor daemons: the circuits that they name, and a reload.

use std::collections::HashSet;
use std::net::SocketAddr;

use nix::sys::signal::Signal;
use rustbalance_lab::client::fresh_user;
use rustbalance_lab::{OnionServiceSpec, free_port, wait_until};

use crate::backends::haproxy_that_says;
use crate::service::{Service, Spec};

/// What a C tor daemon sends to a unix socket, with the circuit that it is.
fn daemon(socket: &str) -> OnionServiceSpec {
    OnionServiceSpec {
        ports: vec![(80, socket.to_owned())],
        vanguards_lite: true,
        extra: "HiddenServiceExportCircuitID haproxy\n".to_owned(),
    }
}

/// A free address of loopback.
fn free() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port().expect("loopback has room")))
}

#[test]
fn two_c_tor_daemons_are_served_and_their_circuits_are_told_apart() {
    let (lab, client) = crate::lab();
    let (_haproxy, address) = haproxy_that_says(lab, "%[src] %[fc_pp_unique_id]");
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let sockets = ["a", "b"].map(|name| format!("unix:{}/{name}.sock", root.path().display()));
    let listen =
        |socket: &str| format!("[[listen]]\naddress = \"{socket}\"\nproxy_protocol = true\n");
    let service = Service::start(
        lab,
        &Spec {
            backends: vec![address.to_string()],
            port_lines: format!(
                "proxy_protocol = \"v2\"\n{}{}",
                listen(&sockets[0]),
                listen(&sockets[1])
            ),
            ..Spec::default()
        },
    );
    let daemons = sockets
        .each_ref()
        .map(|socket| lab.onion_service(&daemon(socket)).expect("C tor takes the configuration"));
    let mut seen = HashSet::new();
    for (daemon, instance) in daemons.iter().zip([1024, 1025]) {
        daemon.wait_reachable(client, 80).unwrap_or_else(|error| panic!("{error:#}"));
        let (first, second) = (fresh_user(), fresh_user());
        let read = |user: &str| {
            let answer = client.fetch(&daemon.hostname, 80, "/", user);
            let answer = answer.unwrap_or_else(|error| panic!("{error:#}\n{}", service.log()));
            String::from_utf8(answer.body).expect("text")
        };
        let (one, again, other) = (read(&first), read(&first), read(&second));
        assert_eq!(one, again, "streams of one circuit have one id");
        assert_ne!(one, other, "another circuit has another");
        for text in [one, other] {
            let (from, id) = text.split_once(' ').expect("an address and an id");
            let parts = from.parse::<std::net::Ipv6Addr>().expect("an address").segments();
            let serial = (u32::from(parts[6]) << 16) | u32::from(parts[7]);
            assert_eq!(parts[..6], [0xfc00, 0xdead, 0xbeef, 0x4dad, 0, instance], "{text}");
            assert_eq!(id, format!("{instance}/{serial}"));
            assert!(seen.insert(text), "two daemons have one id");
        }
    }
    let listens = service.status()["listens"].clone();
    for (at, socket) in sockets.iter().enumerate() {
        assert_eq!(listens[at]["address"], *socket, "{listens:#}");
        assert!(listens[at]["streams_total"].as_u64() >= Some(3), "{listens:#}");
        assert_eq!(listens[at]["headers_refused_total"], 0, "{listens:#}");
    }
}

#[test]
fn listeners_come_and_go_with_a_reload_and_an_open_stream_goes_on() {
    use std::io::{Read as _, Write as _};
    let (lab, _) = crate::lab();
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    std::fs::write(root.path().join("who"), "nginx").expect("a file can be written");
    let nginx = lab.nginx(root.path()).expect("nginx starts");
    let [first, second] = [free(), free()];
    let lines = |address: SocketAddr| {
        format!("[[listen]]\naddress = \"{address}\"\nservice = \"main\"\nvirtual = 80\n")
    };
    let spec = |address| Spec {
        backends: vec![nginx.address.to_string()],
        port_lines: lines(address),
        ..Spec::default()
    };
    let service = Service::start(lab, &spec(first));
    let ask = |connection: &mut std::net::TcpStream| {
        write!(connection, "GET /who HTTP/1.1\r\nHost: a\r\n\r\n").expect("it is open");
        let mut seen = Vec::new();
        while !seen.ends_with(b"nginx") {
            let mut more = [0; 1000];
            let length = connection.read(&mut more).expect("it is open");
            assert!(length > 0, "it ended");
            seen.extend(&more[..length]);
        }
    };
    let connect = |address| std::net::TcpStream::connect(address);
    let mut open = connect(first).expect("it listens");
    ask(&mut open);
    service.configure(lab, &spec(second));
    service.signal(Signal::SIGHUP);
    wait_until("the first listener is gone", 30, || connect(first).is_err().then_some(()))
        .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    let mut other = wait_until("the second one listens", 30, || connect(second).ok())
        .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    ask(&mut other);
    ask(&mut open);
    assert_eq!(service.status()["listens"][0]["address"], second.to_string());
    // An address that somebody has is told, and nothing changes: neither a service nor a key comes.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    let taken = taken.local_addr().map(|address| (taken, address)).expect("it is bound");
    let more = "[[service]]\nname = \"more\"\n[[service.port]]\nvirtual = 80\nhello = true";
    let with_more = Spec { turbo_lines: more.to_owned(), ..spec(taken.1) };
    service.configure(lab, &with_more);
    service.signal(Signal::SIGHUP);
    wait_until("it is said", 30, || {
        service.log().contains(&format!("cannot listen on {}", taken.1)).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    ask(&mut connect(second).expect("it still listens"));
    assert_eq!(service.status()["services"].as_array().map(Vec::len), Some(1));
    assert!(!crate::service::state_dir(&service).join("more.key").exists());
}
