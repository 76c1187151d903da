//! What becomes of alerts about a service.
//!
//! An alert with `action: rollback` acts where it can be about the newest release: on its rollout, and for a while after
//! its promotion. It goes the ways that people and objectives go too: out of the rollout in flight, or back to the last
//! good release. Whatever it does is remembered beside it, so that an alert that is told again does nothing.

use std::collections::BTreeMap;

use crate::alert::{Action, Alert, Alerts, Became, Heard, Subject, Unacted, forget};
use crate::ids::{Revision, Timestamp};
use crate::rollout::{Ask, Kind, Moment, Phase, Rollout, RolloutEvent, Why};
use crate::trigger::Security;

use super::{Promotion, Service};

impl Service {
    /// Remembers alerts and does what they ask for; `None`: all of it was known.
    pub(super) fn alerted(&self, alerts: &[Alert], now: Timestamp) -> Option<Self> {
        let mut next = self.clone();
        for alert in alerts {
            match next.alerts.iter_mut().find(|heard| heard.alert.key == alert.key) {
                Some(known) => known.resolved = known.resolved.or(alert.ended),
                None => {
                    let became = next.answer(alert, alerts, now);
                    next.alerts.push(Heard { alert: alert.clone(), at: now, became, resolved: alert.ended });
                }
            }
        }
        forget(&mut next.alerts);
        (next != *self).then_some(next)
    }

    /// Holds a rollout that an alert wants to stand still, as soon as it can.
    pub(super) fn hold_for_alerts(&mut self, now: Timestamp) {
        let Some(rollout) = self.rollout.as_ref().filter(|rollout| !rollout.is_done()) else { return };
        let of_it =
            |heard: &&mut Heard| matches!(heard.became, Became::Held { rollout: id, done: false } if id == rollout.id);
        let Some(heard) = self.alerts.iter_mut().find(of_it) else { return };
        let by =
            format!("alert {}: it fires for the stable release too, and going back would not help", heard.alert.name);
        let is_paused = matches!(rollout.phase, Phase::Paused { .. });
        let pause = || rollout.step(&RolloutEvent::Asked(Ask::Pause { by }), now).ok().flatten();
        let paused = if is_paused { Some(rollout.clone()) } else { pause() };
        if let Some(paused) = paused {
            heard.became = Became::Held { rollout: paused.id, done: true };
            self.rollout = Some(paused);
        }
    }

    /// What becomes of an alert that was not known; `others` came with it.
    fn answer(&mut self, alert: &Alert, others: &[Alert], now: Timestamp) -> Became {
        let noted = |why| Became::Noted { why };
        if alert.ended.is_some() {
            return noted(Unacted::Over);
        }
        let security = self.spec.as_ref().map_or_else(Security::default, |spec| spec.triggers.security);
        match alert.asks(security) {
            Action::Rollback => {}
            Action::Investigate => return noted(Unacted::ForPeople),
            Action::Record => return noted(Unacted::NotAsked),
        }
        let became = match self.in_flight().filter(|rollout| !rollout.is_promoted()) {
            Some(rollout) => self.about_rollout(&rollout.clone(), alert, others, now),
            None => self.about_stable(alert, now),
        };
        became.unwrap_or_else(noted)
    }

    /// An alert while a release is on its way.
    fn about_rollout(
        &mut self,
        rollout: &Rollout,
        alert: &Alert,
        others: &[Alert],
        now: Timestamp,
    ) -> Result<Became, Unacted> {
        // Nor is a way back taken back: what fires is what it leaves.
        let is_back = rollout.kind == Kind::Back || self.is_going_back();
        if is_back || matches!(rollout.phase, Phase::Stopping { .. }) {
            return Err(Unacted::GoesBack { rollout: rollout.id });
        }
        let subject = self.subject(alert);
        if let Some(stable) = rollout.stable.filter(|stable| subject.is(Subject::Stable, *stable)) {
            return Err(Unacted::AboutStable { stable });
        }
        self.is_newest(subject, rollout.candidate)?;
        // Whoever names the candidate cannot mean what was before it.
        if matches!(subject, Subject::Any) && alert.key.starts_at < rollout.started {
            return Err(Unacted::Older { release: rollout.candidate });
        }
        if self.fires_for_stable(rollout, alert, others, now) {
            return Ok(Became::Held { rollout: rollout.id, done: false });
        }
        let why = Why::Alert { name: alert.name.clone(), summary: alert.summary.clone() };
        match rollout.step(&RolloutEvent::Asked(Ask::Back { why }), now) {
            Ok(Some(back)) => {
                self.rollout = Some(back);
                // Whoever goes back does not want what waits behind it either.
                self.next = None;
                Ok(Became::TookBack { rollout: rollout.id })
            }
            Ok(None) | Err(_) => Err(Unacted::GoesBack { rollout: rollout.id }),
        }
    }

