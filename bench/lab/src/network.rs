//! The network itself: authorities, relays, and the consensus that they agree on.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use crate::LabOptions;
use crate::keeper::Keeper;
use crate::namespaces::Namespaces;
use crate::node::{self, Side};
use crate::wait::{Progress, last_lines, wait_until};

/// Authorities of every lab.
const AUTHORITIES: usize = 3;

/// Ports of every relay: each has an address of its own.
const OR_PORT: u16 = 5000;
/// See [`OR_PORT`].
const DIR_PORT: u16 = 7000;
/// See [`OR_PORT`].
const CONTROL_PORT: u16 = 5100;

/// Longest wait for the first consensus that has every node.
const CONSENSUS_SECONDS_MAX: u64 = 120;

/// Longest wait for the relays to publish.
const DESCRIPTORS_SECONDS_MAX: u64 = 90;

/// A relay or authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// Its nickname.
    pub nickname: String,
    /// Its address, without a port.
    pub address: String,
    /// Its RSA identity, 40 hexadecimal digits.
    pub fingerprint: String,
    /// Its ed25519 identity in base64, unpadded.
    pub ed25519: String,
    /// For an authority, the fingerprint of its v3 identity.
    pub v3ident: Option<String>,
    /// Its files.
    pub dir: PathBuf,
}

impl Relay {
    /// Where it takes links.
    pub fn or_address(&self) -> String {
        format!("{}:{OR_PORT}", self.address)
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        let pid = std::fs::read_to_string(self.dir.join("pid")).ok()?.trim().parse().ok()?;
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        command.contains(&*self.dir.to_string_lossy()).then_some(pid)
    }

    /// Stop it at once.
    pub(crate) fn stop(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        wait_until("the relay ends", 10, || self.pid().is_none().then_some(()))
    }

    /// Send it a signal.
    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.nickname))?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid)?), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.nickname))
    }

    /// Start it again.
    pub(crate) fn start(&self, keeper: &Keeper, namespaces: Option<&Namespaces>) -> Result<()> {
        let mut child = node::start(keeper, namespaces, Side::Relays, &self.dir)?;
        node::wait_for_log(&self.dir, &mut child, "Bootstrapped 100%", 60)
    }
}

/// A network that has its first consensus.
pub(crate) struct Network {
    /// Its nodes, authorities first.
    pub(crate) relays: Vec<Relay>,
    /// The `DirAuthority` lines.
    pub(crate) dir_authorities: String,
}

/// When the authorities vote for the first time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FirstVote {
    /// Not before the relays have published: a relay that misses the first vote waits for the next.
    Later,
    /// At the next boundary of a voting interval.
    Now,
}

/// Make all nodes, start them, and wait until a consensus has them all.
pub(crate) fn bring_up(
    dir: &Path,
    keeper: &Keeper,
    options: &LabOptions,
    namespaces: Option<&Namespaces>,
) -> Result<Network> {
    let interval = options.voting_interval();
    let fits = interval.is_multiple_of(5) && 1800_u16.is_multiple_of(interval);
    if interval < 15 || !fits {
        bail!("a voting interval of {interval} s: take 15, 20, 25, 30, 45, 50, 60, 75, 90 ... s");
    }
    let mut progress = Progress::new("lab", u64::from(interval), options.quiet);
    progress.tell("making keys");
    let mut relays = plan(dir, options, namespaces)?;
    make_authority_keys(&relays)?;
    make_identities(&relays, options)?;
    relays.iter_mut().filter(|relay| relay.v3ident.is_some()).try_for_each(read_identities)?;
    let dir_authorities = dir_authority_lines(&relays);
    let torrc = |relay: &Relay, vote: FirstVote| {
        let text = format!("{}{dir_authorities}", own_torrc(relay, options, vote));
        node::write_torrc(&relay.dir, &text)
    };
    let mut children = Vec::new();
    for relay in &relays {
        torrc(relay, FirstVote::Later)?;
        children.push(node::start(keeper, namespaces, Side::Relays, &relay.dir)?);
    }
    let mut nodes = Nodes { relays: &relays, children: &mut children, progress: &mut progress };
    nodes.wait_for_descriptors()?;
    relays.iter_mut().try_for_each(read_identities)?;
    for relay in relays.iter().filter(|relay| relay.v3ident.is_some()) {
        torrc(relay, FirstVote::Now)?;
        relay.signal(Signal::SIGHUP)?;
    }
    let mut nodes = Nodes { relays: &relays, children: &mut children, progress: &mut progress };
    nodes.wait_for_consensus()?;
    progress.done(&format!("{} relays in the consensus", relays.len()));
    Ok(Network { relays, dir_authorities })
}

