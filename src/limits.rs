//! Every bound of the program, with its unit in its name.
//!
//! Read by every area, written by nobody at run time. A relation between two bounds is a const
//! assert at the end of this file, so that a change of one which breaks the other does not compile.

mod ctor;
mod eviction;
mod look_ups;
mod reach;
mod remote;
mod ring;
mod sharing;
mod verification;

pub use self::ctor::*;
pub use self::eviction::*;
pub use self::look_ups::*;
pub use self::reach::*;
pub use self::remote::*;
pub use self::ring::*;
pub use self::sharing::*;
pub use self::verification::*;

// ---------- vault and configuration ----------

/// A key file: the largest form, PKCS#8 version 2 in PEM, has about 200 bytes.
pub const KEY_FILE_BYTES_MAX: usize = 4096;

/// Stack that is overwritten after work with a secret key. Without it, six copies of a blinded
/// key's nonce prefix were left after four periods; with it, none (`vault::tests::memory`).
pub const SECRET_STACK_BYTES: usize = 128 << 10;

// It has to fit on the smallest stack that anything runs on, the 2 MiB of a Rust thread.
const _: () = assert!(SECRET_STACK_BYTES * 4 <= 2 << 20);

/// A configuration file.
pub const CONFIG_FILE_BYTES_MAX: usize = 1 << 20;

/// Lists and maps within each other in a YAML file: OnionBalance's has four.
pub const YAML_DEPTH_MAX: usize = 16;

/// Services in one configuration.
pub const SERVICES_MAX: usize = 64;

/// `[[service.port]]` tables of one service.
pub const PORTS_PER_SERVICE_MAX: usize = 256;

/// Backends of one port.
pub const BACKENDS_PER_PORT_MAX: usize = 256;

/// Characters in a service's name, which is part of file names in the state directory.
pub const SERVICE_NAME_CHARS_MAX: usize = 64;

/// In-process instances, of which each is a thread: more than any machine has cores.
pub const INSTANCES_MAX: u16 = 256;

/// CPUs that can be named: the kernel's `cpu_set_t` has this many bits.
pub const CPU_NUMBER_MAX: u16 = 1023;

/// Introduction points that each instance keeps, unless configured (C tor: 3).
pub const INTRO_POINTS_PER_INSTANCE_DEFAULT: u8 = 3;

/// INTRODUCE2 in a burst where only the rate is configured (C tor:
/// `HiddenServiceEnableIntroDoSBurstPerSec`).
pub const INTRO_DOS_BURST_DEFAULT: u32 = 200;

/// Bytes and files that a disk has to have left for a start: counters, keys, and a little.
pub const STATE_BYTES_MIN: u64 = 1 << 20;
/// See [`STATE_BYTES_MIN`].
pub const STATE_FILES_MIN: u64 = 16;

/// Largest rate and burst that the DoS extension takes (rend-spec-v3, EST_INTRO_DOS_EXT).
pub const INTRO_DOS_MAX: u32 = i32::MAX as u32;

/// Streams for a circuit that can be configured at most (the stream id has 16 bits, and 0 is none).
pub const STREAMS_PER_CIRCUIT_MAX: u32 = 65_535;

/// Largest weight of a backend.
pub const BACKEND_WEIGHT_MAX: u16 = 100;

/// Largest number of connections of a backend that can be configured.
pub const BACKEND_CONNECTIONS_MAX: u32 = 1_000_000;

/// Streams of a port that may wait for a connection, unless configured.
pub const BACKEND_QUEUE_DEFAULT: u32 = 1024;

/// Most that can be configured: each holds a stream of a client's circuit.
pub const BACKEND_QUEUE_MAX: u32 = 65_536;

/// How long each may wait, unless configured: a Tor client has waited for seconds already.
pub const BACKEND_QUEUE_SECONDS_DEFAULT: u64 = 10;

/// Time from one health check to the next, unless configured (HAProxy's `inter`).
pub const CHECK_INTERVAL_SECONDS_DEFAULT: u64 = 2;

/// Longest that can be configured.
pub const CHECK_INTERVAL_SECONDS_MAX: u64 = 3600;

