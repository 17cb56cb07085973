//! Why there is no way into the Tor network, in words: from what became of the connections that
//! were tried, and from what arti tells of handshakes, of the directory and of our clock.
//!
//! Asked by [`super::stack`] while there is no directory, and by the publisher while no link is
//! open.
//! Links go to addresses, never to names: no resolver has a part in it.

use tor_chanmgr::ConnBlockage;
use tor_circmgr::SkewEstimate;
use tor_dirmgr::DirBlockage;

use crate::runtime::Failures;

/// What arti tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// Of connections that came about.
    pub(super) links: Option<ConnBlockage>,
    /// Of our clock, beside those of the relays that answered.
    pub(super) skew: Option<SkewEstimate>,
    /// Of the directory.
    pub(super) directory: Option<DirBlockage>,
}

/// Why no relay is reached, by what happened most; `None` when none has failed since one was.
pub fn unreachable(failures: Failures) -> Option<String> {
    let Failures { no_route, refused, silent, forbidden, other } = failures;
    let causes = [
        (no_route, "this machine has no route to them; see that its network is up (ip route)"),
        (
            forbidden,
            "this machine forbids the connection; see its packet filter, and IPAddressDeny= of the \
             unit",
        ),
        (
            refused,
            "the connection is refused, by a firewall in between or by relays that are down; let \
             TCP out to any address and port",
        ),
        (
            silent,
            "nothing answers, as behind a firewall that drops packets, or where the network is \
             down; let TCP out to any address and port",
        ),
        (other, "the connection cannot be made; the log says more at level debug"),
    ];
    // The first of those that happened most: what is nearer is surer.
    let most = causes.iter().map(|(count, _)| *count).max().filter(|most| *most > 0)?;
    let (_, cause) = causes.iter().find(|(count, _)| *count == most)?;
    Some(format!("no Tor relay can be reached: {cause}"))
}

/// What is in the way of a directory; `None` when nothing is known to be.
pub(super) fn trouble(failures: Failures, told: &Told) -> Option<String> {
    if let Some(unreachable) = unreachable(failures) {
        return Some(unreachable);
    }
    if let Some(skew) = told.skew.as_ref().filter(|skew| skew.noteworthy()) {
        return Some(format!("this machine's clock is {skew}: set it, by NTP best"));
    }
    let reached = match &told.links {
        Some(ConnBlockage::CertsExpired) => {
            "their certificates do not hold at the time that this machine's clock has: set it"
        }
        Some(ConnBlockage::NoHandshake) => {
            "none of them completes a handshake: something in between filters or intercepts the \
             connections"
        }
        _ => match &told.directory {
            Some(_) => {
                "none of them has a directory that can be used now; if that lasts, look at this \
                 machine's clock"
            }
            None => return None,
        },
    };
    Some(format!("Tor relays take connections, and {reached}"))
}

#[cfg(test)]
mod tests {
    use tor_chanmgr::ConnBlockage;
    use tor_dirmgr::DirBlockage;

    use super::{Told, trouble, unreachable};
    use crate::runtime::Failures;

    #[test]
    fn what_happened_most_is_what_is_said() {
        let none = Failures::default();
        assert_eq!(unreachable(none), None);
        let says = |failures, word: &str| {
            let text = unreachable(failures).expect("something failed");
            assert!(
                text.starts_with("no Tor relay can be reached: ") && text.contains(word),
                "{text}"
            );
        };
        says(Failures { no_route: 1, ..none }, "no route");
        says(Failures { no_route: 2, refused: 3, ..none }, "refused");
        says(Failures { silent: 5, refused: 3, ..none }, "nothing answers");
        says(Failures { forbidden: 1, refused: 1, ..none }, "forbids");
        says(Failures { other: 1, ..none }, "log");
    }

    #[test]
    fn once_relays_are_reached_it_is_the_handshake_the_clock_or_the_directory() {
        let none = Failures::default();
        assert_eq!(trouble(none, &Told::default()), None);
        let says = |told: &Told, word: &str| {
            let text = trouble(none, told).expect("something is in the way");
            assert!(text.contains(word), "{text}");
        };
        let directory = Some(DirBlockage::Stalled);
        says(&Told { directory: directory.clone(), ..Told::default() }, "directory");
        let filtered =
            Told { links: Some(ConnBlockage::NoHandshake), directory, ..Told::default() };
        says(&filtered, "intercepts");
        says(&Told { links: Some(ConnBlockage::CertsExpired), ..Told::default() }, "clock");
        let refused = Failures { refused: 1, ..none };
        assert!(trouble(refused, &filtered).is_some_and(|text| text.contains("refused")));
    }
}
