//! Several services that are promoted and rolled back together, in order.
//!
//! There is no log of a group and nobody who leads it: each member's rollout knows who its fellows are, and looks at them
//! as it looks at its replicas. Everything follows from that, whatever crash there was in between:
//!
//! - nobody starts before every fellow has begun, and before those it comes after have all of the traffic;
//! - whoever has been watched to its end waits there for the others, the way back still open, and all are promoted
//!   together;
//! - when one goes back the others follow, the last one first;
//! - a fellow that never began (the deploy was cut short) takes the others back too.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Event;
use crate::ids::{BasisPoints, Revision, ServiceName, Timestamp};
use crate::rollout::{Outcome, Phase, Rollout, Why};
use crate::service::{Refused, Service, Verb};

/// Most services of one group.
pub const MEMBERS_MAX: usize = 50;

/// The group that a spec puts its service into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The group's name.
    pub group: String,
    /// Members that must have all of their traffic on the new release before this one begins.
    pub after: Vec<ServiceName>,
}

/// What a rollout knows of the group it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Together {
    /// The group's name.
    pub group: String,
    /// Names this one deploy of the group; no other one has the same.
    pub id: String,
    /// Everyone in it, this service too, those that come first before those that come after them.
    pub members: Vec<Member>,
}

/// One service of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The service.
    pub service: ServiceName,
    /// Members that it comes after.
    pub after: Vec<ServiceName>,
}

/// The fellows of a rollout, as it needs to know them; whole each time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fellows {
    /// Those of which nothing is known.
    pub lost: Vec<ServiceName>,
    /// Those whose turn has not come.
    pub waiting: Vec<ServiceName>,
    /// Those that must have all of the traffic first, and have not.
    pub ahead: Vec<ServiceName>,
    /// Those that have not been watched to their end.
    pub on_the_way: Vec<ServiceName>,
    /// One that goes back or went back, and why.
    pub failed: Option<(ServiceName, String)>,
    /// Those that come after this one and still give their new release a share.
    pub behind: Vec<ServiceName>,
    /// Whether one has been promoted: there is no way back for the others then.
    pub is_promoted: bool,
}

/// How one member of a group is taken back once people ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayBack {
    /// The service.
    pub service: ServiceName,
    /// To which release; `None`: out of the rollout in flight.
    pub to: Option<Revision>,
}

impl WayBack {
    /// What its service is told.
    #[must_use]
    pub fn command(&self, by: &str) -> Event {
        Event::Command { verb: Verb::Rollback { to: self.to }, by: by.to_owned() }
    }
}

/// Why several services cannot be a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadGroup {
    /// Two of them come after each other.
    #[error("`{0}` comes after itself, by way of the services it comes after")]
    Circle(ServiceName),
    /// One comes after somebody who is not there.
    #[error("`{service}` comes after `{after}`, which is not in the group")]
    Unknown {
        /// Who.
        service: ServiceName,
        /// After whom.
        after: ServiceName,
    },
    /// More than [`MEMBERS_MAX`].
    #[error("{0} services are too many for a group: at most {MEMBERS_MAX}")]
    TooMany(usize),
}

/// Puts those that come first before those that come after them, otherwise in the order given.
///
/// # Errors
/// [`BadGroup`] says why there is no such order.
pub fn in_order(members: Vec<Member>) -> Result<Vec<Member>, BadGroup> {
    if members.len() > MEMBERS_MAX {
        return Err(BadGroup::TooMany(members.len()));
    }
    let all: BTreeSet<ServiceName> = members.iter().map(|member| member.service.clone()).collect();
    for member in &members {
        if let Some(after) = member.after.iter().find(|after| !all.contains(*after)) {
            return Err(BadGroup::Unknown { service: member.service.clone(), after: after.clone() });
        }
    }
    let (mut waiting, mut ordered) = (members, Vec::new());
    while !waiting.is_empty() {
        let is_there = |name: &ServiceName| ordered.iter().any(|member: &Member| member.service == *name);
        let Some(next) = waiting.iter().position(|member| member.after.iter().all(is_there)) else {
            return Err(BadGroup::Circle(waiting.swap_remove(0).service));
        };
        ordered.push(waiting.remove(next));
    }
    Ok(ordered)
}

/// The members that take part, each after those that it comes after, also by way of others that do not take part.
#[must_use]
pub fn among(members: &[Member], takes_part: &[ServiceName]) -> Vec<Member> {
    let mut after: BTreeMap<&ServiceName, BTreeSet<ServiceName>> = BTreeMap::new();
    for member in members {
        let mut before = BTreeSet::new();
        for other in &member.after {
            match takes_part.contains(other) {
                true => drop(before.insert(other.clone())),
                false => before.extend(after.get(other).cloned().unwrap_or_default()),
            }
        }
        after.insert(&member.service, before);
    }
    let takes_part = members.iter().filter(|member| takes_part.contains(&member.service));
    let of = |member: &Member| after.get(&member.service).into_iter().flatten().cloned().collect();
    takes_part.map(|member| Member { service: member.service.clone(), after: of(member) }).collect()
}

/// Where a member is with this deploy of its group.
enum Place {
    Lost,
    Waiting,
    OnTheWay,
    AtItsEnd,
    Promoted,
    Failed { first: Option<ServiceName>, reason: String },
}

