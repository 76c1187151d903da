//! How a call reaches a server and its answer comes back: at once, late, not at all; or the caller dies.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::weather::Fault;
use crate::world::{Life, Server, State, Yard};

/// One controller's side of the adapters.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) yard: Arc<Yard>,
    pub(crate) life: Life,
}

/// What becomes of one call.
enum Way {
    /// It is carried out and answered at once.
    Straight,
    /// It is not carried out, and the caller knows at once.
    Refused,
    /// It is carried out after a while; the answer may get lost.
    Travels { before: Duration, lost: bool },
}

impl Caller {
    /// Where the controller may die or stand still: nothing of a dead one goes on from here.
    pub(crate) async fn point(&self) {
        while let Some(left) = self.yard.with(|state| state.stall_of(self.life)) {
            sleep(left).await;
        }
        if self.yard.with(|state| state.dies_here(self.life)) {
            std::future::pending::<()>().await;
        }
    }

    /// Has a server do something; `None` when no answer comes within `limit`. It may be done all the same, also later.
    pub(crate) async fn reach<R: Send + 'static>(
        &self,
        who: Server,
        limit: Duration,
        effect: impl Fn(&mut State) -> R + Send + Sync + 'static,
    ) -> Option<R> {
        self.point().await;
        let effect = Arc::new(effect);
        if let Some(later) = self.yard.with(|state| again(state, who)) {
            let effect = effect.clone();
            self.later(who, later, move |state| drop(effect(state)));
        }
        let answer = match self.yard.with(|state| way(state, who, limit)) {
            Way::Straight => Some(self.yard.with(|state| effect(state))),
            Way::Refused => None,
            Way::Travels { before, lost } => {
                let (answer, answered) = oneshot::channel();
                self.later(who, before, move |state| drop(answer.send(effect(state))));
                timeout(limit, answered).await.ok().and_then(Result::ok).filter(|_| !lost)
            }
        };
        self.point().await;
        answer
    }

    /// Has a server do something after a while, whatever becomes of the caller.
    fn later(&self, who: Server, wait: Duration, effect: impl FnOnce(&mut State) + Send + 'static) {
        let yard = self.yard.clone();
        let boot = yard.with(|state| boot_of(state, who));
        tokio::spawn(async move {
            sleep(wait).await;
            yard.until_awake(who).await;
            // What lies in the sockets of a process that died is gone with it.
            if yard.with(|state| boot_of(state, who)) == boot {
                yard.with(effect);
            }
        });
    }
}

/// How much later a call is carried out once more, if it is.
fn again(state: &mut State, who: Server) -> Option<Duration> {
    let reaches = state.silence_of(who).is_none() && state.happens(Fault::Twice);
    reaches.then(|| state.dice.millis(1, 3_000))
}

fn boot_of(state: &State, who: Server) -> u64 {
    match who {
        Server::Agent => state.platform.boot,
        Server::Proxy => state.proxy.boot,
    }
}

fn way(state: &mut State, who: Server, limit: Duration) -> Way {
    if state.silence_of(who).is_some() {
        let hangs = match who {
            Server::Agent => state.platform.hangs,
            Server::Proxy => state.proxy.hangs,
        };
        return if hangs { Way::Travels { before: Duration::ZERO, lost: false } } else { Way::Refused };
    }
    if state.happens(Fault::Failed) {
        return Way::Refused;
    }
    if state.happens(Fault::Late) {
        let most = u64::try_from(limit.as_millis()).unwrap_or(0) * 5 / 4;
        return Way::Travels { before: state.dice.millis(1, most), lost: false };
    }
    if state.happens(Fault::Lost) {
        return Way::Travels { before: Duration::ZERO, lost: true };
    }
    // Most calls take no time; some a little, so that others come in between.
    if state.dice.chance(50_000) {
        Way::Travels { before: state.dice.millis(1, 20), lost: false }
    } else {
        Way::Straight
    }
}
