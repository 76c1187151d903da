//! What a proxy does not go on without.

use tracing::error;

/// Held for the whole of a vital part: when the part panics, the process ends.
///
/// A request that panics costs its own connection. A worker that is no more, or no longer accepts, would keep its share
/// of the sockets, and connections would wait there unheard. The agent has another proxy within a moment.
pub(crate) struct Vital(pub(crate) &'static str);

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(part = self.0, "a vital part panicked, the proxy ends");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    /// Says that this is the process that is to panic.
    const INNER: &str = "EVENKEEL_TEST_VITAL";

    #[test]
    fn a_panic_in_a_task_of_a_worker_ends_the_process_although_the_runtime_catches_it() {
        if std::env::var_os(INNER).is_some() {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(runtime.spawn(async {
                let _vital = Vital("a test");
                panic!("as the test wants");
            }));
            return;
        }
        drop(Vital("one that ends well"));
        let test = "vital::tests::a_panic_in_a_task_of_a_worker_ends_the_process_although_the_runtime_catches_it";
        let mut inner = Command::new(std::env::current_exe().unwrap());
        inner.args(["--exact", test]).env(INNER, "").stdout(Stdio::null()).stderr(Stdio::null());
        let ended = inner.status().unwrap();
        assert_eq!(ended.signal(), Some(rustix::process::Signal::ABORT.as_raw()), "{ended}");
    }
}
