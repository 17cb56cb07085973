//! Backends, balancing, queues and health checks.

use std::time::Duration;

use super::{MINIMAL, good, problem};
use crate::config::explain::explain;
use crate::plane::config::{
    BackendAddress, BackendConfig, Balance, CheckConfig, CheckRequest, ListenConfig, OverLimit,
    PortConfig, PortTarget, ProxyProtocol, Rate, Verdict,
};

/// The one port of a minimal configuration with these lines below it.
fn port(lines: &str) -> PortConfig {
    good(&format!("{MINIMAL}{lines}\n")).services[0].ports[0].clone()
}

#[test]
fn a_port_without_more_has_the_defaults_of_the_library() {
    let port = port("");
    let again = PortConfig::new(80, port.target.clone());
    assert_eq!(port, again);
    let PortTarget::Backends(backends) = &port.target else { panic!("backends") };
    assert_eq!(*backends, [BackendConfig::from(backends[0].address.clone())]);
}

#[test]
fn every_way_to_balance_has_its_name_and_others_are_refused() {
    for (name, balance) in Balance::NAMES {
        assert_eq!(port(&format!("balance = \"{name}\"")).balance, balance);
    }
    let text = format!("{MINIMAL}balance = \"leastconn\"\n");
    let sentence = problem(&text, 5, "service[0].port[0].balance");
    assert!(sentence.contains("least_connections"), "{sentence}");
}

#[test]
fn backends_have_weights_limits_and_stand_ins() {
    let backends = "backends = [{ address = \"127.0.0.1:80\", weight = 3, connections_max = 9 }, \
                    { address = \"127.0.0.1:81\", backup = true }]";
    let text = MINIMAL.replace("backends = [\"127.0.0.1:80\"]", backends);
    let config = good(&text);
    let PortTarget::Backends(found) = &config.services[0].ports[0].target else { panic!() };
    let facts: Vec<_> =
        found.iter().map(|one| (one.weight, one.backup, one.connections_max)).collect();
    assert_eq!(facts, [(3, false, Some(9)), (1, true, None)]);

    for (wrong, key) in [
        ("weight = 0", "weight"),
        ("weight = 101", "weight"),
        ("connections_max = 0", "connections_max"),
    ] {
        let one = format!("{{ address = \"127.0.0.1:80\", {wrong} }}");
        let text = MINIMAL.replace("\"127.0.0.1:80\"", &one);
        problem(&text, 4, &format!("service[0].port[0].backends[0].{key}"));
    }
    let all = MINIMAL.replace("\"127.0.0.1:80\"", "{ address = \"127.0.0.1:80\", backup = true }");
    let sentence = problem(&all, 4, "service[0].port[0].backends");
    assert!(sentence.contains("every backend is a backup"), "{sentence}");
}

#[test]
fn circuits_have_limits_and_verdicts_have_backends() {
    let service = |lines: &str| {
        let text = MINIMAL.replace("[[service]]\n", &format!("[[service]]\n{lines}\n"));
        text.replace(
            "[\"127.0.0.1:80\"]",
            "[\"127.0.0.1:80\", { address = \"127.0.0.1:81\", lane = \"banned\" }]",
        )
    };
    assert!(good(MINIMAL).services[0].circuit_limits.is_none());
    let lines = "streams_per_circuit_per_second = 5\nbytes_per_circuit_per_second = 1000\n\
                 bytes_per_circuit_burst = 1500\nover_limit = \"close\"\n\
                 allow_unknown_ports = true";
    let config = good(&service(lines));
    let limits = &config.services[0].circuit_limits;
    assert_eq!(limits.streams, Some(Rate { per_second: 5, burst: 50 }));
    assert_eq!(limits.bytes, Some(Rate { per_second: 1000, burst: 1500 }));
    assert_eq!((limits.streams_max, limits.over), (None, OverLimit::Close));
    let PortTarget::Backends(backends) = &config.services[0].ports[0].target else {
        panic!("backends")
    };
    assert_eq!([backends[0].lane, backends[1].lane], [Verdict::Normal, Verdict::Banned]);
    let again = good(&explain(&config));
    assert_eq!(again.services[0].circuit_limits.bytes, limits.bytes);
    assert!(again.services[0].circuit_limits.allow_unknown_ports);
    assert!(!good(MINIMAL).services[0].circuit_limits.allow_unknown_ports);
    assert_eq!(again.services[0].ports[0], config.services[0].ports[0]);

    for (wrong, key) in [
        ("streams_per_circuit_per_second = 0", "streams_per_circuit_per_second"),
        ("bytes_per_circuit_burst = 10", "bytes_per_circuit_burst"),
        ("over_limit = \"kill\"", "over_limit"),
        ("allow_unknown_ports = 1", "allow_unknown_ports"),
    ] {
        problem(&service(wrong), 2, &format!("service[0].{key}"));
    }
    let nobody = "{ address = \"127.0.0.1:80\", lane = \"preferred\" }";
    let nobody = MINIMAL.replace("\"127.0.0.1:80\"", nobody);
    let sentence = problem(&nobody, 4, "service[0].port[0].backends");
    assert!(sentence.contains("nothing is said"), "{sentence}");
}

