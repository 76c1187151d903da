//! One request on its way: to a replica, to another if it must, and the answer back.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use evenkeel_analysis::Outcome;
use http::{HeaderName, Response, StatusCode, Version};
use hyper::body::Incoming;
use tracing::{debug, error};

use crate::body::{AnswerBody, Held};
use crate::client::Client;
use crate::headers::prepare_answer;
use crate::limits::{IDLE_TIME, IDLE_TIME_UNREPEATABLE};
use crate::outgoing::Outgoing;
use crate::refusal::Refusal;
use crate::replica::{InFlight, Link, NoLink, Replica};
use crate::routes::Entry;
use crate::tally::{Audience, Tally};
use crate::tunnel::Tunnel;

/// Tells a preview's reader which release answered.
const RELEASE: HeaderName = HeaderName::from_static("evenkeel-release");

/// A request whose release and replica are chosen.
pub(crate) struct Exchange {
    client: Rc<Client>,
    choice: Choice,
    outgoing: Outgoing,
    attempts: Attempts,
}

/// Where a request goes, and where its outcome is counted.
pub(crate) struct Choice {
    pub(crate) entry: Entry,
    /// Index of the release among the entry's.
    pub(crate) release: usize,
    pub(crate) in_flight: InFlight,
    /// Of the release the coin chose, whoever answers in the end.
    pub(crate) tally: Tally,
}

/// What has been tried so far.
#[derive(Default)]
struct Attempts {
    /// Replicas that failed this request.
    failed: Vec<Rc<Replica>>,
    /// Resting connections have proved stale.
    fresh_only: bool,
    /// The request may have reached a replica twice: not a third time.
    repeated: bool,
}

/// Why an attempt brought no answer.
enum Miss {
    /// The replica refused the connection: nothing was sent.
    Refused,
    /// No connection could be opened from this machine.
    Local,
    /// The connection closed before anything was written; the request is back.
    Unsent { reused: bool },
    /// The connection closed without an answer: the replica may have acted on the request.
    Broken { reused: bool },
    /// No first byte in time.
    Late,
    /// The client broke the framing of its body, or went away.
    BadUpload,
}

impl Exchange {
    pub(crate) fn new(client: Rc<Client>, choice: Choice, outgoing: Outgoing) -> Self {
        Self { client, choice, outgoing, attempts: Attempts::default() }
    }

    /// Sends the request until there is an answer or nobody is left to ask.
    ///
    /// # Errors
    /// What to tell the client when there is none. The outcome has been counted.
    pub(crate) async fn run(mut self) -> Result<Response<AnswerBody>, Refusal> {
        loop {
            match self.attempt().await {
                Ok((response, link)) => return self.accept(response, link),
                Err(miss) => self.after(&miss)?,
            }
        }
    }

