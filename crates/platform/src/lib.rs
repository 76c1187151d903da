//! Runs releases as processes of this machine.
//!
//! Start at [`ProcessPlatform`]: it is the [`Workloads`](evenkeel_core::ports::Workloads) the controller asks for. It
//! starts no replica itself; that is the agent's work, another process, which outlives the controller. Modules, in
//! reading order:
//!
//! - [`process`]: the platform as the controller sees it.
//! - [`agent`]: the way to the agent, which is started when nobody answers.
//! - [`artefact`]: what a release consists of, copied to where later changes cannot reach it.
//! - `egress`: where replicas find what they depend on, and the process that serves it.
//! - `tree`: what lies in a folder, and the digest of it.
//! - `check`: is what a release depends on well? One request, connection or command. And what does a program measure?
//! - [`probe`]: is a replica well? One request over HTTP or gRPC, one connection, or one command.
//! - `http`: one bounded HTTP request.
//! - `grpc`: the health of a gRPC server.
//! - `command`: one command, run to its end.
//! - [`logs`]: what replicas wrote.
//! - `limits`: how many files a process may have open.
//! - `text`: words of strangers, made safe to print.

pub mod agent;
pub mod artefact;
mod check;
mod command;
mod egress;
mod grpc;
mod http;
mod limits;
pub mod logs;
pub mod probe;
pub mod process;
mod text;
mod tree;

pub use check::{Ran, ran};
pub use limits::raise_open_files;
pub use process::ProcessPlatform;

#[cfg(test)]
mod tests;
