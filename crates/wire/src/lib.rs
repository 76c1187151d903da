//! What evenkeel's processes on one machine say to each other, and how it is framed.
//!
//! Every message is a JSON object behind a 4-byte big-endian length, over Unix sockets of mode 0600. A request gets
//! exactly one answer, in order. Modules, in reading order:
//!
//! - [`agent`]: what the controller asks of the agent.
//! - [`proxy`]: what the controller and the agent ask of the proxy.
//! - [`egress`]: what they ask of the process through which replicas reach what they depend on.
//! - [`frame`]: blocking framing, and file descriptors passed along (agent, proxy).
//! - [`client`]: an asynchronous connection that reconnects (controller).

pub mod agent;
pub mod client;
pub mod egress;
pub mod frame;
pub mod proxy;

pub use client::Client;
