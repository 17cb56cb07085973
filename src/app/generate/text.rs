//! The small texts of a generated stack: OnionBalance's configuration, systemd's drop-in, and the
//! README, whose commands are run as they stand by `tests/end_to_end/classic.rs`.

use std::fmt::Write as _;
use std::path::Path;

use super::Stack;
use super::layout::Layout;
use crate::ctor::TorrcError;
use crate::limits;
use crate::vault::MasterKey;

/// OnionBalance's `config.yaml`: for each service the name of its key file, and its instances'
/// addresses.
pub(super) fn onionbalance(
    services: &[(String, Vec<String>)],
    status: Option<&Path>,
) -> Result<String, TorrcError> {
    let mut text = String::from("# Made by `rustbalance ctor generate`.\n");
    if let Some(path) = status {
        let named = path.to_str().ok_or_else(|| TorrcError::NotText { path: path.to_owned() })?;
        let _ = writeln!(text, "status-socket-location: {}", json(named));
    }
    text.push_str("services:\n");
    for (key, addresses) in services {
        let _ = writeln!(text, "- key: {}\n  instances:", json(key));
        for address in addresses {
            let _ = writeln!(text, "  - address: {address}");
        }
    }
    Ok(text)
}

/// A string of JSON is one of YAML.
fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What systemd is told of a daemon.
pub(super) fn drop_in(cpu: usize) -> String {
    format!(
        "# Made by `rustbalance ctor generate`.\n[Service]\nCPUAffinity={cpu}\nLimitNOFILE={}\n",
        limits::CTOR_DESCRIPTORS
    )
}

/// A word as a shell reads it.
fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// What tells the operator how it goes on.
pub(super) fn readme(stack: &Stack<'_>, masters: &[MasterKey]) -> String {
    let daemons = stack.cpus.len();
    let mut text = format!(
        "# {daemons} tor daemons, OnionBalance and HAProxy\n\n\
         Made by `rustbalance ctor generate`. Keep this directory to yourself: it holds the master \
         keys.\n\n| service | address |\n|---|---|\n"
    );
    for (service, master) in stack.services.iter().zip(masters) {
        let _ = writeln!(text, "| {} | {} |", service.name, master.onion_address());
    }
    text.push('\n');
    text.push_str(&match stack.layout.debian {
        true => debian(stack),
        false => here(stack),
    });
    let _ = write!(
        text,
        "\n## To know\n\n\
         * The daemons do not share guards: {daemons} of them are {daemons} sets of relays that \
         know this machine, and each of those is one more place from which it can be found. \
         Daemons behind one network address that meet at one guard are two connections to it, \
         which the guard's defence may refuse. `rustbalance run` has one set of guards for all its \
         instances.\n\
         * OnionBalance takes two introduction points of each daemon. Clients reject a descriptor \
         with more than {} of them, so {} daemons are the most.\n\
         * A daemon that dies stays in the published descriptor until OnionBalance has noticed: up \
         to an hour.\n\
         * The numbers of circuits in the PROXY lines are each daemon's own: two daemons may name \
         two clients alike.\n\
         * Never run this beside another publisher of the same key, such as `rustbalance run`: the \
         two would write over each other's descriptors.\n",
        limits::INTRO_POINTS_MAX,
        limits::CTOR_DAEMONS_MAX,
    );
    text
}

/// Everything in one directory, started by hand.
fn here(stack: &Stack<'_>) -> String {
    let root = shell(&stack.layout.root.to_string_lossy());
    let mut text = String::from(
        "| file | what |\n|---|---|\n\
         | `torrc.1` ... | one daemon each; its keys and state are in `tor.1` ... |\n\
         | `torrc.publisher` | the tor that OnionBalance works through |\n\
         | `onionbalance/` | OnionBalance's configuration, and the master keys |\n\
         | `haproxy.cfg` | from the daemons' sockets to the backends |\n\n\
         It needs tor, OnionBalance and HAProxy: `apt-get install tor onionbalance haproxy`, and \
         runs as the user who owns this directory.\n\n## Start\n\n```sh\n",
    );
    let _ = writeln!(text, "cd {root}");
    text.push_str("haproxy -D -p run/haproxy.pid -f haproxy.cfg\n");
    for (index, cpu) in stack.cpus.iter().enumerate() {
        let _ = writeln!(text, "taskset -c {cpu} tor --quiet -f torrc.{}", index + 1);
    }
    text.push_str(
        "tor --quiet -f torrc.publisher\n\
         # OnionBalance ends at once where its tor has no consensus yet.\n\
         until grep -q 'Bootstrapped 100%' tor.publisher/notice.log; do sleep 1; done\n",
    );
    let testnet = if is_testing(stack.extra) { " --is-testnet" } else { "" };
    let _ = write!(
        text,
        "nohup onionbalance{testnet} --socket tor.publisher/control \\\n    \
         --config onionbalance/config.yaml > onionbalance/log 2>&1 < /dev/null &\n\
         echo $! > onionbalance/pid\n```\n\n"
    );
    text.push_str(
        "The address answers some minutes later, when OnionBalance has fetched the daemons' \
         descriptors. `tor.1/notice.log` ... and `onionbalance/log` say how far it is, and \
         `run/onionbalance.sock` tells OnionBalance's status to whoever connects.\n\n\
         ## Stop\n\n```sh\n",
    );
    let _ = write!(
        text,
        "cd {root}\nkill $(cat tor.*/pid run/haproxy.pid)\n\
         # It keeps nothing on disk, and does not always end at SIGTERM (0.2.2).\n\
         kill -KILL $(cat onionbalance/pid)\n```\n"
    );
    text
}

