//! `haproxy.cfg` for a generated stack: what the `[[service.port]]`s say, in HAProxy's words.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::Stack;
use super::layout::Layout;
use crate::config::Service;
use crate::plane::config::{
    BackendAddress, BackendConfig, Balance, CheckConfig, CheckRequest, PortConfig, PortTarget,
    ProxyProtocol, Verdict,
};

/// HAProxy's timers end at 2^31 ms; it has no word for "never" that it does not warn of.
const NEVER: &str = "24d";

/// The whole file; what it cannot say is refused, or a warning where it is no loss of safety.
pub(super) fn text(stack: &Stack<'_>, warnings: &mut Vec<String>) -> Result<String, Vec<String>> {
    let mut text = String::from("# Made by `rustbalance ctor generate`.\n");
    text.push_str(&global(stack));
    text.push_str("defaults\n  mode tcp\n");
    let mut problems = Vec::new();
    for service in stack.services {
        for port in &service.ports {
            let name = format!("{}-{}", service.name, port.virtual_first);
            match backends(&name, port, warnings) {
                Ok(backends) => section(&mut text, &name, stack, service, port, &backends),
                Err(problem) => problems.push(problem),
            }
        }
        if service.circuit_limits.streams.is_some() || service.circuit_limits.bytes.is_some() {
            warnings.push(format!(
                "service \"{}\": rates of a circuit are not limited, as HAProxy in its TCP mode \
                 cannot tell daemons' circuits apart",
                service.name
            ));
        }
    }
    if problems.is_empty() { Ok(text) } else { Err(problems) }
}

/// What is the process's own; systemd and Debian's package want more of it.
fn global(stack: &Stack<'_>) -> String {
    if !stack.layout.debian {
        return String::from("global\n\n");
    }
    let mut text = String::from(
        "global\n  log /dev/log local0\n  user haproxy\n  group haproxy\n  daemon\n  \
         stats socket /run/haproxy/admin.sock mode 660 level admin\n",
    );
    let ports = || stack.services.iter().flat_map(|service| &service.ports);
    let unix = ports().any(|port| match &port.target {
        PortTarget::Backends(backends) => {
            backends.iter().any(|backend| matches!(backend.address, BackendAddress::Unix(_)))
        }
        PortTarget::Hello => false,
    });
    // In there no backend's socket would be found.
    if !unix {
        text.push_str("  chroot /var/lib/haproxy\n");
    }
    text.push('\n');
    text
}

/// The backends of a port that HAProxy can have.
fn backends(
    name: &str,
    port: &PortConfig,
    warnings: &mut Vec<String>,
) -> Result<Vec<BackendConfig>, String> {
    let PortTarget::Backends(backends) = &port.target else {
        return Err(format!(
            "{name}: the built-in page is RustBalance's own; give backends for HAProxy to serve"
        ));
    };
    let (normal, lanes): (Vec<BackendConfig>, Vec<BackendConfig>) =
        backends.iter().cloned().partition(|backend| backend.lane == Verdict::Normal);
    if !lanes.is_empty() {
        warnings.push(format!("{name}: backends with a lane are left out: HAProxy has none"));
    }
    let out_of_reach = normal.iter().find_map(|one| match &one.address {
        BackendAddress::Handler(_) => Some((one, "inside of the program that embeds RustBalance")),
        // It would look the address up by DNS.
        BackendAddress::Onion { .. } => Some((one, "an onion service")),
        // Its `abns@` pads the name, which makes it another; `abnsz@` is of version 3.1.
        BackendAddress::UnixAbstract(_) => Some((one, "an abstract socket")),
        _ => None,
    });
    match out_of_reach {
        Some((backend, what)) => Err(format!(
            "{name}: {} is {what}, which HAProxy cannot reach; give addresses",
            backend.address
        )),
        None if normal.is_empty() => {
            Err(format!("{name}: there is no backend without a lane; give one"))
        }
        None => Ok(normal),
    }
}