#[test]
fn checks_are_tcp_unless_they_ask_for_something() {
    let tcp = port("[service.port.check]").check.expect("a check");
    let (second, rise, fall) = (Duration::from_secs(1), 2, 3);
    let (interval, timeout) = (2 * second, 2 * second);
    assert_eq!(tcp, CheckConfig { request: CheckRequest::Tcp, interval, timeout, rise, fall });
    let lines = "[service.port.check]\npath = \"/health\"\nhost = \"app\"\ninterval_s = 5\n\
                 timeout_s = 1\nrise = 1\nfall = 9";
    let request = CheckRequest::Http { path: "/health".to_owned(), host: "app".to_owned() };
    let (interval, timeout, rise, fall) = (5 * second, second, 1, 9);
    let expected = CheckConfig { request, interval, timeout, rise, fall };
    assert_eq!(port(lines).check, Some(expected));

    for (wrong, line, key) in [
        ("kind = \"icmp\"", 6, "kind"),
        ("path = \"health\"", 6, "path"),
        ("path = \"/a b\"", 6, "path"),
        ("host = \"a\\r\\nb\"", 6, "host"),
        ("kind = \"tcp\"\npath = \"/\"", 7, "path"),
        ("interval_s = 0", 6, "interval_s"),
        ("rise = 101", 6, "rise"),
    ] {
        let text = format!("{MINIMAL}[service.port.check]\n{wrong}\n");
        problem(&text, line, &format!("service[0].port[0].check.{key}"));
    }
}

#[test]
fn what_is_explained_can_be_read_again_and_means_the_same() {
    let lines = "balance = \"circuit\"\nqueue_max = 7\nqueue_timeout_s = 3\nslow_start_s = 30\n\
                 proxy_protocol = \"v2\"\nidle_timeout_s = 60\nhalf_close_timeout_s = 5\n\
                 [service.port.check]\npath = \"/up\"\n\
                 [[listen]]\naddress = \"unix:front.sock\"\nproxy_protocol = true\n\
                 [[listen]]\naddress = \"[::1]:90\"\nvirtual = 80\nbacklog = 9";
    let config = good(&format!("{MINIMAL}{lines}\n"));
    let port = &config.services[0].ports[0];
    assert_eq!((port.queue_max, port.queue_timeout), (7, Duration::from_secs(3)));
    assert_eq!(port.slow_start, Duration::from_secs(30));
    assert_eq!(port.proxy_protocol, Some(ProxyProtocol::V2));
    let again = good(&explain(&config));
    assert_eq!(again.services[0].ports[0], *port);
    assert_eq!((config.listens.len(), &again.listens), (2, &config.listens));
    assert_eq!(port.idle_timeout, Some(Duration::from_secs(60)));
}

#[test]
fn a_listener_leads_to_a_port_of_a_service() {
    let listen = |lines: &str| format!("{MINIMAL}[[listen]]\n{lines}\n");
    let config = good(&listen("address = \"127.0.0.1:90\"\nvirtual = 80"));
    let expected = ListenConfig {
        address: BackendAddress::Tcp(([127, 0, 0, 1], 90).into()),
        service: "main".to_owned(),
        virtual_port: Some(80),
        proxy_protocol: false,
        backlog: 4096,
    };
    assert_eq!((config.listens, config.warnings), (vec![expected], Vec::new()));
    let open = good(&listen("address = \"192.0.2.1:90\"\nvirtual = 80"));
    assert!(open.warnings[0].contains("past Tor"), "{:?}", open.warnings);

    let at = "address = \"127.0.0.1:90\"";
    for (lines, line, key, says) in [
        ("virtual = 80", 5, "listen[0]", "has no address"),
        ("address = \"localhost:90\"\nvirtual = 80", 6, "listen[0].address", "is two addresses"),
        ("address = \"unix:@front\"\nvirtual = 80", 6, "listen[0].address", "abstract socket"),
        ("address = \"*:90\"\nvirtual = 80", 6, "listen[0].address", "write 127.0.0.1:90"),
        ("address = \"handler:x\"\nvirtual = 80", 6, "listen[0].address", "to a handler"),
        (at, 5, "listen[0]", "which port of the service"),
        (&format!("{at}\nvirtual = 81"), 7, "listen[0].virtual", "has no port 81"),
        (&format!("{at}\nvirtual = 80\nservice = \"x\""), 8, "listen[0].service", "one of main"),
        (&format!("{at}\nvirtual = 80\nbacklog = 0"), 8, "listen[0].backlog", "out of range"),
        (
            &format!("{at}\nvirtual = 80\n[[listen]]\n{at}\nvirtual = 80"),
            9,
            "listen[1].address",
            "another [[listen]]",
        ),
    ] {
        let sentence = problem(&listen(lines), line, key);
        assert!(sentence.contains(says), "{lines}\n{sentence}");
    }
}