/// Time for the answer to a health check, unless configured.
pub const CHECK_TIMEOUT_SECONDS_DEFAULT: u64 = 2;

/// Good checks until a backend is up, unless configured (HAProxy's `rise`).
pub const CHECK_RISE_DEFAULT: u32 = 2;

/// Bad checks until a backend is down, unless configured (HAProxy's `fall`).
pub const CHECK_FALL_DEFAULT: u32 = 3;

/// Most checks in a row that can be asked for.
pub const CHECK_RISE_FALL_MAX: u32 = 100;

/// Longest slow start that can be configured.
pub const BACKEND_SLOW_START_SECONDS_MAX: u64 = 3600;

/// Longest wait for a backend that can be configured. A Tor client gives up a BEGIN earlier.
pub const BACKEND_CONNECT_SECONDS_MAX: u64 = 120;

/// How long open streams are served after SIGTERM, unless configured: below the 90 seconds after
/// which systemd kills.
pub const DRAIN_SECONDS_DEFAULT: u64 = 30;

/// Longest drain that can be configured.
pub const DRAIN_SECONDS_MAX: u64 = 3600;

/// Part of the machine's or the cgroup's memory that the process may hold, unless configured.
pub const MEMORY_PERCENT_DEFAULT: u8 = 75;

/// Smallest budget that can be configured: an instance holds more than this without a client.
pub const MEMORY_BYTES_MIN: u64 = 32 << 20;

/// Bytes in the path of a unix socket: `sun_path` has 108 with the final NUL (unix(7)).
pub const UNIX_SOCKET_PATH_BYTES_MAX: usize = 107;

const _: () = assert!(INTRO_POINTS_PER_INSTANCE_DEFAULT <= INTRO_POINTS_DEFAULT);
const _: () = assert!(STREAMS_PER_CIRCUIT_DEFAULT <= STREAMS_PER_CIRCUIT_MAX);
const _: () = assert!(BACKEND_CONNECT_SECONDS_DEFAULT <= BACKEND_CONNECT_SECONDS_MAX);
const _: () = assert!(DRAIN_SECONDS_DEFAULT <= DRAIN_SECONDS_MAX);
const _: () = assert!(INTRO_DOS_BURST_DEFAULT <= INTRO_DOS_MAX);

// ---------- plane ----------

/// The buffer of each direction of a stream: two full TLS records' worth of cells.
pub const RELAY_BUFFER_BYTES: usize = 32 * 1024;

/// Buffers that a client or a backend fills in a row before its bytes go through a pipe, from one
/// socket of the kernel's to another, without a copy.
pub const SPLICE_AFTER_FULL_BUFFERS: u8 = 2;

/// What such a pipe holds.
pub const SPLICE_PIPE_BYTES: usize = 256 * 1024;

/// Pipes of one core that have bytes in them: half of what a user may have without privileges
/// (`fs.pipe-user-pages-soft`: 64 MiB).
pub const SPLICE_PIPES_MAX: usize = 128;

/// Pipes that a core keeps for streams to come.
pub const SPLICE_PIPES_SPARE_MAX: usize = 16;

/// Reads and writes that one stream makes before other tasks of its core have their turn.
pub const RELAY_TURNS_MAX: usize = 16;

/// Buffers that a core keeps for streams to come: a megabyte.
pub const RELAY_BUFFERS_SPARE_MAX: usize = 32;

/// How long a stream may be without bytes once one side has ended it, unless configured.
pub const HALF_CLOSE_SECONDS_DEFAULT: u64 = 60;

/// Longest times without bytes that can be configured: a day.
pub const STREAM_IDLE_SECONDS_MAX: u64 = 24 * 3600;

/// All attempts to find a backend for one stream together: a C tor client gives up after two
/// minutes (`SocksTimeout`).
pub const BACKEND_ATTEMPTS_SECONDS_MAX: u64 = 120;

/// From a connection to a listener until its PROXY header is whole. C tor writes it at once.
pub const PROXY_HEADER_SECONDS: u64 = 3;

/// The longest PROXY header that is read: two unix addresses of version 2, and room for what clouds
/// and TLS terminators put behind them (certificates' names, endpoints, padding).
pub const PROXY_HEADER_BYTES_MAX: usize = 4096;

