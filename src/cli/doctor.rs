//! `rustbalance doctor`: what would go wrong on this machine, before it does.
//!
//! Each finding is a line: `ok`, `warn` or `fail`, what was looked at, what was found, and what to
//! do. Exits with 1 when anything fails. Starts and writes nothing.

mod machine;

use std::io::Write as _;
use std::process::ExitCode;

use serde::Serialize;

use super::args::{DoctorArgs, EXIT_FAILED, configuration};
use crate::app::preflight::{self, Lasts, Problem};
use crate::config::{Config, ConfigError};
use crate::plane::config::{BackendAddress, ListenConfig};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    /// As it should be.
    Ok,
    /// It works, but worse than it could.
    Warn,
    /// It will not work.
    Fail,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// How bad it is.
    grade: Grade,
    /// What was looked at.
    what: &'static str,
    /// What was found, and what to do.
    text: String,
}

/// A finding.
fn finding(grade: Grade, what: &'static str, text: impl Into<String>) -> Finding {
    Finding { grade, what, text: text.into() }
}

/// Run the command.
pub fn run(args: &DoctorArgs) -> ExitCode {
    let mut findings = machine::findings();
    let (config, onionbalance) = (args.config.as_deref(), args.onionbalance.as_deref());
    findings.extend(configured(configuration(config, onionbalance)));
    let text = render(&findings, args.json);
    // A reader that has gone wants no more.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    exit_code(&findings)
}

/// What the configuration names: directories, keys, arti's own settings.
fn configured(loaded: Option<Result<Config, ConfigError>>) -> Vec<Finding> {
    let config = match loaded {
        Some(Ok(config)) => config,
        Some(Err(error)) => return vec![finding(Grade::Fail, "configuration", error.to_string())],
        None => Config::from_backends(&[], true),
    };
    let problems = preflight::problems(&config);
    let mut findings: Vec<Finding> = problems.iter().map(problem).collect();
    let fine = |what: &str| problems.iter().all(|one| one.what != what);
    if fine("state_dir") {
        let can = if config.state_dir.exists() { "can be used" } else { "can be made" };
        let text = format!("{} {can}", config.state_dir.display());
        findings.push(finding(Grade::Ok, "state_dir", text));
    }
    if fine("admin socket") {
        let text = format!("{} can be made", config.admin_socket().display());
        findings.push(finding(Grade::Ok, "admin socket", text));
    }
    if fine("listener") {
        findings.extend(
            config.listens.iter().map(|one| {
                finding(Grade::Ok, "listener", format!("nobody else has {}", one.address))
            }),
        );
    }
    let log = super::logging::check(&config.log).err();
    findings.extend(log.map(|text| finding(Grade::Fail, "log", text)));
    findings.push(machine::rings(crate::app::launch::plan(&config).data.len()));
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    findings.push(guards(&config, cpus));
    let over_tcp = |one: &ListenConfig| matches!(one.address, BackendAddress::Tcp(_));
    findings.extend(config.listens.iter().any(over_tcp).then(machine::listeners));
    findings
}

/// What would keep `run` from its start. A service that runs keeps another one from it.
fn problem(found: &Problem) -> Finding {
    let grade = if found.lasts == Lasts::Running { Grade::Warn } else { Grade::Fail };
    finding(grade, found.what, found.text.clone())
}

/// How many guards the choice of stacks exposes the machine to.
fn guards(config: &Config, cpus: usize) -> Finding {
    let stacks = config.turbo.stack_count(config.turbo.instance_count(cpus));
    let links = if stacks == 1 { "link" } else { "links" };
    match config.turbo.guard_sets(stacks) {
        0 | 1 => {
            let text = format!("one set of guards, as a tor daemon has; {stacks} {links} to it");
            finding(Grade::Ok, "guards", text)
        }
        sets => {
            let text = format!(
                "{stacks} stacks have {sets} sets of guards: {sets} times as many relays as with \
                 one know this machine; fewer stacks, or more source_addresses, have fewer"
            );
            finding(Grade::Warn, "guards", text)
        }
    }
}

/// The findings for people, or as a JSON list of `{"grade", "what", "text"}`.
fn render(findings: &[Finding], json: bool) -> String {
    if json {
        return format!("{}\n", serde_json::json!(findings));
    }
    let line = |one: &Finding| {
        let grade = format!("{:?}", one.grade).to_lowercase();
        format!("{grade:<5} {:<14} {}\n", one.what, one.text)
    };
    findings.iter().map(line).collect()
}

