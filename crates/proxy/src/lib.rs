//! The data plane: takes users' requests, chooses a release for each by weight, and passes them on.
//!
//! Start at [`run`]. The process is told what to do over a Unix socket (`evenkeel_wire::proxy`), and goes on with what
//! it knows when controller and agent are dead. Each worker thread has listeners, connections and counters of its own;
//! on the way of a request nothing is locked or shared. Modules, in reading order:
//!
//! - [`process`]: start, and end
//! - `server`, `control`, `elder`, `saved`: what the operator's side asks; who was here before; the table on disk
//! - `worker`, `accept`, `seats`, `clock`, `vital`: one worker, its listening sockets and its connections
//! - `noted`, `journal`: a request in the access log, and the log itself
//! - `fittings`, `limiter`: what goes with a table; how much one client may have
//! - `crossroads`: which service, where several share an address
//! - `routes`, `balance`, `replica`, `fair`, `tally`: which release, which replica, and what is counted
//! - `trial`, `admission`: what became of requests on trial, by the moment of their assignment, and how many there may be
//! - `hold`: requests that wait while their service is in maintenance
//! - `pins`, `sticky`, `cookies`, `marks`: which release, for what a request is, and whom a trial has counted
//! - `shield`: the stable release in another's place
//! - `mirror`: copies that are answered for nobody
//! - `streams`, `rewound`: a client's connection that speaks HTTP/2
//! - `client`, `stream`, `alive`: one client's connection, how long it may take, and whether the peer is still there
//! - `announce`, `certificates`, `doors`: what comes before the first request: a front's word, and encryption
//! - `gate`, `chunks`: is it beyond doubt where a request ends?
//! - `outgoing`, `forward`, `grpc`, `headers`, `body`, `leftover`, `tunnel`, `messages`, `refusal`: one request on its way
//! - `pace`: how long it may take
//! - `forms`, [`pages`]: how that is said, and what a service says instead
//! - `limits`: every bound, and why
//! - `remote`: the proxy as a controller sees it

mod accept;
mod admission;
mod alive;
mod announce;
mod balance;
mod body;
pub mod certificates;
mod chunks;
mod client;
mod clock;
mod control;
mod cookies;
mod crossroads;
mod doors;
mod elder;
mod fair;
mod fittings;
mod forms;
mod forward;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gate;
mod grpc;
mod headers;
mod hold;
mod journal;
mod leftover;
mod limiter;
mod limits;
mod marks;
mod messages;
mod mirror;
mod noted;
mod outgoing;
mod pace;
pub mod pages;
mod pins;
pub mod process;
mod refusal;
mod remote;
mod replica;
mod rewound;
mod routes;
mod saved;
mod seats;
mod server;
mod shield;
mod sticky;
mod stream;
mod streams;
mod tally;
mod trial;
mod tunnel;
mod vital;
mod worker;

pub use process::{Options, SOCKET_NAME, run};
pub use remote::RemoteProxy;