    /// An alert while no release is on its way.
    fn about_stable(&mut self, alert: &Alert, now: Timestamp) -> Result<Became, Unacted> {
        let Some(stable) = self.stable else { return Err(Unacted::NothingBefore) };
        let subject = self.subject(alert);
        if !subject.is(Subject::Stable, stable) {
            self.is_newest(subject, stable)?;
        }
        let window = self.spec.as_ref().map_or_else(|| Alerts::default().window, |spec| spec.alerts.window);
        let outside = Unacted::OutsideWindow { stable, window };
        let Some(Promotion { began, at, kind, .. }) = self.promotion.filter(|p| p.release == stable) else {
            return Err(outside);
        };
        if kind == Kind::Back {
            return Err(Unacted::WentBackBefore { stable });
        }
        if now.since(at) > window {
            return Err(outside);
        }
        if matches!(subject, Subject::Any | Subject::Stable) && alert.key.starts_at < began {
            return Err(Unacted::Older { release: stable });
        }
        if let Some(before) =
            self.last_good(|revision| revision != stable).filter(|before| self.did_too(alert, *before, began))
        {
            return Err(Unacted::BeforeToo { before });
        }
        let by = format!("alert {}", alert.name);
        let next = self.back_to(None, &by, now).map_err(|_| Unacted::NothingBefore)?;
        let Some(next) = with_reason(next, alert, stable, now) else { return Err(Unacted::NothingBefore) };
        let Some((rollout, to)) = next.next.as_ref().map(|next| (next.id, next.revision)) else {
            return Err(Unacted::NothingBefore);
        };
        *self = next;
        Ok(Became::WentBack { rollout, to })
    }

    fn subject<'a>(&self, alert: &'a Alert) -> Subject<'a> {
        let known: BTreeMap<Revision, String> =
            self.releases.values().map(|release| (release.revision, release.version.clone())).collect();
        alert.subject(self.name.service(), &known)
    }

    /// Whether an alert can be about the newest release.
    fn is_newest(&self, subject: Subject<'_>, newest: Revision) -> Result<(), Unacted> {
        match subject {
            Subject::Any | Subject::Candidate => Ok(()),
            Subject::Release(release) if release == newest => Ok(()),
            Subject::Release(release) => Err(Unacted::OtherRelease { release: self.called(release) }),
            Subject::Stable => Err(Unacted::OtherRelease { release: "the stable release".to_owned() }),
            Subject::Unknown(release) => Err(Unacted::OtherRelease { release: release.to_owned() }),
        }
    }

    /// Whether a release breaks one of evenkeel's own triggers, or has broken it since then.
    fn did_too(&self, alert: &Alert, release: Revision, since: Timestamp) -> bool {
        let is_same = |other: &Alert| other.key.is_trigger() && other.name == alert.name;
        let mut known = self.alerts.iter().filter(|heard| heard.resolved.is_none_or(|over| over >= since));
        let of_it = |heard: &Heard| self.subject(&heard.alert) == Subject::Release(release);
        alert.key.is_trigger() && known.any(|heard| is_same(&heard.alert) && of_it(heard))
    }

    /// Whether the same rule fires for the stable release too, or, of evenkeel's own, has fired for it.
    fn fires_for_stable(&self, rollout: &Rollout, alert: &Alert, others: &[Alert], now: Timestamp) -> bool {
        let Some(stable) = rollout.stable else { return false };
        if self.did_too(alert, stable, rollout.started) {
            return true;
        }
        let window = self.spec.as_ref().map_or_else(|| Alerts::default().window, |spec| spec.alerts.window);
        // Nobody need tell that an alert is over: an old one says nothing.
        let known = self.alerts.iter().filter(|heard| heard.fires() && now.since(heard.at) <= window);
        let told = others.iter().filter(|other| other.ended.is_none());
        let mut firing = known.map(|heard| &heard.alert).chain(told).filter(|other| other.name == alert.name);
        firing.any(|other| self.subject(other).is(Subject::Stable, stable))
    }
}

impl Subject<'_> {
    /// Whether it is this role, or the release that has it.
    fn is(self, role: Subject<'_>, release: Revision) -> bool {
        self == role || self == Subject::Release(release)
    }
}

/// A way back that is about to begin, with the reason in its history.
fn with_reason(mut service: Service, alert: &Alert, from: Revision, now: Timestamp) -> Option<Service> {
    let reason = Why::Alert { name: alert.name.clone(), summary: alert.summary.clone() };
    let text = format!("{} is taken back: {reason}", service.called(from));
    service.next.as_mut()?.moments.push(Moment::plain(now, text));
    Some(service)
}
