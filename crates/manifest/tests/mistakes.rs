//! Files with mistakes, and what people are told.

use std::fmt::Write as _;

use evenkeel_manifest::{Problems, read};

const BASE: &str = "service: web\ncommand: [bin/web]\nlisten: 8080\nobjectives: [\"error_rate < 1%\"]\n";

fn problems(text: &str) -> Problems {
    match read("evenkeel.yaml", text) {
        Ok(read) => read.warnings,
        Err(problems) => problems,
    }
}

/// Each text on a line, and below it what is told: place, code, message; then the help.
fn told<'a>(texts: impl IntoIterator<Item = &'a str>, whole: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    for text in texts {
        writeln!(out, "{}", text.replace('\n', "⏎").replace('\t', "→")).expect("a String takes everything");
        for problem in problems(&whole(text)).iter() {
            let ((line, column), code) = (problem.line_and_column(), problem.code().as_str());
            writeln!(out, "  {line}:{column} {code} {problem}\n    {}", problem.help())
                .expect("a String takes everything");
        }
    }
    out
}

/// As [`told`], for lines added to a service that has all it needs.
fn told_of_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    told(lines, |line| format!("{BASE}{line}\n"))
}

/// As [`told`], for what replaces a line of a service.
fn told_instead_of<'a>(key: &str, lines: impl IntoIterator<Item = &'a str>) -> String {
    let kept: String = BASE.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n")).collect();
    told(lines, |line| format!("{kept}{line}\n"))
}

