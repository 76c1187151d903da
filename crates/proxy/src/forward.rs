//! One request on its way: to a replica, to another or to the stable release if it must, and the answer back.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use evenkeel_analysis::Outcome;
use evenkeel_analysis::slots::Ended;
use evenkeel_core::edge::Protocol;
use evenkeel_core::ids::Revision;
use http::header::{SET_COOKIE, UPGRADE};
use http::{HeaderName, HeaderValue, Response, StatusCode, Version};
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::{debug, error};

use crate::body::{AnswerBody, Held};
use crate::client::Client;
use crate::grpc;
use crate::headers::prepare_answer;
use crate::leftover;
use crate::limiter::Seats;
use crate::limits::{IDLE_TIME, IDLE_TIME_UNREPEATABLE, SHIELD_WAIT_MIN};
use crate::mirror::Copy;
use crate::noted::Noted;
use crate::outgoing::{Outgoing, again};
use crate::pace::Pace;
use crate::refusal::Refusal;
use crate::replica::{InFlight, Lane, Link, NoLink, Replica};
use crate::routes::{Entry, Slot};
use crate::shield::{Shield, Spared};
use crate::sticky::Newcomer;
use crate::tally::{Audience, Tally};
use crate::tunnel::{Speaks, Tunnel};

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
    /// Where a later table puts what is in force for the service, when that is not the client's own slot.
    pub(crate) place: Option<Rc<Slot>>,
    /// Index of the release among the entry's.
    pub(crate) release: usize,
    pub(crate) in_flight: InFlight,
    /// The release the coin chose.
    pub(crate) drawn: Revision,
    /// Of the release the coin chose, whoever answers in the end.
    pub(crate) tally: Tally,
    /// Present once the stable release answers for the one the coin chose.
    pub(crate) spared: Option<Spared>,
    /// How long it may take, where its path has times of its own.
    pub(crate) pace: Option<Box<Pace>>,
    /// What it takes of the service's limits.
    pub(crate) seats: Seats,
    /// Present where the user is to be given a cookie.
    pub(crate) newcomer: Option<Newcomer>,
}

/// What has been tried so far.
#[derive(Default)]
struct Attempts {
    /// Replicas that failed this request.
    failed: Vec<Rc<Replica>>,
    /// Resting connections have proved stale.
    fresh_only: bool,
    /// It broke a connection that was fresh and was sent to another replica: not to a third one.
    elsewhere: bool,
}

