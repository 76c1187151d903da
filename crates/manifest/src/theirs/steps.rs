//! The steps of Argo Rollouts' canaries as steps of our own.
//!
//! Theirs change one thing each: a weight, a scale, a route; or take time: a pause, an analysis. Each of ours says all
//! that holds for a time. So one of ours is written for each of theirs that takes time, and for a weight that another
//! weight follows at once; what changes in between is kept until then.

use std::rc::Rc;
use std::time::Duration;

use super::analysis::{Analysed, analysis};
use super::routes::{header_matches, is_removal};
use super::tree::{below, entry, get, scalar, tell_bad, tell_unused, text};
use crate::problem::{Code, Mistake, Problems};
use crate::values::{parse_duration, short};
use crate::yaml::{Key, Kind, Node};

/// The kinds of steps, of which each step has one.
const KINDS: &[&str] =
    &["setWeight", "pause", "setCanaryScale", "analysis", "experiment", "setHeaderRoute", "setMirrorRoute", "plugin"];

/// Most steps of theirs: each of ours takes a few of them.
const STEPS_MAX: usize = 500;

/// Their steps written anew.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Steps of ours.
    pub(super) steps: Vec<Rc<Node>>,
    /// For each of theirs, the number of the one of ours in which it falls, from 0.
    pub(super) starts: Vec<usize>,
    /// Whether the last step of ours gives all traffic.
    pub(super) is_full: bool,
}

/// What holds at one place of the walk.
struct Walk<'a> {
    written: Walked,
    weight: Rc<Node>,
    /// No step of ours was written for the weight yet.
    is_fresh: bool,
    scale: Option<Rc<Node>>,
    routes: Vec<(String, Vec<Rc<Node>>)>,
    mirrors: Vec<(String, Rc<Node>)>,
    /// How long the last step of ours lasts, where it is a pause that another pause only makes longer.
    pause: Option<Duration>,
    /// What stands for 100 %.
    most: f64,
    how: &'a Analysed<'a>,
}

/// Writes their steps anew. `most` is the weight that is all traffic: 100, or their `maxTrafficWeight`.
pub(super) fn walk(steps: &[Rc<Node>], most: f64, how: &Analysed<'_>, problems: &mut Problems) -> Walked {
    let start = steps.first().map_or(0..0, |step| step.at.clone());
    let mut walk = Walk {
        written: Walked::default(),
        weight: Node::plain(start, "0%".into()),
        is_fresh: false,
        scale: None,
        routes: Vec::new(),
        mirrors: Vec::new(),
        pause: None,
        most,
        how,
    };
    if let Some(beyond) = steps.get(STEPS_MAX) {
        let message = format!("there are {} steps", steps.len());
        problems
            .add(Mistake::new(Code::OutOfRange, beyond.at.clone(), message).help(format!("write at most {STEPS_MAX}")));
    }
    for step in steps.iter().take(STEPS_MAX) {
        walk.step(step, problems);
    }
    // The step of 100 % is written by whoever knows how long it lasts.
    if walk.is_fresh && !walk.is_full() {
        let at = walk.weight.at.clone();
        walk.write(&at, Node::plain(at.clone(), "0s".into()), Vec::new());
    }
    walk.written
}

