//! What is checked before a start: by `run` before it writes anything, and by `check` and `doctor`
//! to say what `run` would say. Nothing is started, written or kept open, and nothing connects to a
//! socket that is there: that could start the service of a socket unit.
//!
//! In stages, of which each needs what those before it have found to be right:
//!
//! ```text
//!   arti's tables, handlers -> state directory -> keys, who can change it -> daemons' files
//!     -> who runs already? -> addresses: of links, of listeners
//! ```

use super::launch::{check_arti, check_handlers, check_sources, existing_keys};
use super::state_dir::{StateDir, StateDirError};
#[cfg(feature = "admin")]
use crate::admin::AdminError;
#[cfg(feature = "admin")]
use crate::base::socket_file;
use crate::config::Config;
use crate::plane::front::Front;
use crate::plane::handler::Handlers;
use crate::plane::passed::PassedSockets;
use crate::tor::ArtiSettings;
use crate::vault::MasterKey;

/// How long a problem lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// Until somebody changes something: `run` ends with 78.
    Always,
    /// For now: whoever starts the process may try again, and `run` ends with 1.
    ForNow,
    /// As long as the service, which runs already. As `Always`, for another `run`.
    Running,
}

/// What stands in the way of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What was looked at, in a word or two.
    pub what: &'static str,
    /// What is wrong, and what to do.
    pub text: String,
    /// For how long.
    pub lasts: Lasts,
}

/// What was found right.
pub(super) struct Ready {
    /// arti's configuration.
    pub(super) arti: ArtiSettings,
    /// The keys that are there, one for each service.
    pub(super) keys: Vec<Option<MasterKey>>,
}

/// Whom a start may meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Neighbour {
    /// Nobody.
    Nobody,
    /// The process that it takes over from.
    Predecessor,
}

/// Everything that would keep the binary from a start with this configuration, without sockets that
/// somebody passes.
pub fn problems(config: &Config) -> Vec<Problem> {
    let (handlers, sockets) = (Handlers::default(), PassedSockets::default());
    let (mut problems, _) = look(config, &handlers, &sockets, Neighbour::Nobody);
    if problems.iter().any(|one| one.lasts == Lasts::Running) {
        // Its own, most likely.
        problems.retain(|one| one.what != LISTENER);
    }
    problems
}

/// What the admin socket's problem is called.
#[cfg(feature = "admin")]
const SOCKET: &str = "admin socket";
/// What a listener's problem is called.
const LISTENER: &str = "listener";

/// See [`problems`]; and what was found right, where there are none.
pub(super) fn look(
    config: &Config,
    handlers: &Handlers,
    sockets: &PassedSockets,
    neighbour: Neighbour,
) -> (Vec<Problem>, Option<Ready>) {
    let mut found = Found::default();
    let arti = found.all("arti", check_arti(config));
    found.all("backend", check_handlers(config, handlers));
    let checked = StateDir::check(&config.state_dir);
    let keys = match checked {
        Ok(()) => {
            if let Some(arti) = &arti {
                let changed = arti.check_state_dir(&config.state_dir);
                found.all("state_dir", changed.map_err(|error| vec![error]));
            }
            found.all("key", existing_keys(config))
        }
        Err(error) => {
            let full = matches!(error, StateDirError::Full { .. });
            let lasts = if full { Lasts::ForNow } else { Lasts::Always };
            found.add("state_dir", error.to_string(), lasts);
            None
        }
    };
    found.all::<()>("daemons", Err(super::daemons::check(config)));
    if neighbour == Neighbour::Nobody {
        found.admin_socket(config);
    }
    if let Err(error) = check_sources(config) {
        found.add("guards", error, Lasts::ForNow);
    }
    let listens = config.listens.iter().filter(|_| neighbour == Neighbour::Nobody);
    for error in listens.filter_map(|listen| Front::check(listen, sockets).err()) {
        found.add(LISTENER, error.to_string(), Lasts::ForNow);
    }
    let ready = arti.zip(keys).map(|(arti, keys)| Ready { arti, keys });
    (found.0, ready)
}

/// What is wrong so far.
#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    /// One more.
    fn add(&mut self, what: &'static str, text: String, lasts: Lasts) {
        self.0.push(Problem { what, text, lasts });
    }

    /// What lasts until somebody changes it, unless all is right.
    fn all<T>(&mut self, what: &'static str, checked: Result<T, Vec<String>>) -> Option<T> {
        let errors = match checked {
            Ok(right) => return Some(right),
            Err(errors) => errors,
        };
        errors.into_iter().for_each(|text| self.add(what, text, Lasts::Always));
        None
    }

    /// Without the feature there is none.
    #[cfg(not(feature = "admin"))]
    fn admin_socket(&mut self, _: &Config) {}

    /// The place of the admin socket, where the service itself may be.
    #[cfg(feature = "admin")]
    fn admin_socket(&mut self, config: &Config) {
        let socket = config.admin_socket();
        let in_state_dir = socket.parent() == Some(&*config.state_dir);
        match crate::admin::check(&socket, in_state_dir) {
            Err(error @ AdminError::InUse { .. }) => {
                self.add(SOCKET, error.to_string(), Lasts::Running);
            }
            Err(error) => self.add(SOCKET, error.to_string(), Lasts::Always),
            Ok(()) if in_state_dir && socket_file::is_listened_on(&socket) => {
                let error = StateDirError::InUse { path: config.state_dir.clone() };
                self.add(SOCKET, error.to_string(), Lasts::Running);
            }
            Ok(()) => {}
        }
    }
}
