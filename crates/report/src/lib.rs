//! Tells of a rollout: why it decided what it did, and the report at its end.
//!
//! Pure: made of what is recorded, and of nothing else. Start at [`Story::of`]. Modules, in reading order:
//!
//! - [`story`]: what happened, in numbers: phases, decisions, both releases.
//! - `budgets`: how long each part of a way back took, against what it may take.
//! - `reasons`: what a decision would have needed to be another one.
//! - [`evidence`]: the evidence over time, as a picture.
//! - [`words`]: numbers as people read them.
//! - [`explain`]: the answer first, then the timeline; for whoever is called at night.
//! - [`text`]: the report as text.
//! - [`page`]: the report as a page of its own.

mod budgets;
pub mod evidence;
pub mod explain;
pub mod page;
mod reasons;
pub mod story;
pub mod text;
pub mod words;

pub use story::Story;
