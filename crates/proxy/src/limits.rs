//! How much, and how long: every bound of the proxy in one place.

use std::time::Duration;

/// Longest head of a request, and hyper's buffer per connection: cookies and tokens fit, and 20 000 hostile clients
/// cannot take more than about a gigabyte.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;

/// Most fields in a head; hyper's own default, beyond which it answers 431.
pub(crate) const HEAD_FIELDS_MAX: usize = 100;

/// From the first byte of a head to its last: a slow sender cannot hold a connection for longer.
pub(crate) const HEAD_TIME: Duration = Duration::from_secs(10);

/// How long a client's connection may rest between requests; nginx's default, and longer than the 60 s after which
/// common load balancers close theirs, so that they close first.
pub(crate) const REST_TIME: Duration = Duration::from_secs(75);

/// Longest gap within the body of a request.
pub(crate) const BODY_GAP: Duration = Duration::from_secs(30);

/// Longest time a client may refuse to take a single byte of its answer.
pub(crate) const WRITE_GAP: Duration = Duration::from_secs(60);

/// Silence on a connection after which the kernel asks whether the peer is there.
pub(crate) const ALIVE_SILENCE: Duration = Duration::from_secs(60);

/// Between one such question and the next while no answer comes.
pub(crate) const ALIVE_ASK_EVERY: Duration = Duration::from_secs(15);

/// So many without an answer, and the connection is closed: two minutes after the peer vanished.
pub(crate) const ALIVE_ASKS: u32 = 4;

/// Clients' connections per worker; a further one is closed at once. About 0.5 GB at the 27 KB measured for one at rest.
pub(crate) const CONNECTIONS_MAX: usize = 20_000;

/// Time for a replica to accept a connection: on one machine or in one data centre this is a thousand times enough.
pub(crate) const CONNECT_TIME: Duration = Duration::from_secs(1);

/// Wait for the first byte of an answer where the table names none.
pub(crate) const FIRST_BYTE_TIME: Duration = Duration::from_secs(30);

/// How long a connection to a replica may rest before it is closed: below the 5 s of Node.js, uvicorn and Apache, whose
/// closing would cross our next request.
pub(crate) const IDLE_TIME: Duration = Duration::from_secs(4);

/// The same for a request that cannot be sent twice: below gunicorn's 2 s, with time for it to arrive.
pub(crate) const IDLE_TIME_UNREPEATABLE: Duration = Duration::from_secs(1);

/// Resting connections kept per replica and worker.
pub(crate) const IDLE_MAX: usize = 1024;

/// First pause for a replica that refused a connection, or fails what its fellows answer; it doubles every time.
pub(crate) const EJECTION_FIRST: Duration = Duration::from_secs(1);

/// Longest of these pauses.
pub(crate) const EJECTION_LONGEST: Duration = Duration::from_secs(30);

/// The least part of its share that a new replica has, in hundredths: what gets nothing does not get warm.
pub(crate) const WARMTH_MIN: u32 = 10;

/// Releases per service whose counters are kept: beyond it, those out of the table with nothing in flight are dropped.
pub(crate) const RELEASES_KEPT: usize = 64;

/// What became final of a rollout and no controller has in its store: five minutes of it, at some 500 bytes each.
pub(crate) const REVEALS_KEPT: usize = 3_000;

/// How much of it one report tells.
pub(crate) const REVEALS_AT_ONCE: usize = 100;

/// How long a rollout is remembered of which nothing comes any more: longer than any question waits for its answer.
pub(crate) const TRIAL_REMEMBERED: Duration = Duration::from_secs(900);

/// Users whose first failure is remembered per rollout: 100 000 hashes are below 2 MB. Later ones are not counted.
pub(crate) const FIRST_FAILURES_MAX: usize = 100_000;

/// What has become final is taken from the workers and judged this often, whether a controller asks or not.
pub(crate) const REVEAL_ALONE: Duration = Duration::from_millis(100);

/// How stale the coarse clock may be.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// How long the operator's side waits for a worker before it gives up; a worker answers within milliseconds.
pub(crate) const WORKER_TIME: Duration = Duration::from_secs(5);

/// How long an answer to a new table waits for the disk; below the 2 s that a controller waits.
pub(crate) const DISK_TIME: Duration = Duration::from_secs(1);

/// Longest header of the PROXY protocol: addresses and a kilobyte of what fronts add, many times over.
pub(crate) const ANNOUNCEMENT_BYTES_MAX: usize = 4 << 10;

/// How long before the end of its time a tunnel is closed with a word on both sides.
pub(crate) const TUNNEL_WORD_TIME: Duration = Duration::from_secs(2);

