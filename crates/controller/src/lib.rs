//! The loop: observe → decide → commit → act.
//!
//! [`start`] recovers what the store knows and drives every service from one task; a [`Handle`] talks to it. The core
//! decides, the store makes it durable, and only then the adapters act. One exception: moving traffic back to a stable
//! release waits for nobody, and is recorded as soon as the store answers. Modules, in reading order:
//!
//! - [`handle`]: what can be asked of a running controller.
//! - `run`: one turn of the loop, and recovery; with what is asked of it, how it moves traffic, and what goes on beside it.
//! - `keeper`: one service: its log, its fleet, its evidence; with how decisions become durable, and how it is shown.
//! - `meter`: turns the proxy's counters into ticks, which the core's evidence is made of.
//! - `hearing`: what was heard of rollouts on trial, and what of it the store has.
//! - `recorder`: writes down what decisions rest on, until the store has it.
//! - `budgets`: error budgets, over weeks.
//! - `depending`: what releases depend on.
//! - `standings`: where the evidence of rollouts in flight stands, so that a new controller need not count it all anew.
//! - `inbox`: alerts that belong to no service.
//! - `hands`: carries out actions in order, again until they are done.
//! - `patience`: a store whose answers are not waited for without end.
//! - `split`: the split as people write it.
//! - [`status`]: what people and programs are shown.
//! - [`clock`]: the time, which never goes back.

mod budgets;
mod checks;
pub mod clock;
mod depending;
mod gates;
pub mod handle;
mod hands;
mod hearing;
mod inbox;
mod keeper;
mod meter;
mod patience;
mod recorder;
mod run;
mod split;
mod standings;
pub mod status;

pub use handle::{AskError, DeployRequest, Deployed, Foreseen, GroupDeployed, GroupMember, Handle};
pub use run::{Options, StartError, start};
