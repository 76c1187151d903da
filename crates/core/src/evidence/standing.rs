//! Where the evidence of a rollout stands after a tick: whoever takes over goes on from there, and need not read every
//! tick since the rollout began.
//!
//! It saves time and decides nothing: [`Evidence::resumed`] gives the bits that [`Evidence::recalled`] gives, or nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::assessment::Progress;
use super::{Evidence, Judged, Tally, Tick};
use crate::alone::Samples;
use crate::ids::{Revision, RolloutId, Timestamp};
use crate::service::Service;

/// Written with every standing; another version may keep other numbers, and counts from the first tick on.
const LAYOUT: &str = concat!("1 ", env!("CARGO_PKG_VERSION"));

/// The evidence of a rollout after a tick.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Standing {
    layout: String,
    /// The rollout.
    pub rollout: RolloutId,
    /// The sequence of the newest tick in it.
    pub tick: u64,
    /// When that was.
    at: Timestamp,
    whole: BTreeMap<Revision, Tally>,
    step: Option<Judged>,
    trial: Option<Progress>,
    first: Option<Timestamp>,
    samples: Samples,
}

/// A standing that cannot be read: another version of evenkeel wrote it, or it was changed by other hands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadStanding(String);

impl Standing {
    /// As bytes: CBOR, which says every number to the bit.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(self, &mut bytes)
            .expect("numbers and names can be written as CBOR, and memory takes them");
        bytes
    }

    /// Reads what [`Standing::to_bytes`] has written.
    ///
    /// # Errors
    /// [`BadStanding`] when this version has not.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadStanding> {
        let standing: Self = ciborium::from_reader(bytes).map_err(|error| BadStanding(error.to_string()))?;
        if standing.layout != LAYOUT {
            return Err(BadStanding(format!("its layout is {}, and this one knows {LAYOUT}", standing.layout)));
        }
        Ok(standing)
    }

    /// The start of a proxy that told the newest reveal in it, and the reveal's sequence.
    #[must_use]
    pub fn heard(&self) -> Option<(u64, u64)> {
        self.trial.as_ref()?.heard
    }
}

impl Evidence {
    /// Where it stands; `None` while no tick of a rollout came.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        let Self { rollout, whole, step, trial, first, alone, tick, ticked, .. } = self;
        let trial = trial.as_ref().map(|trial| trial.progress().clone());
        let (whole, step, samples) = (whole.clone(), step.clone(), alone.samples.clone());
        let (layout, tick, at, first) = (LAYOUT.to_owned(), *tick, *ticked, *first);
        let standing = |rollout| Standing { layout, rollout, tick, at, whole, step, trial, first, samples };
        rollout.filter(|_| tick > 0).map(standing)
    }

    /// What [`Evidence::recalled`] tells of every tick up to a standing and of these, which come after it; `None` where the
    /// standing is of something else, or does not tell what the step in flight needs.
    #[must_use]
    pub fn resumed<'a>(
        service: &Service,
        standing: Standing,
        ticks: impl IntoIterator<Item = &'a Tick>,
    ) -> Option<Self> {
        let mut evidence = Self::new();
        evidence.follow(service);
        if evidence.rollout != Some(standing.rollout) {
            return None;
        }
        if let Some(judged) = &mut evidence.step {
            let known = standing.step.filter(|known| (known.step, known.began) == (judged.step, judged.began));
            let is_sampled = judged.step == evidence.alone.last && evidence.alone.validation.is_some();
            // A step that has no beginning counts everything there ever was, whenever it began to be judged here.
            let is_whole = |known: &Judged| judged.began > Timestamp::default() || known.whole == standing.whole;
            match known.filter(is_whole) {
                Some(known) => (judged.whole, evidence.alone.samples) = (known.whole, standing.samples),
                None if judged.began == Timestamp::default() && !is_sampled => judged.whole = standing.whole.clone(),
                None if standing.at <= judged.began => {}
                None => return None,
            }
        }
        if let (Some(trial), Some(progress)) = (&mut evidence.trial, standing.trial)
            && !trial.resume(progress)
        {
            return None;
        }
        evidence.first = standing.first;
        (evidence.whole, evidence.tick, evidence.ticked) = (standing.whole, standing.tick, standing.at);
        evidence.look(standing.at);
        ticks.into_iter().for_each(|tick| evidence.take(tick));
        Some(evidence)
    }
}
