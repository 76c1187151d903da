//! The world that the adapters look at: what is true, whoever knows of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_controller::Handle;
use evenkeel_core::ids::{ServiceName, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::coverage::{Coverage, Group};
use crate::dice::Dice;
use crate::egress::Egress;
use crate::platform::Platform;
use crate::proxy::Proxy;
use crate::store::Book;
use crate::weather::{Fault, Weather};
use crate::wishes::SERVICES;

/// The world's own time at its beginning; the machine's clock is somewhere around it.
pub(crate) const BEGINNING: Timestamp = Timestamp(1_000_000_000_000_000);

/// Ticks with faults: a tenth of all worlds has twice the time.
const WILD: [u32; 10] = [450, 450, 450, 450, 450, 450, 450, 450, 450, 900];

/// One controller process: counted up.
pub(crate) type Life = u32;

/// Who is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    /// The agent.
    Agent,
    /// The proxy.
    Proxy,
}

/// A world that adapters share.
pub(crate) struct Yard {
    state: Mutex<State>,
    began: Instant,
    /// Tells who watches the replicas that the list has changed.
    pub(crate) list: watch::Sender<u64>,
}

/// Everything that is true.
pub(crate) struct State {
    pub(crate) dice: Dice,
    pub(crate) weather: Weather,
    pub(crate) now: Timestamp,
    /// Faults happen.
    pub(crate) wild: bool,
    /// Controllers that are no more; none of their calls does anything.
    pub(crate) dead: Vec<Life>,
    pub(crate) handles: BTreeMap<Life, Handle>,
    pub(crate) book: Book,
    pub(crate) platform: Platform,
    pub(crate) proxy: Proxy,
    pub(crate) egress: Egress,
    /// How far the machine's clock is off the world's time, in microseconds.
    pub(crate) clock_off: i64,
    /// When a controller started or ended last.
    pub(crate) lives_changed: Timestamp,
    /// Everything is to be stopped.
    pub(crate) going_down: bool,
    /// Ticks with faults.
    pub(crate) wild_ticks: u32,
    /// So many services people deploy.
    pub(crate) services_max: usize,
    /// When a controller was told first that another one has taken over.
    pub(crate) told_of_newer: BTreeMap<Life, Timestamp>,
    /// Until when a controller stands still.
    pub(crate) stalled: BTreeMap<Life, Timestamp>,
    /// How often what happened.
    pub(crate) coverage: Coverage,
    /// What happened so far, if it is to be told.
    pub(crate) history: Vec<String>,
    pub(crate) violation: Option<String>,
    /// The version of the list of replicas that was told last.
    told: u64,
    telling: Telling,
}

/// What becomes of the story of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Nobody listens: the fastest.
    Nothing,
    /// It is kept.
    Kept,
    /// It is kept, and printed to standard error while it happens.
    Printed,
}

impl Yard {
    /// A world without anything in it.
    pub(crate) fn new(seed: u64, telling: Telling) -> Self {
        let mut dice = Dice::new(seed);
        let weather = Weather::of(&mut dice);
        let wild_ticks = *dice.pick(&WILD);
        let services_max = *dice.pick(&[1, 1, 2, 2, 3, SERVICES.len()]);
        let state = State {
            dice,
            weather,
            now: BEGINNING,
            wild: true,
            dead: Vec::new(),
            handles: BTreeMap::new(),
            book: Book::default(),
            platform: Platform::new(),
            proxy: Proxy::default(),
            egress: Egress::default(),
            clock_off: 0,
            lives_changed: BEGINNING,
            going_down: false,
            wild_ticks,
            services_max,
            told_of_newer: BTreeMap::new(),
            stalled: BTreeMap::new(),
            coverage: Coverage::default(),
            history: Vec::new(),
            violation: None,
            told: 0,
            telling,
        };
        Self { state: Mutex::new(state), began: Instant::now(), list: watch::Sender::new(0) }
    }

