//! The network itself: authorities, relays, and the consensus that they agree on.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use crate::control::{Control, ControlAddress};
use crate::keeper::Keeper;
use crate::namespaces::Namespaces;
use crate::node::{self, Side};
use crate::wait::{Progress, last_lines, wait_until};
use crate::{LabOptions, Record};

/// Authorities of every lab.
const AUTHORITIES: usize = 3;

/// Ports of every relay: each has an address of its own.
const OR_PORT: u16 = 5000;
/// See [`OR_PORT`].
const DIR_PORT: u16 = 7000;

/// The control socket of every node, in its directory: reachable from any namespace.
const CONTROL: &str = "control";

/// Longest wait for the first consensus that has every node.
const CONSENSUS_SECONDS_MAX: u64 = 120;

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

    /// Circuits that its DoS defence has refused since it started.
    ///
    /// # Errors
    /// When it does not tell within a few seconds.
    pub fn circuits_refused(&self) -> Result<u64> {
        const TELLS: &str = "DoS mitigation since startup";
        let reports = || -> Vec<String> {
            let log = std::fs::read_to_string(node::log(&self.dir)).unwrap_or_default();
            log.lines().filter(|line| line.contains(TELLS)).map(str::to_owned).collect()
        };
        let before = reports().len();
        let mut tor = Control::connect(&ControlAddress::Unix(self.dir.join(CONTROL)))?;
        tor.command("SIGNAL HEARTBEAT")?;
        let line = wait_until("the relay's report", 10, || reports().get(before).cloned())?;
        let (head, _) =
            line.split_once(" circuits rejected").context("a report of another form")?;
        let number = head.rsplit(' ').next().unwrap_or_default();
        number.parse().with_context(|| format!("no number in {line:?}"))
    }

    /// Stop it at once.
    pub(crate) fn stop(&self) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.nickname))?;
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
        wait_until("the relay ends", 10, || self.pid().is_none().then_some(()))
    }

    /// Start it again.
    pub(crate) fn start(&self, keeper: &Keeper, namespaces: Option<&Namespaces>) -> Result<()> {
        let mut child = node::start(keeper, namespaces, Side::Relays, &self.dir)?;
        node::wait_for_log(&self.dir, &mut child, "Bootstrapped 100%", 60)
    }
}

/// Make all nodes, start them, and wait until a consensus has them all.
pub(crate) fn bring_up(
    dir: &Path,
    keeper: &Keeper,
    options: &LabOptions,
    namespaces: Option<Namespaces>,
) -> Result<Record> {
    let mut progress = Progress::new("lab", 25, options.quiet);
    progress.tell("making keys");
    let mut relays = plan(dir, options, namespaces.as_ref())?;
    make_authority_keys(&relays)?;
    let own: Vec<String> = relays.iter().map(|relay| own_torrc(relay, options)).collect();
    learn_identities(&mut relays, &own)?;
    let dir_authorities = dir_authority_lines(&relays);
    let mut children = Vec::new();
    for (relay, own) in relays.iter().zip(&own) {
        node::write_torrc(&relay.dir, &format!("{own}{dir_authorities}"))?;
        children.push(node::start(keeper, namespaces.as_ref(), Side::Relays, &relay.dir)?);
    }
    wait_for_consensus(&relays, &mut children, &mut progress)?;
    progress.done(&format!("{} relays in the consensus", relays.len()));
    Ok(Record {
        size: options.size,
        relays,
        dir_authorities,
        namespaces,
        holder: std::process::id(),
    })
}

