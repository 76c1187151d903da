//! Replicas that are well, that hang, that lie and that send without end, observed side by side.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evenkeel_analysis::{Answers, Counts, Method, Outcome};
use evenkeel_controller::clock::SystemClock;
use evenkeel_controller::handle::Figures;
use evenkeel_controller::status::{ReleaseStatus, ReplicaStatus, ServiceStatus};
use evenkeel_core::ids::{BasisPoints, Revision, ServiceName, Timestamp};
use evenkeel_core::release::Standing;
use evenkeel_core::spec::Scrape;
use evenkeel_core::trigger::{Resources, Triggers};
use evenkeel_metrics::{Observed, Observer};
use evenkeel_series::{Matcher, Select, is_stale};
use evenkeel_sources::client::Client;

const PATIENCE: Duration = Duration::from_secs(60);

/// A replica that does with each connection what it is told to.
fn replica(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    port
}

fn say(mut stream: TcpStream, text: &str) {
    let mut head = [0; 4 << 10];
    let _ = stream.read(&mut head);
    let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
}

fn service(name: &str, ports: &[u16], answers: Answers) -> Arc<ServiceStatus> {
    let replicas = ports.iter().enumerate().map(|(n, port)| ReplicaStatus {
        name: format!("{name}-r1-{n}"),
        port: *port,
        pid: std::process::id(),
        state: "ready".into(),
        detail: String::new(),
        passed_over: None,
    });
    let release = ReleaseStatus {
        revision: Revision(1),
        version: "v1".into(),
        standing: Standing::Good,
        created: Timestamp(0),
        artefact: None,
        weight: BasisPoints::ALL,
        wanted: 1,
        ready: 1,
        restarts: 0,
        crash_looping: false,
        in_flight: 0,
        replicas: replicas.collect(),
        recent: Counts::default(),
        total: Counts::default(),
        answers,
        shielded: 0,
        pinned: Counts::default(),
        mirrored: Counts::default(),
        mirror_dropped: 0,
    };
    Arc::new(ServiceStatus {
        service: ServiceName::new(name).unwrap(),
        environment: "production".into(),
        listen: None,
        preview: None,
        scrape: Some(Scrape { interval: Duration::from_secs(1), ..Scrape::default() }),
        rules: Vec::new(),
        triggers: Triggers::off(),
        resources: Resources::default(),
        slos: Vec::new(),
        load: None,
        stable: Some(Revision(1)),
        releases: vec![release],
        rollout: None,
        queued: None,
        gated: None,
        history: Vec::new(),
        limited: None,
        maintenance: None,
        alerts: Vec::new(),
    })
}

/// An observer of what `shown` holds.
fn observe(shown: &Arc<Mutex<Vec<Arc<ServiceStatus>>>>) -> Observed {
    let (observed, shown) = (Observed::default(), shown.clone());
    let look = move || {
        let services = shown.lock().unwrap().iter().map(|service| (service.clone(), Arc::from([]))).collect();
        Figures { troubles: Vec::new(), store_bytes: None, services, dependencies: Vec::new().into() }
    };
    let observer = Observer::new(look, SystemClock::new(), Client::default(), observed.clone());
    observer.spawn().unwrap();
    observed
}

/// The series of a name and a service, each with its samples; `end` where it has ended.
fn kept(observed: &Observed, name: &str, service: &str) -> Vec<(String, Vec<String>)> {
    let matchers = [Matcher::equal("__name__", name), Matcher::equal("service", service)];
    let store = observed.series();
    let found = store.read().unwrap().select(&matchers, 0, i64::MAX, 100_000).unwrap();
    let shown = |value: f64| if is_stale(value) { "end".to_owned() } else { value.to_string() };
    found.iter().map(|s| (s.labels.to_string(), s.samples.iter().map(|s| shown(s.value)).collect())).collect()
}

async fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_replica_that_is_well_is_read_beside_those_that_are_not() {
    let hits = Arc::new(AtomicU64::new(0));
    let counts = hits.clone();
    let well = replica(move |stream| {
        let n = counts.fetch_add(1, Ordering::SeqCst);
        say(stream, &format!("# TYPE cache_hits_total counter\ncache_hits_total{{cache=\"a\"}} {n}\n"));
    });
    let hangs = replica(std::mem::forget);
    let lies = replica(|stream| say(stream, "cache_hits_total oh yes\n"));
    let endless = replica(|mut stream| {
        // An answer before its request is another kind of failure.
        let _ = stream.read(&mut [0; 4 << 10]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'#'; 64 << 10]).is_ok() {}
    });
    let ill: Vec<u16> = std::iter::repeat_n([hangs, lies], 28).flatten().chain([endless; 4]).collect();
    let shown = Arc::new(Mutex::new(vec![
        service("ill", &ill, Answers::default()),
        service("web", &[well], Answers::default()),
    ]));
    let observed = observe(&shown);
    // What hangs takes a second each time, nearly half of sixty replicas, again and again.
    let series = wait_for("five looks at the replica that is well", || {
        let series = kept(&observed, "cache_hits_total", "web");
        series.first().filter(|(_, samples)| samples.len() >= 5).cloned()
    });
    let began = Instant::now();
    let (labels, samples) = series.await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let instance = format!("127.0.0.1:{well}");
    let whose = format!(
        "cache_hits_total{{cache=\"a\",deployment=\"web\",environment=\"production\",instance=\"{instance}\",job=\"web\",\
         release=\"r1\",replica=\"web-r1-0\",role=\"stable\",service=\"web\",version=\"v1\"}}"
    );
    assert_eq!((labels, &samples[..5]), (whose, &["0", "1", "2", "3", "4"].map(String::from)[..]));
    assert_eq!(kept(&observed, "cache_hits_total", "ill"), []);
    // On a busy machine one that sends without end may reach the time before the length, now and then: each kind is
    // waited for, and nothing else is ever told.
    let kinds = [
        "",
        "no complete answer within 1 s",
        "the answer is longer than 2 MiB",
        "what it tells is not understood: line 1: `cache_hits_total` has the value `oh`, which is no number",
    ];
    let mut told = BTreeSet::new();
    wait_for("every kind of failure", || {
        let targets = observed.targets();
        told.extend(targets.iter().filter(|target| target.up.is_some()).map(|target| target.detail.clone()));
        (told.len() >= kinds.len()).then_some(())
    })
    .await;
    assert_eq!(told, kinds.map(String::from).into());
    let up = kept(&observed, "up", "ill");
    assert!(up.iter().all(|(_, samples)| samples.iter().all(|up| up == "0")), "{up:?}");
}

#[tokio::test]
async fn series_end_with_their_replica_and_with_their_service() {
    let well = replica(|stream| say(stream, "temperature 20.5\n"));
    let mut answers = Answers::default();
    answers.record(Method::Get, Outcome::Answered(200));
    let shown = Arc::new(Mutex::new(vec![service("web", &[well], answers.clone())]));
    let observed = observe(&shown);
    let last = |name: &str| {
        let series = kept(&observed, name, "web");
        series.first().and_then(|(_, samples)| samples.last().cloned())
    };
    wait_for("a first look", || last("temperature")).await;
    assert_eq!(wait_for("requests", || last("http_requests_total")).await, "1");
    let cpu: f64 = wait_for("processor time", || last("replica_cpu_seconds_total")).await.parse().unwrap();
    let memory: f64 = last("replica_memory_bytes").unwrap().parse().unwrap();
    assert!(cpu < 1e6 && memory > 1e6, "{cpu} {memory}");
    assert!(observed.rows().iter().any(|row| row.family.name() == "node_memory_MemTotal_bytes"));
    shown.lock().unwrap()[0] = service("web", &[], answers);
    wait_for("the end of a replica's series", || last("temperature").filter(|last| last == "end")).await;
    assert_eq!(observed.targets(), []);
    assert_eq!(last("http_requests_total").unwrap(), "1");
    shown.lock().unwrap().clear();
    wait_for("the end of a service's series", || last("http_requests_total").filter(|last| last == "end")).await;
}

#[tokio::test]
async fn a_thousand_services_are_written_down_in_a_moment_and_in_little_room() {
    let mut answers = Answers::default();
    for status in [200, 201, 304, 404, 500, 503] {
        answers.record(Method::Get, Outcome::Answered(status));
        answers.record(Method::Post, Outcome::Answered(status));
    }
    let all = (0..1_000).map(|n| service(&format!("s{n}"), &[], answers.clone())).collect();
    let shown = Arc::new(Mutex::new(all));
    let observed = observe(&shown);
    let series = observed.series();
    wait_for("all of them", || (series.read().unwrap().len() > 18_000).then_some(())).await;
    let bytes = series.read().unwrap().bytes();
    assert!(bytes < 32 << 20, "{bytes}");
}
