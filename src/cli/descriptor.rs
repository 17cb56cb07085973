//! `rustbalance descriptor`: what was published, and what the HSDirs hold.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use super::args::{DescriptorArgs, DescriptorCommand, EXIT_FAILED, Target, VerifyArgs};
use super::status::{Rows, bytes, json, number, row, show_and_judge, table};
use crate::admin::client::{self, AskError};
use crate::admin::status::{
    Position, PublishedDescriptor, PublishedStatus, Share, Verification, VerifiedStatus,
};

/// Run it.
pub fn run(args: &DescriptorArgs) -> ExitCode {
    match &args.command {
        DescriptorCommand::Show { service, json, target } => {
            show(service.as_deref(), *json, target)
        }
        DescriptorCommand::Verify(args) => match args.watch {
            true => watch(args),
            false => verify(args),
        },
    }
}

/// `descriptor show`
fn show(service: Option<&str>, as_json: bool, target: &Target) -> ExitCode {
    let ask = |socket: &std::path::Path| {
        let mut all = client::descriptors(socket)?;
        all.retain(|one| service.is_none_or(|name| one.service == name));
        match (service, all.is_empty()) {
            (Some(name), true) => Err(AskError::Refused {
                path: socket.to_owned(),
                text: format!("there is no service {name}"),
            }),
            _ => Ok(all),
        }
    };
    let render = |all: &Vec<PublishedStatus>| match as_json {
        true => json(all),
        false => Ok(all.iter().map(published).collect::<Vec<_>>().join("\n")),
    };
    show_and_judge(target, ask, render, |_| true)
}

/// `descriptor verify`
fn verify(args: &VerifyArgs) -> ExitCode {
    let render = |all: &Vec<VerifiedStatus>| match args.json {
        true => json(all),
        false => Ok(all.iter().map(verified).collect::<Vec<_>>().join("\n")),
    };
    let ask = |socket: &std::path::Path| client::verify(socket, args.service.as_deref());
    show_and_judge(&args.target, ask, render, |all| is_good(all))
}

/// `descriptor verify --watch`. Comes back when nobody answers any more, or nobody reads.
fn watch(args: &VerifyArgs) -> ExitCode {
    loop {
        let mut alarms = Vec::new();
        let mut asked = false;
        let render = |all: &Vec<VerifiedStatus>| {
            asked = true;
            alarms.extend(all.iter().filter(|one| one.alarm).filter_map(|one| one.reason.clone()));
            match args.json {
                true => serde_json::to_string(all).map(|text| text + "\n"),
                false => Ok(all.iter().map(in_one_line).collect()),
            }
        };
        let ask = |socket: &std::path::Path| client::verify(socket, args.service.as_deref());
        let code = show_and_judge(&args.target, ask, render, |_| true);
        if !asked {
            return code;
        }
        for alarm in alarms {
            eprintln!("ALARM: {alarm}");
        }
        if std::io::stdout().flush().is_err() {
            return ExitCode::from(EXIT_FAILED);
        }
        std::thread::sleep(Duration::from_secs(args.seconds));
    }
}

/// Whether every HSDir of every service holds the newest.
fn is_good(all: &[VerifiedStatus]) -> bool {
    !all.is_empty() && all.iter().all(VerifiedStatus::is_good)
}

/// Where an HSDir stands.
fn place(hsdir: &Position) -> String {
    let asked = if hsdir.asked { "" } else { " (spare)" };
    format!("{}/{}{asked}", hsdir.replica, hsdir.position)
}

/// Points by instance: `0:3 1:3`.
fn shares(shares: &[Share]) -> String {
    let one = |share: &Share| format!("{}:{}", share.instance, share.points);
    match shares.is_empty() {
        true => "-".to_owned(),
        false => shares.iter().map(one).collect::<Vec<_>>().join(" "),
    }
}

/// A word of the status document.
fn word(state: impl std::fmt::Debug) -> String {
    format!("{state:?}").to_lowercase()
}

/// What a service has published, for people.
fn published(service: &PublishedStatus) -> String {
    let mut text = format!("{} {}\n", service.service, service.onion);
    if service.descriptors.is_empty() {
        text.push_str("nothing is published yet\n");
    }
    for one in &service.descriptors {
        text.push_str(&descriptor(one));
    }
    text
}

