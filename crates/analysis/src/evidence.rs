//! Is a candidate harmful? Evidence that is right at every moment, however often one looks.
//!
//! Start at [`Engine`]: make one of a [`Design`] when a rollout begins, feed it with what each slot of 100 ms showed, summed
//! over all proxies, and ask it for a [`Decision`]:
//!
//! ```
//! use evenkeel_analysis::evidence::{Decision, Design, Engine, Question, Seen, Shown, Split};
//!
//! let mut engine = Engine::new(Design::default());
//! for slot in 0..30 {
//!     let (candidate, stable) = (Seen::new(1, 1), Seen::new(9, 0));
//!     engine.reveal(slot, Question::Errors, &[Shown { epoch: 1, weight: 0.1, split: Split::Coin, candidate, stable }]);
//! }
//! assert_eq!(engine.decision(), Decision::Rollback);
//! assert!(engine.verdict().unwrap().state.one_in() >= 100.0);
//! ```
//!
//! Every request is a small bet, made before its outcome is known, on which release a bad outcome came from. The proxy's
//! coin decided that, so against a harmless candidate no bet wins on average, whatever the traffic does; the wealth E of
//! all bets ever reaches 1/alpha with probability alpha at most (Ville 1939). Modules, in reading order:
//!
//! - [`design`]: what is a rollout judged on?
//! - [`engine`]: is this candidate harmful, and may it have more traffic?
//! - [`bet`]: what does a request pay?
//! - [`pot`]: the wealth of a test, and of several together.
//! - [`rate`]: how often does stable fail, before a bet?
//! - [`two_arm`]: is the candidate worse than stable, or surely not much worse?
//! - [`latency`]: is it slower?
//! - [`one_arm`]: does it break an absolute limit?
//! - [`owner`]: whose are first failures, for sessions?
//! - [`blocks`]: is it the worst of several groups, for clustered failures?
//! - [`power`]: how much traffic does a judgement need?
//! - [`stream`]: a single test, line by line.
//! - [`watch`]: does what all this rests on hold here?

pub mod bet;
pub mod blocks;
pub mod design;
pub mod engine;
pub mod latency;
mod number;
pub mod one_arm;
pub mod owner;
pub mod pot;
pub mod power;
pub mod rate;
pub mod stream;
pub mod two_arm;
pub mod watch;

pub use bet::{Factors, Group, Margin, Seen};
pub use design::{Compared, Design, History, Settings, Shares, Unit};
pub use engine::{
    Decision, Doubt, Engine, Gate, Leading, MetricState, Mode, Name, Question, Run, Shown, ShownLatency, Split, State,
    Unrevealed, Verdict, Wait, merge, one_in,
};
pub use power::{AnswerTimes, Needed, Tolerated, Traffic};