impl Walk<'_> {
    fn is_full(&self) -> bool {
        scalar(&self.weight) == Some("100%")
    }

    fn step(&mut self, step: &Rc<Node>, problems: &mut Problems) {
        let here = self.written.steps.len();
        let is_longer = self.pause.is_some() && below(step, &["pause", "duration"]).is_some();
        self.written.starts.push(if is_longer { here - 1 } else { here });
        tell_unused(Some(step), KINDS, &[], "a canary step", problems);
        let kinds: Vec<&str> = KINDS.iter().copied().filter(|kind| has(step, kind)).collect();
        let &[kind] = &kinds[..] else {
            let message = match kinds.len() {
                0 => "this step does nothing".to_owned(),
                _ => format!("this step does {} things: {}", kinds.len(), kinds.join(", ")),
            };
            let help = "make a step of each: `- setWeight: 20`, `- pause: { duration: 10m }`";
            problems.add(Mistake::new(Code::Conflict, step.at.clone(), message).help(help));
            return;
        };
        // Only `pause: {}` may be empty.
        let Some(of) = get(step, kind).cloned().or_else(|| (kind == "pause").then(|| Rc::clone(step))) else { return };
        match kind {
            "setWeight" => self.set_weight(&of, problems),
            "pause" => self.hold(&of, problems),
            "setCanaryScale" => self.set_scale(&of, problems),
            "setHeaderRoute" => self.set_header_route(&of, problems),
            "setMirrorRoute" => self.set_mirror_route(&of, problems),
            "analysis" => {
                let checks = analysis(&of, None, self.how, problems);
                // Without what it measures it takes no time.
                if !checks.is_empty() {
                    self.write(&of.at, Node::plain(of.at.clone(), "0s".into()), checks);
                }
            }
            "experiment" => self.experiment(&of, problems),
            _ => {
                let message = "plugins are not run".to_owned();
                tell_bad(&of.at, message, "let a check run a program: `command: [program, argument]`", problems);
            }
        }
    }

    fn set_weight(&mut self, of: &Rc<Node>, problems: &mut Problems) {
        let Some(number) = scalar(of).and_then(|text| text.parse::<f64>().ok()).filter(|number| *number >= 0.0) else {
            tell_bad(&of.at, "`setWeight` takes a whole number".into(), "write `setWeight: 20`", problems);
            return;
        };
        if number > self.most {
            let message = format!("`setWeight`: {number} is more than all traffic, which is {}", self.most);
            tell_bad(&of.at, message, format!("write 0 to {}", self.most), problems);
            return;
        }
        if self.is_fresh {
            let at = self.weight.at.clone();
            self.write(&at, Node::plain(at.clone(), "0s".into()), Vec::new());
        }
        // At most two decimals, which is as fine as shares are.
        let share = (number / self.most * 10_000.0).round() / 100.0;
        self.weight = Node::plain(of.at.clone(), format!("{share}%"));
        (self.is_fresh, self.pause) = (true, None);
    }

    fn hold(&mut self, of: &Rc<Node>, problems: &mut Problems) {
        tell_unused(Some(of).filter(|of| !has(of, "pause")), &["duration"], &[], "a pause", problems);
        let Some(duration) = get(of, "duration").filter(|_| !has(of, "pause")) else {
            let manual = Node::quoted(of.at.clone(), "manual".into());
            self.write(&of.at, manual, Vec::new());
            return;
        };
        let lasts = super::tree::seconds(duration);
        let time = scalar(&lasts).and_then(parse_duration);
        if let (Some(before), Some(time)) = (self.pause, time)
            && let Some(last) = self.written.steps.pop()
        {
            let both = before.saturating_add(time);
            let longer = Node::plain(duration.at.clone(), format!("{}ms", both.as_millis()));
            self.written.steps.push(with(&last, "hold", longer));
            self.pause = Some(both);
            return;
        }
        self.write(&of.at, lasts, Vec::new());
        self.pause = time;
    }

    fn set_scale(&mut self, of: &Rc<Node>, problems: &mut Problems) {
        tell_unused(Some(of), &["weight", "replicas", "matchTrafficWeight"], &[], "setCanaryScale", problems);
        self.pause = None;
        let is_nothing = |node: &&Rc<Node>| scalar(node) == Some("0");
        if let Some(none) = get(of, "replicas").or(get(of, "weight")).filter(is_nothing) {
            let message = "the new release keeps at least one replica until its end".to_owned();
            problems.add(Mistake::new(Code::NotUsed, none.at.clone(), message).help("write 1 or more"));
            self.scale = Some(Node::plain(none.at.clone(), "1".into()));
            return;
        }
        self.scale = match (get(of, "replicas"), get(of, "weight")) {
            (Some(replicas), _) => Some(Rc::clone(replicas)),
            (None, Some(weight)) => {
                let part = format!("{}%", scalar(weight).unwrap_or_default());
                Some(Node::plain(weight.at.clone(), part))
            }
            // As many as the share needs: what ours do by themselves.
            (None, None) => None,
        };
    }

    fn set_header_route(&mut self, of: &Rc<Node>, problems: &mut Problems) {
        tell_unused(Some(of), &["name", "match"], &[], "setHeaderRoute", problems);
        let name = text(of, "name").unwrap_or_default().to_owned();
        self.pause = None;
        self.routes.retain(|(known, _)| *known != name);
        if !is_removal(of) {
            self.routes.push((name, header_matches(get(of, "match"), problems)));
        }
    }

    fn set_mirror_route(&mut self, of: &Rc<Node>, problems: &mut Problems) {
        tell_unused(Some(of), &["name", "match", "percentage"], &[], "setMirrorRoute", problems);
        let name = text(of, "name").unwrap_or_default().to_owned();
        self.pause = None;
        self.mirrors.retain(|(known, _)| *known != name);
        if is_removal(of) {
            if let Some(percentage) = get(of, "percentage") {
                let message = "without `match` this removes the route, as Argo Rollouts has it".to_owned();
                let help = "add `match: [{ path: { prefix: / } }]`";
                problems.add(Mistake::new(Code::SaysNothing, percentage.at.clone(), message).help(help));
            }
            return;
        }
        if let Some(matches) = get(of, "match") {
            let message = "copies are made of any request that changes nothing, whatever `match` says".to_owned();
            let help = "leave it as it is: GET, HEAD, OPTIONS and TRACE are copied";
            problems.add(Mistake::new(Code::NotUsed, matches.at.clone(), message).help(help));
        }
        let share = text(of, "percentage").unwrap_or("100");
        let at = get(of, "percentage").map_or(&of.at, |node| &node.at);
        self.mirrors.push((name, Node::plain(at.clone(), format!("{share}%"))));
    }

    /// What an experiment measures is measured of the releases there are.
    fn experiment(&mut self, of: &Rc<Node>, problems: &mut Problems) {
        let used = ["templates", "duration", "analyses", "dryRun", "analysisRunMetadata", "scaleDownDelaySeconds"];
        tell_unused(Some(of), &used, &[], "an experiment", problems);
        let message = "an experiment starts no replicas of its own: the new release is measured beside the stable one";
        let help = "leave it as it is: its `analyses` are measured, for its `duration`";
        problems.add(Mistake::new(Code::NotUsed, of.at.clone(), message).help(help));
        let hold = get(of, "duration").map_or_else(|| Node::plain(of.at.clone(), "0s".into()), super::tree::seconds);
        let mut checks = Vec::new();
        for one in super::tree::items(get(of, "analyses")) {
            let as_list = Node::list(one.at.clone(), vec![Rc::clone(one)]);
            let mut keys = vec![entry("templates", &as_list)];
            keys.extend(get(one, "args").map(|args| entry("args", args)));
            keys.extend(get(of, "dryRun").map(|dry| entry("dryRun", dry)));
            checks.extend(analysis(&Node::mapping(one.at.clone(), keys), None, self.how, problems));
        }
        self.write(&of.at, hold, checks);
    }

    /// Writes a step of ours for what holds here.
    fn write(&mut self, at: &std::ops::Range<usize>, hold: Rc<Node>, checks: Vec<Rc<Node>>) {
        let mut keys = vec![entry("weight", &self.weight), entry("hold", &hold)];
        keys.extend(self.scale.as_ref().map(|scale| entry("replicas", scale)));
        let pins: Vec<Rc<Node>> = self.routes.iter().flat_map(|(_, matches)| matches.iter().cloned()).collect();
        if !pins.is_empty() {
            keys.push(entry("match", &Node::list(at.clone(), pins)));
        }
        // At 100 % there is nothing left to be copied.
        keys.extend(self.mirrors.last().filter(|_| !self.is_full()).map(|(_, share)| entry("mirror", share)));
        if !checks.is_empty() {
            keys.push(entry("checks", &Node::list(at.clone(), checks)));
        }
        self.written.steps.push(Node::mapping(at.clone(), keys));
        self.written.is_full = self.is_full();
        (self.is_fresh, self.pause) = (false, None);
    }
}

