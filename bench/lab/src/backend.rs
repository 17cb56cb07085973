//! A backend in the calling process: a closure for each connection.

use std::net::{TcpListener, TcpStream};

use anyhow::Result;

/// Do `serve` with each connection, on a thread of its own, until the process ends; where that is.
///
/// # Errors
/// When loopback has no port.
pub fn backend(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}