/// Streams that wait for a core that they were given to.
pub const HANDOFF_WAITING_MAX: usize = 1024;

/// A listener that has no descriptor left looks again after this long.
pub const LISTEN_RETRY_MS: u64 = 100;

/// Connections that a listener takes before those that it has taken have their turn.
pub const LISTEN_IN_A_ROW_MAX: u32 = 32;

/// A listener that could not be opened is tried again after this long.
pub const LISTEN_OPEN_RETRY_MS: u64 = 1000;

/// Circuits of one service of which something is remembered, for limits and verdicts: 100 bytes
/// each.
pub const GATES_MAX: usize = 65_536;

/// Longest verdict on a circuit: a day, which no client's circuit outlives.
pub const VERDICT_SECONDS_MAX: u64 = 24 * 3600;

/// Largest rate and burst for a circuit that can be configured: a terabyte.
pub const CIRCUIT_RATE_MAX: u64 = 1 << 40;

/// Connections that the kernel accepts ahead for each listener and core, unless configured; more
/// than `net.core.somaxconn` (4096 by default) have no effect.
pub const LISTEN_BACKLOG_DEFAULT: u32 = 4096;

/// Largest backlog that can be configured.
pub const LISTEN_BACKLOG_MAX: u32 = 65_535;

/// Listeners of one process.
pub const LISTENS_MAX: usize = 64;

/// The first listener's number among instances, whose numbers it shall not meet: the circuits of
/// daemons and those of instances have ids apart.
pub const LISTEN_INSTANCE_FIRST: u16 = 1024;

/// A backend that refused is left alone for this long, twice as long after each further refusal.
pub const BACKEND_ASIDE_MS_MIN: u64 = 1000;

/// Longest time that a backend is left alone without being tried again.
pub const BACKEND_ASIDE_MS_MAX: u64 = 30_000;

/// A stream that waits for a connection looks again after this long, even if none has ended:
/// a backend may have come back.
pub const BACKEND_QUEUE_LOOK_MS: u64 = 1000;

/// A backend that has come up begins with this share of its weight, in percent.
pub const BACKEND_SLOW_START_PERCENT_MIN: u64 = 10;

/// Wait before a unix socket whose queue is full is tried again: such a connect(2) does not wait.
pub const BACKEND_QUEUE_FULL_WAIT_MS: u64 = 10;

/// The head of a request to the built-in page.
pub const HELLO_HEAD_BYTES_MAX: usize = 8 * 1024;

/// A request to the built-in page, from its first byte to the last of the answer.
pub const HELLO_SECONDS_MAX: u64 = 60;

const _: () = assert!(RELAY_BUFFER_BYTES >= 498);
const _: () = assert!(BACKEND_CONNECT_SECONDS_MAX <= BACKEND_ATTEMPTS_SECONDS_MAX);
const _: () = assert!(INSTANCES_MAX as usize + GUESTS_MAX <= LISTEN_INSTANCE_FIRST as usize);

/// Bytes that a pipe to a handler holds for each direction.
pub const HANDLER_PIPE_BYTES: usize = 64 * 1024;

// ---------- drain ----------

/// After the last stream has closed, the links must be quiet for this long before the end: longer
/// than a slow client takes to acknowledge a window of cells (20 kB/s: 2.5 s).
pub const DRAIN_QUIET_MS: u64 = 3_000;

/// Quiet is a link that sends no more than this in that time: some cells of padding, but never
/// what a client's acknowledgement sets free (31 cells and more).
pub const DRAIN_QUIET_BYTES: u64 = 8 * 600;

// ---------- admin ----------

/// One request on the admin socket.
pub const ADMIN_REQUEST_BYTES_MAX: usize = 4096;

/// One answer, as the client of the socket reads it.
pub const ADMIN_ANSWER_BYTES_MAX: usize = 64 << 20;

/// A connection to the admin socket, from its first byte to the last of the answer.
pub const ADMIN_SECONDS_MAX: u64 = 10;

/// From the moment when a new process asks to take over until its descriptors are published: it
/// gets a directory and builds circuits in this time.
pub const HANDOVER_SECONDS_MAX: u64 = 1_800;

