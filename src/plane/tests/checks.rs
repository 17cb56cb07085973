//! Health checks against real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::serve::refused;
use super::support::{listen, nobody, port_80, soon};
use crate::base::stream::EndReason;
use crate::plane::config::{BackendAddress, CheckConfig, CheckRequest, PortConfig, ProxyProtocol};
use crate::plane::status::{BackendOrder, BackendState, BackendStatus};
use crate::plane::{Plane, health};

/// A quick check.
fn check(request: CheckRequest) -> CheckConfig {
    let (interval, timeout) = (Duration::from_millis(20), Duration::from_millis(500));
    CheckConfig { request, interval, timeout, rise: 2, fall: 2 }
}

/// A plane whose backend is checked, and whoever does it.
fn checked(
    address: BackendAddress,
    request: CheckRequest,
    proxy_protocol: Option<ProxyProtocol>,
) -> Arc<Plane> {
    let check = Some(check(request));
    let config = PortConfig { check, proxy_protocol, ..port_80(vec![address]) };
    let plane = Plane::new(vec![config]);
    tokio::spawn(health::watch(Arc::downgrade(&plane)));
    plane
}

/// The status of the backend once `is` is true of it.
async fn once(plane: &Plane, is: impl Fn(&BackendStatus) -> bool) -> BackendStatus {
    soon(async {
        loop {
            let status = plane.status().remove(0);
            if is(&status) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_plane_is_watched_by_one_of_those_who_are_told_to() {
    let (_listener, address) = listen().await;
    let plane = checked(address, CheckRequest::Tcp, None);
    once(&plane, |status| status.check.is_some()).await;
    soon(health::watch(Arc::downgrade(&plane))).await;
}

#[tokio::test]
async fn a_backend_that_nobody_listens_on_is_down_and_gets_no_stream() {
    let (bound, address) = nobody();
    let plane = checked(address.clone(), CheckRequest::Tcp, None);
    let status = once(&plane, |status| status.state == BackendState::Down).await;
    assert!(status.check.is_some_and(|check| check.starts_with("refused: ")));
    assert_eq!(refused(&plane, 80).await, EndReason::ConnectRefused);
    // Streams did not try it: checks do that.
    assert_eq!(plane.status()[0].failed_total, 0);
    let _listener = bound.listen(8).expect("it is bound");
    let status = once(&plane, |status| status.state == BackendState::Up).await;
    assert_eq!(status.check.as_deref(), Some("ok"));
    // Without checks, what they said is forgotten.
    plane.set_ports(vec![port_80(vec![address])]);
    assert_eq!(plane.status()[0].check, None);
}

/// Answer every request with the status that `status` holds; 0: not at all. Gives what the first
/// request was.
async fn answer(listener: TcpListener, status: Arc<AtomicU16>, first: oneshot::Sender<Vec<u8>>) {
    let mut first = Some(first);
    let mut silent = Vec::new();
    while let Ok((mut connection, _)) = listener.accept().await {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if !matches!(connection.read_buf(&mut head).await, Ok(1..)) {
                break;
            }
        }
        if let Some(first) = first.take() {
            let _ = first.send(head);
        }
        match status.load(Ordering::Relaxed) {
            0 => silent.push(connection),
            status => {
                let text = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n");
                let _ = connection.write_all(text.as_bytes()).await;
            }
        }
    }
}

#[tokio::test]
async fn http_checks_want_a_good_status_in_time() {
    let (listener, address) = listen().await;
    let status = Arc::new(AtomicU16::new(503));
    let (tell, told) = oneshot::channel();
    tokio::spawn(answer(listener, Arc::clone(&status), tell));
    let request = CheckRequest::Http { path: "/up".to_owned(), host: "app".to_owned() };
    let plane = checked(address.clone(), request, Some(ProxyProtocol::V1));
    let down = once(&plane, |status| status.state == BackendState::Down).await;
    assert_eq!(down.check.as_deref(), Some("status 503"));
    let head = String::from_utf8(soon(told).await.expect("a request")).expect("text");
    assert!(head.starts_with("PROXY UNKNOWN\r\nGET /up HTTP/1.1\r\nHost: app\r\n"), "{head}");

    status.store(204, Ordering::Relaxed);
    once(&plane, |status| status.state == BackendState::Up).await;
    status.store(0, Ordering::Relaxed);
    let silent = once(&plane, |status| status.state == BackendState::Down).await;
    assert_eq!(silent.check.as_deref(), Some("no answer within 500 ms"));

    // Nobody asks a backend that is being worked on; afterwards it is asked again.
    plane.set_order(&address.to_string(), None, BackendOrder::Maintenance);
    assert_eq!(plane.status()[0].state, BackendState::Maintenance);
    status.store(200, Ordering::Relaxed);
    plane.set_order(&address.to_string(), None, BackendOrder::Ready);
    once(&plane, |status| status.state == BackendState::Up).await;
}

#[tokio::test]
async fn checks_end_with_their_plane() {
    let (_bound, address) = nobody();
    let config = PortConfig { check: Some(check(CheckRequest::Tcp)), ..port_80(vec![address]) };
    let plane = Plane::new(vec![config]);
    let watch = tokio::spawn(health::watch(Arc::downgrade(&plane)));
    once(&plane, |status| status.check.is_some()).await;
    drop(plane);
    soon(watch).await.expect("no panic");
}

#[tokio::test]
async fn early_hints_and_headers_that_nobody_should_write_do_not_matter_byte_by_byte() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let answer = b"HTTP/1.1 103 Early Hints\r\nLink : </a>\r\n\r\nHTTP/1.1 200\nServer : x\n\n";
        while let Ok((mut connection, _)) = listener.accept().await {
            connection.set_nodelay(true).expect("a TCP socket");
            for byte in answer {
                if connection.write_all(&[*byte]).await.is_err() {
                    break;
                }
                // Where the check reads, this lets it.
                tokio::task::yield_now().await;
            }
            let _ = connection.shutdown().await;
            let _ = connection.read_to_end(&mut Vec::new()).await;
        }
    });
    let request = CheckRequest::Http { path: "/".to_owned(), host: "app".to_owned() };
    let plane = checked(address, request, None);
    let good = |status: &BackendStatus| status.check.as_deref() == Some("ok");
    once(&plane, |status| good(status) && status.state == BackendState::Up).await;
}

#[tokio::test]
async fn a_good_check_puts_a_backend_back_that_streams_were_refused_at() {
    let (bound, address) = nobody();
    let check = CheckConfig { fall: 100, ..check(CheckRequest::Tcp) };
    let config = PortConfig { check: Some(check), ..port_80(vec![address]) };
    let plane = Plane::new(vec![config]);
    assert_eq!(refused(&plane, 80).await, EndReason::ConnectRefused);
    assert_eq!(plane.status()[0].state, BackendState::Down);
    let _listener = bound.listen(8).expect("it is bound");
    tokio::spawn(health::watch(Arc::downgrade(&plane)));
    // No stream comes that would find it out.
    let status = once(&plane, |status| status.state == BackendState::Up).await;
    assert_eq!(status.failed_total, 1);
}