/// Names, addresses and directories of all nodes, authorities first.
fn plan(dir: &Path, options: &LabOptions, namespaces: Option<&Namespaces>) -> Result<Vec<Relay>> {
    let total = AUTHORITIES + options.size.relays();
    let (third, fourth) = match namespaces {
        Some(_) => (0, 1),
        None => free_addresses(total)?,
    };
    let mut relays = Vec::new();
    for number in 0..total {
        let authority = number < AUTHORITIES;
        let nickname = match authority {
            true => format!("auth{number}"),
            false => format!("relay{}", number - AUTHORITIES),
        };
        let address = match namespaces {
            Some(namespaces) => namespaces.add_relay_address(number)?,
            None => loopback_address(number, third, fourth),
        };
        let dir = dir.join(&nickname);
        node::make_directory(&dir)?;
        node::make_directory(&dir.join("keys"))?;
        relays.push(Relay {
            nickname,
            address,
            fingerprint: String::new(),
            ed25519: String::new(),
            v3ident: authority.then(String::new),
            dir,
        });
    }
    Ok(relays)
}

/// The address of a relay on loopback: in a /16 of its own, so that subnet rules hold as they do in
/// life. The last two numbers tell labs that run side by side apart.
fn loopback_address(number: usize, third: u8, fourth: u8) -> String {
    format!("127.{}.{third}.{fourth}", 20 + number)
}

/// The last two numbers of addresses that nobody listens on.
fn free_addresses(total: usize) -> Result<(u8, u8)> {
    for _ in 0..100 {
        let third = rand::rng().random_range(1..=250);
        let fourth = rand::rng().random_range(1..=250);
        let free = |number: usize| {
            let address = loopback_address(number, third, fourth);
            [OR_PORT, DIR_PORT, CONTROL_PORT]
                .iter()
                .all(|port| TcpListener::bind((address.as_str(), *port)).is_ok())
        };
        if (0..total).all(free) {
            return Ok((third, fourth));
        }
    }
    bail!("something listens on ports {OR_PORT}, {DIR_PORT} or {CONTROL_PORT} of every address")
}

