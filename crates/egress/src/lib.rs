//! The other side of the data plane: what replicas call, and what they get while that fails.
//!
//! Start at [`run`], which the hidden subcommand `evenkeel egress` calls. The process is told which endpoints to serve
//! over a Unix socket (`evenkeel_wire::egress`), keeps that on disk, and goes on when controller and agent are dead. It is a
//! process of its own: what a dependency sends, however much and however slowly, takes nothing from the proxy, and the
//! process that meets strangers' requests holds no credentials. Modules, in reading order:
//!
//! - [`process`]: start, and end.
//! - `control`: what the operator's side asks; the table on disk.
//! - `server`: listening sockets and connections; `workers`: the threads that carry them.
//! - `endpoint`: everything that is known of one dependency of one release.
//! - `guard`: one breaker that many tasks share; what it decides is core's.
//! - `calls`: one request to its end: token, cache, seat, tries, what is answered instead.
//! - `call`: one call to one place; `pool`: its connections; `stream`: how they are made.
//! - `body`: what is held of requests, and watched of answers; `events`: event streams; `grpc`: what its answers mean.
//! - `keep`: answers that are kept; `validate`: what they and requests say of one another; `retry`: what may be repeated; `problem`: what is said when there is no answer.
//! - `tcp`: connections that are passed on, and `upgrade`: those that begin as a call; `ping`, `postgres`: whether a database is well.
//! - `headers`, `paths`, `date`, `clock`: leaves.

mod body;
mod call;
mod calls;
mod clock;
mod control;
mod date;
mod endpoint;
mod events;
mod grpc;
mod guard;
mod headers;
mod keep;
mod paths;
mod ping;
mod pool;
mod postgres;
mod problem;
pub mod process;
mod retry;
mod server;
mod stream;
mod tcp;
mod upgrade;
mod validate;
mod workers;

pub use process::{Options, run};
