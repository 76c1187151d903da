//! Promises about a service, and what becomes of a deploy when their budget is spent.
//!
//! The arithmetic is [`evenkeel_analysis::slo`]'s. What is told of a budget is an alert of evenkeel's own that asks for people;
//! a deploy is refused or slowed only for what whoever counts says beside it ([`crate::gate::Passage::spent`]), so that the same
//! events mean the same when they are read again.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_analysis::slo::{BadBy, Budget, Burn, Promise};
use serde::{Deserialize, Serialize};

use crate::alert::{Action, Alert, AlertKey, Heard};
use crate::ids::{ServiceName, Timestamp};
use crate::span::span;

/// The groups of the alerts begin like this.
pub const GROUP: &str = "evenkeel: slo";
/// What the alerts are called.
const NAME: &str = "BudgetBurns";

/// One promise of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slo {
    /// What people call it; of one service, each once.
    pub name: String,
    /// What is promised.
    pub promise: Promise,
    /// What becomes of a deploy when its budget is spent.
    pub when_spent: WhenSpent,
}

/// What becomes of a deploy of something new when a budget is spent. Ways back are never held up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenSpent {
    /// It is refused, unless its gates are skipped with a reason.
    #[default]
    Refuse,
    /// Each of its steps takes so many times as long, and none ends early.
    Slow(u32),
    /// Nothing; people are told.
    Tell,
}

/// A budget that is spent, as a deploy finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Whose.
    pub slo: String,
    /// In words and numbers.
    pub what: String,
    /// What becomes of the deploy.
    pub then: WhenSpent,
}

impl Slo {
    /// `99.9 % of the requests of 30 d`, with what is good.
    #[must_use]
    pub fn told(&self) -> String {
        let good = match self.promise.bad {
            BadBy::Failing => "succeed".to_owned(),
            BadBy::SlowerThan(us) => format!("are answered within {}", span(Duration::from_micros(us))),
        };
        format!("{} of the requests of {} {good}", percent(self.promise.objective), time(self.promise.window))
    }

    /// What a deploy is told when the budget is spent.
    #[must_use]
    pub fn spent(&self, budget: &Budget) -> Option<Spent> {
        let Budget { requests, bad, allowed, .. } = *budget;
        let what = format!(
            "the error budget of `{}` is spent: {bad} of {requests} requests of the last {} were bad, and {allowed:.0} may be",
            self.name,
            time(self.promise.window)
        );
        budget.is_spent().then(|| Spent { slo: self.name.clone(), what, then: self.when_spent })
    }

    /// What there is to tell: that the budget burns, at what speed, or that what was told is over.
    #[must_use]
    pub fn look(&self, service: &ServiceName, heard: &[Heard], burn: Option<Burn>, now: Timestamp) -> Vec<Alert> {
        let group = format!("{GROUP} {}", self.name);
        let mut told = heard.iter().filter(|heard| heard.fires() && heard.alert.key.group == group);
        let wanted = burn.map(|burn| (burn, burn.speed.name()));
        let is_known = |heard: &&Heard| wanted.is_some_and(|(_, speed)| heard.alert.key.fingerprint == speed);
        let over = told.clone().filter(|heard| !is_known(heard));
        let mut alerts: Vec<Alert> = over.map(|heard| Alert { ended: Some(now), ..heard.alert.clone() }).collect();
        if let Some((burn, speed)) = wanted.filter(|_| !told.any(|heard| is_known(&heard))) {
            alerts.push(self.alert(service, group, burn, speed, now));
        }
        alerts
    }