/// Everything where Debian's packages look.
fn debian(stack: &Stack<'_>) -> String {
    let root = shell(&stack.layout.root.to_string_lossy());
    let names: Vec<String> = (1..=stack.cpus.len()).map(Layout::daemon).collect();
    let units: Vec<String> = names.iter().map(|name| format!("tor@{name}")).collect();
    let (names, units) = (names.join(" "), units.join(" "));
    let mut text = String::from(
        "The directories here are those of a Debian system with `apt-get install tor onionbalance \
         haproxy`. `tor@default`, which that starts, is the tor that OnionBalance works \
         through.\n\n## Install\n\nAs root; `-b` keeps what was there before, with a `~` behind \
         its name:\n\n```sh\n",
    );
    let _ = write!(
        text,
        "cd {root}\nfor n in {names}; do\n    tor-instance-create \"$n\"\n    \
         install -b -m 0644 \"etc/tor/instances/$n/torrc\" \"/etc/tor/instances/$n/torrc\"\n    \
         cp -R \"var/lib/tor-instances/$n/.\" \"/var/lib/tor-instances/$n/\"\n    \
         chown -R \"_tor-$n:_tor-$n\" \"/var/lib/tor-instances/$n\"\n    \
         install -D -m 0644 \"etc/systemd/system/tor@$n.service.d/rustbalance.conf\" \\\n        \
         \"/etc/systemd/system/tor@$n.service.d/rustbalance.conf\"\ndone\n\
         install -b -m 0644 etc/haproxy/haproxy.cfg /etc/haproxy/haproxy.cfg\n\
         install -b -m 0644 etc/onionbalance/config.yaml /etc/onionbalance/config.yaml\n"
    );
    for service in stack.services {
        let key = Layout::key_name(&service.name);
        let _ = writeln!(
            text,
            "install -m 0600 -o onionbalance -g onionbalance \\\n    etc/onionbalance/{key} \
             /etc/onionbalance/{key}"
        );
    }
    let _ = write!(
        text,
        "```\n\n## Start\n\n```sh\nsystemctl daemon-reload\nsystemctl restart haproxy\n\
         systemctl enable --now {units}\nsystemctl restart onionbalance\n```\n\n\
         The address answers some minutes later, when OnionBalance has fetched the daemons' \
         descriptors. `journalctl -u {units}` and `/var/log/onionbalance/log` say how far it is. \
         OnionBalance ends at once where `tor@default` has no consensus yet: start it again then. \
         Afterwards remove this directory, or keep it where keys are kept.\n\n\
         ## Stop\n\n```sh\nsystemctl disable --now {units}\nsystemctl stop onionbalance\n```\n",
        units = units,
    );
    text
}

/// Whether the operator's lines make it a network of their own, which OnionBalance has to know.
fn is_testing(extra: &str) -> bool {
    extra.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|word| word.eq_ignore_ascii_case("TestingTorNetwork"))
            && words.next() == Some("1")
    })
}

#[cfg(test)]
mod tests {
    use super::{is_testing, json, shell};

    #[test]
    fn words_are_quoted_for_their_readers() {
        assert_eq!(shell("/srv/a-b.c"), "/srv/a-b.c");
        assert_eq!(shell("/a b'c"), "'/a b'\\''c'");
        assert_eq!(json("/a \"b\""), "\"/a \\\"b\\\"\"");
    }

    #[test]
    fn a_network_of_ones_own_is_seen() {
        assert!(is_testing("# a\nTestingTorNetwork 1\n"));
        assert!(!is_testing("TestingTorNetwork 0\n#TestingTorNetwork 1"));
    }
}