#[test]
fn all_mistakes_of_a_file_are_shown_at_once_with_their_places() {
    let text = r#"# Größe → 日本
service: web
enviroment: production
command: python3 app.py --port {{port}}
artefact: ../app.py
replicas: 0
listen: :8080
env: { GREETING: "日本 {{portt}}", EMPTY: }
probes:
  liveness: { http: health, periodSeconds: 0, successThreshold: 2 }
strategy:
  canary:
    steps:
      - { weight: 50%, hold: 10 }
      - { weight: 20%, hold: 20m, objectives: ["latency.p99 < 500"] }
replicas: 3
minimumRequests: 0
"#;
    insta::assert_snapshot!(problems(text).render(90, false), @r#"
    spec::unknown_key

      × a service has no key `enviroment`
       ╭─[evenkeel.yaml:3:1]
     2 │ service: web
     3 │ enviroment: production
       · ─────┬────
       ·      ╰── did you mean `environment`?
     4 │ command: python3 app.py --port {{port}}
       ╰────
      help: write `environment`

    spec::wrong_type

      × `command` takes a list, not text
       ╭─[evenkeel.yaml:4:10]
     3 │ enviroment: production
     4 │ command: python3 app.py --port {{port}}
       ·          ───────────────┬──────────────
       ·                         ╰── this is text
     5 │ artefact: ../app.py
       ╰────
      help: no shell reads this; write a list: `[python3, app.py, --port, "{{port}}"]`

    spec::bad_value

      × `artefact`: `../app.py` leaves the folder of this file
       ╭─[evenkeel.yaml:5:11]
     4 │ command: python3 app.py --port {{port}}
     5 │ artefact: ../app.py
       ·           ─────────
     6 │ replicas: 0
       ╰────
      help: name files or folders below the one of this file: `artefact: [app.py,
            templates]`

    spec::out_of_range

      × `replicas`: `0` is out of range
       ╭─[evenkeel.yaml:6:11]
     5 │ artefact: ../app.py
     6 │ replicas: 0
       ·           ─
     7 │ listen: :8080
       ╰────
      help: write a value from 1 to 1000

    spec::bad_value

      × `listen`: `:8080` is no address to listen on
       ╭─[evenkeel.yaml:7:9]
     6 │ replicas: 0
     7 │ listen: :8080
       ·         ─────
     8 │ env: { GREETING: "日本 {{portt}}", EMPTY: }
       ╰────
      help: write `127.0.0.1:8080` for this machine only, `0.0.0.0:8080` for everyone

    spec::unknown_placeholder

      × nothing is known to fill in for `{{portt}}`
       ╭─[evenkeel.yaml:8:22]
     7 │ listen: :8080
     8 │ env: { GREETING: "日本 {{portt}}", EMPTY: }
       ·                        ───────
     9 │ probes:
       ╰────
      help: here `{{version}}` and `{{port}}` can be filled in

    spec::wrong_type

      × `EMPTY` takes text or a number, not an empty value
       ╭─[evenkeel.yaml:8:39]
     7 │ listen: :8080
     8 │ env: { GREETING: "日本 {{portt}}", EMPTY: }
       ·                                         ▲
       ·                                         ╰── this is an empty value
     9 │ probes:
       ╰────
      help: write one value; nothing at all is written as ""

    spec::bad_value

      × `http`: `health` is no path
        ╭─[evenkeel.yaml:10:21]
      9 │ probes:
     10 │   liveness: { http: health, periodSeconds: 0, successThreshold: 2 }
        ·                     ──────
     11 │ strategy:
        ╰────
      help: write it with its leading slash and without spaces: `/health`; anything beyond
            ASCII as `%C3%A9`

    spec::out_of_range

      × `periodSeconds`: `0` is out of range
        ╭─[evenkeel.yaml:10:44]
      9 │ probes:
     10 │   liveness: { http: health, periodSeconds: 0, successThreshold: 2 }
        ·                                            ─
     11 │ strategy:
        ╰────
      help: write a value from 1 to 86400

    spec::out_of_range

      × `successThreshold` is 2, but only a readiness probe may want more than one success
        ╭─[evenkeel.yaml:10:65]
      9 │ probes:
     10 │   liveness: { http: health, periodSeconds: 0, successThreshold: 2 }
        ·                                                                 ─
     11 │ strategy:
        ╰────
      help: write `1`, or leave it out

    spec::bad_value

      × `hold`: `10` has no unit of time
        ╭─[evenkeel.yaml:14:30]
     13 │     steps:
     14 │       - { weight: 50%, hold: 10 }
        ·                              ──
     15 │       - { weight: 20%, hold: 20m, objectives: ["latency.p99 < 500"] }
        ╰────
      help: write a number with a unit: `500ms`, `10s`, `5m`, `2h`, `1d`, or together:
            `1h30m`

    spec::weights_must_rise

      × shares must rise, but 50 % is followed by 20 %
        ╭─[evenkeel.yaml:15:19]
     14 │       - { weight: 50%, hold: 10 }
     15 │       - { weight: 20%, hold: 20m, objectives: ["latency.p99 < 500"] }
        ·                   ─┬─
        ·                    ╰── not above the step before
     16 │ replicas: 3
        ╰────
      help: sort the steps by weight; two of the same weight are one with a longer hold

    spec::bad_value

      × `latency.p99 < 500` is no objective: `500` has no unit of time
        ╭─[evenkeel.yaml:15:63]
     14 │       - { weight: 50%, hold: 10 }
     15 │       - { weight: 20%, hold: 20m, objectives: ["latency.p99 < 500"] }
        ·                                                               ───
     16 │ replicas: 3
        ╰────
      help: write `500ms` or `2s`

    spec::duplicate_key

      × `replicas` is written twice
       ╭─[evenkeel.yaml:6:1]
     5 │ artefact: ../app.py
     6 │ replicas: 0
       · ────┬───
       ·     ╰── first here
     7 │ listen: :8080
       ╰────
        ╭─[evenkeel.yaml:16:1]
     15 │       - { weight: 20%, hold: 20m, objectives: ["latency.p99 < 500"] }
     16 │ replicas: 3
        · ────┬───
        ·     ╰── again here
     17 │ minimumRequests: 0
        ╰────
      help: keep one of the two; another service begins with a line of `---`

    spec::out_of_range

      × `minimumRequests`: `0` is out of range
        ╭─[evenkeel.yaml:17:18]
     16 │ replicas: 3
     17 │ minimumRequests: 0
        ·                  ─
        ╰────
      help: write a value from 1 to 1000000000

    evenkeel.yaml: 15 mistakes
    "#);
}

#[test]
fn programs_get_the_same_as_a_list() {
    insta::assert_snapshot!(problems("# 日本\nservice: \"日本\"\n").to_json().to_string().replace("},{", "},\n{"), @r#"
    [{"code":"spec::missing_key","column":1,"file":"evenkeel.yaml","help":"add `command: [python3, app.py]`","line":2,"message":"a service needs the key `command`","severity":"error"},
    {"code":"spec::missing_key","column":1,"file":"evenkeel.yaml","help":"add `listen: 127.0.0.1:8080` or `listen: none`","line":2,"message":"a service needs the key `listen`","severity":"error"},
    {"code":"spec::nothing_judged","column":1,"file":"evenkeel.yaml","help":"add `objectives: [\"error_rate < 1%\", \"latency.p99 < 500ms\"]`","line":2,"message":"no objectives: once a release has all of the traffic, only probes and triggers can stop it","severity":"warning"},
    {"code":"spec::bad_value","column":10,"file":"evenkeel.yaml","help":"use 1 to 63 lower-case letters, digits and dashes, beginning and ending with a letter or digit","line":2,"message":"`service`: `日本` is no name","severity":"error"}]
    "#);
}

#[test]
fn keys_that_nobody_reads_or_that_are_missing_are_told() {
    insta::assert_snapshot!(told_of_lines([
        "replica: 3",
        "minimum_requests: 50",
        "volumes: [a]",
        "image: nginx",
        "replicas: 3\nreplicas: 4",
        "stop: { drian: 5s }",
        "logs: {}",
        "metrics: { port: 9100, prometheus.io/path: /m }",
        "probes: { readiness: { exec: { args: [x] } } }",
        "probes: { readiness: { exec: bin/check --fast } }",
        "probes: { readiness: { grpc: { port: http, servce: a } } }",
        "probes: { readiness: { periodSeconds: 1 } }",
        "probes: { readiness: { http: /a, tcp: true } }",
        "strategy: {}",
        "strategy: { canary: { steps: [{ weight: 5% }, { hold: 5m }, { setWeight: 5 }] } }",
        "<<: *base",
        "1: 2",
        "[a]: b",
        "~: b",
    ]), @r#"
    replica: 3
      5:1 spec::unknown_key a service has no key `replica`
        write `replicas`
    minimum_requests: 50
      5:1 spec::unknown_key a service has no key `minimum_requests`
        write `minimumRequests`
    volumes: [a]
      5:1 spec::unknown_key a service has no key `volumes`
        the keys here are: service, manifests, environment, environments, command, artefact, replicas, listen, preview, routes, limits, timeouts, errorPages, accessLog, tls, protocol, balance, fronts, proxyProtocol, env, probes, strategy, objectives, checks, afterwards, events, gates, alerts, triggers, slos, validation, load, resources, minimumRequests, analysis, notEnough, startupLimit, firstWatch, unreadyLimit, firstByteTimeout, shield, group, stop, logs, metrics, dependencies
    image: nginx
      5:1 spec::unknown_key a service has no key `image`
        containers are not supported: write `command: [program, argument]`
    replicas: 3⏎replicas: 4
      6:1 spec::duplicate_key `replicas` is written twice
        keep one of the two; another service begins with a line of `---`
    stop: { drian: 5s }
      5:9 spec::unknown_key the mapping `stop` has no key `drian`
        write `drain`
    logs: {}
      5:7 spec::missing_key the mapping `logs` needs the key `maxSize`
        add `maxSize: 10MiB`
    metrics: { port: 9100, prometheus.io/path: /m }
      5:12 spec::conflict every replica of every release would be asked at this one port
        leave `port` out and serve metrics at `{{port}}`, the replica's own; a port of its own works with one replica and `strategy: { recreate: {} }`
      5:24 spec::unknown_key the mapping `metrics` of a service has no key `prometheus.io/path`
        write `path: /metrics`
    probes: { readiness: { exec: { args: [x] } } }
      5:30 spec::missing_key the mapping `exec` needs the key `command`
        add `command: [bin/check, --fast]`
      5:32 spec::unknown_key the mapping `exec` has no key `args`
        write the arguments behind the program: `command: [bin/check, --fast]`
    probes: { readiness: { exec: bin/check --fast } }
      5:30 spec::wrong_type `exec` takes a list, not text
        no shell reads this; write a list: `[bin/check, --fast]`
    probes: { readiness: { grpc: { port: http, servce: a } } }
      5:38 spec::wrong_type `port` takes a port number, not text
        ports have no names here: write the number, or leave it out for the replica's own
      5:44 spec::unknown_key the mapping `grpc` has no key `servce`
        write `service`
    probes: { readiness: { periodSeconds: 1 } }
      5:22 spec::missing_key this probe asks nothing
        add `http: /health` or `tcp: true`
    probes: { readiness: { http: /a, tcp: true } }
      5:34 spec::conflict `http` and `tcp` exclude each other
        keep one of them
    strategy: {}
      5:11 spec::missing_key `strategy` names no strategy
        write `canary:`, `blueGreen:`, `rolling:`, `recreate:` or `ab:` below it, or leave `strategy` out
    strategy: { canary: { steps: [{ weight: 5% }, { hold: 5m }, { setWeight: 5 }] } }
      5:31 spec::missing_key a canary step needs the key `hold`
        add `hold: 10m` or `hold: manual`
      5:47 spec::missing_key a canary step needs the key `weight`
        add `weight: 5%`
      5:61 spec::missing_key a canary step needs the key `weight`
        add `weight: 5%`
      5:61 spec::missing_key a canary step needs the key `hold`
        add `hold: 10m` or `hold: manual`
      5:63 spec::unknown_key a canary step has no key `setWeight`
        write `{ weight: 5%, hold: 10m }`
    <<: *base
      5:5 spec::syntax this is no YAML: while parsing node, found unknown anchor
        an alias `*name` stands for a value that was marked `&name` further up in the same document
    1: 2
      5:1 spec::unknown_key a service has no key `1`
        the keys here are: service, manifests, environment, environments, command, artefact, replicas, listen, preview, routes, limits, timeouts, errorPages, accessLog, tls, protocol, balance, fronts, proxyProtocol, env, probes, strategy, objectives, checks, afterwards, events, gates, alerts, triggers, slos, validation, load, resources, minimumRequests, analysis, notEnough, startupLimit, firstWatch, unreadyLimit, firstByteTimeout, shield, group, stop, logs, metrics, dependencies
    [a]: b
      5:1 spec::wrong_type a key must be text, but this is a list
        write `key: value` with text as the key
    ~: b
      5:1 spec::wrong_type a key must be text, but this is an empty value
        write `key: value` with text as the key
    "#);
}

#[test]
fn a_service_without_name_command_or_address_is_told() {
    insta::assert_snapshot!(told(["{}", "name: web", "{ servce: web, cmd: [a], ports: [80] }"], str::to_owned), @r#"
    {}
      1:1 spec::missing_key a service needs the key `service`
        add `service: web`
      1:1 spec::missing_key a service needs the key `command`
        add `command: [python3, app.py]`
      1:1 spec::missing_key a service needs the key `listen`
        add `listen: 127.0.0.1:8080` or `listen: none`
      1:1 spec::nothing_judged no objectives: once a release has all of the traffic, only probes and triggers can stop it
        add `objectives: ["error_rate < 1%", "latency.p99 < 500ms"]`
    name: web
      1:1 spec::unknown_key a service has no key `name`
        write `service`
      1:1 spec::missing_key a service needs the key `command`
        add `command: [python3, app.py]`
      1:1 spec::missing_key a service needs the key `listen`
        add `listen: 127.0.0.1:8080` or `listen: none`
      1:1 spec::nothing_judged no objectives: once a release has all of the traffic, only probes and triggers can stop it
        add `objectives: ["error_rate < 1%", "latency.p99 < 500ms"]`
    { servce: web, cmd: [a], ports: [80] }
      1:1 spec::nothing_judged no objectives: once a release has all of the traffic, only probes and triggers can stop it
        add `objectives: ["error_rate < 1%", "latency.p99 < 500ms"]`
      1:3 spec::unknown_key a service has no key `servce`
        write `service`
      1:16 spec::unknown_key a service has no key `cmd`
        write `command`
      1:26 spec::unknown_key a service has no key `ports`
        write `listen: 127.0.0.1:8080`; the program finds its own port in `{{port}}` or $PORT
    "#);
}

#[test]
fn values_of_the_wrong_type_are_told_with_what_they_are() {
    insta::assert_snapshot!(told_of_lines([
        "replicas: \"3\"",
        "replicas: three",
        "replicas: 1.5",
        "replicas: [3]",
        "replicas:",
        "replicas: yes",
        "environment: 1",
        "env: [A=b]",
        "env: { A: ~ }",
        "env: { A: {{version}} }",
        "artefact: {{version}}",
        "artefact: { a: b }",
        "probes: /health",
        "probes: { readiness: /health }",
        "probes: { readiness: { tcp: 8080 } }",
        "probes: { readiness: { httpGet: { port: http } } }",
        "strategy: canary",
        "strategy: { blueGreen: }",
        "unreadyLimit: true",
        "unreadyLimit: !seconds 5",
        "notEnough: []",
    ]), @r#"
    replicas: "3"
      5:11 spec::wrong_type `replicas` takes a whole number, not text
        leave the quotes out: `3`
    replicas: three
      5:11 spec::wrong_type `replicas` takes a whole number, not text
        write a whole number such as `1`
    replicas: 1.5
      5:11 spec::wrong_type `replicas` takes a whole number, not a decimal number
        write a whole number such as `1`
    replicas: [3]
      5:11 spec::wrong_type `replicas` takes a whole number, not a list
        write a whole number such as `1`
    replicas:
      5:1 spec::wrong_type `replicas` has no value
        write a value, or leave `replicas` out
    replicas: yes
      5:11 spec::wrong_type `replicas` takes a whole number, not text
        write a whole number such as `1`
    environment: 1
      5:14 spec::wrong_type `environment` takes text, not a whole number
        put quotes around it: "1"
    env: [A=b]
      5:6 spec::wrong_type `env` takes a mapping of names to values, not a list
        write `env: { NAME: value }`, or one `NAME: value` a line
    env: { A: ~ }
      5:11 spec::wrong_type `A` takes text or a number, not an empty value
        write one value; nothing at all is written as ""
    env: { A: {{version}} }
      5:11 spec::wrong_type braces without quotes are a mapping
        put quotes around it, "{{version}}": without them YAML takes a brace for a mapping
    artefact: {{version}}
      5:11 spec::wrong_type braces without quotes are a mapping
        put quotes around it, "{{version}}": without them YAML takes a brace for a mapping
    artefact: { a: b }
      5:11 spec::wrong_type `artefact` takes a path or a list of paths, not a mapping
        name files or folders below the one of this file: `artefact: [app.py, templates]`
    probes: /health
      5:9 spec::wrong_type `probes` takes a mapping, not text
        the mapping `probes` has these keys: startup, liveness, readiness, running
    probes: { readiness: /health }
      5:22 spec::wrong_type `readiness` takes a mapping, not text
        a probe has these keys: http, tcp, httpGet, tcpSocket, exec, grpc, initialDelaySeconds, periodSeconds, timeoutSeconds, successThreshold, failureThreshold
    probes: { readiness: { tcp: 8080 } }
      5:29 spec::wrong_type `tcp` takes `true`, not a whole number
        write `tcp: true`, or `tcpSocket: { port: 9000 }` for another port
    probes: { readiness: { httpGet: { port: http } } }
      5:41 spec::wrong_type `port` takes a port number, not text
        ports have no names here: write the number, or leave it out for the replica's own
    strategy: canary
      5:11 spec::wrong_type `strategy` takes a mapping, not text
        the mapping `strategy` has these keys: canary, blueGreen, rolling, recreate, ab, rollout, flagger
    strategy: { blueGreen: }
      5:13 spec::wrong_type `blueGreen` has no value
        write a value, or write `blueGreen: {}` for its defaults
    unreadyLimit: true
      5:15 spec::wrong_type `unreadyLimit` takes a duration, not true or false
        write a number with a unit: `500ms`, `10s`, `5m`, `2h`, `1d`, or together: `1h30m`
    unreadyLimit: !seconds 5
      5:15 spec::wrong_type the tag `!seconds` means nothing here
        leave the tag out
      5:15 spec::bad_value `unreadyLimit`: `5` has no unit of time
        write a number with a unit: `500ms`, `10s`, `5m`, `2h`, `1d`, or together: `1h30m`
    notEnough: []
      5:12 spec::wrong_type `notEnough` takes `hold` or `fail`, not a list
        write `hold`, `fail`, or `{ hold: 2h }`
    "#);
}

#[test]
fn values_that_cannot_be_are_told_with_what_could_be() {
    insta::assert_snapshot!(told_of_lines([
        "replicas: 0",
        "replicas: 1001",
        "replicas: -1",
        "unreadyLimit: 30",
        "unreadyLimit: 0.5s",
        "unreadyLimit: half an hour",
        "minimumRequests: 0",
        "notEnough: pass",
        "startupLimit: 0",
        "firstByteTimeout: 2h",
        "stop: { grace: 2h }",
        "logs: { maxSize: 10M }",
        "logs: { maxSize: 1KiB }",
        "preview: :8081",
        "preview: 127.0.0.1:0",
        "preview: 8080",
        "preview: 0.0.0.0:8080",
        "preview: 70000",
        "environment: Production",
        "env: { A=B: c }",
        "env: { PORT: 80 }",
        "env: { A: \"\\0\" }",
        "objectives2: []",
        "artefact: /opt/app",
        "artefact: [a, ../b, \"\"]",
        "artefact: \"{{port}}\"",
        "env: { A: \"{{portt}} {{version}\" }",
    ]), @r#"
    replicas: 0
      5:11 spec::out_of_range `replicas`: `0` is out of range
        write a value from 1 to 1000
    replicas: 1001
      5:11 spec::out_of_range `replicas`: `1001` is out of range
        write a value from 1 to 1000
    replicas: -1
      5:11 spec::out_of_range `replicas`: `-1` is out of range
        write a value from 1 to 1000
    unreadyLimit: 30
      5:15 spec::bad_value `unreadyLimit`: `30` has no unit of time
        write a number with a unit: `500ms`, `10s`, `5m`, `2h`, `1d`, or together: `1h30m`
    unreadyLimit: 0.5s
      5:15 spec::out_of_range `unreadyLimit`: `0.5s` is out of range
        write a value from 1s to 1d
    unreadyLimit: half an hour
      5:15 spec::bad_value `unreadyLimit`: `half an hour` is no duration
        write a number with a unit: `500ms`, `10s`, `5m`, `2h`, `1d`, or together: `1h30m`
    minimumRequests: 0
      5:18 spec::out_of_range `minimumRequests`: `0` is out of range
        write a value from 1 to 1000000000
    notEnough: pass
      5:12 spec::bad_value `notEnough` takes `hold` or `fail`: too few requests are never a pass
        write `hold`, `fail`, or `{ hold: 2h }`
    startupLimit: 0
      5:15 spec::out_of_range `startupLimit`: `0` is out of range
        write a value from 1s to 1d
    firstByteTimeout: 2h
      5:19 spec::out_of_range `firstByteTimeout`: `2h` is out of range
        write a value from 1ms to 1h
    stop: { grace: 2h }
      5:16 spec::out_of_range `grace`: `2h` is out of range
        write a value from 0 to 1h
    logs: { maxSize: 10M }
      5:18 spec::bad_value `maxSize`: `10M` is no size
        write a whole number with a unit: `512KiB`, `10MiB`, `1GiB`
    logs: { maxSize: 1KiB }
      5:18 spec::out_of_range `maxSize`: `1KiB` is out of range
        write a value from 64KiB to 10GiB
    preview: :8081
      5:10 spec::bad_value `preview`: `:8081` is no address to listen on
        write `127.0.0.1:8080` for this machine only, `0.0.0.0:8080` for everyone
    preview: 127.0.0.1:0
      5:10 spec::out_of_range `preview`: port 0 is any port
        write a port from 1 to 65535: users must know it
    preview: 8080
      5:10 spec::address_taken the address 127.0.0.1:8080 is taken
        give each `listen`, `preview` and `redirect` an address of its own
    preview: 0.0.0.0:8080
      5:10 spec::address_taken the address 0.0.0.0:8080 is taken
        give each `listen`, `preview` and `redirect` an address of its own
    preview: 70000
      5:10 spec::bad_value `preview`: `70000` is no address to listen on
        write `127.0.0.1:8080` for this machine only, `0.0.0.0:8080` for everyone
    environment: Production
      5:14 spec::bad_value `environment`: `Production` is no name
        use 1 to 63 lower-case letters, digits and dashes, beginning and ending with a letter or digit
    env: { A=B: c }
      5:8 spec::bad_value this is no name of an environment variable
        use letters, digits and `_`, such as `LOG_LEVEL`
    env: { PORT: 80 }
      5:8 spec::conflict `PORT` is always the replica's own port
        leave it out: a replica must listen on the port it is given
    env: { A: "\0" }
      5:11 spec::bad_value `A` holds a NUL character
        no program can be given one; leave it out
    objectives2: []
      5:1 spec::unknown_key a service has no key `objectives2`
        write `objectives`
    artefact: /opt/app
      5:11 spec::bad_value `artefact`: `/opt/app` is absolute
        name files or folders below the one of this file: `artefact: [app.py, templates]`
    artefact: [a, ../b, ""]
      5:15 spec::bad_value an item of `artefact`: `../b` leaves the folder of this file
        name files or folders below the one of this file: `artefact: [app.py, templates]`
      5:21 spec::bad_value an item of `artefact`: `` names nothing
        name files or folders below the one of this file: `artefact: [app.py, templates]`
    artefact: "{{port}}"
      5:12 spec::unknown_placeholder nothing is known to fill in for `{{port}}`
        here `{{version}}` can be filled in
    env: { A: "{{portt}} {{version}" }
      5:12 spec::unknown_placeholder nothing is known to fill in for `{{portt}}`
        here `{{version}}` and `{{port}}` can be filled in
      5:22 spec::unknown_placeholder `{{version` is not closed
        write `{{version}}`
    "#);
}

#[test]
fn a_command_is_a_list_because_no_shell_reads_it() {
    insta::assert_snapshot!(told_instead_of("command", [
        "command: python3 app.py --port {{port}}",
        "command: []",
        "command: [\"\"]",
        "command: [a, [b]]",
        "command: [a, ~]",
        "command: [bin/{{version}}]",
    ]), @r#"
    command: python3 app.py --port {{port}}
      4:10 spec::wrong_type `command` takes a list, not text
        no shell reads this; write a list: `[python3, app.py, --port, "{{port}}"]`
    command: []
      4:10 spec::bad_value `command` is an empty list
        write program and arguments as a list: `[python3, app.py]`
    command: [""]
      4:10 spec::bad_value the program of `command` has no name
        write it as the first item: `[python3, app.py]`
    command: [a, [b]]
      4:14 spec::wrong_type an item of `command` takes text or a number, not a list
        write one value; nothing at all is written as ""
    command: [a, ~]
      4:14 spec::wrong_type an item of `command` takes text or a number, not an empty value
        write one value; nothing at all is written as ""
    command: [bin/{{version}}]
      4:15 spec::syntax this is no YAML: while parsing a flow sequence, expected ',' or ']'
        put quotes around it, "{{version}}": without them YAML takes a brace for a mapping
    "#);
}

#[test]
fn probes_keep_to_the_rules_of_kubernetes() {
    insta::assert_snapshot!(told_of_lines([
        "probes: { liveness: { tcp: true, successThreshold: 2 } }",
        "probes: { startup: { tcp: true, successThreshold: 2, failureThreshold: 0 } }",
        "probes: { readiness: { tcp: true, periodSeconds: 0, timeoutSeconds: 0, initialDelaySeconds: -1 } }",
        "probes: { readiness: { tcp: true, periodSeconds: 5s } }",
        "probes: { readiness: { http: health } }",
        "probes: { readiness: { httpGet: { scheme: HTTPS, host: a } } }",
        "probes: { readiness: { httpGet: { httpHeaders: [{ name: \"a b\", value: \"c\\nd\" }, { nam: a }] } } }",
        "probes: { readiness: { tcpSocket: { port: 0 } } }",
        "livenessProbe: { tcpSocket: { port: 1 } }",
    ]), @r#"
    probes: { liveness: { tcp: true, successThreshold: 2 } }
      5:52 spec::out_of_range `successThreshold` is 2, but only a readiness probe may want more than one success
        write `1`, or leave it out
    probes: { startup: { tcp: true, successThreshold: 2, failureThreshold: 0 } }
      5:51 spec::out_of_range `successThreshold` is 2, but only a readiness probe may want more than one success
        write `1`, or leave it out
      5:72 spec::out_of_range `failureThreshold`: `0` is out of range
        write a value from 1 to 1000
    probes: { readiness: { tcp: true, periodSeconds: 0, timeoutSeconds: 0, initialDelaySeconds: -1 } }
      5:50 spec::out_of_range `periodSeconds`: `0` is out of range
        write a value from 1 to 86400
      5:69 spec::out_of_range `timeoutSeconds`: `0` is out of range
        write a value from 1 to 86400
      5:93 spec::out_of_range `initialDelaySeconds`: `-1` is out of range
        write a value from 0 to 86400
    probes: { readiness: { tcp: true, periodSeconds: 5s } }
      5:50 spec::wrong_type `periodSeconds` takes a whole number, not text
        write a whole number such as `1`
    probes: { readiness: { http: health } }
      5:30 spec::bad_value `http`: `health` is no path
        write it with its leading slash and without spaces: `/health`; anything beyond ASCII as `%C3%A9`
    probes: { readiness: { httpGet: { scheme: HTTPS, host: a } } }
      5:43 spec::bad_value replicas are not probed over HTTPS
        write `HTTP`, or leave it out
      5:50 spec::unknown_key the mapping `httpGet` has no key `host`
        leave it out: a replica is asked where it runs; for another Host, write it under `httpHeaders`
    probes: { readiness: { httpGet: { httpHeaders: [{ name: "a b", value: "c\nd" }, { nam: a }] } } }
      5:57 spec::bad_value this is no name of a header
        use letters, digits and dashes: `X-Probe`
      5:71 spec::bad_value the value of a header is one line
        leave out line breaks and control characters
      5:81 spec::missing_key an item of `httpHeaders` needs the key `value`
        add `value: yes`
      5:83 spec::unknown_key an item of `httpHeaders` has no key `nam`
        write `name`
    probes: { readiness: { tcpSocket: { port: 0 } } }
      5:43 spec::out_of_range `port`: `0` is out of range
        write a value from 1 to 65535
    livenessProbe: { tcpSocket: { port: 1 } }
      5:1 spec::unknown_key a service has no key `livenessProbe`
        write it as `liveness` under `probes`
    "#);
}

#[test]
fn the_shares_of_a_canary_rise_to_all_traffic() {
    let canaries = [
        "steps: [{ weight: 5%, hold: 1m }, { weight: 5%, hold: 1m }]",
        "steps: [{ weight: 100%, hold: 1m }, { weight: 5%, hold: 1m }]",
        "steps: [{ weight: 0%, hold: 1m }]",
        "steps: [{ weight: 101%, hold: 1m }]",
        "steps: [{ weight: 0.05, hold: 1m }]",
        "steps: [{ weight: 0.001%, hold: 1m }]",
        "steps: [{ weight: half, hold: soon }]",
        "steps: [{ weight: 100%, hold: 1m }], bake: 5m",
        "steps: [{ weight: 99%, hold: 1m }], holdBack: 2%",
        "steps: [{ weight: 50%, hold: 1m }], holdBack: 30%",
        "steps: []",
        "steps: { weight: 5% }",
        "steps: [{ weight: 5%, hold: 1m, objectives: [] }]",
        "steps: [{ weight: 5%, hold: 1m, objectives: [\"error_rate = 1\", 5] }]",
        "steps: [{ weight: 5%, hold: 1m, objectives: \"error_rate < 1%\" }]",
    ];
    insta::assert_snapshot!(told(canaries, |canary| format!("{BASE}strategy:\n  canary: {{ {canary} }}\n")), @r#"
    steps: [{ weight: 5%, hold: 1m }, { weight: 5%, hold: 1m }]
      6:57 spec::weights_must_rise shares must rise, but 5 % is followed by 5 %
        sort the steps by weight; two of the same weight are one with a longer hold
    steps: [{ weight: 100%, hold: 1m }, { weight: 5%, hold: 1m }]
      6:59 spec::weights_must_rise shares must rise, but 100 % is followed by 5 %
        sort the steps by weight; two of the same weight are one with a longer hold
    steps: [{ weight: 0%, hold: 1m }]
    steps: [{ weight: 101%, hold: 1m }]
      6:31 spec::out_of_range `weight`: `101%` is out of range
        write a value from 0.01% to 100%
    steps: [{ weight: 0.05, hold: 1m }]
      6:31 spec::bad_value `weight`: `0.05` could mean two shares
        write `0.05%`, or `5%` if you meant that share of one
    steps: [{ weight: 0.001%, hold: 1m }]
      6:31 spec::bad_value `weight`: `0.001%` is no percentage
        write a percentage with at most two decimals: `5%`, `0.01%`
    steps: [{ weight: half, hold: soon }]
      6:31 spec::bad_value `weight`: `half` is no percentage
        write a percentage with at most two decimals: `5%`, `0.01%`
      6:43 spec::bad_value `hold`: `soon` is no duration
        write a number with a unit: `500ms`, `10s`, `5m`, `2h`, `1d`, or together: `1h30m`
    steps: [{ weight: 100%, hold: 1m }], bake: 5m
      6:50 spec::conflict the hold of the step at 100 % is the bake, and `bake` is written too
        leave `bake` out, or that `hold`
    steps: [{ weight: 99%, hold: 1m }], holdBack: 2%
      6:49 spec::weights_must_rise shares must rise, but 99 % is followed by 98 %
        hold back less, or leave it out: the step before keeps as much already
    steps: [{ weight: 50%, hold: 1m }], holdBack: 30%
      6:59 spec::bad_value 30 % is out of range
        write 0.1% to 20%
    steps: []
      6:20 spec::bad_value `steps` is an empty list
        write one step a line: `- { weight: 5%, hold: 10m }`
    steps: { weight: 5% }
      6:20 spec::wrong_type `steps` takes a list, not a mapping
        write one step a line: `- { weight: 5%, hold: 10m }`
    steps: [{ weight: 5%, hold: 1m, objectives: [] }]
      6:57 spec::bad_value `objectives` is an empty list
        write a list: `["error_rate < 1%", "latency.p99 < 500ms"]`
    steps: [{ weight: 5%, hold: 1m, objectives: ["error_rate = 1", 5] }]
      6:59 spec::bad_value `error_rate = 1` is no objective: no comparison
        write it as `error_rate < 1%`
      6:76 spec::wrong_type an item of `objectives` takes text, not a whole number
        put quotes around it: "5"
    steps: [{ weight: 5%, hold: 1m, objectives: "error_rate < 1%" }]
      6:57 spec::wrong_type `objectives` takes a list, not text
        write a list: `["error_rate < 1%", "latency.p99 < 500ms"]`
    "#);
}

#[test]
fn blue_green_is_checked_and_excludes_a_canary() {
    insta::assert_snapshot!(told_of_lines([
        "strategy: { blueGreen: {}, canary: {} }",
        "strategy: { blueGreen: { smoke: [{ status: 99 }, { path: a b }, /health], watch: 1 } }",
    ]), @r#"
    strategy: { blueGreen: {}, canary: {} }
      5:13 spec::conflict `canary` and `blueGreen` exclude each other
        a release takes over in one way: keep one of them
    strategy: { blueGreen: { smoke: [{ status: 99 }, { path: a b }, /health], watch: 1 } }
      5:34 spec::missing_key a smoke check needs the key `path`
        add `path: /health`
      5:44 spec::out_of_range `status`: `99` is out of range
        write a value from 200 to 599
      5:58 spec::bad_value `path`: `a b` is no path
        write it with its leading slash and without spaces: `/health`; anything beyond ASCII as `%C3%A9`
      5:65 spec::wrong_type an item of `smoke` takes a mapping, not text
        a smoke check has these keys: path, status, contains, timeout
      5:82 spec::bad_value `watch`: `1` has no unit of time
        write a number with a unit: `500ms`, `10s`, `5m`, `2h`, `1d`, or together: `1h30m`
    "#);
}

#[test]
fn services_of_one_file_may_not_get_in_one_anothers_way() {
    let texts = [
        "service: web\ncommand: [a/b]\nlisten: 1",
        "service: web\nenvironment: staging\ncommand: [a/b]\nlisten: 0.0.0.0:8080",
        "service: api\ncommand: [a/b]\nlisten: 2\npreview: \"[::]:8080\"",
    ];
    let whole = |text: &str| format!("{BASE}---\n{text}\nobjectives: [\"error_rate < 1%\"]\n");
    insta::assert_snapshot!(told(texts, whole), @r#"
    service: web⏎command: [a/b]⏎listen: 1
      6:1 spec::duplicate_service `web` in production is described twice
        give one of them another `service` or `environment`
    service: web⏎environment: staging⏎command: [a/b]⏎listen: 0.0.0.0:8080
      9:9 spec::address_taken the address 0.0.0.0:8080 is taken
        give each `listen`, `preview` and `redirect` an address of its own
    service: api⏎command: [a/b]⏎listen: 2⏎preview: "[::]:8080"
      9:10 spec::address_taken the address [::]:8080 is taken
        give each `listen`, `preview` and `redirect` an address of its own
    "#);
}

#[test]
fn what_is_no_yaml_is_told_with_its_place() {
    let texts = [
        "",
        "# nothing\n---\n",
        "just text",
        "- a",
        "service: web\n\treplicas: 3",
        "service: wéb\ncommand: [a, b",
        "service: web\n  listen: 5",
        "service: \"web",
        "service: *nobody",
        "service: &a [*a]",
        "a: b: c",
        "@",
        "service: web\n---\n[",
    ];
    insta::assert_snapshot!(told(texts, str::to_owned), @r#"
        1:1 spec::no_service this file describes no service
          begin with three lines: `service: web`, `command: [python3, app.py]`, `listen: 127.0.0.1:8080`
      # nothing⏎---⏎
        1:1 spec::no_service this file describes no service
          begin with three lines: `service: web`, `command: [python3, app.py]`, `listen: 127.0.0.1:8080`
      just text
        1:1 spec::no_service a service is a mapping of keys to values, not text
          begin with three lines: `service: web`, `command: [python3, app.py]`, `listen: 127.0.0.1:8080`
      - a
        1:1 spec::no_service a service is a mapping of keys to values, not a list
          begin with three lines: `service: web`, `command: [python3, app.py]`, `listen: 127.0.0.1:8080`
      service: web⏎→replicas: 3
        1:10 spec::syntax this is no YAML: while scanning a plain scalar, found a tab
          indent with spaces: YAML allows no tabs there
      service: wéb⏎command: [a, b
        2:15 spec::syntax this is no YAML: while parsing a flow sequence, expected ',' or ']'
          check the indentation, and the colons, quotes and brackets up to this place
      service: web⏎  listen: 5
        2:9 spec::syntax this is no YAML: mapping values are not allowed in this context
          check the indentation, and the colons, quotes and brackets up to this place
      service: "web
        1:10 spec::syntax this is no YAML: while scanning a quoted scalar, found unexpected end of stream
          check the indentation, and the colons, quotes and brackets up to this place
      service: *nobody
        1:10 spec::syntax this is no YAML: while parsing node, found unknown anchor
          an alias `*name` stands for a value that was marked `&name` further up in the same document
      service: &a [*a]
        1:14 spec::syntax this alias stands inside what it stands for
          write the value out: a value cannot hold itself
      a: b: c
        1:5 spec::syntax this is no YAML: mapping values are not allowed in this context
          check the indentation, and the colons, quotes and brackets up to this place
      @
        1:1 spec::syntax this is no YAML: unexpected character: `@'
          check the indentation, and the colons, quotes and brackets up to this place
      service: web⏎---⏎[
        1:1 spec::missing_key a service needs the key `command`
          add `command: [python3, app.py]`
        1:1 spec::missing_key a service needs the key `listen`
          add `listen: 127.0.0.1:8080` or `listen: none`
        1:1 spec::nothing_judged no objectives: once a release has all of the traffic, only probes and triggers can stop it
          add `objectives: ["error_rate < 1%", "latency.p99 < 500ms"]`
        3:2 spec::syntax this is no YAML: while parsing a node, did not find expected node content
          check the indentation, and the colons, quotes and brackets up to this place
    "#);
}

#[test]
fn what_is_odd_but_usable_is_a_warning() {
    let texts = [
        "command: [python3, app.py]\nobjectives: [\"error_rate < 1%\"]",
        "command: [bin/web]",
        "command: [bin/web]\nstrategy: { canary: { steps: [{ weight: 5%, hold: 1m, objectives: [\"error_rate < 1%\"] }] } }",
    ];
    let whole = |text: &str| format!("service: web\nlisten: 8080\n{text}\n");
    insta::assert_snapshot!(told(texts, whole), @r#"
    command: [python3, app.py]⏎objectives: ["error_rate < 1%"]
      3:10 spec::nothing_kept nothing of this release is kept: a rollback starts what is on disk by then
        add `artefact: [app.py]`, or write `artefact: []` if that is what you want
    command: [bin/web]
      1:1 spec::nothing_judged no objectives: once a release has all of the traffic, only probes and triggers can stop it
        add `objectives: ["error_rate < 1%", "latency.p99 < 500ms"]`
    command: [bin/web]⏎strategy: { canary: { steps: [{ weight: 5%, hold: 1m, objectives: ["error_rate < 1%"] }] } }
    "#);
    let read = read("evenkeel.yaml", &whole(texts[0])).unwrap();
    insta::assert_snapshot!(read.warnings.render(80, false), @r#"
    spec::nothing_kept

      ⚠ nothing of this release is kept: a rollback starts what is on disk by then
       ╭─[evenkeel.yaml:3:10]
     2 │ listen: 8080
     3 │ command: [python3, app.py]
       ·          ────────┬────────
       ·                  ╰── only names what is on disk
     4 │ objectives: ["error_rate < 1%"]
       ╰────
      help: add `artefact: [app.py]`, or write `artefact: []` if that is what you
            want

    evenkeel.yaml: 1 warning
    "#);
}

#[test]
fn of_very_many_mistakes_the_first_hundred_are_kept_and_the_rest_counted() {
    let text: String = (0..150).map(|n| format!("unknown{n}: 1\n")).collect();
    let problems = problems(&format!("{BASE}{text}"));
    assert_eq!((problems.iter().count(), problems.errors()), (100, 150));
    assert_eq!(problems.to_string(), "evenkeel.yaml: 150 mistakes (50 not shown)");
}

#[test]
fn a_line_too_long_to_be_shown_is_told_by_its_place() {
    let text = format!("{BASE}env: {{ A: \"{}\", B: ~ }}\n", "x".repeat(5_000));
    insta::assert_snapshot!(problems(&text).render(80, false), @r#"
    spec::wrong_type

      × `B` takes text or a number, not an empty value
      help: write one value; nothing at all is written as ""
      at evenkeel.yaml:5:5018

    evenkeel.yaml: 1 mistake
    "#);
}

#[test]
fn strategies_that_could_not_work_are_told() {
    let strategies = told_of_lines([
        "strategy: { rolling: { maxSurge: 0, maxUnavailable: 0% } }",
        "strategy: { rolling: { maxSurge: lots } }",
        "strategy: { ab: { for: 7d } }",
        "strategy: { ab: { by: visitor, for: 7d, share: 100%, then: wait } }",
        "strategy: { blueGreen: { steps: [{ weight: 50%, hold: 1m }, { weight: 20%, hold: 1m }, { weight: 100%, hold: 1m }] } }",
        "strategy: { canary: { steps: [{ weight: 100%, hold: 1m, mirror: 5% }] } }",
        "strategy: { canary: { steps: [{ weight: 5%, hold: 1m, match: [{ header: X-A, regex: a }] }] } }",
        "strategy: { canary: {}, rolling: {} }",
        "probes: { running: 5s }",
    ]);
    insta::assert_snapshot!(strategies, @r"
    strategy: { rolling: { maxSurge: 0, maxUnavailable: 0% } }
      5:37 spec::conflict `maxSurge` and `maxUnavailable` are both 0: nothing could move
        let one replica be more, `maxSurge: 1`, or one be missing, `maxUnavailable: 1`
    strategy: { rolling: { maxSurge: lots } }
      5:34 spec::wrong_type `maxSurge` takes a whole number, not text
        write a whole number such as `1`
    strategy: { ab: { for: 7d } }
      5:17 spec::missing_key the mapping `ab` needs the key `by`
        add `by: visitor`
    strategy: { ab: { by: visitor, for: 7d, share: 100%, then: wait } }
      5:41 spec::out_of_range with 100 % there is nobody left to compare with
        write a share below 100%, such as `share: 50%`
      5:60 spec::bad_value `then` takes `ask`, `promote` or `end`
        write `ask`, `promote` or `end`
    strategy: { blueGreen: { steps: [{ weight: 50%, hold: 1m }, { weight: 20%, hold: 1m }, { weight: 100%, hold: 1m }] } }
      5:61 spec::weights_must_rise shares must rise, but 50 % is followed by 20 %
        sort the steps by weight
      5:88 spec::conflict the step of 100 % is the switch itself
        leave it out: after the last step all traffic is switched, and watched for `watch`
    strategy: { canary: { steps: [{ weight: 100%, hold: 1m, mirror: 5% }] } }
      5:57 spec::conflict nothing is left to be copied at 100 %
        leave `mirror` out: it copies requests that the stable release answers
    strategy: { canary: { steps: [{ weight: 5%, hold: 1m, match: [{ header: X-A, regex: a }] }] } }
      5:78 spec::unknown_key an item of `match` has no key `regex`
        write `is`, `prefix` or `oneOf`: patterns are not looked for in every request
    strategy: { canary: {}, rolling: {} }
      5:25 spec::conflict `canary` and `rolling` exclude each other
        a release takes over in one way: keep one of them
    probes: { running: 5s }
      1:1 spec::conflict `probes.running` is for a service without an address
        leave it out: without a probe, a replica is ready when its port accepts connections
    ");
    let workers =
        told(["strategy: { blueGreen: {} }", "strategy: { ab: { by: visitor, for: 7d } }", "preview: 8081"], |line| {
            format!("service: mailer\ncommand: [bin/mailer]\nlisten: none\n{line}\n")
        });
    insta::assert_snapshot!(workers, @r"
    strategy: { blueGreen: {} }
      4:1 spec::conflict this strategy cannot be used with `listen: none`: both releases would work at once, and no switch could tell them apart
        write `rolling: {}`, `recreate: {}`, or a canary whose steps have only `weight`, `hold`, `replicas`
    strategy: { ab: { by: visitor, for: 7d } }
      4:1 spec::conflict this strategy cannot be used with `listen: none`: there are no requests to share out
        write `rolling: {}`, `recreate: {}`, or a canary whose steps have only `weight`, `hold`, `replicas`
    preview: 8081
      4:1 spec::conflict `preview` is about requests, and `listen` is `none`
        leave it out: without requests, probes and exits judge a release
    ");
    let worker = told(["objectives: [\"error_rate < 1%\"]", "strategy: { canary: { sticky: visitor } }"], |line| {
        format!("service: mailer\ncommand: [bin/mailer]\nlisten: none\n{line}\n")
    });
    insta::assert_snapshot!(worker, @r#"
    objectives: ["error_rate < 1%"]
      4:1 spec::conflict `objectives` is about requests, and `listen` is `none`
        leave it out: without requests, probes and exits judge a release
    strategy: { canary: { sticky: visitor } }
      4:1 spec::conflict this strategy cannot be used with `listen: none`: `sticky`, `match`, `mirror` and `objectives` are about requests
        write `rolling: {}`, `recreate: {}`, or a canary whose steps have only `weight`, `hold`, `replicas`
    "#);
}

#[test]
fn gates_say_what_is_wrong_with_them() {
    insta::assert_snapshot!(told_of_lines([
        "gates: { approvals: [{ role: a, count: 3, from: [x, y] }] }",
        "gates: { approvals: [{ role: a }, { role: a }] }",
        "gates: { within: 1h }",
        "gates: { windows: [{ days: [mon-fry], from: \"9:00\", to: \"25:00\", timeZone: Europe/Bielefeld }] }",
        "gates: { windows: [{ from: \"09:00\", to: \"09:00\", timeZone: UTC }] }",
        "gates: { windows: [{ timeZone: UTC }], except: [2026-12-32, \"2027-01-02..2026-12-24\"] }",
        "gates: { windows: [{ timeZone: UTC }], outside: perhaps }",
        "gates: { checks: [{ name: a }] }",
        "gates: { checks: [{ name: a, http: \"https://a/\" }, { name: b, tcp: a }, { name: c, tcp: \"a:1\", status: 200 }] }",
        "gates: { checks: [{ name: a, command: make test }] }",
        "gates: { skipWhenOnly: [\"[\"] }",
        "gates: { dependencies: [a] }",
    ]), @r#"
    gates: { approvals: [{ role: a, count: 3, from: [x, y] }] }
      5:33 spec::out_of_range 3 of 2 people cannot approve
        lower `count`, or name more people in `from`
    gates: { approvals: [{ role: a }, { role: a }] }
      5:21 spec::bad_value the role `a` is there twice
        give each its own role
    gates: { within: 1h }
      5:10 spec::conflict `within` means nothing without `approvals`
        add `approvals`, or leave `within` out
    gates: { windows: [{ days: [mon-fry], from: "9:00", to: "25:00", timeZone: Europe/Bielefeld }] }
      5:29 spec::bad_value `mon-fry` is no day of the week
        write days and spans of them: `[mon-thu, sat]`, from mon, tue, wed, thu, fri, sat, sun
      5:45 spec::bad_value `from`: `9:00` is no time of day
        write hours and minutes in quotes: `"09:00"`; the end of a day is "24:00"
      5:57 spec::bad_value `to`: `25:00` is no time of day
        write hours and minutes in quotes: `"09:00"`; the end of a day is "24:00"
      5:76 spec::bad_value there is no time zone `Europe/Bielefeld`
        write its name in the IANA database, such as `Europe/Berlin` or `UTC`
    gates: { windows: [{ from: "09:00", to: "09:00", timeZone: UTC }] }
      5:37 spec::bad_value `from` and `to` are the same time
        leave both out for the whole day; an earlier `to` is on the next day
    gates: { windows: [{ timeZone: UTC }], except: [2026-12-32, "2027-01-02..2026-12-24"] }
      5:49 spec::bad_value `2026-12-32` is no span of days
        write a day or a span of them in quotes: `"2026-12-24..2027-01-02"`
      5:61 spec::bad_value `2027-01-02..2026-12-24` is no span of days
        write a day or a span of them in quotes: `"2026-12-24..2027-01-02"`
    gates: { windows: [{ timeZone: UTC }], outside: perhaps }
      5:49 spec::bad_value `outside` takes `wait` or `refuse`
        write `outside: wait`, the default
    gates: { checks: [{ name: a }] }
      5:19 spec::missing_key this check looks at nothing
        add `http: URL`, `tcp: "host:port"`, `webhook: URL` or `command: [program, argument]`
    gates: { checks: [{ name: a, http: "https://a/" }, { name: b, tcp: a }, { name: c, tcp: "a:1", status: 200 }] }
      5:36 spec::bad_value `http`: `https://a/` cannot be asked
        write `http://host:port/path`; for https let a command ask: `command: [curl, -fsS, URL]`
      5:68 spec::bad_value `tcp`: `a` is no address
        write `host:port`, such as `db.internal:5432`
      5:96 spec::conflict `status` means nothing without `http`
        leave `status` out, or make it a check of `http`
    gates: { checks: [{ name: a, command: make test }] }
      5:39 spec::wrong_type `command` takes a list, not text
        no shell reads this; write a list: `[make, test]`
    gates: { skipWhenOnly: ["["] }
      5:25 spec::bad_value `[` is no pattern: unclosed character class; missing ']'
        write `docs/**` for a folder, `*.md` for names in any folder
    gates: { dependencies: [a] }
      5:10 spec::unknown_key the mapping `gates` has no key `dependencies`
        write each as one of `checks`: `{ name: database, tcp: "db:5432" }`
    "#);
}

#[test]
fn a_mistake_in_an_environment_is_shown_where_it_is_written() {
    insta::assert_snapshot!(told_of_lines([
        "environments: { staging: { listen: 1, replicas: 0 }, production: {} }",
        "environments: { staging: { command: [x] }, production: { listen: 2 } }",
        "environments: { Staging: { listen: 1 } }",
        "environments: { staging: }",
        "environments: {}",
        "environments: [staging]",
        "environments: { staging: { listen: 1 } }\nenvironment: test",
        "environments: { staging: {}, production: {} }",
        "environments: { staging: { repicas: 2 } }",
    ]), @r"
    environments: { staging: { listen: 1, replicas: 0 }, production: {} }
      5:49 spec::out_of_range `replicas`: `0` is out of range
        write a value from 1 to 1000
    environments: { staging: { command: [x] }, production: { listen: 2 } }
      5:28 spec::conflict `command` is the same in every environment
        write it at the top of the service; what differs goes into `env`, where the program finds it
    environments: { Staging: { listen: 1 } }
      5:17 spec::bad_value an environment: `Staging` is no name
        use 1 to 63 lower-case letters, digits and dashes, beginning and ending with a letter or digit
    environments: { staging: }
      5:24 spec::wrong_type `staging` takes a mapping of what differs there, not an empty value
        write `{}` when nothing does
    environments: {}
      5:1 spec::out_of_range `environments` names 0 environments
        name 1 to 20 of them, or leave `environments` out
    environments: [staging]
      5:15 spec::wrong_type `environments` takes a mapping of names to what differs there, not a list
        write what differs in each: `environments: { staging: { listen: 9080 }, production: {} }`
    environments: { staging: { listen: 1 } }⏎environment: test
      6:1 spec::conflict `environment` and `environments` exclude each other
        leave `environment` out: each is named below
    environments: { staging: {}, production: {} }
      3:9 spec::address_taken the address 127.0.0.1:8080 is taken
        write another one in each environment
    environments: { staging: { repicas: 2 } }
      5:28 spec::unknown_key a service has no key `repicas`
        write `replicas`
    ");
}

#[test]
fn groups_without_an_order_are_told() {
    let file = |groups: [&str; 2]| {
        let [api, web] = groups;
        format!(
            "service: api\ncommand: [bin/api]\nlisten: 8080\nobjectives: [\"error_rate < 1%\"]\ngroup: {api}\n---\n\
             service: web\ncommand: [bin/web]\nlisten: 8081\nobjectives: [\"error_rate < 1%\"]\ngroup: {web}\n"
        )
    };
    let told = |groups| told([""], |_| file(groups));
    insta::assert_snapshot!(told(["{ name: shop, after: [web] }", "{ name: shop, after: [api] }"]), @r"
    5:1 spec::conflict `api` comes after itself, by way of the services it comes after
      take one `after` out of the circle
    ");
    insta::assert_snapshot!(told(["shop", "{ name: shop, after: [auth] }"]), @r"
    11:1 spec::conflict `web` comes after `auth`, which is not in the group
      name services of this file that have the same `group`
    ");
    insta::assert_snapshot!(told(["shop", "{ name: market, after: [api] }"]), @r"
    11:1 spec::conflict `web` comes after `api`, which is not in the group
      name services of this file that have the same `group`
    ");
    assert_eq!(told(["shop", "{ name: shop, after: [api] }"]), "\n");
}

#[test]
fn what_clients_and_replicas_speak_is_told_in_words_that_are_known() {
    insta::assert_snapshot!(told_of_lines([
        "tls: web.pem",
        "tls: {}",
        "tls: { certificates: [] }",
        "tls: { certificates: [{ certificate: web.pem, cert: x }] }",
        "tls: { certificates: [{ certificate: a, key: b }], minimumVersion: 1.1 }",
        "tls: { certificates: [{ certificate: a, key: b }], redirect: 8080 }",
        "protocol: grpc",
        "fronts: 10.0.0.0/8",
        "fronts: [10.1.0.0/8, lan, \"fd00::/129\"]",
        "proxyProtocol: v2",
        "trustedProxies: [10.0.0.0/8]",
    ]), @r#"
    tls: web.pem
      5:6 spec::wrong_type `tls` takes a mapping, not text
        the mapping `tls` has these keys: certificates, minimumVersion, redirect
    tls: {}
      5:6 spec::missing_key the mapping `tls` needs the key `certificates`
        add `certificates: [{ certificate: web.pem, key: web.key }]`
    tls: { certificates: [] }
      5:22 spec::bad_value `certificates` is an empty list
        write a list: `[{ certificate: web.pem, key: web.key }]`
    tls: { certificates: [{ certificate: web.pem, cert: x }] }
      5:23 spec::missing_key a certificate needs the key `key`
        add `key: web.key`
      5:47 spec::unknown_key a certificate has no key `cert`
        write `certificate: web.pem`
    tls: { certificates: [{ certificate: a, key: b }], minimumVersion: 1.1 }
      5:68 spec::bad_value `minimumVersion` takes `"1.2"` or `"1.3"`
        older versions of TLS are not safe, and not spoken
    tls: { certificates: [{ certificate: a, key: b }], redirect: 8080 }
      5:62 spec::address_taken the address 127.0.0.1:8080 is taken
        give each `listen`, `preview` and `redirect` an address of its own
    protocol: grpc
      5:11 spec::bad_value `protocol` takes `http1` or `http2`
        write what replicas speak: `http2` for gRPC; clients may speak both whatever it says
    fronts: 10.0.0.0/8
      5:9 spec::wrong_type `fronts` takes a list, not text
        write a list of networks: `[10.0.0.0/8]`
    fronts: [10.1.0.0/8, lan, "fd00::/129"]
      5:10 spec::bad_value an item of `fronts`: `10.1.0.0/8` is no network: bits beyond the prefix are set: 10.0.0.0 begins that range
        write `10.0.0.0/8`, or fewer bits beyond the `/`
      5:22 spec::bad_value an item of `fronts`: `lan` is no network: an address and a number of leading bits are wanted
        write `10.0.0.0/8`, `fd00::/8`, or one address
      5:27 spec::bad_value an item of `fronts`: `fd00::/129` is no network: an address and a number of leading bits are wanted
        write `10.0.0.0/8`, `fd00::/8`, or one address
    proxyProtocol: v2
      5:16 spec::bad_value `proxyProtocol` takes `on` or `off`
        write `on` when every front begins its connections with a PROXY header
    trustedProxies: [10.0.0.0/8]
      5:1 spec::unknown_key a service has no key `trustedProxies`
        write `fronts: [10.0.0.0/8]`
    "#);
}

#[test]
fn what_is_wrong_with_triggers_promises_validation_and_load_is_told_at_its_place() {
    let cases = [
        ("triggers: { p99: 11s }", "  5:18 spec::out_of_range"),
        ("triggers: { errorRate: yes }", "  5:24 spec::bad_value"),
        ("triggers: { latency: 5s }", "write `p99: 5s` or `p95: 3s`"),
        ("triggers: { cpu: { above: 90%, for: 2h } }", "  5:37 spec::out_of_range"),
        ("triggers: { security: loud }", "`rollback`, `investigate` or `off`"),
        ("triggers: yes", "the mapping `triggers` has these keys: errorRate"),
        ("resources: { cpu: 0 }", "write processors, such as `2`, `0.5` or `500m`"),
        ("resources: { memory: 512 }", "  5:22 spec::bad_value"),
        ("resources: { limits: { cpu: 1 } }", "write `cpu` and `memory` right here"),
        ("slos: [{ availability: 100% }]", "leaves no budget, or too much of one"),
        ("slos: [{ availability: 99 }]", "`99` is no percentage"),
        ("slos: [{ name: a }]", "a promise needs `availability` or `latency`"),
        ("slos: [{ availability: 99%, latency: { within: 1s, share: 99% } }]", "exclude each other"),
        ("slos: [{ availability: 99% }, { availability: 98% }]", "two promises are called `availability`"),
        ("slos: [{ availability: 99%, over: 1h }]", "  5:35 spec::out_of_range"),
        ("slos: [{ availability: 99%, whenSpent: stop }]", "`refuse`, `slow` or `tell`"),
        ("slos: [{ latency: { within: 1s } }]", "the mapping `latency` of a promise needs the key `share`"),
        ("validation: { for: 0 }", "  5:20 spec::out_of_range"),
        ("validation: { duration: 15m }", "write `for: 15m`"),
        ("analysis: { regression: abort }", "`hold`, `rollback` or `tell`"),
        ("load: { ramp: 1m }", "the mapping `load` needs the key `rate`"),
        ("load: { rate: 501 }", "  5:15 spec::out_of_range"),
        ("load: { rate: 5, requests: [\"POST /\"] }", "only GET, HEAD and OPTIONS change nothing"),
        ("load: { rate: 5, requests: [\"GET nowhere\"] }", "`nowhere` is no path"),
        ("load: { rate: 5, requests: [\"GET /\"], file: a.log }", "exclude each other"),
        ("load: { rate: 5, url: \"http://a/\" }", "it is sent where users connect, and nowhere else"),
        ("load: { rate: 5 }\ntls: { certificates: [{ certificate: a, key: b }] }", "`load` is sent without encryption"),
    ];
    for (line, expected) in cases {
        let told = told_of_lines([line]);
        assert!(told.contains(expected), "{told}");
    }
    let workers =
        ["slos: [{ availability: 99% }]", "validation: {}", "load: { rate: 5 }", "triggers: { errorRate: 1% }"];
    for line in workers {
        let told = told(["listen: none"], |listen| format!("service: a\ncommand: [bin/a]\n{listen}\n{line}\n"));
        assert!(told.contains("is about requests, and `listen` is `none`"), "{told}");
    }
    assert_eq!(
        told_of_lines(["triggers: off", "triggers: { cpu: off, memory: 95%, security: off }"]).lines().count(),
        2
    );
}

#[test]
fn what_is_wrong_with_routes_and_with_shared_addresses_is_told_with_both_places() {
    let lines = [
        "routes: []",
        "routes: example.com",
        "routes: [\"http://a.com\", a.com:80, \"*\", /a//b, \"/a?b\", a.com, A.com/]",
        "host: a.com",
    ];
    insta::assert_snapshot!(told_of_lines(lines), @r#"
    routes: []
      5:9 spec::bad_value `routes` is an empty list
        write a list of hosts and beginnings of paths: `[example.com, "*.example.com/api", /static]`
    routes: example.com
      5:9 spec::wrong_type `routes` takes a list, not text
        write a list of hosts and beginnings of paths: `[example.com, "*.example.com/api", /static]`
    routes: ["http://a.com", a.com:80, "*", /a//b, "/a?b", a.com, A.com/]
      5:10 spec::bad_value an item of `routes`: `http://a.com` is no route: `http:` is no host
        write a name or an IPv4 address without scheme and port: `example.com`, or `"*.example.com"` for all names below it
      5:26 spec::bad_value an item of `routes`: `a.com:80` is no route: `a.com:80` is no host
        write a name or an IPv4 address without scheme and port: `example.com`, or `"*.example.com"` for all names below it
      5:36 spec::bad_value an item of `routes`: `*` is no route: `*` is no host
        write a name or an IPv4 address without scheme and port: `example.com`, or `"*.example.com"` for all names below it
      5:41 spec::bad_value an item of `routes`: `/a//b` is no route: `/a//b` is no path to begin with
        write whole segments as clients send them, such as `/api/v2`: no query, no `*`, no `.` or `..`, no empty segment
      5:48 spec::bad_value an item of `routes`: `/a?b` is no route: `/a?b` is no path to begin with
        write whole segments as clients send them, such as `/api/v2`: no query, no `*`, no `.` or `..`, no empty segment
      5:63 spec::conflict `a.com` is written twice
        leave one of them out
    host: a.com
      5:1 spec::unknown_key a service has no key `host`
        write `routes: [example.com]`
    "#);
    let second =
        |keys: &str| format!("---\nservice: api\ncommand: [bin/api]\nobjectives: [\"error_rate < 1%\"]\n{keys}\n");
    let tls = "tls: { certificates: [{ certificate: a, key: b }] }";
    let texts = [
        second("listen: 8080"),
        format!("routes: [a.com]\n{}", second("listen: 8080")),
        format!("routes: [a.com/x, /y]\n{}", second("listen: 8080\nroutes: [b.com, a.com/x/]")),
        format!("routes: [a.com]\n{}", second("listen: 8080\nroutes: [/]\nfronts: [10.0.0.0/8]")),
        format!("routes: [a.com]\n{}", second(&format!("listen: 8080\n{tls}"))),
        format!("routes: [a.com]\n{}", second("listen: 0.0.0.0:8080\nroutes: [b.com]")),
        format!("routes: [a.com]\n{}", second("listen: 8081\npreview: 8080")),
    ];
    insta::assert_snapshot!(told_of_lines(texts.iter().map(String::as_str)), @r#"
    ---⏎service: api⏎command: [bin/api]⏎objectives: ["error_rate < 1%"]⏎listen: 8080⏎
      9:9 spec::address_taken the address 127.0.0.1:8080 is taken
        give each `listen`, `preview` and `redirect` an address of its own; services share a `listen` when each says which `routes` are its own
    routes: [a.com]⏎---⏎service: api⏎command: [bin/api]⏎objectives: ["error_rate < 1%"]⏎listen: 8080⏎
    routes: [a.com/x, /y]⏎---⏎service: api⏎command: [bin/api]⏎objectives: ["error_rate < 1%"]⏎listen: 8080⏎routes: [b.com, a.com/x/]⏎
      11:17 spec::address_taken `a.com/x` at 127.0.0.1:8080 is wanted twice
        services that share an address want different hosts, or paths that begin differently
    routes: [a.com]⏎---⏎service: api⏎command: [bin/api]⏎objectives: ["error_rate < 1%"]⏎listen: 8080⏎routes: [/]⏎fronts: [10.0.0.0/8]⏎
      10:9 spec::conflict `web` and `api` share 127.0.0.1:8080, and their `fronts` differs
        it is settled before a request says whom it is for: write the same in both
    routes: [a.com]⏎---⏎service: api⏎command: [bin/api]⏎objectives: ["error_rate < 1%"]⏎listen: 8080⏎tls: { certificates: [{ certificate: a, key: b }] }⏎
      10:9 spec::conflict `web` and `api` share 127.0.0.1:8080, and their `tls` differs
        it is settled before a request says whom it is for: write the same in both
    routes: [a.com]⏎---⏎service: api⏎command: [bin/api]⏎objectives: ["error_rate < 1%"]⏎listen: 0.0.0.0:8080⏎routes: [b.com]⏎
      10:9 spec::address_taken the address 0.0.0.0:8080 is taken
        give each `listen`, `preview` and `redirect` an address of its own
    routes: [a.com]⏎---⏎service: api⏎command: [bin/api]⏎objectives: ["error_rate < 1%"]⏎listen: 8081⏎preview: 8080⏎
      11:10 spec::address_taken the address 127.0.0.1:8080 is taken
        give each `listen`, `preview` and `redirect` an address of its own
    "#);
}

#[test]
fn what_is_wrong_with_limits_is_told_where_it_stands() {
    let lines = [
        "limits: [{}]",
        "limits: [{ path: api, rate: 100 }]",
        "limits: [{ rate: 0/s }, { rate: 1/d }, { rate: +5/s }, { rate: 1000001/h }]",
        "limits: [{ burst: 5 }]",
        "limits: [{ body: 1MiB, per: client }]",
        "limits: [{ rate: 1/s, per: address }, { atOnce: 0, per: { header: \"a b\" } }]",
        "limits: [{ rps: 5 }]",
        "rateLimit: 5",
    ];
    insta::assert_snapshot!(told_of_lines(lines), @r#"
    limits: [{}]
      5:10 spec::missing_key this limit limits nothing
        add `body`, `rate` or `atOnce`
    limits: [{ path: api, rate: 100 }]
      5:18 spec::bad_value `path`: `api` is no path to begin with
        write whole segments as clients send them, such as `/api/v2`
      5:29 spec::wrong_type `rate` takes text, not a whole number
        put quotes around it: "100"
    limits: [{ rate: 0/s }, { rate: 1/d }, { rate: +5/s }, { rate: 1000001/h }]
      5:18 spec::bad_value `rate`: `0/s` is no rate
        write requests per second, minute or hour: `100/s`, `600/m`, `1000/h`
      5:33 spec::bad_value `rate`: `1/d` is no rate
        write requests per second, minute or hour: `100/s`, `600/m`, `1000/h`
      5:48 spec::bad_value `rate`: `+5/s` is no rate
        write requests per second, minute or hour: `100/s`, `600/m`, `1000/h`
      5:64 spec::bad_value `rate`: `1000001/h` is no rate
        write requests per second, minute or hour: `100/s`, `600/m`, `1000/h`
    limits: [{ burst: 5 }]
      5:12 spec::conflict `burst` is how many requests of a `rate` may come at one moment
        write `rate: 100/s` beside it, or leave it out
    limits: [{ body: 1MiB, per: client }]
      5:24 spec::not_used `per` says whose requests `rate` and `atOnce` count together
        leave it out: `body` is for each request by itself
    limits: [{ rate: 1/s, per: address }, { atOnce: 0, per: { header: "a b" } }]
      5:28 spec::bad_value `per` takes `client`, `service` or `{ header: NAME }`
        write `client` for each address by itself, `service` for all of them together
      5:49 spec::out_of_range `atOnce`: `0` is out of range
        write a value from 1 to 1000000
      5:67 spec::bad_value `header`: `a b` is no name of a header
        write `X-Api-Key`
    limits: [{ rps: 5 }]
      5:12 spec::unknown_key a limit has no key `rps`
        write `rate: 100/s`
    rateLimit: 5
      5:1 spec::unknown_key a service has no key `rateLimit`
        write `limits: [{ rate: 100/s }]`
    "#);
}

#[test]
fn what_is_wrong_with_how_requests_are_spread_is_told_where_it_stands() {
    let lines = ["balance: { slowStart: 1h, ejection: always }", "balance: { policy: least, warmup: 5s }"];
    insta::assert_snapshot!(told_of_lines(lines), @r"
    balance: { slowStart: 1h, ejection: always }
      5:23 spec::out_of_range `slowStart`: `1h` is out of range
        write a value from 0 to 15m
      5:37 spec::bad_value `ejection` takes `on` or `off`
        write `on` or `off`
    balance: { policy: least, warmup: 5s }
      5:12 spec::unknown_key the mapping `balance` has no key `policy`
        leave it out: of two replicas that chance names, the less busy one gets the request
      5:27 spec::unknown_key the mapping `balance` has no key `warmup`
        write `slowStart: 10s`
    ");
}

#[test]
fn what_is_wrong_with_an_access_log_is_told_where_it_stands() {
    let lines = [
        "accessLog: yes",
        "accessLog: { share: 120%, errors: all, sample: 5 }",
        "accessLog: { headers: [cookie], slow: 0s }",
    ];
    insta::assert_snapshot!(told_of_lines(lines), @r"
    accessLog: yes
      5:12 spec::bad_value `accessLog` takes `on` or `off`
        write `on`, `off`, or `{ share: 10%, errors: on }`
    accessLog: { share: 120%, errors: all, sample: 5 }
      5:21 spec::out_of_range `share`: `120%` is out of range
        write a value from 0.01% to 100%
      5:35 spec::bad_value `errors` takes `on` or `off`
        write `on` or `off`
      5:40 spec::unknown_key the mapping `accessLog` has no key `sample`
        write `share: 10%`
    accessLog: { headers: [cookie], slow: 0s }
      5:14 spec::unknown_key the mapping `accessLog` has no key `headers`
        leave it out: fields of a head are never written down, since some of them are secrets
      5:39 spec::out_of_range `slow`: `0s` is out of range
        write a value from 1ms to 1h
    ");
}

#[test]
fn what_is_wrong_with_timeouts_and_error_pages_is_told_where_it_stands() {
    let lines = [
        "timeouts: [{ path: /a }, { path: a, whole: 0s }, { total: 5s }]",
        "timeouts: [{ firstByte: 2m }]",
        "errorPages: { 500: a.html, 503: a.php, 5xx: b.html }",
        "errorPages: sorry.html",
    ];
    insta::assert_snapshot!(told_of_lines(lines), @r"
    timeouts: [{ path: /a }, { path: a, whole: 0s }, { total: 5s }]
      5:12 spec::says_nothing this timeout has no time
        write `firstByte: 2s`, `idle: 30s` or `whole: 10s`
      5:34 spec::bad_value `path`: `a` is no path to begin with
        write whole segments as clients send them, such as `/api/v2`
      5:44 spec::out_of_range `whole`: `0s` is out of range
        write a value from 1ms to 1d
      5:52 spec::unknown_key a timeout has no key `total`
        write `whole: 10s`
    timeouts: [{ firstByte: 2m }]
      5:25 spec::conflict `firstByte`: 2m is longer than the service's `firstByteTimeout` of 30s
        write `firstByteTimeout: 2m`, and shorter ones for other paths
    errorPages: { 500: a.html, 503: a.php, 5xx: b.html }
      5:15 spec::unknown_key the mapping `errorPages` has no key `500`
        leave it out: the proxy never says that itself, and passes on what a release says
      5:33 spec::bad_value `503`: `a.php` is no page
        name a file that ends with `.html`, `.txt` or `.json`
      5:40 spec::unknown_key the mapping `errorPages` has no key `5xx`
        write each status: `{ 502: sorry.html, 503: sorry.html, 504: sorry.html }`
    errorPages: sorry.html
      5:13 spec::wrong_type `errorPages` takes a mapping, not text
        the mapping `errorPages` has these keys: 400, 404, 413, 429, 502, 503, 504
    ");
}

#[test]
fn what_contradicts_itself_about_encryption_is_told() {
    let told = told_of_lines([
        "dependencies: { a: { url: \"postgres://x/y?sslmode=require\", tls: on }, b: { url: redis://x, authorities: ca.pem } }",
        "dependencies: { a: { url: https://x, tls: on }, b: { url: redis://x, tls: maybe } }",
        "dependencies: { a: { url: https://x, http2: on }, b: { url: redis://x, http2: on }, c: { url: http://x, http2: 2 } }",
    ]);
    for part in [
        "`sslmode` contradicts `tls: on`",
        "`authorities` means nothing where nothing is encrypted",
        "`tls` means nothing for an `http` dependency",
        "write `tls: on`; whom to trust is said by `authorities: ca.pem`",
        "`http2` means nothing where the URL begins with `https://`",
        "`http2` means nothing for a `redis` dependency",
        "write `http2: on`",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn dependencies_say_all_that_is_wrong_with_them() {
    insta::assert_snapshot!(told_of_lines([
        "dependencies: [database]",
        "dependencies: { Database: redis://cache, 2nd: redis://cache }",
        "dependencies: { a: db.example.com, b: ftp://x, c: tcp://x, d: http://u:p@x, e: \"postgres://u:p@x/y\", f: http:// }",
        "dependencies: { api: { timeout: 30s, fallback: {} } }",
        "dependencies: { api: { url: http://x, ping: off, password: x }, db: { url: redis://x, cache: on, retry: off } }",
        "dependencies: { api: { url: http://x, headers: { Host: x, A: \"{{secret.key}}\", B: \"{{key}}\" } } }",
        "dependencies: { api: { url: http://x, timeouts: { connect: 0s, read: 1s, total: 2h } } }",
        "dependencies: { api: { url: http://x, retry: { attempts: 0, budget: 200%, idempotent: [search] } } }",
        "dependencies: { api: { url: http://x, breaker: { failures: 0, failureRate: 12.5%, slowRate: 50%, over: 0, growth: 50% } } }",
        "dependencies: { api: { url: http://x, breaker: { failures: off, open: 1h, openLimit: 1m, waitDurationInOpenState: 1s } } }",
        "dependencies: { api: { url: http://x, alternatives: [{ url: redis://y }, { model: y }] } }",
        "dependencies: { api: { url: http://x, cache: yes }, b: { url: http://x, cache: { size: 1, postHeaders: [a] } } }",
        "dependencies: { api: { url: http://x, fixed: { status: 100, text: x } } }",
        "dependencies: { db: { url: redis://x, ping: { interval: 2s, timeout: 0s } } }",
        "dependencies: { web: http://x }\nenv: { WEB_URL: x }",
        "analysis: { dependencies: abort }",
    ]), @r#"
    dependencies: [database]
      5:15 spec::wrong_type `dependencies` takes a mapping of names to dependencies, not a list
        write them by name: `dependencies: { openrouter: { url: https://openrouter.ai/api/v1 } }`
    dependencies: { Database: redis://cache, 2nd: redis://cache }
      5:17 spec::bad_value `Database` is no name of a dependency
        use 1 to 40 lower-case letters, digits and dashes, beginning with a letter: `read-replica` is found at `READ_REPLICA_URL`
      5:42 spec::bad_value `2nd` is no name of a dependency
        use 1 to 40 lower-case letters, digits and dashes, beginning with a letter: `read-replica` is found at `READ_REPLICA_URL`
    dependencies: { a: db.example.com, b: ftp://x, c: tcp://x, d: http://u:p@x, e: "postgres://u:p@x/y", f: http:// }
      5:20 spec::bad_value `a`: `db.example.com` is no URL
        write `https://host/path`, `postgres://user@host:5432/name`, `redis://host:6379` or `tcp://host:port`
      5:39 spec::bad_value `b`: `ftp://` is not spoken
        write `https://host/path`, `postgres://user@host:5432/name`, `redis://host:6379` or `tcp://host:port`
      5:51 spec::bad_value `c`: `tcp://x` cannot be called
        write `https://host/path`, `postgres://user@host:5432/name`, `redis://host:6379` or `tcp://host:port`
      5:63 spec::bad_value `d`: a password does not stand in a spec
        write it as a header: `headers: { Authorization: "Basic {{secret.login}}" }`
      5:80 spec::bad_value `e`: a password does not stand in a spec
        write `password: "{{secret.db}}"` and say where it is: `secrets: { db: { file: db.password } }`
      5:105 spec::bad_value `f`: `http://` cannot be called
        write `https://host/path`, `postgres://user@host:5432/name`, `redis://host:6379` or `tcp://host:port`
    dependencies: { api: { timeout: 30s, fallback: {} } }
      5:22 spec::missing_key a dependency needs the key `url`
        add `url: https://api.example.com`
      5:24 spec::unknown_key a dependency has no key `timeout`
        write `timeouts: { total: 30s }`
      5:38 spec::unknown_key a dependency has no key `fallback`
        write `alternatives`, `cache` or `fixed`: they are tried in this order
    dependencies: { api: { url: http://x, ping: off, password: x }, db: { url: redis://x, cache: on, retry: off } }
      5:39 spec::conflict `ping` means nothing for an `http` dependency
        leave it out: an HTTP dependency is judged by its calls, has `headers`, and is encrypted where its URL begins with `https://`
      5:50 spec::conflict `password` means nothing for an `http` dependency
        leave it out: an HTTP dependency is judged by its calls, has `headers`, and is encrypted where its URL begins with `https://`
      5:87 spec::conflict `cache` means nothing for a `redis` dependency
        leave it out: connections are passed on byte by byte: only calls over HTTP are repeated, kept or answered
      5:98 spec::conflict `retry` means nothing for a `redis` dependency
        leave it out: connections are passed on byte by byte: only calls over HTTP are repeated, kept or answered
    dependencies: { api: { url: http://x, headers: { Host: x, A: "{{secret.key}}", B: "{{key}}" } } }
      5:50 spec::bad_value `Host` cannot be set
        name a header of the dependency's own, such as `Authorization`
      5:62 spec::unknown_placeholder nothing is known to fill in for `{{secret.key}}`
        say where it is: `secrets: { key: { file: PATH } }`
      5:83 spec::unknown_placeholder nothing is known to fill in for `{{key}}`
        here only secrets can be filled in: `{{secret.NAME}}`
    dependencies: { api: { url: http://x, timeouts: { connect: 0s, read: 1s, total: 2h } } }
      5:60 spec::out_of_range `connect`: `0s` is out of range
        write a value from 1ms to 1h
      5:64 spec::unknown_key the mapping `timeouts` has no key `read`
        write `idle`
      5:81 spec::out_of_range `total`: `2h` is out of range
        write a value from 1ms to 1h
    dependencies: { api: { url: http://x, retry: { attempts: 0, budget: 200%, idempotent: [search] } } }
      5:58 spec::out_of_range `attempts`: `0` is out of range
        write a value from 1 to 10
      5:69 spec::out_of_range `budget`: `200%` is out of range
        write a value from 0.01% to 100%
      5:88 spec::bad_value an item of `idempotent`: `search` is no path
        write it with its leading slash and without spaces: `/health`; anything beyond ASCII as `%C3%A9`
    dependencies: { api: { url: http://x, breaker: { failures: 0, failureRate: 12.5%, slowRate: 50%, over: 0, growth: 50% } } }
      5:48 spec::missing_key nothing says which calls are slow
        add `slow: 2s`
      5:60 spec::out_of_range `failures`: `0` is out of range
        write a value from 1 to 1000
      5:76 spec::bad_value `failureRate`: whole percents, please
        write 1% to 100%
      5:104 spec::out_of_range `over`: `0` is out of range
        write a value from 1 to 10000
      5:115 spec::bad_value `growth`: `50%` cannot be used
        write a whole percentage from 100% to 1000%
    dependencies: { api: { url: http://x, breaker: { failures: off, open: 1h, openLimit: 1m, waitDurationInOpenState: 1s } } }
      5:48 spec::conflict this breaker cannot work: trip: nothing would ever open it: write at least one of its rules
        change what is named
      5:48 spec::conflict this breaker cannot work: open_limit: less than the first time it is open
        change what is named
      5:90 spec::unknown_key the mapping `breaker` has no key `waitDurationInOpenState`
        write `open: 60s`
    dependencies: { api: { url: http://x, alternatives: [{ url: redis://y }, { model: y }] } }
      5:56 spec::conflict the alternative speaks `redis`, and the dependency `http`
        an application that speaks one cannot go on in the other: name a place that speaks the same
      5:74 spec::missing_key an alternative needs the key `url`
        add `url: https://other.example.com`
      5:76 spec::unknown_key an alternative has no key `model`
        write `json: { model: NAME }`
    dependencies: { api: { url: http://x, cache: yes }, b: { url: http://x, cache: { size: 1, postHeaders: [a] } } }
      5:46 spec::bad_value `cache` takes `on` or `off`
        write `on`, `off`, or `{ ttl: 1h }`
      5:88 spec::bad_value `size`: `1` is no size
        write a whole number with a unit: `512KiB`, `10MiB`, `1GiB`
      5:91 spec::conflict `postHeaders` means nothing without `post`
        add `post: [/path]`, or leave it out
    dependencies: { api: { url: http://x, fixed: { status: 100, text: x } } }
      5:56 spec::out_of_range `status`: `100` is out of range
        write a value from 200 to 599
      5:61 spec::unknown_key the mapping `fixed` has no key `text`
        write `body`
    dependencies: { db: { url: redis://x, ping: { interval: 2s, timeout: 0s } } }
      5:47 spec::unknown_key the mapping `ping` has no key `interval`
        write `every: 2s`
      5:70 spec::out_of_range `timeout`: `0s` is out of range
        write a value from 10ms to 1m
    dependencies: { web: http://x }⏎env: { WEB_URL: x }
      6:1 spec::conflict `WEB_URL` is where replicas find a dependency
        leave it out, or give the dependency another name
    analysis: { dependencies: abort }
      5:27 spec::wrong_type `dependencies` takes `rollback`, `hold` or `tell`, not text
        write `dependencies: rollback`
    "#);
}
