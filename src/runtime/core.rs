//! The cores of one process: who they are, how to put a task on one of them, and where the
//! reactors of links go.
//!
//! A [`CoreGroup`] is made by `app::start` and filled as the threads come up. Each thread enters
//! the group once ([`CoreGroup::enter`]); from then on [`current_core`] and
//! [`super::CoreRuntime`] find the thread's own driver without a lock.
//!
//! What is below a thread's executor is its [`super::driver`]'s business.

use std::cell::RefCell;
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::attempts::{Attempts, Record};
use super::executor::{self, RunQueue};
use super::ring;

/// Which core of a group: 0 is the control core, data core `n` is `n + 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoreId(u16);

impl CoreId {
    /// The control core.
    pub const CONTROL: CoreId = CoreId(0);

    /// Data core number `index`, counted from 0.
    pub fn data(index: u16) -> CoreId {
        CoreId(index + 1)
    }

    /// Index among all cores: 0 is the control core.
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The number of this data core, or `None` for the control core.
    pub fn data_index(self) -> Option<u16> {
        self.0.checked_sub(1)
    }
}

impl std::fmt::Display for CoreId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.data_index() {
            None => f.write_str("control"),
            Some(index) => write!(f, "data-{index}"),
        }
    }
}

/// A way to put work on one core from any thread.
#[derive(Clone, Debug)]
pub struct CoreHandle {
    /// Which core this is.
    id: CoreId,
    /// The core's executor.
    queue: Arc<RunQueue>,
}

impl CoreHandle {
    /// Which core this handle leads to.
    pub fn id(&self) -> CoreId {
        self.id
    }

    /// Tasks that live on that core.
    pub fn tasks(&self) -> usize {
        self.queue.len()
    }

    /// Run `task` on that core. `false` when the core has ended: then it is dropped unrun.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        self.queue.spawn(task)
    }
}

/// One link to a relay, as far as the runtime sees it: written by the link's stream on the core
/// that drives it, read by status.
#[derive(Debug)]
pub struct LinkRecord {
    /// The relay's address as a number that says nothing: links are numbered as they open.
    pub number: u64,
    /// Where the link leads. Never shown; used to tell links to one relay from links to two.
    pub peer: std::net::SocketAddr,
    /// Index of the core that polls the link now (as in [`CoreId`]).
    pub core: AtomicUsize,
    /// The Tor stack that opened it.
    pub stack: u16,
    /// Bytes received from the relay, TLS included.
    pub bytes_in: AtomicU64,
    /// Bytes sent to the relay, TLS included.
    pub bytes_out: AtomicU64,
}

/// The cores of one running service, and the links that they carry.
#[derive(Debug, Default)]
pub struct CoreGroup {
    /// Data cores in order; each set once, by its own thread, before the Tor stack starts.
    data: RwLock<Vec<CoreHandle>>,
    /// The control core, once it has entered.
    control: RwLock<Option<CoreHandle>>,
    /// Counts links placed so far: the next one goes to the next data core.
    links_placed: AtomicUsize,
    /// Tor stacks that the cores share: data core `n` belongs to stack `n % stacks`.
    stacks: AtomicUsize,
    /// Local addresses that links go out from: see [`CoreGroup::set_sources`].
    sources: OnceLock<Vec<Ipv4Addr>>,
    /// Links that are open now.
    links: RwLock<Vec<std::sync::Weak<LinkRecord>>>,
    /// Numbers handed out to links so far.
    link_numbers: AtomicU64,
    /// What became of connections to relays.
    attempts: Record,
    /// Reactors spawned, by kind and core; what the placement tests read.
    spawned: RwLock<Vec<SpawnCount>>,
}

/// How many tasks of one kind were spawned on one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpawnCount {
    /// What kind of task.
    pub kind: SpawnKind,
    /// On which core.
    pub core: CoreId,
    /// How many so far.
    pub total: u64,
}

/// The kinds of task whose place matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnKind {
    /// A link's reactor: placed on a data core by us.
    Link,
    /// A circuit's reactor: runs where it was asked for.
    Circuit,
}

thread_local! {
    /// The core that this thread is, set once by [`CoreGroup::enter`].
    static CURRENT: RefCell<Option<(CoreHandle, Arc<CoreGroup>)>> = const { RefCell::new(None) };
}

/// The core this thread is, if it is one.
pub fn current_core() -> Option<CoreId> {
    CURRENT.with_borrow(|current| current.as_ref().map(|(handle, _)| handle.id))
}

/// The group this thread belongs to, if it is a core.
pub(super) fn current_group() -> Option<Arc<CoreGroup>> {
    CURRENT.with_borrow(|current| current.as_ref().map(|(_, group)| Arc::clone(group)))
}

impl CoreGroup {
    /// A group without any core.
    pub fn new() -> Arc<CoreGroup> {
        Arc::default()
    }

    /// Make the calling thread core `id` of this group.
    ///
    /// # Panics
    /// Outside of [`super::Driver::block_on`].
    pub fn enter(self: &Arc<CoreGroup>, id: CoreId) -> CoreHandle {
        let queue = executor::current_queue().expect("a core has a driver");
        let handle = CoreHandle { id, queue };
        if id == CoreId::CONTROL {
            *self.control.write().unwrap_or_else(PoisonError::into_inner) = Some(handle.clone());
        } else {
            let mut data = self.data.write().unwrap_or_else(PoisonError::into_inner);
            data.retain(|known| known.id != id);
            data.push(handle.clone());
            data.sort_by_key(|known| known.id);
        }
        CURRENT.with_borrow_mut(|current| *current = Some((handle.clone(), Arc::clone(self))));
        handle
    }

