//! A real Prometheus on loopback, over samples that were written to its disk beforehand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use evenkeel_series::{Labels, Matcher, Sample, Select, Series, TooMuch, labels::NAME};

/// Series in memory, as tests hand them to both sides.
#[derive(Debug, Default, Clone)]
pub(crate) struct Data(pub(crate) Vec<Series>);

impl Select for Data {
    fn select(&self, matchers: &[Matcher], from: i64, to: i64, samples_max: usize) -> Result<Vec<Series>, TooMuch> {
        let mut left = samples_max;
        let mut found = Vec::new();
        for Series { labels, samples } in &self.0 {
            let samples: Vec<Sample> = samples.iter().copied().filter(|s| (from..=to).contains(&s.at)).collect();
            if !samples.is_empty() && matchers.iter().all(|matcher| matcher.matches(labels)) {
                left = left.checked_sub(samples.len()).ok_or(TooMuch { max: samples_max })?;
                found.push(Series { labels: labels.clone(), samples });
            }
        }
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(found)
    }
}

impl Data {
    /// The text from which `promtool` makes blocks.
    pub(crate) fn open_metrics(&self) -> String {
        let mut text = String::new();
        for Series { labels, samples } in &self.0 {
            let pairs: Vec<String> = labels
                .iter()
                .filter(|(name, _)| *name != NAME)
                .map(|(name, value)| format!("{name}={value:?}"))
                .collect();
            for Sample { at, value } in samples {
                let value = value.to_string().replace("inf", "Inf");
                let _ = writeln!(
                    text,
                    "{}{{{}}} {value} {}.{:03}",
                    labels.name(),
                    pairs.join(","),
                    at.div_euclid(1000),
                    at.rem_euclid(1000)
                );
            }
        }
        text + "# EOF\n"
    }
}

/// Whether a program is there; without it a test is skipped loudly, and fails where CI is set.
pub(crate) fn has(program: &str, test: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return true;
    }
    let why = format!("{test}: {program} is missing");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "{why}, and CI is set");
    eprintln!("\n*** SKIPPED: {why} ***\n");
    if let Some(list) = std::env::var_os("EVENKEEL_SKIPPED") {
        let mut list = std::fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
        writeln!(list, "{why}").unwrap();
    }
    false
}

/// A running server, ended with this value.
pub(crate) struct Prometheus {
    child: Child,
    port: u16,
}

/// What it answers to a query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Scalar(f64),
    /// In the order of the answer.
    Vector(Vec<(Labels, f64)>),
    Matrix(BTreeMap<Labels, Vec<(i64, f64)>>),
    Text(String),
    Failed(String),
}

impl Prometheus {
    /// Starts one over these series, in a folder of its own.
    pub(crate) fn start(folder: &Path, data: &Data) -> Self {
        let (text, storage, config) = (folder.join("samples.om"), folder.join("data"), folder.join("prometheus.yml"));
        std::fs::write(&text, data.open_metrics()).unwrap();
        std::fs::write(&config, "global: { evaluation_interval: 1m }\n").unwrap();
        let made = Command::new("promtool")
            .args(["tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=100h"])
            .args([&text, &storage])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", storage.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--storage.tsdb.retention.time=100y", "--log.level=warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { child, port };
        let until = Instant::now() + Duration::from_secs(60);
        while server.ask("/-/ready", "").is_none_or(|(status, _)| status != 200) {
            let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "Prometheus is not ready: {}", log());
            std::thread::park_timeout(Duration::from_millis(20));
        }
        server
    }

    fn ask(&self, path: &str, form: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        let (method, length) = (if form.is_empty() { "GET" } else { "POST" }, form.len());
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// What a query gives at a moment.
    pub(crate) fn at(&self, query: &str, now: i64) -> Answer {
        let form = format!("query={}&time={}", encoded(query), seconds(now));
        read(&self.ask("/api/v1/query", &form).expect("Prometheus answers").1)
    }

    /// What a query gives over a range.
    pub(crate) fn over(&self, query: &str, (start, end): (i64, i64), step: i64) -> Answer {
        let (start, end, step) = (seconds(start), seconds(end), seconds(step));
        let form = format!("query={}&start={start}&end={end}&step={step}", encoded(query));
        read(&self.ask("/api/v1/query_range", &form).expect("Prometheus answers").1)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn seconds(milliseconds: i64) -> String {
    format!("{}.{:03}", milliseconds.div_euclid(1000), milliseconds.rem_euclid(1000))
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn read(body: &str) -> Answer {
    let json: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    if json["status"] != "success" {
        return Answer::Failed(json["error"].as_str().unwrap_or(body).to_owned());
    }
    let number = |value: &serde_json::Value| value.as_str().unwrap().parse::<f64>().unwrap();
    let moment = |value: &serde_json::Value| (value.as_f64().unwrap() * 1000.0).round() as i64;
    let labels = |value: &serde_json::Value| -> Labels {
        value["metric"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
            .collect()
    };
    let result = &json["data"]["result"];
    let list = || result.as_array().unwrap().iter();
    match json["data"]["resultType"].as_str().unwrap() {
        "scalar" => Answer::Scalar(number(&result[1])),
        "string" => Answer::Text(result[1].as_str().unwrap().to_owned()),
        "vector" => Answer::Vector(list().map(|entry| (labels(entry), number(&entry["value"][1]))).collect()),
        "matrix" => {
            let samples = |entry: &serde_json::Value| -> Vec<(i64, f64)> {
                entry["values"].as_array().unwrap().iter().map(|pair| (moment(&pair[0]), number(&pair[1]))).collect()
            };
            Answer::Matrix(list().map(|entry| (labels(entry), samples(entry))).collect())
        }
        other => panic!("a result of type {other}"),
    }
}