/// Wait for introduction points of every instance before the old process is asked to let go.
pub const HANDOVER_POINTS_SECONDS_MAX: u64 = 60;

/// From the moment when the old process publishes no more until the new one has to have published.
pub const HANDOVER_PUBLISH_SECONDS_MAX: u64 = 120;

/// Connections to the admin socket at the same time.
pub const ADMIN_CONNECTIONS_MAX: usize = 16;

/// Between two tries to have the socket that tells status as OnionBalance does.
pub const SOCKET_RETRY_SECONDS: u64 = 10;

const _: () =
    assert!(HANDOVER_POINTS_SECONDS_MAX + HANDOVER_PUBLISH_SECONDS_MAX < HANDOVER_SECONDS_MAX);

// ---------- runtime ----------

/// How long a data core may look around before it sleeps. Whoever wants more wants it always.
pub const SPIN_MICROSECONDS_MAX: u32 = 1_000;

/// Threads for blocking work: of the process, and of each driver of tokio's.
pub const BLOCKING_THREADS_MAX: usize = 4;

/// Tasks a core polls before it looks at sockets and timers again. tokio's default is 61; a smaller
/// value costs system calls, a larger one lets a busy reactor starve sockets.
pub const RUNNER_BATCH_TASKS: u32 = 61;

/// How long a core may hang before the binary ends the process, to be started anew by whoever
/// supervises it: longer than systemd's watchdog takes with `WatchdogSec=30`.
pub const CORE_HUNG_SECONDS_MAX: u64 = 60;

/// Looks within that time, in each of which the core has to hang: a process that was stopped for a
/// while (SIGSTOP, a frozen cgroup) misses one.
pub const CORE_HUNG_LOOKS: u32 = 6;

const _: () = assert!(CORE_HUNG_LOOKS > 1 && CORE_HUNG_SECONDS_MAX > 2 * 30 / 4);

/// Read-ahead of a link's socket. rustls asks for 4 KiB at a time; 32 KiB are two full TLS records.
pub const LINK_READ_AHEAD_BYTES: usize = 32 * 1024;

// ---------- onion ----------

/// Introduction points in a descriptor: above this C tor clients reject the whole descriptor
/// (`HS_CONFIG_V3_MAX_INTRO_POINTS`).
pub const INTRO_POINTS_MAX: u8 = 20;

/// Introduction points in a descriptor by default: 16 fit below 30 kB, above which the vanguards
/// add-on of C tor clients closes the circuit that fetches the descriptor.
pub const INTRO_POINTS_DEFAULT: u8 = 16;

/// Above this size the vanguards add-on of C tor clients closes the circuit that fetches a
/// descriptor.
pub const DESCRIPTOR_BYTES_GOOD_MAX: usize = 30_000;

/// INTRODUCE2 that one introduction point takes at least and at most before it is replaced; the
/// limit of each point is drawn at random between them (C tor:
/// `INTRO_POINT_MIN_LIFETIME_INTRODUCTIONS`, `..MAX..`).
pub const INTRODUCTIONS_PER_POINT_MIN: u32 = 16_384;
/// See [`INTRODUCTIONS_PER_POINT_MIN`].
pub const INTRODUCTIONS_PER_POINT_MAX: u32 = 32_768;

/// Lines of the log that may wait for whoever reads it; more are lost.
pub const LOG_LINES_WAITING_MAX: usize = 1024;

/// Bytes of a field of the journal, of which more are cut off: a datagram has some of them, and a
/// unix socket takes 200 kB at a time by default (`net.core.wmem_default`).
pub const LOG_FIELD_BYTES_MAX: usize = 32 * 1024;

/// One cause is warned of once in this time; what was left out is counted.
pub const REPEAT_SECONDS: u64 = 60;

/// Causes of which that is remembered: a line's text each.
pub const REPEAT_CAUSES_MAX: usize = 256;

/// How long an ending process waits for its last lines to be written.
pub const LOG_FLUSH_MS_MAX: u64 = 1000;

/// Part of the memory budget that the queues of circuits may hold before arti closes the circuit
/// whose data has waited longest: it is the last resort, and the order of [`SHORT_PERCENT`] comes
/// first, which counts everything that the process holds.
pub const MEMORY_QUEUES_PERCENT: u64 = 90;

