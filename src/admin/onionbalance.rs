//! Status as OnionBalance tells it, for what watches it today: a unix socket that writes one object
//! of JSON to whoever connects, and closes.
//!
//! The keys, their order, the form of the times (UTC) and the white space are OnionBalance's. An
//! instance of which nothing was ever heard has `received` in place of three other keys. Instances
//! without an onion address of their own, in this process or run by it, are not in the list.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::ser::Formatter;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use super::server::listen;
use super::status::{DescriptorStatus, InstanceStatus, ProcessStatus, ServiceStatus};
use super::{AdminError, Place, StatusSource};
use crate::base::repeats::Repeats;
use crate::{limits, runtime};

/// The whole answer. Fields of these types are in the order of the alphabet, as OnionBalance sorts
/// them.
#[derive(Serialize)]
struct Answer {
    /// Services, in the order of the configuration.
    services: Vec<Frontend>,
}

/// A service.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Frontend {
    /// Its instances.
    instances: Vec<Instance>,
    /// Its address, with `.onion`.
    onion_address: String,
    /// When the uploads of the earlier period's descriptor began.
    publish_attempt_first_descriptor: Option<String>,
    /// The same of the later period's.
    publish_attempt_second_descriptor: Option<String>,
}

/// An instance.
#[derive(Serialize)]
#[serde(untagged)]
enum Instance {
    /// One whose descriptor was seen.
    #[serde(rename_all = "camelCase")]
    Seen {
        /// When its descriptor was received last.
        descriptor_received: Option<String>,
        /// Its introduction points.
        intro_points_num: u64,
        /// When they changed last.
        intro_set_modified: String,
        /// Its address, with `.onion`.
        onion_address: String,
    },
    /// Another one.
    #[serde(rename_all = "camelCase")]
    Unseen {
        /// Its address, with `.onion`.
        onion_address: String,
        /// When its descriptor was received last: never, but the key is there.
        received: Option<String>,
    },
}

/// Answer for as long as the future is polled; the socket goes away with it.
///
/// # Errors
/// [`AdminError`], at the start.
pub async fn serve(
    path: &Path,
    place: Place,
    source: &Arc<dyn StatusSource>,
) -> Result<(), AdminError> {
    let (listener, _file) = listen(path, place)?;
    let slots = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
    let repeats = Repeats::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, _)) => {
                let text = answer(&source.status());
                runtime::spawn(async move {
                    let deadline = Duration::from_secs(limits::ADMIN_SECONDS_MAX);
                    // Whoever asked may have gone.
                    let _ = tokio::time::timeout(deadline, tell(stream, &text)).await;
                    drop(slot);
                });
            }
            // No descriptor left, most likely: the service goes on, and so does this, later.
            Err(error) => {
                if let Some(more) = repeats.say() {
                    tracing::warn!("the socket for OnionBalance's status: {error}{more}");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Write the answer, and close.
async fn tell(mut stream: UnixStream, text: &[u8]) -> std::io::Result<()> {
    stream.write_all(text).await?;
    stream.shutdown().await
}

/// The answer's text.
fn answer(status: &ProcessStatus) -> Vec<u8> {
    let answer = Answer { services: status.services.iter().map(frontend).collect() };
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, Spaces);
    answer.serialize(&mut serializer).expect("texts and numbers can be written to memory");
    text
}

/// One service.
fn frontend(service: &ServiceStatus) -> Frontend {
    let mut descriptors: Vec<&DescriptorStatus> = service.descriptors.iter().collect();
    descriptors.sort_by_key(|descriptor| descriptor.period);
    let attempt = |number: usize| descriptors.get(number).map(|one| time(&one.published_at));
    Frontend {
        instances: service.instances.iter().filter_map(instance).collect(),
        onion_address: service.onion.clone(),
        publish_attempt_first_descriptor: attempt(0),
        publish_attempt_second_descriptor: attempt(1),
    }
}

/// One instance, if it has an address.
fn instance(instance: &InstanceStatus) -> Option<Instance> {
    let onion_address = instance.address.clone()?;
    let received = instance.received_at.as_deref().map(time);
    Some(match instance.changed_at.as_deref() {
        Some(changed) => Instance::Seen {
            descriptor_received: received,
            intro_points_num: instance.intro_points,
            intro_set_modified: time(changed),
            onion_address,
        },
        None => Instance::Unseen { onion_address, received },
    })
}

/// A time of our status (RFC 3339, UTC) as OnionBalance writes it.
fn time(rfc3339: &str) -> String {
    rfc3339.trim_end_matches('Z').replacen('T', " ", 1)
}

/// A blank after each comma and colon.
struct Spaces;

impl Formatter for Spaces {
    fn begin_array_value<W>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W>(&mut self, writer: &mut W) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests;
