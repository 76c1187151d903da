//! The agent against real processes: each test has agents, replicas and proxies of its own in a directory of its own.
//!
//! Agents and proxies are this program again, see [`world`].

#![expect(clippy::unwrap_used, reason = "all of this is tests, helpers too")]
#![expect(clippy::print_stderr, reason = "an agent in its role says why it leaves")]

mod adoption;
mod proxy;
mod replicas;
mod requests;
mod stand_in;
mod world;

/// Under another role (see [`stand_in`]) this is no test but the agent or the proxy of one.
#[test]
fn plays_the_other_processes_when_told_so() {
    stand_in::play();
}