/// How often the control core looks at how much memory the process holds.
pub const MEMORY_LOOK_MS: u64 = 1000;

/// From this part of the budget on the cores give back what is kept there for later, ...
pub const MEMORY_TRIM_PERCENT: u64 = 80;

/// ... and again after so long, for as long as it is above, ...
pub const MEMORY_TRIM_SECONDS: u64 = 5;

/// ... which doubles, up to this, each time that less than one of so many parts came back.
pub const MEMORY_TRIM_SECONDS_MAX: u64 = 320;
/// See [`MEMORY_TRIM_SECONDS_MAX`].
pub const MEMORY_TRIM_WORTH_ONE_OF: u64 = 50;

/// From this part of the budget on new clients are refused, if no circuit is left that serves
/// nobody.
pub const MEMORY_REFUSE_PERCENT: u64 = 90;

/// Below this part new clients are served again.
pub const MEMORY_ACCEPT_AGAIN_PERCENT: u64 = 85;

/// INTRODUCE2 that one introduction point remembers: it takes as many again while it lingers, and
/// closes when the memory is full, since it could not tell a replay any more. 2 MB with the table.
pub const INTRODUCTIONS_SEEN_MAX: usize = 2 * INTRODUCTIONS_PER_POINT_MAX as usize;

/// Lifetime of an introduction point at least and at most; drawn at random between them (C tor:
/// `INTRO_POINT_LIFETIME_MIN_SECONDS`, `..MAX..`).
pub const POINT_LIFETIME_SECONDS_MIN: u64 = 18 * 3600;
/// See [`POINT_LIFETIME_SECONDS_MIN`].
pub const POINT_LIFETIME_SECONDS_MAX: u64 = 24 * 3600;

/// How long a point that was replaced still answers: the lifetime of the descriptors that name it.
pub const POINT_LINGER_SECONDS: u64 = DESCRIPTOR_LIFETIME_MINUTES as u64 * 60;

/// Points of one core that linger at the same time; more of them means a flood, and the oldest
/// closes.
pub const POINTS_LINGERING_MAX: usize = 32;

/// How often points that linger are looked at: those of no use close.
pub const POINTS_LINGERING_LOOK_MS: u64 = 5_000;

/// A point that was up for this long and is lost comes back at once, as after a guard's restart;
/// an earlier loss counts as a failed attempt at its relay.
pub const POINT_STEADY_SECONDS: u64 = 300;

/// Attempts with the same keys at the same relay before another relay is chosen. C tor's
/// `MAX_INTRO_POINT_CIRCUIT_RETRIES`.
pub const POINT_RETRIES_SAME_RELAY: u32 = 3;

/// First and longest wait between attempts to establish an introduction point.
pub const POINT_BACKOFF_MS_MIN: u64 = 500;
/// See [`POINT_BACKOFF_MS_MIN`].
pub const POINT_BACKOFF_MS_MAX: u64 = 60_000;

/// When the service leaves, its points close this far apart: longer than a relay needs to write
/// one cell.
pub const POINT_CLOSE_GAP_MS: u64 = 30;

/// A further stack looks for links that were opened since, which is quick.
pub const LINKS_LOOK_SECONDS: u64 = 5;

/// Circuits that a guard refuses within [`REFUSED_WINDOW_MS`] before fewer are asked for. One now
/// and then is a busy relay.
pub const REFUSED_MAX: usize = 3;

/// See [`REFUSED_MAX`].
pub const REFUSED_WINDOW_MS: u64 = 10_000;

/// Between two circuits that are asked for once a guard refuses them: the rate that the public
/// network's guards allow (`DoSCircuitCreationRate=2`).
pub const REFUSED_PAUSE_MS_MIN: u64 = 500;

/// The same after many refusals.
pub const REFUSED_PAUSE_MS_MAX: u64 = 4_000;

/// Nothing was refused for so long: as many circuits as are wanted are asked for again.
pub const REFUSED_SLOW_SECONDS: u64 = 60;

