//! The threads that carry calls: one runtime each, so that a call stays on its core from its first byte to the last.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// A wait that is shorter than those of calls: a thread that begins one of these need not be woken to learn of it, which
/// takes two system calls. It is how long the end may take, too.
const BEAT: Duration = Duration::from_millis(100);

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// Which worker the present thread is; 0 for any other thread.
pub(crate) fn index() -> usize {
    INDEX.get()
}

/// The workers.
#[derive(Debug)]
pub(crate) struct Workers {
    handles: Vec<Handle>,
    end: watch::Sender<bool>,
}

impl Workers {
    /// Starts so many threads, and one at least.
    ///
    /// # Errors
    /// The machine gives none.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let (end, ends) = watch::channel(false);
        let mut handles = Vec::new();
        for index in 0..count.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            let mut ends = ends.clone();
            std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                INDEX.set(index);
                runtime.block_on(async {
                    let mut beat = tokio::time::interval(BEAT);
                    while !*ends.borrow_and_update() {
                        beat.tick().await;
                    }
                });
                runtime.shutdown_background();
            })?;
        }
        Ok(Self { handles, end })
    }

    /// Ends them, and everything that still runs on them.
    pub(crate) fn end(&self) {
        self.end.send_replace(true);
    }

    /// The worker for the so-manieth of some things.
    pub(crate) fn of(&self, number: usize) -> &Handle {
        &self.handles[number % self.handles.len()]
    }
}