    /// Looks at the world as it is now, and changes it.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        state.advance(self.now());
        let answer = look(&mut state);
        let version = state.platform.version;
        // Most looks change nothing of it, and there are very many of them.
        if std::mem::replace(&mut state.told, version) != version {
            self.list.send_replace(version);
        }
        answer
    }

    /// The world's time.
    pub(crate) fn now(&self) -> Timestamp {
        BEGINNING.after(self.began.elapsed())
    }

    /// Comes back when a server can be talked to.
    pub(crate) async fn until_awake(&self, who: Server) {
        loop {
            let wait = self.with(|state| match state.silence_of(who) {
                Some(left) => Some(left + state.dice.millis(0, 40)),
                None => None,
            });
            let Some(wait) = wait else { return };
            tokio::time::sleep(wait).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Writes down that something happened.
    pub(crate) fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.telling == Telling::Nothing {
            return;
        }
        let line = format!("{:>8.3}s {}", self.now.since(BEGINNING).as_secs_f64(), what());
        if self.telling == Telling::Printed {
            eprint_line(&line);
        }
        self.history.push(line);
    }

    /// Whether anybody listens.
    pub(crate) fn tells(&self) -> bool {
        self.telling != Telling::Nothing
    }

    /// How much longer a controller stands still.
    pub(crate) fn stall_of(&self, life: Life) -> Option<Duration> {
        self.stalled.get(&life).filter(|until| **until > self.now).map(|until| until.since(self.now))
    }

    /// A controller stands still for a while, and not for less than it does already: all of it goes on at one time.
    pub(crate) fn stall(&mut self, life: Life) {
        let until = self.now.after(self.dice.millis(500, 15_000));
        let until = self.stalled.get(&life).map_or(until, |standing| until.max(*standing));
        self.tell(|| format!("controller {life} stands still until {}", short(until)));
        self.stalled.insert(life, until);
        self.lives_changed = self.lives_changed.max(until);
    }

    /// Writes down that a rule is broken; the first one counts.
    pub(crate) fn broken(&mut self, what: impl AsRef<str>) {
        self.tell(|| format!("VIOLATION {}", what.as_ref()));
        if self.violation.is_none() {
            self.violation = Some(what.as_ref().to_owned());
        }
    }

    /// Whether a fault of this chance happens here.
    pub(crate) fn happens(&mut self, fault: Fault) -> bool {
        let happens = self.wild && self.dice.chance(self.weather.chance(fault));
        if happens {
            self.coverage.count(Group::Fault, fault.name());
        }
        happens
    }

    /// Lets the controller die here if it is to, and tells whether it is dead.
    pub(crate) fn dies_here(&mut self, life: Life) -> bool {
        if !self.is_dead(life) && self.happens(Fault::Crash) {
            self.tell(|| format!("controller {life} crashes"));
            self.bury(life);
        }
        self.is_dead(life)
    }

    pub(crate) fn is_dead(&self, life: Life) -> bool {
        self.dead.contains(&life)
    }

    /// Nothing that this controller does from here on has an effect.
    pub(crate) fn bury(&mut self, life: Life) {
        if !self.is_dead(life) {
            self.dead.push(life);
        }
        self.handles.remove(&life);
        self.lives_changed = self.lives_changed.max(self.now);
        self.book.owed.retain(|(owing, _), _| *owing != life);
    }

    /// A controller is refused because another one has taken over.
    pub(crate) fn is_told_of_newer(&mut self, life: Life, how: &'static str) {
        self.coverage.count(Group::Other, how);
        self.told_of_newer.entry(life).or_insert(self.now);
    }

    /// How much longer a server is silent.
    pub(crate) fn silence_of(&self, who: Server) -> Option<Duration> {
        let until = match who {
            Server::Agent => self.platform.silent_until,
            Server::Proxy => self.proxy.silent_until,
        };
        (until > self.now).then(|| until.since(self.now))
    }

    /// Ends faults that go on, and starts no more; a controller that stands still goes on at its time.
    pub(crate) fn calm(&mut self) {
        self.tell(|| "faults stop".to_owned());
        self.wild = false;
        self.book.down_until = self.now;
        self.platform.recover(self.now);
        self.proxy.recover(self.now);
        self.egress.down_until = self.egress.down_until.min(self.now);
    }

    /// The services that were deployed, and what their logs add up to.
    pub(crate) fn services(&self) -> Vec<ServiceName> {
        self.book.logs.keys().cloned().collect()
    }

    fn advance(&mut self, now: Timestamp) {
        if now <= self.now {
            return;
        }
        let passed = now.since(self.now);
        self.now = now;
        self.egress.advance(now);
        for line in self.platform.advance(now) {
            self.tell(|| line);
        }
        let Self { proxy, platform, dice, .. } = self;
        if let Some(line) = proxy.advance(now, passed, platform, dice) {
            self.tell(|| line);
        }
    }

    /// A tenth of a second: faults of the world, whatever the controller does.
    pub(crate) fn tick(&mut self) {
        if !self.wild {
            return;
        }
        let now = self.now;
        if self.happens(Fault::AgentSilent) {
            let (until, hangs) = (now.after(self.dice.millis(300, 15_000)), self.dice.chance(500_000));
            self.tell(|| format!("the agent {} until {}", gone(hangs), short(until)));
            self.platform.silence(until, hangs);
        }
        if self.happens(Fault::ProxySilent) {
            let until = now.after(self.dice.millis(200, 12_000));
            self.tell(|| format!("the proxy hangs until {}", short(until)));
            self.proxy.hang(until);
        }
        if self.happens(Fault::ProxyDies) {
            let until = now.after(self.dice.millis(50, 3_000));
            let old = self.happens(Fault::ProxyOld);
            self.tell(|| {
                format!("the proxy dies until {}{}", short(until), if old { ", its last table unsaved" } else { "" })
            });
            self.proxy.die(until, old);
        }
        if self.happens(Fault::Unreported) {
            let until = now.after(self.dice.millis(300, 10_000));
            self.tell(|| format!("the proxy's counters are silent until {}", short(until)));
            self.proxy.unreported_until = until;
        }
        if self.happens(Fault::StoreDown) {
            self.book.down_until = now.after(self.dice.millis(100, 20_000));
            let until = self.book.down_until;
            self.tell(|| format!("the store fails until {}", short(until)));
        }
        // Long enough to be noticed by whoever pings it once a second.
        if self.happens(Fault::DatabaseDown) {
            self.egress.down_until = now.after(self.dice.millis(3_000, 15_000));
            let until = self.egress.down_until;
            self.tell(|| format!("the database fails until {}", short(until)));
        }
        if self.happens(Fault::Storm) {
            self.proxy.storm_until = now.after(self.dice.millis(1_000, 15_000));
            self.tell(|| "every release fails requests".to_owned());
        }
        if self.happens(Fault::Lull) {
            self.proxy.lull_until = now.after(self.dice.millis(1_000, 15_000));
            self.tell(|| "no users".to_owned());
        }
        if self.happens(Fault::Starved) {
            let until = now.after(self.dice.millis(3_000, 40_000));
            let starved = self.platform.starve(until, &mut self.dice);
            self.tell(|| format!("no replica of {} is ready until {}", starved.unwrap_or_default(), short(until)));
        }
        let Self { platform, weather, dice, .. } = self;
        for (fault, id) in platform.suffer(now, weather, dice) {
            self.coverage.count(Group::Fault, fault.name());
            self.tell(|| format!("{}: {id}", fault.name()));
        }
    }
}

fn gone(hangs: bool) -> &'static str {
    if hangs { "hangs" } else { "is gone" }
}

/// A moment as seconds since the beginning.
pub(crate) fn short(at: Timestamp) -> String {
    format!("{:.3}s", at.since(BEGINNING).as_secs_f64())
}

#[expect(clippy::print_stderr, reason = "a world that is asked for by its seed tells what happens while it does")]
fn eprint_line(line: &str) {
    eprintln!("{line}");
}