/// From C tor's own tests.
const ONION: &str = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion";

#[test]
fn another_onion_service_can_be_a_backend_and_has_longer_to_answer() {
    let text = MINIMAL.replace("127.0.0.1:80", &format!("{ONION}:81"));
    let text = format!("{text}[service.port.check]\n");
    let config = good(&text);
    let port = &config.services[0].ports[0];
    let PortTarget::Backends(found) = &port.target else { panic!("backends") };
    let expected = BackendAddress::Onion { host: ONION.to_owned(), port: 81 };
    assert_eq!(found[0].address, expected);
    assert_eq!(port.connect_timeout, Duration::from_secs(60));
    let check = port.check.as_ref().expect("there is one");
    assert_eq!((check.interval.as_secs(), check.timeout.as_secs()), (60, 60));
    // What it means is said, and the log does not show where.
    assert!(config.warnings.iter().any(|warning| warning.contains("through Tor a second time")));
    assert!(config.warnings.iter().all(|warning| !warning.contains("25nj")));
    assert_eq!(good(&explain(&config)).services[0].ports[0], *port);

    let wrong = text.replace("25nj", "25nk");
    let sentence = problem(&wrong, 4, "service[0].port[0].backends[0]");
    assert!(sentence.contains("no version 3 onion address"), "{sentence}");
    let front = format!("{MINIMAL}[[listen]]\naddress = \"{ONION}:80\"\nvirtual = 80\n");
    problem(&front, 6, "listen[0].address");
}

#[test]
fn host_names_are_refused_unless_they_are_allowed_by_name() {
    let named = MINIMAL.replace("127.0.0.1:80", "App.internal:8080");
    let sentence = problem(&named, 4, "service[0].port[0].backends[0]");
    assert!(sentence.contains("host name") && sentence.contains("allow_hostnames"), "{sentence}");
    let other = format!("{named}allow_hostnames = [\"other.internal\"]\n");
    problem(&other, 4, "service[0].port[0].backends[0]");

    let allowed = format!("{named}allow_hostnames = [\"app.INTERNAL\"]\nresolve_interval_s = 5\n");
    let config = good(&allowed);
    let port = &config.services[0].ports[0];
    let PortTarget::Backends(found) = &port.target else { panic!("backends") };
    let expected = BackendAddress::Name { host: "app.internal".to_owned(), port: 8080 };
    assert_eq!((&found[0].address, port.resolve_interval.as_secs()), (&expected, 5));
    assert!(config.warnings.iter().any(|warning| warning.contains("past Tor")));
    assert_eq!(good(&explain(&config)).services[0].ports[0], *port);

    for wrong in ["", "127.0.0.1", "::1", "a b", "app.internal:80", "-a", ONION] {
        let text = format!("{MINIMAL}allow_hostnames = [\"{wrong}\"]\n");
        let sentence = problem(&text, 5, "service[0].port[0].allow_hostnames[0]");
        assert!(sentence.contains("is no host name"), "{sentence}");
    }
    // Nobody listens at a name.
    let front = format!("{allowed}[[listen]]\naddress = \"app.internal:80\"\nvirtual = 80\n");
    problem(&front, 8, "listen[0].address");
}

/// Proves that a machine that only publishes needs no port, and one to which clients come does.
#[test]
fn a_service_that_others_carry_needs_no_port() {
    let remote = "[[service]]\n[[service.remote]]\naddress = \
                  \"25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion\"\n";
    let elsewhere = format!("{remote}[turbo]\ninstances = 0\n");
    let config = good(&elsewhere);
    assert!(config.services[0].ports.is_empty());
    let again = good(&explain(&config));
    assert_eq!(explain(&again), explain(&config));
    for here in [
        remote.to_owned(),
        elsewhere.replace("instances = 0", "instances = 1"),
        format!("{elsewhere}enabled = false\n"),
        format!("{elsewhere}[[listen]]\naddress = \"127.0.0.1:80\"\nvirtual = 80\n"),
    ] {
        let sentence = problem(&here, 1, "service[0]");
        assert!(sentence.contains("the service has no port"), "{sentence}");
    }
}