/// Whether a key is there, whatever it holds.
fn has(node: &Node, key: &str) -> bool {
    matches!(&node.kind, Kind::Map(pairs) if pairs.iter().any(|(known, _)| known.text == key))
}

/// A mapping with another value for a key.
pub(super) fn with(node: &Rc<Node>, key: &str, value: Rc<Node>) -> Rc<Node> {
    let Kind::Map(pairs) = &node.kind else { return Rc::clone(node) };
    let keep = pairs.iter().filter(|(known, _)| known.text != key).cloned();
    let new = (Key { text: key.to_owned(), at: value.at.clone() }, value);
    Node::mapping(node.at.clone(), keep.chain([new]).collect())
}

/// The number of ours for a number of theirs, as `from` has it; told when there is none.
pub(super) fn from(starts: &[usize], starting: Option<&Rc<Node>>, problems: &mut Problems) -> Option<Rc<Node>> {
    let node = starting?;
    let number = scalar(node).and_then(|text| text.parse::<usize>().ok());
    let Some(start) = number.and_then(|number| starts.get(number)) else {
        let message = format!("`startingStep`: there is no step `{}`", short(scalar(node).unwrap_or_default()));
        let help = format!("write 0 to {}: steps are counted from 0", starts.len().saturating_sub(1));
        tell_bad(&node.at, message, help, problems);
        return None;
    };
    Some(Node::plain(node.at.clone(), (start + 1).to_string()))
}
