//! Where checks are measured: the sources, and who runs their programs.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use evenkeel_core::ports::CheckedFor;
use evenkeel_series::Store;
use evenkeel_sources::client::Client;
use evenkeel_sources::gauge::{Commands, Ran, Sources};

/// Runs programs as the platform runs those of gates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Programs;

impl Commands for Programs {
    async fn run(
        &self,
        command: &[String],
        env: &BTreeMap<String, String>,
        about: &CheckedFor,
        limit: Duration,
    ) -> Result<Ran, String> {
        let evenkeel_platform::Ran { is_good, how, output, said } =
            evenkeel_platform::ran(command, env, about, limit).await?;
        Ok(Ran { is_good, how, output, said })
    }
}

/// Everything that a controller can measure; `series` are what it keeps itself.
pub(crate) fn sources(series: Arc<RwLock<Store>>) -> Sources<Programs> {
    Sources::new(Client::default(), series, Programs)
}
