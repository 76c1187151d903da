//! A real Prometheus server, asked as checks ask it: plain, with a password, over TLS.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]
#![allow(clippy::print_stderr, reason = "a skipped test is told loudly")]

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use evenkeel_core::measure::{Access, Login};
use evenkeel_sources::client::{Client, Failure};
use evenkeel_sources::prometheus::{Answer, NoAnswer, Question, Range, Result as Found, ask};

const LIMIT: Duration = Duration::from_secs(20);
/// Nothing here takes this long, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The password `hush` as bcrypt has it, at its least cost.
const HASH: &str = "$2b$04$abcdefghijklmnopqrstuuppZFpU9n.F.R29ic//YRPBUgRHbgy9m";
/// Ends the server and removes its folder once nobody holds the other end of its input any more.
const WATCHER: &str = r#"cat >/dev/null; kill -KILL "$2" 2>/dev/null; rm -rf "$1""#;

/// A server of a test's own, which scrapes itself; gone with the test, whatever becomes of that.
struct Server {
    folder: PathBuf,
    port: u16,
    child: Child,
    watcher: Child,
}

impl Server {
    /// `None`, said loudly and counted, where it is not installed.
    fn start(test: &str, web: &str) -> Option<Self> {
        for (program, argument) in [("prometheus", "--version"), ("openssl", "version")] {
            if Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
                skipped(test, &format!("{program} is not installed"));
                return None;
            }
        }
        let folder = tempfile::Builder::new().prefix("evenkeel-prometheus.").tempdir().unwrap().keep();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "global: {{scrape_interval: 100ms}}\n\
             scrape_configs: [{{job_name: self, metrics_path: /prefix/metrics, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
        );
        fs::write(folder.join("prometheus.yml"), config).unwrap();
        fs::write(folder.join("web.yml"), web).unwrap();
        certify(&folder);
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg(format!("--web.config.file={}", folder.join("web.yml").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.arg("--web.external-url=http://localhost/prefix/");
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut watching = Command::new("sh");
        watching.args(["-c", WATCHER, "sh"]).arg(&folder).arg(child.id().to_string());
        let watcher = watching.stdin(Stdio::piped()).spawn().unwrap();
        Some(Self { folder, port, child, watcher })
    }

    fn question(&self, scheme: &str, query: &str) -> Question {
        let address = format!("{scheme}://localhost:{}/prefix", self.port).parse().unwrap();
        Question { address, query: query.into(), range: None }
    }

    /// Asks until the server is up and has scraped twice.
    async fn ready(&mut self, scheme: &str, access: &Access) {
        let question = self.question(scheme, "count_over_time(up[1m]) > 1");
        let began = Instant::now();
        loop {
            let answer = ask(&Client::default(), &question, access, LIMIT).await;
            if answer.as_ref().is_ok_and(|answer| answer.result != Found::Vector(vec![])) {
                return;
            }
            let log = fs::read_to_string(self.folder.join("log")).unwrap();
            assert!(self.child.try_wait().unwrap().is_none(), "{log}");
            assert!(began.elapsed() < PATIENCE, "{answer:?}\n{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

/// Makes an authority, a certificate of it for `localhost`, and another authority.
fn certify(folder: &Path) {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(folder).args(arguments.split(' '));
        let done = command.output().unwrap();
        assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for name in ["ca", "other"] {
        openssl(&format!("req -x509 {new} -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}"));
    }
    openssl(&format!("req {new} -keyout key.pem -out cert.csr -subj /CN=localhost"));
    fs::write(folder.join("extensions"), "subjectAltName=DNS:localhost\n").unwrap();
    openssl(
        "x509 -req -in cert.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile extensions",
    );
}

fn skipped(test: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "{test}: {why}, and CI is set");
    eprintln!("\n*** SKIPPED: {test}: {why} ***\n");
    if let Some(list) = std::env::var_os("EVENKEEL_SKIPPED") {
        let mut list = fs::OpenOptions::new().create(true).append(true).open(Path::new(&list)).unwrap();
        writeln!(list, "{test}: {why}").unwrap();
    }
}

#[tokio::test]
async fn a_real_server_gives_every_kind_of_result() {
    let Some(mut server) = Server::start("a real Prometheus", "") else { return };
    let access = Access::default();
    server.ready("http", &access).await;
    let client = Client::default();
    let asked = |query: &str| server.question("http", query);
    let told = async |query: &str| ask(&client, &asked(query), &access, LIMIT).await;
    let found = async |query: &str| told(query).await.unwrap().result;
    assert_eq!(found("up").await, Found::Vector(vec![1.0]));
    assert_eq!(found("sum(up) * 2 + 1").await, Found::Vector(vec![3.0]));
    assert_eq!(found("scalar(vector(0.25))").await, Found::Scalar(0.25));
    assert_eq!(found("no_such_series").await, Found::Vector(vec![]));
    assert_eq!(found("1 / 0").await, Found::Scalar(f64::INFINITY));
    assert!(matches!(found("0 / 0").await, Found::Scalar(value) if value.is_nan()));
    assert_eq!(found("'text'").await, Found::Text("text".into()));
    assert!(matches!(found("up[1m]").await, Found::Matrix(series) if series.len() == 1 && series[0].len() > 1));
    // Longer than a URL may be.
    let long = vec!["up"; 2_000].join(" + ");
    assert_eq!(found(&long).await, Found::Vector(vec![2_000.0]));

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let range = Some(Range { start: now - 4.0, end: now, step: Duration::from_secs(1) });
    let over = Question { range, ..server.question("http", "vector(1)") };
    let answer = ask(&client, &over, &access, LIMIT).await.unwrap();
    assert_eq!(answer, Answer { result: Found::Matrix(vec![vec![1.0; 5]]), warnings: vec![] });

    let error = told("sum(").await.unwrap_err().to_string();
    assert!(error.starts_with("the query is refused: bad_data: "), "{error}");
    let error = told("up * on(job) group_left() (up or label_replace(up, 'a', 'b', '', ''))").await.unwrap_err();
    assert!(error.to_string().starts_with("the query is refused: execution: "), "{error}");
    let elsewhere = Question { address: format!("http://127.0.0.1:{}/", server.port).parse().unwrap(), ..over };
    let error = ask(&client, &elsewhere, &access, LIMIT).await.unwrap_err().to_string();
    assert!(error.starts_with("404 Not Found: there is no query API at this address"), "{error}");
    let question = asked("up");
    drop(server);
    assert_eq!(
        ask(&client, &question, &access, LIMIT).await,
        Err(NoAnswer::Failure(Failure::Unreachable("connection refused".into())))
    );
}

#[tokio::test]
async fn a_certificate_that_is_an_authoritys_is_not_a_servers() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
                -addext subjectAltName=DNS:localhost -keyout KEY -out CERT";
    let make = make.replace("KEY", &file("key.pem")).replace("CERT", &file("cert.pem"));
    let Ok(made) = Command::new("openssl").args(make.split_whitespace()).output() else {
        return skipped("a certificate of an authority", "openssl is not installed");
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut serve = Command::new("openssl");
    serve.args(["s_server", "-www", "-quiet", "-accept", &format!("127.0.0.1:{port}")]);
    serve.args(["-cert", &file("cert.pem"), "-key", &file("key.pem")]);
    let mut server = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let access = Access { authorities: Some(folder.path().join("cert.pem")), ..Access::default() };
    let question =
        Question { address: format!("https://localhost:{port}").parse().unwrap(), query: "up".into(), range: None };
    let began = Instant::now();
    let error = loop {
        match ask(&Client::default(), &question, &access, LIMIT).await {
            Err(NoAnswer::Failure(Failure::Unreachable(_))) if began.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answered => break answered.unwrap_err().to_string(),
        }
    };
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(error, "its certificate is not trusted: it is an authority's; sign one for the server with it");
}

#[tokio::test]
async fn a_real_server_with_a_password_and_a_certificate_of_its_own_is_asked() {
    let web =
        format!("tls_server_config: {{cert_file: cert.pem, key_file: key.pem}}\nbasic_auth_users: {{ada: {HASH}}}\n");
    let Some(mut server) = Server::start("Prometheus over TLS", &web) else { return };
    let login = |user: &str| Some(Login::Basic { user: user.into(), password: "hush".into() });
    let authorities = Some(server.folder.join("ca.pem"));
    let access = Access { login: login("ada"), authorities: authorities.clone(), ..Access::default() };
    let client = Client::default();
    let began = Instant::now();
    let question = server.question("https", "vector(7)");
    loop {
        match ask(&client, &question, &access, LIMIT).await {
            Ok(answer) => break assert_eq!(answer.result, Found::Vector(vec![7.0])),
            Err(error) => {
                let log = fs::read_to_string(server.folder.join("log")).unwrap();
                assert!(server.child.try_wait().unwrap().is_none() && began.elapsed() < PATIENCE, "{error}\n{log}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    let fails = async |access: &Access| ask(&client, &question, access, LIMIT).await.unwrap_err().to_string();
    let refused = "401 Unauthorized: who asks is not accepted: Unauthorized";
    assert_eq!(fails(&Access { login: login("bob"), ..access.clone() }).await, refused);
    assert_eq!(fails(&Access { login: None, ..access.clone() }).await, refused);
    let of_other = Access { authorities: Some(server.folder.join("other.pem")), ..access.clone() };
    let error = fails(&of_other).await;
    assert!(error.starts_with("its certificate is not trusted: "), "{error}");
    let careless = Access { insecure: true, ..of_other };
    assert_eq!(ask(&client, &question, &careless, LIMIT).await.unwrap().result, Found::Vector(vec![7.0]));
    let error = fails(&Access { authorities: Some(server.folder.join("ca.key")), ..access.clone() }).await;
    assert!(error.contains("there is none in it"), "{error}");
    let error = ask(&client, &server.question("http", "up"), &access, LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("HTTP request to an HTTPS server"), "{error}");
}