/// One `listen` section.
fn section(
    text: &mut String,
    name: &str,
    stack: &Stack<'_>,
    service: &Service,
    port: &PortConfig,
    backends: &[BackendConfig],
) {
    let _ = writeln!(text, "\nlisten {name}");
    for number in 1..=stack.cpus.len() {
        let socket = stack.layout.socket(number, &service.name, port.virtual_first);
        let owner = match stack.layout.debian {
            true => format!(" user _tor-{}", Layout::daemon(number)),
            false => String::new(),
        };
        let _ = writeln!(text, "  bind {} mode 600{owner} accept-proxy", unix(&socket));
    }
    let balance = match port.balance {
        Balance::RoundRobin => "roundrobin",
        Balance::LeastConnections => "leastconn",
        Balance::RandomTwo => "random(2)",
        // The address in the PROXY line is the circuit.
        Balance::Circuit => "source",
    };
    let idle = port.idle_timeout.map_or_else(|| NEVER.to_owned(), milliseconds);
    let (connect, queue, fin) = (
        milliseconds(port.connect_timeout),
        milliseconds(port.queue_timeout),
        milliseconds(port.half_close_timeout),
    );
    let _ = write!(
        text,
        "  balance {balance}\n  option redispatch\n  retries 3\n  timeout connect {connect}\n  \
         timeout queue {queue}\n  timeout client {idle}\n  timeout server {idle}\n  \
         timeout client-fin {fin}\n  timeout server-fin {fin}\n"
    );
    if let Some(check) = &port.check {
        write_check(text, check);
    }
    for (index, backend) in backends.iter().enumerate() {
        let _ = writeln!(text, "  {}", server(index + 1, backend, port));
    }
}

/// How the servers of a section are checked.
fn write_check(text: &mut String, check: &CheckConfig) {
    let _ = writeln!(text, "  timeout check {}", milliseconds(check.timeout));
    if let CheckRequest::Http { path, host } = &check.request {
        let (path, host) = (quoted(path), quoted(host));
        let _ = write!(
            text,
            "  option httpchk\n  \
             http-check send meth GET uri {path} ver HTTP/1.1 hdr Host {host}\n  \
             http-check expect rstatus ^[23]\n"
        );
    }
}

/// A `server` line.
fn server(number: usize, backend: &BackendConfig, port: &PortConfig) -> String {
    let address = match &backend.address {
        BackendAddress::Unix(path) => unix(path),
        other => other.to_string(),
    };
    let mut line = format!("server backend{number} {address} weight {}", backend.weight);
    if let Some(connections) = backend.connections_max {
        let _ = write!(line, " maxconn {connections} maxqueue {}", port.queue_max);
    }
    if backend.backup {
        line.push_str(" backup");
    }
    match port.proxy_protocol {
        Some(ProxyProtocol::V1) => line.push_str(" send-proxy"),
        Some(ProxyProtocol::V2) => line.push_str(" send-proxy-v2"),
        None => {}
    }
    if let Some(check) = &port.check {
        let interval = milliseconds(check.interval);
        let _ = write!(line, " check inter {interval} rise {} fall {}", check.rise, check.fall);
        if !port.slow_start.is_zero() {
            let _ = write!(line, " slowstart {}", milliseconds(port.slow_start));
        }
    }
    line
}

/// A duration as HAProxy reads it.
fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// A unix socket as HAProxy reads it.
fn unix(path: &Path) -> String {
    quoted(&format!("unix@{}", path.display()))
}

/// A word as HAProxy reads it (section 2.2 of its manual).
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/@._-:+=?&".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    // Within strong quotes everything is itself but their end.
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_with_something_in_them_are_quoted() {
        assert_eq!(quoted("unix@/run/a.sock"), "unix@/run/a.sock");
        assert_eq!(quoted("/a b#$c\"d'e"), "'/a b#$c\"d'\\''e'");
        assert_eq!(quoted(""), "''");
    }
}