/// Longest wait of a rendezvous for its turn to ask for a circuit; with the time that is left of
/// [`RENDEZVOUS_BUILD_MS_MAX`] it is built. A C tor client waits for longer, and tries again only
/// then.
pub const REFUSED_WAIT_MS_MAX: u64 = 20_000;

/// Wait for INTRO_ESTABLISHED, besides what the circuit timeouts say.
pub const POINT_ESTABLISH_MS_MAX: u64 = 30_000;

/// INTRODUCE2 that wait for decryption on one core. At 0.26 ms each (proposal 327) a full queue is
/// a quarter of a second of work.
pub const INTRODUCTIONS_WAITING_MAX: usize = 1024;

/// Rendezvous that wait for a core. A client gives up after about a minute.
pub const RENDEZVOUS_WAITING_MAX: usize = 512;

/// Rendezvous circuits that one core builds at the same time: 86 kB each, so 44 MB. Whoever names
/// a rendezvous point that never answers holds one of these for [`RENDEZVOUS_BUILD_MS_MAX`], or for
/// [`RENDEZVOUS_SLOT_MS`] while newer ones wait.
pub const RENDEZVOUS_BUILDING_MAX: usize = 512;

/// Rendezvous circuits open on one core: 86 kB each, so about 700 MB.
pub const RENDEZVOUS_OPEN_MAX: u64 = 8192;

/// A request older than this is not served any more: the client has given up.
pub const RENDEZVOUS_WAIT_MS_MAX: u64 = 30_000;

/// One attempt to reach a rendezvous point: longer than circuits take on the public network.
pub const RENDEZVOUS_ATTEMPT_MS_MAX: u64 = 15_000;

/// All attempts for one rendezvous together end here: the client has been waiting since before.
pub const RENDEZVOUS_BUILD_MS_MAX: u64 = 30_000;

/// What a client's circuit leaves behind is still delivered to backends for this long.
pub const RENDEZVOUS_LINGER_SECONDS: u64 = 60;

/// A drain waits this long for the first stream of a client whose rendezvous was just built: two
/// round trips through twelve relays, and room.
pub const RENDEZVOUS_FIRST_STREAM_SECONDS: u64 = 5;

/// A rendezvous circuit without a stream is closed after this long: an hour, as a C tor client
/// keeps using a circuit for at most 10 minutes after its last stream began.
pub const RENDEZVOUS_IDLE_SECONDS: u64 = 3600;

/// Streams that one client circuit may have open, unless configured.
pub const STREAMS_PER_CIRCUIT_DEFAULT: u32 = 1024;

/// A rendezvous cookie is refused for at least this long.
pub const COOKIE_MEMORY_SECONDS: u64 = 300;

/// Cookies in each of the two generations: 20 bytes each, about 3 MB with the table.
pub const COOKIES_PER_GENERATION_MAX: usize = 65_536;

/// Lifetime written into a descriptor (C tor: 3 hours).
pub const DESCRIPTOR_LIFETIME_MINUTES: u16 = 180;

/// Lifetime of the certificates in a descriptor (C tor: 54 hours).
pub const DESCRIPTOR_CERT_LIFETIME_SECONDS: u64 = 54 * 3600;

/// A descriptor is published again at a random time between these, as C tor does; each period has
/// its own.
pub const REPUBLISH_SECONDS_MIN: u64 = 60 * 60;
/// See [`REPUBLISH_SECONDS_MIN`].
pub const REPUBLISH_SECONDS_MAX: u64 = 120 * 60;

/// The times of two periods are at least so far apart: who sees HSDirs of both shall not see both
/// descriptors come together.
pub const REPUBLISH_APART_SECONDS: u64 = 120;

/// The first descriptor goes out when every instance has a point, or after this long.
pub const FIRST_PUBLISH_WAIT_MS: u64 = 5_000;

/// Changes are collected for this long before a round of uploads begins.
pub const PUBLISH_DEBOUNCE_MS: u64 = 1_000;

/// Rounds of uploads that may follow each other at the debounce interval.
pub const PUBLISH_ROUNDS_BURST: u32 = 4;

/// Rounds beyond these that are kept for instances that are gone: clients who have not fetched yet
/// shall not be sent there, whatever else has changed before.
pub const PUBLISH_ROUNDS_RESERVED: u32 = 3;