/// 1 where anything fails.
fn exit_code(findings: &[Finding]) -> ExitCode {
    match findings.iter().map(|one| one.grade).max() {
        Some(Grade::Fail) => ExitCode::from(EXIT_FAILED),
        _ => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::ExitCode;

    use super::{Grade, configured, exit_code, finding, guards, render};
    use crate::config::{Config, Instances, Stacks};

    #[test]
    fn only_a_failure_is_a_failure() {
        let warned = [finding(Grade::Ok, "a", "fine"), finding(Grade::Warn, "b", "slow")];
        assert_eq!(exit_code(&warned), ExitCode::SUCCESS);
        let failed = [finding(Grade::Fail, "a", "broken"), finding(Grade::Ok, "b", "fine")];
        assert_eq!(exit_code(&failed), ExitCode::from(1));
    }

    #[test]
    fn sets_of_guards_are_counted() {
        let with = |stacks: u16, sources: u8| {
            let mut config = Config::from_backends(&[], true);
            config.turbo.instances = Instances::Fixed(8);
            config.turbo.stacks = Stacks::Number(stacks);
            config.turbo.source_addresses =
                (1..=sources).map(|last| Ipv4Addr::new(127, 0, 0, last)).collect();
            let one = guards(&config, 8);
            (one.grade, one.text)
        };
        assert_eq!(with(1, 0).0, Grade::Ok);
        assert_eq!(with(4, 4).0, Grade::Ok);
        let (grade, text) = with(4, 0);
        assert!(grade == Grade::Warn && text.contains("4 sets"), "{text}");
        let (grade, text) = with(5, 2);
        assert!(grade == Grade::Warn && text.contains("3 sets"), "{text}");
    }

    #[test]
    fn findings_are_lines_or_json() {
        let findings = [finding(Grade::Warn, "clock", "is it right?")];
        assert_eq!(render(&findings, false), "warn  clock          is it right?\n");
        let json = "[{\"grade\":\"warn\",\"what\":\"clock\",\"text\":\"is it right?\"}]";
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(read(&render(&findings, true)), read(json));
    }

    #[test]
    fn a_state_directory_that_others_can_read_fails() {
        let state_dir = |path: &std::path::Path| {
            let file = path.with_extension("toml");
            let text = format!(
                "state_dir = {path:?}\n[[service]]\n[[service.port]]\nvirtual = 80\nhello = true\n"
            );
            std::fs::write(&file, text).expect("it is ours");
            let findings = configured(Some(Config::load(&file)));
            let found = findings.iter().find(|one| one.what == "state_dir");
            found.unwrap_or_else(|| panic!("{findings:?}")).grade
        };
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("state");
        assert_eq!(state_dir(&path), Grade::Ok);
        assert!(!path.exists(), "nothing is made");
        std::fs::create_dir(&path).expect("a new directory");
        let chmod = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).expect("it is ours");
        };
        chmod(0o755);
        assert_eq!(state_dir(&path), Grade::Fail);
        chmod(0o700);
        assert_eq!(state_dir(&path), Grade::Ok);
    }

    #[test]
    fn listeners_over_tcp_are_looked_at_and_no_others() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let looked_at = |address: &str| {
            let file = directory.path().join("rustbalance.toml");
            let text = format!(
                "state_dir = \"state\"\n[[service]]\n[[service.port]]\nvirtual = 80\n\
                 hello = true\n[[listen]]\naddress = \"{address}\"\nvirtual = 80\n"
            );
            std::fs::write(&file, text).expect("it is ours");
            let findings = configured(Some(Config::load(&file)));
            assert!(findings.iter().all(|one| one.what != "configuration"), "{findings:?}");
            findings.iter().any(|one| one.what == "listeners")
        };
        assert!(looked_at("127.0.0.1:8090"));
        assert!(!looked_at("unix:front.sock"));
    }

    #[test]
    fn a_configuration_that_cannot_be_read_is_a_finding() {
        let findings = configured(Some(Config::load("/nonexistent/rustbalance.toml".as_ref())));
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].grade, findings[0].what), (Grade::Fail, "configuration"));
    }
}
