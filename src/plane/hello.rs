//! The built-in page: says which instance carried it. For a first try, and for tests of the
//! balancing.

use std::sync::Arc;
use std::time::Duration;

use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::stream::StreamOutcome;
use crate::base::counters::InstanceCounters;
use crate::base::stream::{ClientStream, EndReason};
use crate::limits;
use crate::runtime;

/// Read a request and answer it.
pub(super) async fn serve(
    mut client: impl ClientStream,
    counters: &Arc<InstanceCounters>,
    instance: u16,
) -> StreamOutcome {
    let deadline = Duration::from_secs(limits::HELLO_SECONDS_MAX);
    let answered = runtime::timeout(deadline, async {
        read_head(&mut client, counters).await?;
        let page = page(instance);
        client.write_all(page.as_bytes()).await?;
        counters.add_bytes_out(page.len());
        client.close().await
    });
    match answered.await {
        Ok(Ok(())) => StreamOutcome::Done,
        Ok(Err(_)) => StreamOutcome::ClientGone,
        Err(_) => {
            client.abort(EndReason::Timeout);
            StreamOutcome::Idle
        }
    }
}

/// Read up to the empty line that ends a request's head.
async fn read_head(
    client: &mut impl ClientStream,
    counters: &InstanceCounters,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut piece = [0; 512];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let length = client.read(&mut piece).await?;
        if length == 0 || head.len() + length > limits::HELLO_HEAD_BYTES_MAX {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        counters.add_bytes_in(length);
        head.extend_from_slice(&piece[..length]);
    }
    Ok(())
}

/// The whole answer.
fn page(instance: u16) -> String {
    let body = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>RustBalance</title>\
         </head><body><h1>It works</h1><p>This page came through instance {instance}.</p>\
         </body></html>\n"
    );
    format!(
        "HTTP/1.0 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         X-RustBalance-Instance: {instance}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