    async fn attempt(&mut self) -> Result<(Response<Incoming>, Link), Miss> {
        let rested = self.rested_link();
        let reused = rested.is_some();
        let mut link = match rested {
            Some(link) => link,
            None => self.choice.in_flight.connect(self.outgoing.upgrade).await.map_err(|no_link| match no_link {
                NoLink::Refused => Miss::Refused,
                NoLink::Local(error) => {
                    error!(%error, "cannot open connections to replicas");
                    Miss::Local
                }
            })?,
        };
        let request = self.outgoing.take();
        self.client.expect_by(self.client.worker().clock.coarse() + self.choice.entry.routes.first_byte);
        let mut answer = pin!(link.sender.try_send_request(request));
        let answer = poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => self.poll_late(cx).map(|()| None),
        });
        match answer.await {
            Some(Ok(response)) => Ok((response, link)),
            Some(Err(mut failed)) => {
                let unsent = self.outgoing.put_back(failed.take_message());
                Err(self.miss(&failed.into_error(), unsent, reused))
            }
            None => Err(Miss::Late),
        }
    }

    /// The wait is over when neither an answer nor more of the client's body has come for as long as the service may
    /// take.
    fn poll_late(&self, cx: &mut std::task::Context<'_>) -> Poll<()> {
        while self.client.poll_late(cx).is_ready() {
            let patience = self.choice.entry.routes.first_byte;
            let moved = self.outgoing.upload.as_ref().map(|upload| upload.moved() + patience);
            match moved.filter(|until| *until > self.client.worker().clock.exact()) {
                Some(until) => self.client.expect_by(until),
                None => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    fn rested_link(&self) -> Option<Link> {
        if self.attempts.fresh_only || self.outgoing.upgrade {
            return None;
        }
        let idle = if self.outgoing.is_repeatable() { IDLE_TIME } else { IDLE_TIME_UNREPEATABLE };
        self.choice.in_flight.take_resting(idle, self.client.worker().clock.coarse())
    }

    fn miss(&self, error: &hyper::Error, unsent: bool, reused: bool) -> Miss {
        debug!(%error, replica = %self.choice.in_flight.backend.replica, "no answer from a replica");
        if self.outgoing.upload.as_ref().is_some_and(|upload| upload.is_broken()) {
            Miss::BadUpload
        } else if unsent {
            Miss::Unsent { reused }
        } else {
            Miss::Broken { reused }
        }
    }

    /// Makes ready for another attempt, where one is allowed.
    fn after(&mut self, miss: &Miss) -> Result<(), Refusal> {
        match *miss {
            Miss::Refused => self.next_replica().ok_or_else(|| self.no_answer(Refusal::NO_ANSWER)),
            Miss::Unsent { reused: true } => {
                self.attempts.fresh_only = true;
                Ok(())
            }
            Miss::Unsent { reused: false } => {
                let refusal = self.no_answer(Refusal::NO_ANSWER);
                self.next_replica().ok_or(refusal)
            }
            // The replica closed a resting connection just as we used it: its right, and no fault.
            Miss::Broken { reused: true } if self.outgoing.is_repeatable() => {
                self.attempts.fresh_only = true;
                self.repeat().ok_or_else(|| self.no_answer(Refusal::NO_ANSWER))
            }
            Miss::Broken { .. } => {
                let refusal = self.no_answer(Refusal::NO_ANSWER);
                if !self.outgoing.is_harmless() {
                    return Err(refusal);
                }
                self.next_replica().and_then(|()| self.repeat()).ok_or(refusal)
            }
            Miss::Late => Err(self.no_answer(Refusal::LATE)),
            Miss::Local => Err(self.not_the_release(Refusal::EXHAUSTED)),
            Miss::BadUpload => Err(self.not_the_release(Refusal::bad_request("the body's framing is broken"))),
        }
    }

    fn no_answer(&self, refusal: Refusal) -> Refusal {
        self.choice.tally.settle(Outcome::NoAnswer, self.client.worker().clock.exact());
        refusal
    }

    fn not_the_release(&self, refusal: Refusal) -> Refusal {
        self.choice.tally.settle(Outcome::ClientGone, self.client.worker().clock.exact());
        refusal
    }

    /// Turns to a replica of the same release that has not failed this request, by the table in force at this moment:
    /// a replica that has left it may be stopped already.
    fn next_replica(&mut self) -> Option<()> {
        let worker = self.client.worker();
        let mut random = worker.random.borrow_mut();
        self.attempts.failed.push(self.choice.in_flight.replica().clone());
        let entry = self.client.slot.entry()?;
        if !Rc::ptr_eq(&entry.routes, &self.choice.entry.routes) {
            self.choice.release =
                entry.routes.successor(&self.choice.entry.routes, self.choice.release, &mut random)?;
            self.choice.entry = entry;
        }
        let release = self.choice.entry.routes.release(self.choice.release);
        let next = release.pick(&self.attempts.failed, &mut random, worker.clock.coarse())?;
        self.choice.in_flight = InFlight::at(next);
        Some(())
    }

    /// Reads the request's head again, once.
    fn repeat(&mut self) -> Option<()> {
        if std::mem::replace(&mut self.attempts.repeated, true) {
            return None;
        }
        let head = self.client.watch.gate.borrow().head_again()?;
        self.outgoing.repeat(head, &self.client.sender);
        Some(())
    }

    /// Counts the answer and passes it on.
    fn accept(self, mut response: Response<Incoming>, link: Link) -> Result<Response<AnswerBody>, Refusal> {
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switching && !self.outgoing.upgrade {
            return Err(self.no_answer(Refusal::NO_ANSWER));
        }
        self.choice.tally.settle(Outcome::Answered(response.status().as_u16()), self.client.worker().clock.exact());
        prepare_answer(response.headers_mut(), switching);
        *response.version_mut() = Version::HTTP_11;
        if self.choice.entry.audience == Audience::Preview {
            response.headers_mut().insert(RELEASE, self.choice.entry.routes.release(self.choice.release).label.clone());
        }
        if switching {
            return Ok(self.switch(response));
        }
        let reusable = !self.outgoing.upgrade && self.outgoing.upload.is_none_or(|upload| upload.is_complete());
        let held = Held { link: reusable.then_some(link), in_flight: self.choice.in_flight };
        Ok(response.map(|incoming| AnswerBody::replica(incoming, held, self.client)))
    }

    fn switch(self, mut response: Response<Incoming>) -> Response<AnswerBody> {
        let replica = hyper::upgrade::on(&mut response);
        *self.client.tunnel.borrow_mut() = Some(Tunnel { replica, in_flight: self.choice.in_flight });
        response.map(|_| AnswerBody::text("", self.client))
    }
}
