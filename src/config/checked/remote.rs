//! From what was typed to what it means: `[[service.remote]]`.

use std::time::Duration;

use super::check::Checker;
use crate::config::address;
use crate::config::raw::{RawRemote, RawService};
use crate::limits::{
    REMOTE_INTERVAL_SECONDS_CALM_MIN, REMOTE_INTERVAL_SECONDS_MAX, REMOTE_WEIGHT_MAX, REMOTES_MAX,
    SERVICE_NAME_CHARS_MAX,
};
use crate::onion::config::{RemoteConfig, RemoteInterval};

/// The remote instances of a service, no two of them one.
pub(super) fn check_remotes(raw: &RawService, checker: &mut Checker<'_>) -> Vec<RemoteConfig> {
    if let Some(beyond) = raw.remotes.get(REMOTES_MAX) {
        let fix = format!("keep {REMOTES_MAX} of them");
        checker.problems.push(beyond.place.problem("there are too many remote instances", fix));
        return Vec::new();
    }
    let mut remotes: Vec<RemoteConfig> = Vec::new();
    for (number, raw) in raw.remotes.iter().enumerate() {
        let Some(remote) = check_remote(raw, number, checker) else { continue };
        if remotes.iter().any(|other| other.address == remote.address) {
            let fix = "name each remote instance once; a weight gives one a larger share";
            let reason = "this service has a remote instance of this address already";
            checker.problems.push(raw.place.problem(reason, fix));
        } else if remotes.iter().any(|other| other.name == remote.name) {
            let reason = format!("this service has a remote instance \"{}\" already", remote.name);
            let fix = "give each remote instance a name of its own";
            checker.problems.push(raw.place.problem(reason, fix));
        }
        remotes.push(remote);
    }
    remotes
}

/// How often they are looked at.
pub(super) fn check_interval(raw: &RawService, checker: &mut Checker<'_>) -> RemoteInterval {
    let default = RemoteInterval::default();
    let range = 1..=REMOTE_INTERVAL_SECONDS_MAX;
    let (least, most) = (&raw.remote_interval_min_s, &raw.remote_interval_max_s);
    let min = checker.number(least.as_ref(), range.clone(), default.min.as_secs());
    let max = checker.number(most.as_ref(), range, default.max.as_secs().max(min));
    if let Some(typed) = most
        && max < min
    {
        let reason = format!("{max} is less than remote_interval_min_s, which is {min}");
        checker.problems.push(typed.problem(reason, format!("write at least {min}")));
    }
    if let Some(typed) = least.as_ref().filter(|_| min < REMOTE_INTERVAL_SECONDS_CALM_MIN) {
        checker.warnings.push(format!(
            "{}: {min} s is for private networks: on the public one each look builds some \
             circuits; write {REMOTE_INTERVAL_SECONDS_CALM_MIN} or more",
            typed.key
        ));
    }
    RemoteInterval { min: Duration::from_secs(min), max: Duration::from_secs(max) }
}

/// One of them.
fn check_remote(raw: &RawRemote, number: usize, checker: &mut Checker<'_>) -> Option<RemoteConfig> {
    let weight = checker.number(raw.weight.as_ref(), 1..=REMOTE_WEIGHT_MAX, 1);
    let Some(typed) = &raw.address else {
        let fix = "write address = \"<56 characters>.onion\"";
        checker.problems.push(raw.place.problem("the address is missing", fix));
        return None;
    };
    let address = match address::onion_alone(&typed.value) {
        Ok(address) => address,
        Err(error) => {
            checker.problems.push(typed.problem(error.reason(), error.fix()));
            return None;
        }
    };
    let mut remote = match RemoteConfig::new(&address, number) {
        Ok(remote) => remote,
        Err(reason) => {
            let fix = "copy it from the file `hostname` of the instance's HiddenServiceDir";
            checker.problems.push(typed.problem(reason, fix));
            return None;
        }
    };
    remote.weight = weight;
    remote.probe = raw.probe.as_ref().is_none_or(|typed| typed.value);
    if let Some(name) = &raw.name {
        let long = name.value.chars().count() > SERVICE_NAME_CHARS_MAX;
        if name.value.is_empty() || long || name.value.chars().any(char::is_control) {
            let reason = "this is no name for an instance";
            let fix = format!("write 1 to {SERVICE_NAME_CHARS_MAX} characters");
            checker.problems.push(name.problem(reason, fix));
        }
        remote.name.clone_from(&name.value);
    }
    Some(remote)
}