/// After the burst, one round in this time, unless every published point is gone.
pub const PUBLISH_ROUND_INTERVAL_SECONDS: u64 = 60;

/// Uploads that run at the same time.
pub const UPLOADS_AT_ONCE_MAX: usize = 16;

/// One attempt to upload one descriptor to one HSDir.
pub const UPLOAD_ATTEMPT_MS_MAX: u64 = 30_000;

/// First and longest wait between attempts to upload to one HSDir.
pub const UPLOAD_BACKOFF_MS_MIN: u64 = 1_000;
/// See [`UPLOAD_BACKOFF_MS_MIN`].
pub const UPLOAD_BACKOFF_MS_MAX: u64 = 300_000;

/// First and longest wait for another round after an HSDir has refused a descriptor, as it does
/// when it holds one with a higher counter: a new round has a higher one itself.
pub const REFUSED_WAIT_SECONDS_MIN: u64 = 5;
/// See [`REFUSED_WAIT_SECONDS_MIN`].
pub const REFUSED_WAIT_SECONDS_MAX: u64 = 3600;

/// Skew of our clock that is warned of.
pub const CLOCK_SKEW_WARN_MS: u64 = 60_000;

/// Wait for a link that is open already, to hear what its relay said of our clock.
pub const CLOCK_SKEW_ASK_MS_MAX: u64 = 5_000;

/// A clock that is proven to be fast by so much publishes nothing: a revision counter from the
/// future would block the next publisher.
pub const CLOCK_SKEW_PUBLISH_MS_MAX: u64 = 300_000;

/// Relays whose median is a proof: of as many, one that lies changes nothing.
pub const CLOCK_RELAYS_MIN: usize = 3;

const _: () = assert!(INTRO_POINTS_DEFAULT <= INTRO_POINTS_MAX);
const _: () = assert!(INTRODUCTIONS_PER_POINT_MIN < INTRODUCTIONS_PER_POINT_MAX);
const _: () = assert!(MEMORY_QUEUES_PERCENT >= MEMORY_REFUSE_PERCENT);
const _: () = assert!(POINT_LIFETIME_SECONDS_MIN < POINT_LIFETIME_SECONDS_MAX);
const _: () = assert!(POINT_LINGER_SECONDS >= DESCRIPTOR_LIFETIME_MINUTES as u64 * 60);
const _: () = assert!(REPUBLISH_SECONDS_MAX < DESCRIPTOR_LIFETIME_MINUTES as u64 * 60);
const _: () = assert!(REFUSED_PAUSE_MS_MIN < REFUSED_PAUSE_MS_MAX);
const _: () = assert!(REFUSED_PAUSE_MS_MAX < REFUSED_WAIT_MS_MAX);
const _: () = assert!(REFUSED_WAIT_MS_MAX < RENDEZVOUS_BUILD_MS_MAX);
const _: () = assert!(REPUBLISH_SECONDS_MIN < REPUBLISH_SECONDS_MAX);
// Most times that are drawn are far enough from all others.
const _: () = assert!(
    REPUBLISH_APART_SECONDS * 2 * PERIODS_LIVE_MAX as u64 * 2
        < REPUBLISH_SECONDS_MAX - REPUBLISH_SECONDS_MIN
);
const _: () = assert!(PUBLISH_ROUND_INTERVAL_SECONDS < REPUBLISH_SECONDS_MIN);
const _: () = assert!(CLOCK_SKEW_WARN_MS < CLOCK_SKEW_PUBLISH_MS_MAX);
const _: () = assert!(RENDEZVOUS_BUILDING_MAX as u64 <= RENDEZVOUS_OPEN_MAX);
const _: () = assert!(RENDEZVOUS_ATTEMPT_MS_MAX < RENDEZVOUS_BUILD_MS_MAX);
const _: () = assert!(INTRODUCTIONS_SEEN_MAX > INTRODUCTIONS_PER_POINT_MAX as usize);
// Two uploads to one HSDir must be a second apart: that is the grain of the revision counter.
const _: () = assert!(PUBLISH_DEBOUNCE_MS >= 1_000 && UPLOAD_BACKOFF_MS_MIN >= 1_000);