/// One descriptor, for people.
fn descriptor(published: &PublishedDescriptor) -> String {
    let PublishedDescriptor { descriptor, documents, hsdirs } = published;
    let mut text = format!(
        "\nperiod {}, revision {}, {} introduction points, on {}/{} HSDirs since {}\n",
        descriptor.period,
        descriptor.revision,
        descriptor.intro_points,
        descriptor.hsdirs_ok,
        descriptor.hsdirs_total,
        descriptor.published_at
    );
    let mut rows: Rows = vec![row(["document", "size", "points of each instance"])];
    rows.extend(documents.iter().map(|one| {
        vec![one.variant.to_string(), bytes(Some(one.size_bytes as u64)), shares(&one.points)]
    }));
    text.push_str(&table(&rows));
    let mut rows: Rows =
        vec![row(["HSDir", "document", "state", "attempts", "uploaded", "last error"])];
    rows.extend(hsdirs.iter().map(|one| {
        vec![
            place(&one.hsdir),
            one.variant.to_string(),
            word(one.state),
            one.attempts.to_string(),
            one.uploaded_at.clone().unwrap_or_else(|| "-".to_owned()),
            one.error.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }));
    text.push_str(&table(&rows));
    text
}

/// What the HSDirs of a service hold, for people.
fn verified(service: &VerifiedStatus) -> String {
    let mut text = in_one_line(service);
    let Some(found) = &service.verification else { return text };
    let head = ["period", "HSDir", "holds", "revision", "expected", "points", "of each instance"];
    let mut rows: Rows = vec![row(head)];
    rows.extend(found.hsdirs.iter().map(|one| {
        let mut cells = vec![
            one.period.to_string(),
            place(&one.hsdir),
            word(one.state),
            number(one.revision),
            one.expected_revision.to_string(),
            one.intro_points.to_string(),
            shares(&one.points),
        ];
        cells.extend(one.error.clone());
        cells
    }));
    text.push_str(&table(&rows));
    text
}

/// The same in a line.
fn in_one_line(service: &VerifiedStatus) -> String {
    let Some(found) = &service.verification else {
        let reason = service.reason.as_deref().unwrap_or("the HSDirs were not asked");
        return format!("{}: {reason}\n", service.service);
    };
    let counts = Verification::states().into_iter().filter_map(|state| {
        let count = found.count(state);
        (count > 0).then(|| format!("{count} {}", word(state)))
    });
    let counts: Vec<String> = counts.collect();
    let alarm = if service.alarm { ", ALARM" } else { "" };
    let (time, all) = (&found.checked_at, found.hsdirs.len());
    format!("{time} {}: of {all} HSDirs {}{alarm}\n", service.service, counts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{in_one_line, is_good, published, verified};
    use crate::admin::status::{PublishedStatus, VerifiedStatus};

    /// What the admin socket says, as `docs/operating/descriptor.md` shows it.
    const VERIFIED: &str = r#"{ "service": "main", "onion": "x.onion", "reason": null,
      "alarm": false, "verification": { "number": 3, "checked_at": "2026-01-01T00:00:00Z",
      "hsdirs": [
        { "period": 20779, "replica": 1, "position": 1, "asked": true, "relay": "aa",
          "state": "newest", "expected_revision": 124, "revision": 124, "intro_points": 6,
          "points": [ { "instance": 0, "points": 3 }, { "instance": 1, "points": 3 } ],
          "error": null },
        { "period": 20779, "replica": 2, "position": 4, "asked": false, "relay": "bb",
          "state": "unreachable", "expected_revision": 124, "revision": null, "intro_points": 0,
          "points": [], "error": "no answer in time" } ] } }"#;

    /// The same.
    const PUBLISHED: &str = r#"{ "service": "main", "onion": "x.onion", "descriptors": [
      { "period": 20779, "revision": 124, "variants": 1, "intro_points": 6, "size_bytes": 14433,
        "hsdirs_ok": 1, "hsdirs_total": 2, "published_at": "2026-01-01T00:00:00Z",
        "documents": [ { "variant": 0, "size_bytes": 14433,
          "points": [ { "instance": 0, "points": 3 }, { "instance": 1, "points": 3 } ] } ],
        "hsdirs": [
          { "replica": 1, "position": 1, "asked": true, "relay": "aa", "variant": 0, "state": "ok",
            "attempts": 1, "uploaded_at": "2026-01-01T00:00:01Z", "error": null },
          { "replica": 2, "position": 4, "asked": false, "relay": "bb", "variant": 0,
            "state": "failed", "attempts": 2, "uploaded_at": null,
            "error": "no answer in time" } ] } ] }"#;

    #[test]
    fn every_hsdir_has_a_line_and_one_that_does_not_hold_the_newest_spoils_it() {
        let mut service: VerifiedStatus = serde_json::from_str(VERIFIED).expect("the contract");
        let text = verified(&service);
        let first = "2026-01-01T00:00:00Z main: of 2 HSDirs 1 newest, 1 unreachable\n";
        assert!(text.starts_with(first), "{text}");
        assert!(text.contains("2/4 (spare)  unreachable  -         124       0       -"), "{text}");
        assert!(text.contains("no answer in time") && text.contains("0:3 1:3"), "{text}");
        assert!(!text.contains("aa"), "relays have numbers for people: {text}");
        assert!(!is_good(&[service.clone()]) && !is_good(&[]));
        let found = service.verification.as_mut().expect("it is there");
        found.hsdirs.truncate(1);
        assert!(is_good(&[service.clone()]));
        service.alarm = true;
        assert!(!is_good(&[service.clone()]));
        assert!(in_one_line(&service).ends_with("1 newest, ALARM\n"));
        (service.verification, service.reason) = (None, Some("nothing yet".to_owned()));
        assert!(!is_good(&[service.clone()]));
        assert_eq!(verified(&service), "main: nothing yet\n");
    }

    #[test]
    fn every_receipt_has_a_line() {
        let service: PublishedStatus = serde_json::from_str(PUBLISHED).expect("the contract");
        let text = published(&service);
        assert!(text.starts_with("main x.onion\n\nperiod 20779, revision 124, 6 int"), "{text}");
        assert!(text.contains("0         14.4 kB  0:3 1:3\n"), "{text}");
        assert!(text.contains("1/1          0         ok      1         2026-01-01T00:00:01Z  -"));
        assert!(text.contains("2/4 (spare)  0         failed  2         -  "), "{text}");
    }
}