impl Together {
    /// Looks at the fellows of a service's rollout; `find` gives a service as it is now.
    #[must_use]
    pub fn look<'a>(&self, me: &ServiceName, find: impl Fn(&ServiceName) -> Option<&'a Service>) -> Fellows {
        let mut fellows = Fellows::default();
        let mine = self.members.iter().find(|member| member.service == *me);
        for Member { service, .. } in self.members.iter().filter(|member| member.service != *me) {
            let known = find(service);
            let rollout = known.and_then(|service| service.of_group(&self.id));
            let is_ahead = mine.is_some_and(|mine| mine.after.contains(service));
            let is_next = || known.is_some_and(|known| known.awaits(&self.id));
            let without = || if is_next() { Place::Waiting } else { Place::Lost };
            match rollout.map_or_else(without, place) {
                Place::Lost => fellows.lost.push(service.clone()),
                Place::Waiting => fellows.waiting.push(service.clone()),
                Place::OnTheWay => {
                    fellows.on_the_way.push(service.clone());
                    if is_ahead {
                        fellows.ahead.push(service.clone());
                    }
                }
                Place::AtItsEnd => {}
                Place::Promoted => fellows.is_promoted = true,
                // Whoever only follows another one names that one.
                Place::Failed { first, reason } => {
                    fellows.failed.get_or_insert((first.unwrap_or_else(|| service.clone()), reason));
                }
            }
            let has_share = rollout.is_some_and(|rollout| rollout.weight() > BasisPoints::NONE && !rollout.is_done());
            if has_share && self.comes_after(service, me) {
                fellows.behind.push(service.clone());
            }
        }
        fellows
    }

    /// How everyone who can is taken back, those that come after others before those; `find` gives a service as it is now.
    ///
    /// Who went back already, or had nothing to go back to, has nothing to do. Decides nothing.
    ///
    /// # Errors
    /// Who has to and cannot, and what it answers: then nobody is to be told anything.
    pub fn ways_back<'a>(
        &self,
        by: &str,
        now: Timestamp,
        find: impl Fn(&ServiceName) -> Option<&'a Service>,
    ) -> Result<Vec<WayBack>, (ServiceName, Refused)> {
        let mut ways = Vec::new();
        for Member { service, .. } in self.members.iter().rev() {
            let Some(known) = find(service) else { continue };
            let Some(rollout) = known.of_group(&self.id) else { continue };
            let to = rollout.stable.filter(|_| rollout.is_promoted());
            if rollout.is_done() && to.is_none() {
                continue;
            }
            let way = WayBack { service: service.clone(), to };
            match known.step(&way.command(by), now) {
                Ok(_) => ways.push(way),
                Err(Refused::NothingToDo { .. } | Refused::NoRollout { .. }) => {}
                Err(refused) => return Err((service.clone(), refused)),
            }
        }
        Ok(ways)
    }

    fn comes_after(&self, service: &ServiceName, me: &ServiceName) -> bool {
        let place = |name: &ServiceName| self.members.iter().position(|member| member.service == *name);
        place(service) > place(me)
    }
}

fn place(rollout: &Rollout) -> Place {
    match &rollout.phase {
        Phase::Retiring { .. } | Phase::Done { outcome: Outcome::Promoted, .. } => Place::Promoted,
        Phase::Gathering { .. } => Place::AtItsEnd,
        Phase::Clearing { back: Some(why), .. }
        | Phase::RollingBack { why, .. }
        | Phase::Stopping { why, .. }
        | Phase::Stuck { why }
        | Phase::Done { outcome: Outcome::RolledBack { why } | Outcome::Stopped { why }, .. } => {
            if let Why::Fellow { service, reason } = why {
                return Place::Failed { first: Some(service.clone()), reason: reason.clone() };
            }
            Place::Failed { first: None, reason: why.to_string() }
        }
        Phase::Done { outcome: Outcome::Refused { gate, why }, .. } => {
            Place::Failed { first: None, reason: format!("{gate}: {why}") }
        }
        Phase::Lining { .. }
        | Phase::Clearing { back: None, .. }
        | Phase::Preparing { .. }
        | Phase::Smoking { .. }
        | Phase::Shifting { .. }
        | Phase::Holding { .. }
        | Phase::Paused { .. } => Place::OnTheWay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(service: &str, after: &[&str]) -> Member {
        let name = |name: &str| ServiceName::new(name).unwrap();
        Member { service: name(service), after: after.iter().map(|after| name(after)).collect() }
    }

    fn order(members: &[(&str, &[&str])]) -> Result<Vec<String>, BadGroup> {
        let members = members.iter().map(|(service, after)| member(service, after)).collect();
        in_order(members).map(|members| members.iter().map(|member| member.service.to_string()).collect())
    }

    #[test]
    fn who_comes_first_is_before_who_comes_after_and_the_rest_stays_as_written() {
        let told = order(&[("web", &["api", "auth"]), ("mail", &[]), ("api", &["auth"]), ("auth", &[])]);
        assert_eq!(told.unwrap(), ["mail", "auth", "api", "web"]);
        assert_eq!(order(&[("b", &[]), ("a", &[])]).unwrap(), ["b", "a"]);
    }

    #[test]
    fn who_does_not_take_part_is_passed_over() {
        let members = in_order(vec![member("web", &["api"]), member("api", &["auth"]), member("auth", &[])]).unwrap();
        let names = ["web", "auth"].map(|name| ServiceName::new(name).unwrap());
        assert_eq!(among(&members, &names), [member("auth", &[]), member("web", &["auth"])]);
    }

    #[test]
    fn a_circle_or_a_stranger_is_told() {
        assert!(matches!(order(&[("a", &["b"]), ("b", &["a"])]), Err(BadGroup::Circle(_))));
        assert!(matches!(order(&[("a", &["a"])]), Err(BadGroup::Circle(_))));
        assert!(matches!(order(&[("a", &["b"])]), Err(BadGroup::Unknown { .. })));
    }
}
