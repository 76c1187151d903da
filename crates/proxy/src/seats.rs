//! Clients' connections of one worker: how many, and how to reach them when the proxy stops.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Waker};

use tokio::sync::Notify;

use crate::limits::CONNECTIONS_MAX;

/// All connections of a worker.
#[derive(Default)]
pub(crate) struct Seats {
    taken: RefCell<BTreeMap<u64, Option<Waker>>>,
    next: Cell<u64>,
    stopping: Cell<bool>,
    emptied: Notify,
}

/// One connection, counted for as long as this lives.
pub(crate) struct Seat {
    seats: Rc<Seats>,
    number: u64,
    registered: Cell<bool>,
    told: Cell<bool>,
}

impl Seats {
    pub(crate) fn taken(&self) -> usize {
        self.taken.borrow().len()
    }

    pub(crate) fn are_full(&self) -> bool {
        self.taken() >= CONNECTIONS_MAX
    }

    pub(crate) fn take(self: &Rc<Self>) -> Seat {
        let number = self.next.get();
        self.next.set(number + 1);
        self.taken.borrow_mut().insert(number, None);
        Seat { seats: self.clone(), number, registered: Cell::new(false), told: Cell::new(false) }
    }

    /// Asks every connection to end after the request it serves.
    pub(crate) fn ask_to_end(&self) {
        self.stopping.set(true);
        for waker in self.taken.borrow().values().flatten() {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn are_asked_to_end(&self) -> bool {
        self.stopping.get()
    }

    /// Waits until no connection is open. Cancel safe.
    pub(crate) async fn emptied(&self) {
        while self.taken() > 0 {
            self.emptied.notified().await;
        }
    }
}

impl Seat {
    /// True once, when the connection is to end. A task keeps its waker, so the first one will do.
    pub(crate) fn is_asked_to_end(&self, cx: &Context<'_>) -> bool {
        if !self.registered.replace(true) {
            self.seats.taken.borrow_mut().insert(self.number, Some(cx.waker().clone()));
        }
        self.seats.stopping.get() && !self.told.replace(true)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.borrow_mut().remove(&self.number);
        if self.seats.taken() == 0 {
            self.seats.emptied.notify_one();
        }
    }
}
