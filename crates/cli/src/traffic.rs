//! Sends what specs ask for (`load`) while a release of theirs is on its way, and to nobody but the service itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_controller::Handle;
use evenkeel_controller::status::ServiceStatus;
use evenkeel_core::ids::{BasisPoints, RolloutId, ServiceName};
use evenkeel_core::load::{HEADER, Load, Sent, chosen};
use evenkeel_manifest::read_traffic;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tracing::{info, warn};

/// How often is looked which services are to be sent something.
const LOOK: Duration = Duration::from_millis(500);
/// Requests under way to one service; what is due beyond that is not sent.
const UNDER_WAY_MAX: usize = 64;
/// A request without an answer after this long is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is due and could not be sent for this long is not made up for.
const BEHIND_MAX: Duration = Duration::from_secs(1);
/// The longest file of recorded requests, in bytes.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// Sends for as long as it is run.
pub(crate) struct Traffic {
    handle: Handle,
    /// Rollouts that are sent something; dropping the sender ends that.
    under_way: BTreeMap<ServiceName, (RolloutId, watch::Sender<()>)>,
}

/// Reads a file of recorded requests.
///
/// # Errors
/// In words: it cannot be read, or holds nothing that can be sent.
pub(crate) fn read(path: &std::path::Path) -> Result<evenkeel_manifest::ReadTraffic, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(format!("{}: it has more than {} MiB", path.display(), FILE_BYTES_MAX >> 20));
    }
    let text = String::from_utf8_lossy(&std::fs::read(path).map_err(failed)?).into_owned();
    read_traffic(&text).map_err(|why| format!("{}: {why}", path.display()))
}

impl Traffic {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle, under_way: BTreeMap::new() }
    }

    pub(crate) async fn run(mut self) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let wanted: BTreeMap<ServiceName, Wanted> =
                self.handle.figures().services.iter().filter_map(|(status, _)| wanted(status)).collect();
            self.under_way.retain(|service, (rollout, _)| {
                let goes_on = wanted.get(service).is_some_and(|wanted| wanted.rollout == *rollout);
                if !goes_on {
                    info!(%service, %rollout, "no more load is sent");
                }
                goes_on
            });
            for (service, wanted) in wanted {
                if self.under_way.contains_key(&service) {
                    continue;
                }
                let (goes_on, ends) = watch::channel(());
                info!(%service, rollout = %wanted.rollout, rate = wanted.load.rate, "load is sent");
                self.under_way.insert(service.clone(), (wanted.rollout, goes_on));
                tokio::spawn(send(service, wanted, ends));
            }
        }
    }
}

/// What a service is to be sent.
struct Wanted {
    rollout: RolloutId,
    load: Load,
    to: SocketAddr,
}

/// Something is sent while a candidate has a share of the traffic that users bring.
fn wanted(status: &ServiceStatus) -> Option<(ServiceName, Wanted)> {
    let (load, listen) = status.load.clone().zip(status.listen)?;
    let rollout = status.rollout.as_ref().filter(|rollout| rollout.outcome.is_none())?;
    let candidate = status.releases.iter().find(|release| release.revision == rollout.candidate)?;
    let is_on_its_way = candidate.weight > BasisPoints::NONE && status.stable != Some(rollout.candidate);
    is_on_its_way.then(|| (status.service.clone(), Wanted { rollout: rollout.id, load, to: reachable(listen) }))
}

/// Where an address is reached on this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Sends requests at their times until nobody wants them any more; those under way come to their end.
async fn send(service: ServiceName, wanted: Wanted, mut ends: watch::Receiver<()>) {
    let Wanted { rollout, load, to } = wanted;
    let file = load.file.clone();
    let read = tokio::task::spawn_blocking(move || file.map(|file| read(&file)));
    let requests = match read.await {
        Ok(Some(Ok(read))) => read.requests,
        Ok(Some(Err(why))) => return warn!(%service, why, "no load is sent"),
        Ok(None) if !load.requests.is_empty() => load.requests.clone(),
        Ok(None) => vec![Sent { method: "GET".into(), path: "/".into(), weight: 1 }],
        Err(error) => return warn!(%service, %error, "no load is sent"),
    };
    let (mark, places) = (format!("{service}/{rollout}"), Arc::new(Semaphore::new(UNDER_WAY_MAX)));
    let mut began = Instant::now();
    for number in 0.. {
        let due = began + load.due(number);
        tokio::select! {
            biased;
            // The sender is dropped when nothing more is wanted.
            _ = ends.changed() => return,
            () = tokio::time::sleep_until(due) => {}
        }
        let behind = due.elapsed();
        if behind > BEHIND_MAX {
            began += behind;
        }
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let Some(sent) = chosen(&requests, fastrand::f64()) else { return };
        let request = Request::builder()
            .method(sent.method.as_str())
            .uri(sent.path.as_str())
            .header("host", to.to_string())
            .header("user-agent", "evenkeel-load")
            .header("connection", "close")
            .header(HEADER, mark.as_str())
            .body(Empty::<Bytes>::new());
        let Ok(request) = request else { continue };
        tokio::spawn(async move {
            // What comes of it is the proxy's to count.
            let _ = tokio::time::timeout(PATIENCE, ask(to, request)).await;
            drop(place);
        });
    }
}

async fn ask(to: SocketAddr, request: Request<Empty<Bytes>>) -> Option<()> {
    let stream = TcpStream::connect(to).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let asked = async move {
        let mut body = sender.send_request(request).await.ok()?.into_body();
        while let Some(frame) = body.frame().await {
            frame.ok()?;
        }
        Some(())
    };
    // The connection is driven by whoever waits for the answer, and ends with that.
    let (_, answered) = tokio::join!(connection, asked);
    answered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_goes_to_this_machine_where_users_connect_from_anywhere() {
        let reached = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reached("[::]:80"), "[::1]:80");
        assert_eq!(reached("127.0.0.2:80"), "127.0.0.2:80");
    }
}