/// Make the keys of all authorities, at the same time.
fn make_authority_keys(relays: &[Relay]) -> Result<()> {
    let mut running: Vec<(&Relay, Child)> = Vec::new();
    for relay in relays.iter().filter(|relay| relay.v3ident.is_some()) {
        let keys = relay.dir.join("keys");
        let mut child = Command::new("tor-gencert")
            .args(["--create-identity-key", "--passphrase-fd", "0", "-m", "12"])
            .args(["-a", &format!("{}:{DIR_PORT}", relay.address)])
            .arg("-i")
            .arg(keys.join("authority_identity_key"))
            .arg("-s")
            .arg(keys.join("authority_signing_key"))
            .arg("-c")
            .arg(keys.join("authority_certificate"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start tor-gencert")?;
        if let Some(mut stdin) = child.stdin.take() {
            std::io::Write::write_all(&mut stdin, b"\n")?;
        }
        running.push((relay, child));
    }
    for (relay, mut child) in running {
        if !child.wait()?.success() {
            bail!("tor-gencert failed for {}", relay.nickname);
        }
    }
    Ok(())
}

/// What is in this node's torrc alone.
fn own_torrc(relay: &Relay, options: &LabOptions, first_vote: FirstVote) -> String {
    let Relay { nickname, address, .. } = relay;
    let mut text = format!(
        "Nickname {nickname}\nAddress {address}\nORPort {address}:{OR_PORT}\n\
         DirPort {address}:{DIR_PORT}\nControlPort {address}:{CONTROL_PORT}\nAssumeReachable 1\n\
         SocksPort 0\nContactInfo lab@example\nExitRelay 1\nExitPolicy accept *:*\n\
         ExitPolicyRejectPrivate 0\nMaxMemInQueues 512 MB\n\
         GeoIPFile /dev/null\nGeoIPv6File /dev/null\n"
    );
    if options.netns {
        let _ = writeln!(text, "OutboundBindAddress {address}");
    }
    if relay.v3ident.is_some() {
        // The first consensus begins at a boundary of the later interval: C tor learns the length
        // of a time period from how long a consensus is fresh.
        let interval = options.voting_interval();
        let initial = match first_vote {
            FirstVote::Later => 1800,
            FirstVote::Now => interval,
        };
        let _ = write!(
            text,
            "AuthoritativeDirectory 1\nV3AuthoritativeDirectory 1\n\
             TestingV3AuthInitialVotingInterval {initial}\nTestingV3AuthInitialVoteDelay 2\n\
             TestingV3AuthInitialDistDelay 2\nV3AuthVotingInterval {interval}\n\
             V3AuthVoteDelay 4\nV3AuthDistDelay 4\nAuthDirFastGuarantee 1KB\n",
        );
        let _ = writeln!(text, "ConsensusParams {}", consensus_params(options));
    }
    text
}

/// The consensus's parameters.
fn consensus_params(options: &LabOptions) -> String {
    // 24 voting intervals of 20 s are 8 minutes: C tor derives the length of a time period from
    // them on a testing network, arti reads it here.
    let hsdir_interval = i64::from(options.voting_interval()) * 24 / 60;
    let mut params = vec![("hsdir_interval".to_owned(), hsdir_interval)];
    if options.netns {
        // The public network's, without which nobody meets the guards' DoS defence.
        params.extend(
            [
                ("DoSCircuitCreationEnabled", 1),
                ("DoSCircuitCreationMinConnections", 2),
                ("DoSCircuitCreationRate", 2),
                ("DoSCircuitCreationBurst", 60),
                ("DoSConnectionEnabled", 1),
                ("DoSConnectionMaxConcurrentCount", 50),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
    }
    params.extend(options.extra_params.iter().cloned());
    let one = |(name, value): &(String, i64)| format!("{name}={value}");
    params.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Have the authorities make their keys, since everybody's torrc names them.
fn make_identities(relays: &[Relay], options: &LabOptions) -> Result<()> {
    // For this call alone any authority will do.
    let dummy = format!(
        "DirAuthority dummy orport={OR_PORT} no-v2 v3ident={} 127.0.0.1:{DIR_PORT} {}\n",
        "0".repeat(39) + "1",
        "0".repeat(39) + "2"
    );
    let mut running = Vec::new();
    for relay in relays.iter().filter(|relay| relay.v3ident.is_some()) {
        let own = own_torrc(relay, options, FirstVote::Later);
        let torrc = node::write_torrc(&relay.dir, &format!("{own}{dummy}"))?;
        let child = Command::new("tor")
            .args(["--list-fingerprint", "--hush", "-f"])
            .arg(torrc)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start tor")?;
        running.push((relay, child));
    }
    for (relay, child) in running {
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("tor makes no keys for {}:\n{error}", relay.nickname);
        }
    }
    Ok(())
}

/// Read a node's identities, which tor has written down when it made them.
fn read_identities(relay: &mut Relay) -> Result<()> {
    // Each file: the nickname, then the identity.
    let identity = |file: &str| -> Result<String> {
        let path = relay.dir.join(file);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let words = text.split_whitespace().skip(1);
        Ok(words.collect())
    };
    let (fingerprint, ed25519) = (identity("fingerprint")?, identity("fingerprint-ed25519")?);
    (relay.fingerprint, relay.ed25519) = (fingerprint, ed25519);
    if let Some(v3ident) = &mut relay.v3ident {
        let path = relay.dir.join("keys/authority_certificate");
        let certificate = std::fs::read_to_string(path)?;
        let line = certificate.lines().find_map(|line| line.strip_prefix("fingerprint "));
        *v3ident = line.context("no fingerprint in the certificate")?.to_owned();
    }
    Ok(())
}

/// The lines by which every node knows the authorities.
fn dir_authority_lines(relays: &[Relay]) -> String {
    let line = |relay: &Relay| {
        let v3ident = relay.v3ident.as_ref()?;
        Some(format!(
            "DirAuthority {} orport={OR_PORT} no-v2 v3ident={v3ident} {}:{DIR_PORT} {}\n",
            relay.nickname, relay.address, relay.fingerprint
        ))
    };
    relays.iter().filter_map(line).collect()
}

/// Nodes that are coming up.
struct Nodes<'a> {
    /// Them.
    relays: &'a [Relay],
    /// Their processes.
    children: &'a mut [Child],
    /// What people see.
    progress: &'a mut Progress,
}

impl Nodes<'_> {
    /// Wait until every authority has the descriptor of every relay.
    fn wait_for_descriptors(&mut self) -> Result<()> {
        let total = self.relays.len();
        self.wait("descriptors of every relay", DESCRIPTORS_SECONDS_MAX, |relays, progress| {
            let authorities = relays.iter().filter(|relay| relay.v3ident.is_some());
            let have = authorities.map(known_descriptors).min().unwrap_or_default();
            progress.tell(&format!("{have} of {total} relays known to every authority"));
            have >= total
        })
    }

    /// Wait until every authority has a consensus with every node in it.
    fn wait_for_consensus(&mut self) -> Result<()> {
        let total = self.relays.len();
        self.wait("a consensus with every relay", CONSENSUS_SECONDS_MAX, |relays, progress| {
            let authorities = relays.iter().filter(|relay| relay.v3ident.is_some());
            let have = authorities.map(listed_relays).min().unwrap_or_default();
            progress.tell(&format!("{have} of {total} relays in the consensus"));
            have == total
        })
    }

    /// Wait for a condition, but not for nodes that have ended.
    fn wait(
        &mut self,
        what: &str,
        seconds: u64,
        condition: impl Fn(&[Relay], &mut Progress) -> bool,
    ) -> Result<()> {
        let (relays, progress) = (self.relays, &mut *self.progress);
        let children = &mut *self.children;
        let found = wait_until(what, seconds, || {
            let ended = |child: &mut Child| child.try_wait().ok().flatten().is_some();
            if let Some(index) = children.iter_mut().position(ended) {
                return Some(Err(index));
            }
            condition(relays, progress).then_some(Ok(()))
        });
        let log = |index: usize| last_lines(&node::log(&relays[index].dir), 8);
        match found {
            Ok(Ok(())) => Ok(()),
            Ok(Err(index)) => bail!("{} ended:\n{}", relays[index].nickname, log(index)),
            Err(error) => Err(error.context(log(0))),
        }
    }
}

/// How many relays' descriptors an authority has: each is in its journal, its own among them.
fn known_descriptors(authority: &Relay) -> usize {
    let path = authority.dir.join("cached-descriptors.new");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let names = text.lines().filter_map(|line| line.strip_prefix("router ")?.split(' ').next());
    names.collect::<std::collections::HashSet<_>>().len()
}

/// How many relays are in an authority's consensus.
fn listed_relays(authority: &Relay) -> usize {
    let path = authority.dir.join("cached-microdesc-consensus");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter(|line| line.starts_with("r ")).count()
}

/// arti's tables for these relays.
pub(crate) fn arti_toml(relays: &[Relay]) -> String {
    let cache = |relay: &Relay| {
        format!(
            "  {{ rsa_identity = \"{}\", ed_identity = \"{}\", orports = [\"{}\"] }},\n",
            relay.fingerprint,
            relay.ed25519,
            relay.or_address()
        )
    };
    let caches: String = relays.iter().map(cache).collect();
    let authorities: Vec<&Relay> = relays.iter().filter(|one| one.v3ident.is_some()).collect();
    let idents: Vec<_> = authorities.iter().filter_map(|one| one.v3ident.clone()).collect();
    let dirs: Vec<_> =
        authorities.iter().map(|one| vec![format!("{}:{DIR_PORT}", one.address)]).collect();
    format!(
        "[arti.tor_network]\nfallback_caches = [\n{caches}]\n\n\
         [arti.tor_network.authorities]\nv3idents = {idents:?}\nuploads = {dirs:?}\n\
         downloads = {dirs:?}\n\n\
         [arti.address_filter]\nallow_local_addrs = true\n\n\
         # arti learns a circuit timeout of about 10 ms on loopback, and bursts fail.\n\
         [arti.override_net_params]\ncbtmintimeout = 2000\n"
    )
}