/// Requests at once on one connection of a client that speaks HTTP/2; what nginx allows, and enough for a page's files.
pub(crate) const STREAMS_MAX: u32 = 128;

/// Streams a client may reset before they were looked at, and errors of its streams that are answered: beyond, the
/// connection ends (CVE-2023-44487).
pub(crate) const STREAMS_RESET_MAX: usize = 20;

/// Bytes of one request's body that may come before the replica takes them.
pub(crate) const STREAM_WINDOW: u32 = 128 << 10;

/// The same for all requests of a connection.
pub(crate) const CONNECTION_WINDOW: u32 = 256 << 10;

/// Bytes of one answer that wait for the client in HTTP/2.
pub(crate) const STREAM_SEND_BYTES_MAX: usize = 64 << 10;

/// Requests at once on one connection to a replica that speaks HTTP/2, where it allows so many.
pub(crate) const STREAMS_PER_LINK: usize = 100;

/// Longest page that the proxy shows in its own name.
pub(crate) const PAGE_BYTES_MAX: u64 = 64 << 10;

/// How often files with certificates and pages are looked at.
pub(crate) const FILES_LOOK: Duration = Duration::from_secs(1);

/// Control connections at once; the controller and the agent use two.
pub(crate) const CONTROL_CONNECTIONS_MAX: usize = 32;

/// Listening addresses at once, previews included.
pub(crate) const ADDRESSES_MAX: usize = 4096;

/// Drain after SIGTERM. Whoever sends it bypasses the agent, which starts a successor only when this process is dead:
/// new connections wait until then. A longer drain is the agent's to ask for.
pub(crate) const TERM_DRAIN: Duration = Duration::from_secs(1);

/// How long a connection at rest waits for one more request when the proxy stops: clients under load send it at once,
/// and a successor accepts meanwhile.
pub(crate) const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// The same where the proxy has a successor and more time: by then a client that rests has most likely sent a request, and
/// was told that it was the last one here.
pub(crate) const FAREWELL_LONGEST: Duration = Duration::from_secs(10);

/// How long a refused client is listened to after our last byte, so that the refusal reaches it before a reset does.
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(1);

/// Most bytes of a request's body that are kept so that it can be sent again.
pub(crate) const KEPT_BYTES_MAX: usize = 64 << 10;

/// Requests that the stable release may answer for others beyond as many as it has of its own, per worker: with none of
/// its own and 10 ms an answer that is 6 400 a second.
pub(crate) const SHIELD_SPARE: u64 = 64;

/// Shortest wait for a first byte before the stable release is asked instead: a pause of a collector is no failure.
pub(crate) const SHIELD_WAIT_MIN: Duration = Duration::from_secs(1);

/// Answers of the stable release that say something about how long an answer takes: a p99 needs a hundred.
pub(crate) const SHIELD_ANSWERS_MIN: u64 = 100;

/// How often that is looked at, once something is known.
pub(crate) const SHIELD_LEARN: Duration = Duration::from_secs(10);

/// Copies of requests under way per worker: with the longest head and body, 32 MB.
pub(crate) const COPIES_MAX: usize = 256;

/// Copies to one release under way per worker, so that one that hangs leaves room for others; at 10 ms an answer that is
/// 6 400 a second.
pub(crate) const COPIES_OF_RELEASE_MAX: usize = 64;

/// Most bytes of the answer to a copy that are taken in; then its connection closes.
pub(crate) const COPY_BYTES_MAX: usize = 1 << 20;

/// How long that may take.
pub(crate) const COPY_TIME: Duration = Duration::from_secs(10);

/// Most bytes of an answer nobody gets that are taken in to save its connection; pages that say 500 are shorter.
pub(crate) const LEFTOVER_BYTES_MAX: usize = 64 << 10;

/// How long that may take.
pub(crate) const LEFTOVER_TIME: Duration = Duration::from_secs(1);

/// Requests of a service in maintenance that wait, per worker; a further one is answered with 503 at once.
pub(crate) const HELD_MAX: usize = 1_000;

/// Lines of the access log that wait to be written: at 400 bytes 3 MB.
pub(crate) const LOG_LINES_MAX: usize = 8_192;

/// How long the access log may become before it moves aside.
pub(crate) const LOG_BYTES_MAX: u64 = 256 << 20;

/// Lines of the access log are on their way to the disk after this long at the latest.
pub(crate) const LOG_FLUSH: Duration = Duration::from_millis(500);

/// How long the end of the process waits for lines of the access log.
pub(crate) const LOG_END_TIME: Duration = Duration::from_secs(1);