fn is_failure(status: u16) -> bool {
    status >= 500
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

impl Choice {
    fn revision(&self) -> Revision {
        self.entry.routes.release(self.release).revision
    }
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
                Ok((response, link)) => {
                    let status = self.status(&response);
                    self.settle(Outcome::Answered(status));
                    self.note(is_failure(status));
                    match is_failure(status).then(|| self.spare()).flatten() {
                        Some(in_flight) => self.discard(response, link, in_flight),
                        None => return Ok(self.accept(response, link)),
                    }
                }
                Err(miss) => self.after(&miss)?,
            }
            self.client.note(Noted::repeated);
        }
    }

    async fn attempt(&mut self) -> Result<(Response<Incoming>, Link), Miss> {
        let rested = self.rested_link();
        let reused = rested.is_some();
        let mut link =
            match rested {
                Some(link) => link,
                None => self.choice.in_flight.connect(Lane::Users, self.outgoing.upgrade).await.map_err(|no_link| {
                    match no_link {
                        NoLink::Refused => Miss::Refused,
                        NoLink::Local(error) => {
                            error!(%error, "cannot open connections to replicas");
                            Miss::Local
                        }
                    }
                })?,
            };
        let request = self.outgoing.take();
        let sent = self.client.worker().clock.coarse();
        self.client.expect_by(self.wait(sent, sent).unwrap_or(sent));
        let answer = {
            let mut answer = pin!(link.send(request));
            let answer = poll_fn(|cx| match answer.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending => self.poll_late(sent, cx).map(|()| None),
            });
            answer.await
        };
        match answer {
            Some(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS && !self.outgoing.upgrade => {
                debug!(replica = %self.choice.in_flight.backend.replica, "switches protocols unasked");
                Err(Miss::Broken { reused: false })
            }
            Some(Ok(response)) => Ok((response, link)),
            Some(Err(mut failed)) => {
                let unsent = self.outgoing.put_back(failed.take_message());
                Err(self.miss(&failed.into_error(), unsent, reused))
            }
            None => {
                link.close();
                Err(Miss::Late)
            }
        }
    }

    fn poll_late(&self, sent: Instant, cx: &mut Context<'_>) -> Poll<()> {
        while self.client.poll_late(cx).is_ready() {
            match self.wait(sent, self.client.worker().clock.exact()) {
                Some(until) => self.client.expect_by(until),
                None => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Until when to wait for a first byte before looking again; `None` when the wait is over: when neither an answer
    /// nor more of the client's body has come for as long as the service may take, or for as long as the stable release
    /// never takes and it can answer instead.
    fn wait(&self, sent: Instant, now: Instant) -> Option<Instant> {
        let since = self.outgoing.upload.as_ref().map_or(sent, |upload| upload.moved().max(sent));
        let usual = self.choice.entry.routes.first_byte;
        let end = self.choice.pace.as_ref().map_or(since + usual, |pace| pace.first_byte_by(since, usual));
        let Some(shield) = self.shield() else { return (now < end).then_some(end) };
        let patience = shield.stand_in.patience();
        // The rest of a body is the client's to send.
        let is_whole = self.is_whole();
        let is_over = patience.is_some_and(|patience| now >= since + patience) && is_whole && self.can_spare();
        if is_over || now >= end {
            return None;
        }
        Some((now.max(since) + patience.unwrap_or(SHIELD_WAIT_MIN)).min(end))
    }

    /// Who may be asked instead of waiting on.
    fn shield(&self) -> Option<&Shield> {
        let may_turn = self.choice.spared.is_none() && self.outgoing.is_sparable();
        self.choice.entry.shield(self.choice.revision()).filter(|_| may_turn)
    }

    fn rested_link(&self) -> Option<Link> {
        if self.attempts.fresh_only || self.outgoing.upgrade {
            return None;
        }
        let idle = if self.outgoing.is_repeatable() { IDLE_TIME } else { IDLE_TIME_UNREPEATABLE };
        self.choice.in_flight.take_resting(Lane::Users, idle, self.client.worker().clock.coarse())
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
        if self.is_fault(miss) {
            self.note(true);
        }
        match *miss {
            Miss::Refused => self.next_replica().or_else(|| self.spare_failed()).ok_or(Refusal::NO_ANSWER),
            Miss::Unsent { reused: true } => {
                self.attempts.fresh_only = true;
                Ok(())
            }
            Miss::Unsent { reused: false } => {
                self.spare_failed().or_else(|| self.next_replica()).ok_or(Refusal::NO_ANSWER)
            }
            // The replica closed a resting connection just as we used it: its right, and no fault.
            // Happens once: from here on connections are fresh.
            Miss::Broken { reused: true } if self.outgoing.is_repeatable() => {
                self.attempts.fresh_only = true;
                self.repeat().or_else(|| self.spare_failed()).ok_or(Refusal::NO_ANSWER)
            }
            Miss::Broken { .. } => self.spare_failed().or_else(|| self.repeat_elsewhere()).ok_or(Refusal::NO_ANSWER),
            Miss::Late if self.is_over() => {
                self.settle(if self.is_whole() { Outcome::NoAnswer } else { Outcome::ClientGone });
                Err(Refusal::LATE)
            }
            Miss::Late => self.spare_failed().ok_or(Refusal::LATE),
            // The stable release may have connections that rest.
            Miss::Local => {
                self.settle(Outcome::ClientGone);
                self.spare().map(drop).ok_or(Refusal::EXHAUSTED)
            }
            Miss::BadUpload => {
                self.settle(Outcome::ClientGone);
                let is_too_long = self.outgoing.upload.as_ref().is_some_and(|upload| upload.is_too_long());
                match self.choice.entry.routes.limiter.as_ref().filter(|_| is_too_long) {
                    Some(limiter) => Err(limiter.too_long()),
                    None => Err(Refusal::bad_request("the body's framing is broken")),
                }
            }
        }
    }

    /// Tells whether the time for all of it is over.
    fn is_over(&self) -> bool {
        self.choice.pace.as_ref().is_some_and(|pace| pace.is_over(self.client.worker().clock.exact()))
    }

    /// What an answer counts as.
    fn status(&self, answer: &Response<Incoming>) -> u16 {
        match self.choice.entry.routes.replicas {
            Protocol::Http1 => answer.status().as_u16(),
            Protocol::Http2 => grpc::status(answer),
        }
    }

    fn settle(&self, outcome: Outcome) {
        self.choice.tally.settle(outcome, self.client.worker().clock.exact());
    }

    /// Tells whether the client has sent all of it: part of a body that is missing is the client's delay.
    fn is_whole(&self) -> bool {
        self.outgoing.upload.as_ref().is_none_or(|upload| upload.is_complete())
    }

    /// Tells whether an attempt without an answer speaks against the replica. A refusal is noted where it is met, and
    /// connections that rest may be closed.
    fn is_fault(&self, miss: &Miss) -> bool {
        match *miss {
            Miss::Broken { reused } => !(reused && self.outgoing.is_repeatable()),
            Miss::Unsent { reused } => !reused,
            Miss::Late => self.is_whole(),
            Miss::Refused | Miss::Local | Miss::BadUpload => false,
        }
    }

    /// Takes note of how the replica did that has the request.
    fn note(&self, failed: bool) {
        let release = self.choice.entry.routes.release(self.choice.release);
        release.note(self.choice.in_flight.replica(), failed, self.client.worker().clock.coarse());
    }

    /// Counts that the release gave no answer, and turns to the stable one.
    fn spare_failed(&mut self) -> Option<()> {
        self.settle(Outcome::NoAnswer);
        self.spare().map(drop)
    }

    /// Turns to the stable release, where the table in force lets it answer and the request is here to be sent; gives
    /// the place at the replica that has failed. What becomes of the request from here on counts for nobody.
    fn spare(&mut self) -> Option<InFlight> {
        let is_here = self.outgoing.is_unsent() || self.outgoing.is_sparable();
        if self.choice.spared.is_some() || !is_here {
            return None;
        }
        let (worker, failing) = (self.client.worker(), self.choice.revision());
        let entry = self.entry()?;
        let instead = entry.spare(failing, &mut worker.random.borrow_mut(), worker.clock.coarse())?;
        if !self.outgoing.is_unsent() {
            let head = self.client.head_again()?;
            self.outgoing.repeat(head, &self.client.sender);
        }
        debug!(%failing, "the stable release answers instead");
        (self.choice.entry, self.choice.release) = (entry, instead.release);
        (self.choice.spared, self.attempts) = (Some(instead.spared), Attempts::default());
        Some(std::mem::replace(&mut self.choice.in_flight, instead.in_flight))
    }

    /// Tells whether [`Self::spare`] would find the stable release willing.
    fn can_spare(&self) -> bool {
        let is_willing = |entry: Entry| entry.can_spare(self.choice.revision());
        self.client.has_head() && self.entry().is_some_and(is_willing)
    }

    /// What the table in force says for whom this request comes from.
    fn entry(&self) -> Option<Entry> {
        let audience = self.choice.entry.audience;
        let place = self.choice.place.as_ref().unwrap_or(&self.client.slot);
        place.entry().map(|entry| Entry { audience, ..entry })
    }

    fn discard(&self, response: Response<Incoming>, link: Link, in_flight: InFlight) {
        if self.outgoing.upload.as_ref().is_none_or(|upload| upload.is_complete()) {
            leftover::discard(response.into_body(), link, in_flight);
        } else {
            link.close();
        }
    }

    /// Turns to a replica of the same release that has not failed this request, by the table in force at this moment:
    /// a replica that has left it may be stopped already.
    fn next_replica(&mut self) -> Option<()> {
        let worker = self.client.worker();
        let mut random = worker.random.borrow_mut();
        self.attempts.failed.push(self.choice.in_flight.replica().clone());
        let entry = self.entry()?;
        if !Rc::ptr_eq(&entry.routes, &self.choice.entry.routes) {
            let failing = self.choice.revision();
            self.choice.release =
                entry.routes.successor(&self.choice.entry.routes, self.choice.release, &mut random)?;
            self.choice.entry = entry;
            if self.choice.revision() != failing {
                self.settle(Outcome::NoAnswer);
            }
        }
        let release = self.choice.entry.routes.release(self.choice.release);
        let next = release.pick(&self.attempts.failed, &mut random, worker.clock.coarse())?;
        self.choice.in_flight = InFlight::at(next);
        Some(())
    }

    fn repeat_elsewhere(&mut self) -> Option<()> {
        if !self.outgoing.is_harmless() || std::mem::replace(&mut self.attempts.elsewhere, true) {
            return None;
        }
        self.next_replica().and_then(|()| self.repeat())
    }

    /// Reads the request's head again.
    fn repeat(&mut self) -> Option<()> {
        let head = self.client.head_again()?;
        self.outgoing.repeat(head, &self.client.sender);
        Some(())
    }

    /// Has another release answer a copy for nobody, where the table in force says so, chance falls on this request, and
    /// there is room.
    fn copy(&self) -> Option<()> {
        let worker = self.client.worker();
        if self.choice.entry.audience != Audience::Users || self.choice.spared.is_some() {
            return None;
        }
        let entry = self.entry()?;
        let mut random = worker.random.borrow_mut();
        let to = entry.routes.draw_copy(self.choice.revision(), &mut random)?;
        let body = self.outgoing.copied_body()?;
        let replica = to.pick(&[], &mut random, worker.clock.coarse())?;
        let assigned = || entry.routes.assign_copy(worker.clock.exact());
        // It refused a moment ago, and there is no other: one question for all of them is enough.
        if replica.condition.out(worker.clock.coarse()).is_some() {
            to.counts.count_copy(Outcome::NoAnswer, Duration::ZERO);
            if let Some(assigned) = assigned() {
                assigned.settle(Ended::Unanswered, worker.clock.exact());
            }
            return None;
        }
        let room = worker.copies.room(&to.counts)?;
        let head = self.client.head_again()?;
        let request = again(head, body, &self.client.sender);
        let (in_flight, first_byte) = (InFlight::at(replica), entry.routes.first_byte);
        self.client.note(Noted::mirrored);
        Copy { request, in_flight, room, assigned: assigned(), first_byte }.send();
        Some(())
    }

    /// Passes an answer on.
    fn accept(mut self, mut response: Response<Incoming>, link: Link) -> Response<AnswerBody> {
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if self.choice.entry.routes.mirror.is_some() {
            self.copy();
        }
        if self.choice.spared.is_some() && !is_failure(self.status(&response)) {
            self.choice.tally.shielded();
        }
        let shielded = self.choice.spared.is_some().then_some(self.choice.drawn);
        let (by, now) = (&self.choice.in_flight.backend.replica, self.client.worker().clock.coarse());
        self.client.note(|noted| noted.answered(response.status().as_u16(), by, shielded, now));
        prepare_answer(response.headers_mut(), switching);
        *response.version_mut() = Version::HTTP_11;
        if self.choice.entry.audience == Audience::Preview {
            response.headers_mut().insert(RELEASE, self.choice.entry.routes.release(self.choice.release).label.clone());
        }
        if let Some(newcomer) = self.choice.newcomer.take() {
            response.headers_mut().append(SET_COOKIE, newcomer.cookie());
        }
        if let Some(mark) = self.choice.tally.mark() {
            response.headers_mut().append(SET_COOKIE, mark);
        }
        if switching {
            return self.switch(response);
        }
        let reusable = !self.outgoing.upgrade && self.outgoing.upload.is_none_or(|upload| upload.is_complete());
        let Choice { in_flight, spared, seats, pace, .. } = self.choice;
        let held = Held { link: reusable.then_some(link), in_flight, spared, seats };
        response.map(|incoming| AnswerBody::replica(incoming, held, pace, self.client))
    }

    fn switch(self, mut response: Response<Incoming>) -> Response<AnswerBody> {
        let replica = hyper::upgrade::on(&mut response);
        let is_websocket = |told: &HeaderValue| told.as_bytes().eq_ignore_ascii_case(b"websocket");
        let websocket = response.headers().get(UPGRADE).is_some_and(is_websocket);
        let speaks = if websocket { Speaks::WebSocket } else { Speaks::SomethingElse };
        let drain = self.choice.entry.routes.drain;
        let tunnel = Tunnel { replica, in_flight: self.choice.in_flight, seats: self.choice.seats, speaks, drain };
        *self.client.tunnel.borrow_mut() = Some(tunnel);
        response.map(|_| AnswerBody::text(Bytes::new(), self.client))
    }
}