    /// A core has ended: nothing is placed on it until it enters again.
    pub fn leave(&self, id: CoreId) {
        if id == CoreId::CONTROL {
            *self.control.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        let mut data = self.data.write().unwrap_or_else(PoisonError::into_inner);
        data.retain(|known| known.id != id);
    }

    /// Data cores that have entered so far, in order.
    pub fn data_cores(&self) -> Vec<CoreHandle> {
        self.data.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every core that has entered and not left: the control core, then data cores in order.
    pub fn cores(&self) -> Vec<CoreHandle> {
        let control = self.control.read().unwrap_or_else(PoisonError::into_inner).clone();
        control.into_iter().chain(self.data_cores()).collect()
    }

    /// Let one core after another give back what it keeps for later, and call `trim` there.
    pub fn trim(&self, trim: impl Fn() + Clone + Send + 'static) {
        trim_each(self.cores(), trim);
    }

    /// Say how many Tor stacks there are. Before any link opens.
    pub fn set_stacks(&self, stacks: u16) {
        self.stacks.store(usize::from(stacks.max(1)), Ordering::Relaxed);
    }

    /// Say which local addresses links go out from, once and before any link opens: those of stack
    /// `n` from number `n` modulo their count, or from whichever the kernel chooses where there are
    /// none.
    pub fn set_sources(&self, sources: Vec<Ipv4Addr>) {
        let _ = self.sources.set(sources);
    }

    /// The local address that links of the calling core's stack go out from, where that is set.
    pub(super) fn source(&self) -> Option<Ipv4Addr> {
        let sources = self.sources.get()?;
        let turn = usize::from(self.stack_of(current_core())).checked_rem(sources.len())?;
        sources.get(turn).copied()
    }

    /// The stack that a core belongs to; the control core belongs to the first.
    fn stack_of(&self, core: Option<CoreId>) -> u16 {
        let stacks = self.stacks.load(Ordering::Relaxed).max(1);
        let index = core.and_then(CoreId::data_index).map_or(0, usize::from);
        u16::try_from(index % stacks).unwrap_or(0)
    }

    /// The data core that shall drive the next link. A data core that asks keeps the link; what the
    /// control core asks for goes to the data cores of its stack, one after the other. `None`
    /// without data cores.
    pub(super) fn place_link(&self) -> Option<CoreHandle> {
        let here = current_core();
        let data = self.data.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(core) = data.iter().find(|core| Some(core.id) == here) {
            return Some(core.clone());
        }
        let stack = self.stack_of(here);
        let of_stack: Vec<&CoreHandle> =
            data.iter().filter(|core| self.stack_of(Some(core.id)) == stack).collect();
        let turn = self.links_placed.fetch_add(1, Ordering::Relaxed);
        of_stack.get(turn.checked_rem(of_stack.len())?).map(|core| (*core).clone())
    }

    /// Take note of a link that has just connected.
    pub(super) fn record_link(&self, peer: std::net::SocketAddr) -> Arc<LinkRecord> {
        let record = Arc::new(LinkRecord {
            number: self.link_numbers.fetch_add(1, Ordering::Relaxed),
            peer,
            core: AtomicUsize::new(current_core().map_or(0, CoreId::index)),
            stack: self.stack_of(current_core()),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        });
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(&record));
        record
    }

    /// What became of the connections to relays so far.
    pub fn attempts(&self) -> Attempts {
        self.attempts.now()
    }

    /// Where connections to relays say what became of them.
    pub(super) fn attempts_record(&self) -> &Record {
        &self.attempts
    }

    /// Links that are open now, oldest first.
    pub fn links(&self) -> Vec<Arc<LinkRecord>> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.iter().filter_map(std::sync::Weak::upgrade).collect()
    }

    /// Count a spawned reactor.
    pub(super) fn count_spawn(&self, kind: SpawnKind, core: CoreId) {
        let mut spawned = self.spawned.write().unwrap_or_else(PoisonError::into_inner);
        match spawned.iter_mut().find(|count| count.kind == kind && count.core == core) {
            Some(count) => count.total += 1,
            None => spawned.push(SpawnCount { kind, core, total: 1 }),
        }
    }

    /// How many reactors of each kind were spawned on each core so far.
    pub fn spawn_counts(&self) -> Vec<SpawnCount> {
        self.spawned.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// See [`CoreGroup::trim`]; the last one comes first.
fn trim_each(mut cores: Vec<CoreHandle>, trim: impl Fn() + Clone + Send + 'static) {
    while let Some(core) = cores.pop() {
        let (others, trim) = (cores.clone(), trim.clone());
        let begun = core.spawn(async move {
            ring::drop_spare();
            trim();
            trim_each(others, trim);
        });
        if begun {
            return;
        }
    }
}

/// Links of the calling core's process that are open now; none on a thread that is no core.
pub fn open_links() -> Vec<Arc<LinkRecord>> {
    current_group().map(|group| group.links()).unwrap_or_default()
}

/// What became of the connections to relays of the calling core's process.
pub fn connect_attempts() -> Attempts {
    current_group().map(|group| group.attempts()).unwrap_or_default()
}

/// Circuits that the cores of this stack of the calling core's process have started so far, whoever
/// asked for them.
pub fn circuits_started(stack: u16) -> u64 {
    let Some(group) = current_group() else { return 0 };
    let counts = group.spawn_counts().into_iter().filter(|count| {
        count.kind == SpawnKind::Circuit && group.stack_of(Some(count.core)) == stack
    });
    counts.map(|count| count.total).sum()
}

/// The TLS provider of the process, made at first use.
pub(super) fn tls() -> &'static tor_rtcompat::tls::RustlsProvider {
    static TLS: OnceLock<tor_rtcompat::tls::RustlsProvider> = OnceLock::new();
    TLS.get_or_init(tor_rtcompat::tls::RustlsProvider::default)
}
