//! What evenkeel knows beside what it counts: replicas' own metrics, and what they use, with real replicas.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;

use common::{PATIENCE, World, ask};
use serde_json::Value;

/// The example, on an address of its own and without a wait.
fn example(world: &World) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/metrics");
    fs::copy(example.join("app.py"), world.folder().join("app.py")).unwrap();
    let text = fs::read_to_string(example.join("evenkeel.yaml")).unwrap();
    assert!(text.contains("127.0.0.1:8080") && text.contains("interval: 5s"), "{text}");
    let text = text.replace("127.0.0.1:8080", &world.listen.to_string()).replace("interval: 5s", "interval: 1s");
    fs::write(world.folder().join("evenkeel.yaml"), text).unwrap();
}

/// What the controller answers on its private socket.
fn get(world: &World, path: &str) -> String {
    let mut stream = UnixStream::connect(world.state().join("control.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: evenkeel\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    body.to_owned()
}

/// The values of the series at `/metrics` whose line begins so.
fn values(metrics: &str, begin: &str) -> Vec<f64> {
    let lines = metrics.lines().filter(|line| line.starts_with(begin));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect()
}

#[test]
fn replicas_tell_of_themselves_and_of_what_they_use() {
    let world = World::new();
    example(&world);
    world.up();
    world.expect(0, &["deploy", "--version", "v1"]);
    for _ in 0..10 {
        assert_eq!(ask(world.listen, "catalog", &[]).status, 200);
    }
    let mut targets: Vec<Value> = Vec::new();
    world.wait_for("both replicas to tell of themselves", || {
        targets = serde_json::from_str(&get(&world, "/api/v1/targets")).unwrap();
        targets.len() == 2 && targets.iter().all(|target| target["up"] == true)
    });
    for target in &targets {
        assert_eq!((&target["series"], &target["detail"]), (&Value::from(3), &Value::from("")), "{target}");
    }
    let mut metrics = String::new();
    world.wait_for("what both replicas use", || {
        metrics = get(&world, "/metrics");
        values(&metrics, "replica_memory_bytes{service=\"catalog\"").len() == 2
    });
    let memory = values(&metrics, "replica_memory_bytes{service=\"catalog\"");
    assert!(memory.iter().all(|bytes| (1e6..1e9).contains(bytes)), "{memory:?}");
    let cpu = values(&metrics, "replica_cpu_seconds_total{service=\"catalog\"");
    assert!(cpu.len() == 2 && cpu.iter().all(|seconds| (0.01..60.0).contains(seconds)), "{cpu:?}");
    let release = "service=\"catalog\",environment=\"production\",release=\"r1\",version=\"v1\",role=\"stable\"";
    let requests = format!("http_requests_total{{{release},deployment=\"catalog\",status=\"200\",method=\"GET\"}}");
    world.wait_for("ten requests", || values(&get(&world, "/metrics"), &requests) == [10.0]);
    assert_eq!(values(&metrics, "node_memory_MemTotal_bytes").len(), 1);

    // What was told can be asked for: ten looks into the caches of two replicas, all of them for the same page.
    let query = |text: &str| {
        let answer: Value = serde_json::from_str(&world.expect(0, &["query", text, "-o", "json"]).out).unwrap();
        let found = answer["data"]["result"].as_array().unwrap().clone();
        found.iter().map(|series| series["value"][1].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    world.wait_for("ten looks into caches", || query("sum(cache_requests_total{service=\"catalog\"})") == ["10"]);
    let entries = query("cache_entries{deployment=\"catalog\",role=\"stable\",release=\"r1\"}");
    assert!(entries.len() == 2 && entries.iter().all(|count| ["0", "1"].contains(&count.as_str())), "{entries:?}");
    assert_eq!(query("count(up{service=\"catalog\"} == 1)"), ["2"]);
    world.wait_for("ten requests in what is kept", || {
        query("sum by (status) (http_requests_total{service=\"catalog\",status=\"200\"})") == ["10"]
    });
    let part = query("max(replica_memory_bytes{service=\"catalog\"}) / scalar(node_memory_MemTotal_bytes)");
    assert!(part.len() == 1 && part[0].parse::<f64>().unwrap() < 0.5, "{part:?}");

    // A replica that is gone is not asked for any more, and its series have ended.
    let pid = replica_pid(&world);
    assert!(std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    world.wait_for("another replica in its place", || {
        let targets: Vec<Value> = serde_json::from_str(&get(&world, "/api/v1/targets")).unwrap();
        targets.len() == 2 && targets.iter().any(|target| target["replica"] == "catalog-r1-3" && target["up"] == true)
    });
    assert_eq!(query("count(cache_entries)"), ["2"]);
    world.down();
}

/// The process of one of the replicas.
fn replica_pid(world: &World) -> u64 {
    let overview = world.overview().unwrap();
    overview["services"][0]["releases"][0]["replicas"][0]["pid"].as_u64().unwrap()
}

/// Accepts connections and never says a word, or says one without end.
fn hostile(endless: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").and_then(|()| {
                    if endless {
                        loop {
                            stream.write_all(&[b'9'; 64 << 10])?;
                        }
                    }
                    std::thread::park();
                    Ok::<(), std::io::Error>(())
                });
            });
        }
    });
    port
}

#[test]
fn a_release_whose_cache_is_cold_goes_back_while_other_sources_hang_and_babble() {
    let world = World::alone();
    example(&world);
    let path = world.folder().join("evenkeel.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let looks =
        |result: &str| format!("sum(rate(cache_requests_total{{deployment='{{{{deployment}}}}'{result}}}[5s]))");
    let (hits, all) = (looks(",result='hit'"), looks(""));
    let (silent, endless) = (hostile(false), hostile(true));
    let checks = format!(
        "checks:
  - {{ name: cache, metrics: \"{hits} / {all}\", success: \"result[0] > 0.5\", interval: 1s, initialDelay: 4s }}
  - {{ name: silent, http: \"http://127.0.0.1:{silent}/\", success: \"result == 1\", interval: 1s, timeout: 2s }}
  - {{ name: endless, http: \"http://127.0.0.1:{endless}/\", success: \"result == 1\", interval: 1s, timeout: 5s }}
"
    );
    fs::write(&path, format!("{text}{checks}")).unwrap();
    world.up();
    world.expect(0, &["deploy", "--version", "v1"]);
    let _load = world.load(50);
    let app = fs::read_to_string(world.folder().join("app.py")).unwrap();
    let cold = app.replace("return CACHE.setdefault(path, f\"page {path}\\n\")", "return f\"page {path}\\n\"");
    assert_ne!(app, cold);
    fs::write(world.folder().join("app.py"), cold).unwrap();
    let ran = world.expect(3, &["deploy", "--version", "v2"]);
    let why =
        "rolled back: check `cache` failed: 1 of 1 measurements were bad (limit 0); last: `result[0] > 0.5` is false";
    assert!(ran.out.contains(why), "{}", ran.out);
    world.down();
}
