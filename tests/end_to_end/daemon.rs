//! What tests see of the C tor daemons that a service runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arti_client::IsolationToken;
use nix::unistd::Pid;
use rustbalance_lab::wait_until;
use serde_json::Value;

use crate::arti_client::{ArtiClient, new_user};
use crate::service::{Service, state_dir};

/// The directory of a service's daemon, from 1.
pub fn directory(service: &Service, number: u16) -> PathBuf {
    state_dir(service).join("ctor").join(number.to_string())
}

/// The process of the daemon whose files are in `directory`.
pub fn process(directory: &Path) -> Option<Pid> {
    let torrc = directory.join("torrc");
    let named = |pid: i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = command.split(|byte| *byte == 0);
        words.into_iter().any(|word| word == torrc.as_os_str().as_encoded_bytes())
    };
    let entries = std::fs::read_dir("/proc").expect("there is /proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid| named(*pid)).map(Pid::from_raw)
}

/// The processes of both daemons, as far as there are any.
pub fn processes(service: &Service) -> Vec<Pid> {
    [1, 2].iter().filter_map(|number| process(&directory(service, *number))).collect()
}

/// What status says of the instances that `engine` carries.
pub fn instances(service: &Service, engine: &str) -> Vec<Value> {
    let all = service.service_status()["instances"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|one| one["engine"] == engine).collect()
}

/// Introduction points in the descriptors that are on all of their HSDirs; `None` while some are
/// not.
pub fn published(service: &Service) -> Option<u64> {
    let descriptors = service.service_status()["descriptors"].as_array().cloned()?;
    let whole = |one: &Value| one["hsdirs_ok"] == one["hsdirs_total"];
    let points = descriptors.iter().filter_map(|one| one["intro_points"].as_u64()).max();
    points.filter(|_| descriptors.iter().all(whole))
}

/// What went wrong, and all that there is to know.
pub fn give_up(service: &Service, error: impl std::fmt::Display) -> ! {
    panic!("{error:#}\n{:#}\n{}", service.status(), service.log())
}

/// Wait until so many instances serve, and all their points stand in the descriptors.
pub fn all_serve(service: &Service, instances: usize) {
    wait_until("every instance is in the descriptors", 180, || {
        let status = service.try_status()?;
        let all = status["services"][0]["instances"].as_array()?.clone();
        let serving = all.iter().filter(|one| one["state"] == "serving").count();
        let points = Some(3 * instances as u64);
        (serving == instances && published(service) == points).then_some(())
    })
    .unwrap_or_else(|error| give_up(service, error));
}

/// Fetches at most: one in a hundred thousand million that an instance with a fifth of them, or
/// more, is not among those met.
const FETCHES_MAX: usize = 120;

/// Whom a client has met: a user whose circuit leads there, the last answer, and how often.
pub type Met = BTreeMap<String, (IsolationToken, String, usize)>;

/// Fetch on isolated circuits until the client has met all of `wanted`, who are named by what an
/// answer begins with, up to the slash.
pub fn reach_all(client: &ArtiClient, service: &Service, wanted: &[&str]) -> Met {
    let mut met = Met::new();
    for _ in 0..FETCHES_MAX {
        let user = new_user();
        let answer = client.fetch(&service.onion, "/", user);
        let answer = answer.unwrap_or_else(|error| give_up(service, error));
        let text = String::from_utf8(answer).expect("text");
        let name = text.split('/').next().unwrap_or_default().to_owned();
        assert!(wanted.contains(&name.as_str()), "nobody is called {text}");
        let count = met.get(&name).map_or(0, |(_, _, count)| *count);
        met.insert(name, (user, text, count + 1));
        if met.len() == wanted.len() {
            let counts: Vec<_> = met.iter().map(|(name, (_, _, count))| (name, count)).collect();
            println!("met all: {counts:?}");
            return met;
        }
    }
    give_up(service, format!("some were never met: {met:?}"));
}