/// Names, addresses and directories of all nodes, authorities first.
fn plan(dir: &Path, options: &LabOptions, namespaces: Option<&Namespaces>) -> Result<Vec<Relay>> {
    // Each relay in a /16 of its own, so that subnet rules hold as they do in life; the third
    // number tells labs that run side by side apart.
    let third: u8 = rand::rng().random_range(1..=250);
    let total = AUTHORITIES + options.size.relays();
    let mut relays = Vec::new();
    for number in 0..total {
        let authority = number < AUTHORITIES;
        let nickname = match authority {
            true => format!("auth{number}"),
            false => format!("relay{}", number - AUTHORITIES),
        };
        let address = match namespaces {
            Some(namespaces) => namespaces.add_relay_address(number)?,
            None => format!("127.{}.{third}.1", 20 + number),
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
fn own_torrc(relay: &Relay, options: &LabOptions) -> String {
    let Relay { nickname, address, .. } = relay;
    let control = relay.dir.join(CONTROL).display().to_string();
    let mut text = format!(
        "Nickname {nickname}\nAddress {address}\nORPort {address}:{OR_PORT}\n\
         DirPort {address}:{DIR_PORT}\nControlPort unix:{control}\nAssumeReachable 1\n\
         SocksPort 0\nContactInfo lab@example\nExitRelay 1\nExitPolicy accept *:*\n\
         ExitPolicyRejectPrivate 0\nMaxMemInQueues 512 MB\n"
    );
    if options.netns {
        let _ = writeln!(text, "OutboundBindAddress {address}");
    }
    if relay.v3ident.is_some() {
        text.push_str(
            "AuthoritativeDirectory 1\nV3AuthoritativeDirectory 1\n\
             TestingV3AuthInitialVotingInterval 20\nTestingV3AuthInitialVoteDelay 4\n\
             TestingV3AuthInitialDistDelay 4\nV3AuthVotingInterval 20\nV3AuthVoteDelay 4\n\
             V3AuthDistDelay 4\nAuthDirFastGuarantee 1KB\n",
        );
        let _ = writeln!(text, "ConsensusParams {}", consensus_params(options));
    }
    text
}

/// The consensus's parameters.
fn consensus_params(options: &LabOptions) -> String {
    // 24 voting intervals of 20 s are 8 minutes: C tor derives the length of a time period from
    // them on a testing network, arti reads it here.
    let mut params = vec![("hsdir_interval".to_owned(), 8)];
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

/// Have each tor make its keys, and read what they are.
fn learn_identities(relays: &mut [Relay], own: &[String]) -> Result<()> {
    // For this call alone any authority will do.
    let dummy = format!(
        "DirAuthority dummy orport={OR_PORT} no-v2 v3ident={} 127.0.0.1:{DIR_PORT} {}\n",
        "0".repeat(39) + "1",
        "0".repeat(39) + "2"
    );
    let mut running = Vec::new();
    for (relay, own) in relays.iter().zip(own) {
        let torrc = node::write_torrc(&relay.dir, &format!("{own}{dummy}"))?;
        let child = Command::new("tor")
            .args(["--list-fingerprint", "--hush", "-f"])
            .arg(torrc)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start tor")?;
        running.push(child);
    }
    for (relay, child) in relays.iter_mut().zip(running) {
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().unwrap_or_default();
        let (_, fingerprint) =
            last.split_once(' ').with_context(|| format!("no fingerprint from tor: {text}"))?;
        relay.fingerprint = fingerprint.replace(' ', "");
        let ed25519 = std::fs::read_to_string(relay.dir.join("fingerprint-ed25519"))?;
        relay.ed25519 = ed25519.split_whitespace().nth(1).unwrap_or_default().to_owned();
        if let Some(v3ident) = &mut relay.v3ident {
            let path = relay.dir.join("keys/authority_certificate");
            let certificate = std::fs::read_to_string(path)?;
            let line = certificate.lines().find_map(|line| line.strip_prefix("fingerprint "));
            *v3ident = line.context("no fingerprint in the certificate")?.to_owned();
        }
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

/// Wait until the first authority has a consensus with every node in it.
fn wait_for_consensus(
    relays: &[Relay],
    children: &mut [Child],
    progress: &mut Progress,
) -> Result<()> {
    let path = relays[0].dir.join("cached-microdesc-consensus");
    let died = |children: &mut [Child]| {
        children.iter_mut().position(|child| child.try_wait().ok().flatten().is_some())
    };
    let found = wait_until("a consensus with every relay", CONSENSUS_SECONDS_MAX, || {
        if let Some(index) = died(children) {
            return Some(Err(index));
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let listed = text.lines().filter(|line| line.starts_with("r ")).count();
        progress.tell(&format!("{listed} of {} relays in the consensus", relays.len()));
        (listed == relays.len()).then_some(Ok(()))
    });
    let log = |index: usize| last_lines(&node::log(&relays[index].dir), 8);
    match found {
        Ok(Ok(())) => Ok(()),
        Ok(Err(index)) => bail!("{} ended:\n{}", relays[index].nickname, log(index)),
        Err(error) => Err(error.context(log(0))),
    }
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