    fn alert(&self, service: &ServiceName, group: String, burn: Burn, speed: &str, now: Timestamp) -> Alert {
        let Burn { rate, seen, over, .. } = burn;
        let lasts = self.promise.window.div_f64(rate.max(1e-9));
        let summary = format!(
            "the error budget of `{}` burns {rate:.1} times as fast as it may: {} of {} requests of the last {} were bad; \
             at this rate all of it lasts {}",
            self.name,
            seen.bad,
            seen.of,
            span(over),
            time(Duration::from_secs(lasts.as_secs()))
        );
        let labels = [
            ("alertname", NAME.to_owned()),
            ("action", "investigate".to_owned()),
            ("service", service.service().to_owned()),
            ("environment", service.environment().to_owned()),
            ("slo", self.name.clone()),
            ("speed", speed.to_owned()),
        ];
        Alert {
            key: AlertKey { group, fingerprint: speed.to_owned(), starts_at: now },
            name: NAME.to_owned(),
            action: Action::Investigate,
            ended: None,
            labels: labels.map(|(name, value)| (name.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>(),
            summary,
        }
    }
}

/// A time of days in days.
fn time(time: Duration) -> String {
    let days = time.as_secs() / 86_400;
    if days >= 2 { format!("{days} d") } else { span(time) }
}

/// `99.95 %`.
fn percent(share: f64) -> String {
    let text = format!("{:.4}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use evenkeel_analysis::slo::Ledger;
    use evenkeel_analysis::slots::Part;

    use super::*;
    use crate::alert::{Became, Unacted};

    fn slo() -> Slo {
        let window = Duration::from_secs(30 * 86_400);
        let promise = Promise { bad: BadBy::Failing, objective: 0.999, window };
        Slo { name: "availability".into(), promise, when_spent: WhenSpent::Refuse }
    }

    #[test]
    fn a_budget_that_burns_is_told_once_by_its_speed_and_its_end_too() {
        let (slo, service) = (slo(), ServiceName::new("web@staging").unwrap());
        let (mut ledger, mut heard, mut said) = (Ledger::default(), Vec::<Heard>::new(), Vec::new());
        let mut now = Timestamp(1_000 * 86_400_000_000);
        let mut pass = |minutes: u32, bad: u64, said: &mut Vec<String>| {
            for _ in 0..minutes {
                now = now.after(Duration::from_secs(60));
                ledger.add(now.0, Part { of: 1_000, bad }, slo.promise.window);
                for alert in slo.look(&service, &heard, ledger.burns(&slo.promise, now.0), now) {
                    said.push(
                        alert
                            .ended
                            .map_or_else(|| alert.summary.clone(), |_| format!("{} is over", alert.key.fingerprint)),
                    );
                    match heard.iter_mut().find(|known| known.alert.key == alert.key) {
                        Some(known) => known.resolved = alert.ended,
                        None => heard.push(Heard {
                            at: now,
                            became: Became::Noted { why: Unacted::ForPeople },
                            resolved: None,
                            alert,
                        }),
                    }
                }
            }
        };
        pass(4 * 1_440, 0, &mut said);
        pass(30, 100, &mut said);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].starts_with("the error budget of `availability` burns 15.0 times as fast as it may: 900 of 60000"),
            "{said:?}"
        );
        assert!(said[0].ends_with("requests of the last 1 h were bad; at this rate all of it lasts 2 d"), "{said:?}");
        pass(120, 0, &mut said);
        assert!(said.contains(&"racing is over".to_owned()), "{said:?}");
        assert!(heard.iter().all(|heard| heard.resolved.is_some()), "{said:?}");
    }

    #[test]
    fn a_promise_and_a_spent_budget_are_told_in_words() {
        assert_eq!(slo().told(), "99.9 % of the requests of 30 d succeed");
        let budget = Budget { requests: 1_000, bad: 3, allowed: 1.0, left: -2.0 };
        let spent = slo().spent(&budget).unwrap();
        assert_eq!(
            spent.what,
            "the error budget of `availability` is spent: 3 of 1000 requests of the last 30 d were bad, and 1 may be"
        );
        assert_eq!(slo().spent(&Budget { left: 0.1, ..budget }), None);
    }
}
