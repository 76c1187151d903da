//! Every strategy with real processes under load: good releases go live, bad ones are taken back, and no request is lost.

#![expect(clippy::unwrap_used, reason = "all of this is tests, helpers too")]
#![expect(clippy::print_stderr, reason = "what was measured is told")]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use common::{EVENKEEL, Spec, World, ask, canary, overview};
use serde_json::{Value, json};

/// Requests per second.
const RATE: u32 = 200;
/// Replicas of every service here.
const REPLICAS: u32 = 3;

/// A strategy by what stands below `strategy:`.
fn by(strategy: &str) -> Spec {
    Spec {
        replicas: REPLICAS,
        strategy: strategy.to_owned(),
        minimum: 20,
        more: "startupLimit: 4s\nshield: off\n".into(),
        ..Spec::default()
    }
}

/// The most replicas there were at once, and the fewest ready ones, as the status shows them.
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, u64)>,
}

impl Sampler {
    fn start(world: &World) -> Self {
        let (stop, state) = (Arc::new(AtomicBool::new(false)), world.state());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut most, mut fewest_ready) = (0, u64::MAX);
            while !stopped.load(Ordering::Relaxed) {
                if let Some((all, ready)) = overview(&state).as_ref().and_then(count) {
                    most = most.max(all);
                    fewest_ready = fewest_ready.min(ready);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            (most, fewest_ready)
        });
        Self { stop, thread }
    }

    fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Replicas of the first service that are not on their way out, and those of them that are ready.
fn count(overview: &Value) -> Option<(u64, u64)> {
    let releases = overview["services"].get(0)?["releases"].as_array()?;
    let replicas: Vec<&Value> = releases.iter().flat_map(|release| release["replicas"].as_array().unwrap()).collect();
    let ready = replicas.iter().filter(|replica| replica["state"] == "ready").count();
    let leaving =
        replicas.iter().filter(|replica| replica["state"] == "draining" || replica["state"] == "stopping").count();
    Some(((replicas.len() - leaving) as u64, ready as u64))
}

/// Has a good release rolled out, then three bad ones, and holds the strategy to its promises: nobody loses a request, and
/// there are never more replicas than these beyond the wanted number, nor fewer ready ones than these short of it.
fn ships_the_good_and_takes_back_the_bad(spec: Spec, surge: u32, missing: u32) {
    let world = World::alone();
    world.write_spec(&spec);
    world.up();
    world.ship("v1");
    let (load, sampler) = (world.load(RATE), Sampler::start(&world));
    world.ship("v2");
    assert_eq!(world.outcome("v2"), "promoted");
    world.build_unready("v3");
    let unready = world.expect(3, &["deploy", "--version", "v3"]);
    assert!(unready.out.contains("became ready in time; last: GET /health: 503"), "{}", unready.out);
    world.build_crashing("v4");
    let crashing = world.expect(3, &["deploy", "--version", "v4"]);
    assert!(crashing.out.contains("became ready in time; last: shop-r4-"), "{}", crashing.out);
    // Up to here nobody but the proxy has stood between users and releases.
    world.write_spec(&Spec { more: "startupLimit: 4s\n".into(), ..spec });
    world.build("v5", 50);
    let failing = world.expect(3, &["deploy", "--version", "v5"]);
    let is_told = ["rolled back: v5 fail", " requests of v5 were bad"].iter().any(|words| failing.out.contains(words));
    assert!(is_told, "{}", failing.out);
    assert_eq!(world.stable().as_deref(), Some("v2"));
    world.wait_for("all replicas of v2 to be back", || {
        world.overview().as_ref().and_then(count) == Some((u64::from(REPLICAS), u64::from(REPLICAS)))
    });
    let (most, fewest_ready) = sampler.end();
    let records = load.end();
    records.assert_none_failed(&world);
    assert_eq!(world.answers("v3").len() + world.answers("v4").len(), 0, "no user meets what is not ready");
    let (at_most, at_least) = (u64::from(REPLICAS + surge), u64::from(REPLICAS - missing));
    assert!(most <= at_most, "{most} replicas, {at_most} allowed");
    assert!(fewest_ready >= at_least, "{fewest_ready} ready replicas, {at_least} wanted");
    let requests = records.0.len();
    eprintln!("{requests} requests, 0 lost; at most {most} replicas, at least {fewest_ready} ready");
    world.down();
}

#[test]
fn a_canary_ships_the_good_and_takes_back_the_bad_and_loses_no_request() {
    let strategy = canary(&[("10%", "500ms"), ("50%", "500ms")], "500ms");
    ships_the_good_and_takes_back_the_bad(by(&strategy), REPLICAS, 0);
}

#[test]
fn blue_green_ships_the_good_and_takes_back_the_bad_and_loses_no_request() {
    ships_the_good_and_takes_back_the_bad(by("{ blueGreen: { smoke: [{ path: /health }], watch: 2s } }"), REPLICAS, 0);
}

#[test]
fn blue_green_share_by_share_ships_the_good_and_takes_back_the_bad_and_loses_no_request() {
    let steps = "[{ weight: 20%, hold: 500ms }, { weight: 60%, hold: 500ms }]";
    let strategy = format!("{{ blueGreen: {{ previewReplicas: 1, promotion: 300ms, steps: {steps}, watch: 500ms }} }}");
    ships_the_good_and_takes_back_the_bad(by(&strategy), REPLICAS, 0);
}

#[test]
fn rolling_ships_the_good_and_takes_back_the_bad_and_loses_no_request() {
    let strategy = "{ rolling: { maxSurge: 1, maxUnavailable: 0, pause: 1s, bake: 1s } }";
    ships_the_good_and_takes_back_the_bad(by(strategy), 1, 0);
}

#[test]
fn rolling_without_surge_never_has_more_replicas_than_wanted_and_loses_no_request() {
    let strategy = "{ rolling: { maxSurge: 0, maxUnavailable: 1, pause: 1s, bake: 1s } }";
    ships_the_good_and_takes_back_the_bad(by(strategy), 0, 1);
}

#[test]
fn an_ab_test_ships_the_good_and_takes_back_the_bad_and_loses_no_request() {
    let strategy = "{ ab: { by: visitor, for: 2s, then: promote, bake: 500ms } }";
    ships_the_good_and_takes_back_the_bad(by(strategy), REPLICAS, 0);
}

#[test]
fn a_release_that_turns_bad_at_the_end_is_compared_with_what_the_old_one_was_held_back_for() {
    let world = World::alone();
    let steps = "[{ weight: 50%, hold: 300ms }]";
    world.write_spec(&by(&format!("{{ canary: {{ steps: {steps}, bake: 1s, holdBack: 10% }} }}")));
    world.up();
    world.ship("v1");
    let load = world.load(RATE);
    world.ship("v2");
    let log = world.rollout_of("v2").unwrap()["moments"].clone();
    let told: Vec<&str> = log.as_array().unwrap().iter().filter_map(|told| told["text"].as_str()).collect();
    let shares = told.iter().filter(|text| text.contains(" of traffic to r2"));
    let shares: Vec<&str> = shares.map(|text| text.split(" %").next().unwrap()).collect();
    assert_eq!(shares, ["50", "90", "100"], "{told:#?}");

    // With all of the time in the world, and then it fails.
    world.write_spec(&by(&format!("{{ canary: {{ steps: {steps}, bake: 10m, holdBack: 10% }} }}")));
    let switch = world.folder().join("now-it-is-bad");
    world.build_turning_bad("v3", 50, &switch);
    world.expect(0, &["deploy", "--version", "v3", "--detach"]);
    world
        .wait_for("a tenth to be held back", || world.weight("v3") == Some(9_000) && world.weight("v2") == Some(1_000));
    std::fs::write(&switch, "").unwrap();
    assert_eq!(world.outcome("v3"), "rolled_back");
    load.end();
    let log = world.rollout_of("v3").unwrap()["moments"].clone();
    let told: Vec<&str> = log.as_array().unwrap().iter().filter_map(|told| told["text"].as_str()).collect();
    let is_compared = |text: &&str| text.starts_with("rolling back: ") && text.contains(" while v2 ");
    assert!(told.iter().any(is_compared), "{told:#?}");
    assert_eq!(world.stable().as_deref(), Some("v2"));
    world.down();
}

#[test]
fn recreate_answers_503_in_between_on_purpose_and_loses_nothing_else() {
    let world = World::alone();
    world.write_spec(&by("{ recreate: { bake: 500ms } }"));
    world.up();
    world.ship("v1");
    let (load, sampler) = (world.load(RATE), Sampler::start(&world));
    world.ship("v2");
    world.build_crashing("v3");
    world.expect(3, &["deploy", "--version", "v3"]);
    assert_eq!(world.stable().as_deref(), Some("v2"));
    world.wait_for("v2 to have the traffic", || world.ask(&[]).version == "v2");
    let records = load.end();
    let others: Vec<_> = records.failed().into_iter().filter(|record| record.status != 503).collect();
    assert!(others.is_empty(), "{others:?}\n{}", world.logs());
    let (most, _) = sampler.end();
    assert!(most <= u64::from(REPLICAS), "{most} replicas: two releases ran at once");
    eprintln!("{} requests, {} answered 503 on purpose, 0 lost", records.0.len(), records.failed().len());
    world.down();
}

/// A worker: it writes a line to a file of its version every 50 ms. The file in its release says how it ends.
fn write_worker(world: &World, strategy: &str) {
    let text = format!(
        "service: {}\ncommand: [sh, worker.sh]\nartefact: worker.sh\nreplicas: {REPLICAS}\nlisten: none\n\
         env: {{ BEATS: {}, VERSION: \"{{{{version}}}}\" }}\nprobes: {{ running: 300ms }}\n\
         strategy: {strategy}\nstartupLimit: 4s\nstop: {{ drain: 0, grace: 5s }}\n",
        common::SERVICE,
        json!(world.records()),
    );
    std::fs::write(world.folder().join("evenkeel.yaml"), text).unwrap();
    build_worker(world, "");
}

fn build_worker(world: &World, before: &str) {
    let script = format!("{before}\nwhile :; do echo \"$$\" >> \"$BEATS/$VERSION\"; sleep 0.05; done\n");
    std::fs::write(world.folder().join("worker.sh"), script).unwrap();
}

fn beats(world: &World, version: &str) -> usize {
    std::fs::read_to_string(world.records().join(version)).unwrap_or_default().lines().count()
}

fn a_worker_is_rolled_out(strategy: &str) {
    let world = World::alone();
    write_worker(&world, strategy);
    world.up();
    world.expect(0, &["deploy", "--version", "v1"]);
    world.wait_for("v1 to work", || beats(&world, "v1") > 3);
    let sampler = Sampler::start(&world);
    build_worker(&world, "# another one");
    let good = world.expect(0, &["deploy", "--version", "v2"]);
    assert!(good.out.contains("promoted: r2 is live"), "{}", good.out);
    let (stopped, working) = (beats(&world, "v1"), beats(&world, "v2"));
    world.wait_for("v2 to work", || beats(&world, "v2") > working + 3);
    assert_eq!(beats(&world, "v1"), stopped, "v1 still works");

    build_worker(&world, "exit 7");
    let bad = world.expect(3, &["deploy", "--version", "v3"]);
    assert!(bad.out.contains("ended: exit status 7"), "{}", bad.out);
    assert_eq!(world.stable().as_deref(), Some("v2"));
    world.wait_for("all replicas of v2 to be back", || {
        world.overview().as_ref().and_then(count) == Some((u64::from(REPLICAS), u64::from(REPLICAS)))
    });
    let (most, fewest_ready) = sampler.end();
    assert!(most <= u64::from(REPLICAS + 1), "{most} replicas");
    assert!(fewest_ready >= u64::from(REPLICAS), "{fewest_ready} ready replicas");
    let shown = world.expect(0, &["status"]).out;
    assert!(shown.contains("a worker, without an address") && !shown.contains("req"), "{shown}");
    world.down();
}

#[test]
fn a_worker_without_a_port_goes_replica_by_replica_and_its_crash_loop_is_taken_back() {
    a_worker_is_rolled_out("{ rolling: { maxSurge: 1, maxUnavailable: 0, bake: 500ms } }");
}

#[test]
fn a_worker_may_be_a_canary_of_which_replicas_stand_for_the_share() {
    a_worker_is_rolled_out(&canary(&[("30%", "500ms"), ("60%", "500ms")], "500ms"));
}

#[test]
fn a_user_of_an_ab_test_always_meets_the_same_release_and_the_shares_are_right() {
    let world = World::alone();
    world.write_spec(&by("{ ab: { by: { cookie: user }, share: 30%, for: 1h, match: [{ query: variant }] } }"));
    world.up();
    world.ship("v1");
    world.begin("v2", 0);
    world.wait_for_state("watching", Some(0));
    let mut met: BTreeMap<String, u32> = BTreeMap::new();
    for user in 0..400 {
        let cookie = format!("cookie: theme=dark; user=u{user}");
        let first = world.ask(&[&cookie]);
        assert_eq!(first.status, 200);
        assert_eq!(world.ask(&[&cookie]).version, first.version, "user {user}");
        *met.entry(first.version).or_default() += 1;
    }
    let share = met["v2"];
    // 30 % of 400 are 120, with a standard deviation of 9.2; five of them.
    assert!((74..=166).contains(&share), "{met:?}");
    eprintln!("400 users, each with one release: {share} of them met the variant, 120 expected");
    let rollout = world.rollout().unwrap();
    assert_eq!(rollout["sticky"], "the cookie user");
    world.expect(0, &["promote"]);
    assert_eq!(world.rollout().unwrap()["step"], 1);
    world.expect(0, &["abort"]);
    assert_eq!(world.stable().as_deref(), Some("v1"));
    world.down();
}

#[test]
fn testers_are_pinned_by_header_and_cookie_and_users_see_nothing_of_it() {
    let world = World::alone();
    let matches = r#"match: [{ header: X-Beta, is: "1" }, { cookie: tester }]"#;
    world.write_spec(&by(&format!(
        "{{ canary: {{ steps: [{{ weight: 0%, hold: manual, {matches} }}], bake: 300ms }} }}"
    )));
    world.up();
    world.ship("v1");
    let load = world.load(RATE);
    world.begin("v2", 0);
    world.wait_for_state("watching", Some(0));
    for _ in 0..20 {
        assert_eq!(world.ask(&["X-Beta: 1"]).version, "v2");
        assert_eq!(world.ask(&["x-beta: 2"]).version, "v1");
        assert_eq!(world.ask(&["Cookie: a=b; tester=yes"]).version, "v2");
        assert_eq!(world.ask(&[]).version, "v1");
    }
    world.wait_for("the pinned requests to be counted", || world.run(&["status"]).out.contains("  40 pinned"));
    let shown = world.expect(0, &["status"]).out;
    assert!(shown.contains("◐ testers ─ ○ 100 %"), "{shown}");
    let records = load.end();
    records.assert_none_failed(&world);
    assert!(records.0.iter().all(|record| record.version == "v1"), "a user met the candidate");
    world.expect(0, &["promote", "--full"]);
    assert_eq!(world.outcome("v2"), "promoted");
    world.down();
}

#[test]
fn copies_are_counted_and_take_a_bad_release_back_before_any_user_sees_it() {
    let world = World::alone();
    world.write_spec(&by("{ canary: { steps: [{ weight: 0%, hold: 2s, mirror: 100% }], bake: 300ms } }"));
    world.up();
    world.ship("v1");
    let load = world.load(RATE);
    world.ship("v2");
    let copies = world.answers("v2").len();
    world.build("v3", 50);
    let bad = world.expect(3, &["deploy", "--version", "v3"]);
    assert!(bad.out.contains(" requests of v3 were bad") || bad.out.contains("rolled back: v3 fail"), "{}", bad.out);
    let copied = world.answers("v3");
    assert!(copied.iter().any(|answer| answer.status == 500), "no copy reached v3");
    let records = load.end();
    records.assert_none_failed(&world);
    assert!(records.0.iter().all(|record| record.version != "v3"), "a user met v3");
    eprintln!("{} requests, 0 lost; {copies} copies and more to v2, {} copies to v3", records.0.len(), copied.len());
    world.down();
}

#[test]
fn a_blue_green_preview_is_reached_by_its_host_before_any_user_meets_it() {
    let world = World::alone();
    world.write_spec(&by("{ blueGreen: { previewReplicas: 1, promotion: manual, watch: 500ms } }"));
    world.up();
    world.ship("v1");
    let load = world.load(RATE);
    world.begin("v2", 0);
    world.wait_for_state("watching", Some(0));
    let host = |release: &str| format!("{release}.localhost:{}", world.preview.port());
    assert_eq!(ask(world.preview, &host("r2"), &[]).version, "v2");
    assert_eq!(ask(world.preview, &host("r1"), &[]).version, "v1");
    assert_eq!(world.replicas_of(2).len(), 1, "previewReplicas");
    let before = load.end();
    assert!(before.0.iter().all(|record| record.version == "v1"), "a user met the preview");
    let load = world.load(RATE);
    world.expect(0, &["skip"]);
    assert_eq!(world.outcome("v2"), "promoted");
    assert_eq!(world.ask(&[]).version, "v2");
    load.end().assert_none_failed(&world);
    world.down();
}

#[test]
fn a_service_is_scaled_while_a_release_is_on_its_way_and_no_request_is_lost() {
    let world = World::alone();
    world.write_spec(&by(&canary(&[("50%", "60s")], "500ms")));
    world.up();
    world.ship("v1");
    let load = world.load(RATE);
    world.begin("v2", 0);
    world.wait_for_state("watching", Some(0));
    let counts = || [world.replicas_of(1).len(), world.replicas_of(2).len()];
    assert_eq!(counts(), [3, 2]);
    world.expect(0, &["scale", "5"]);
    world.wait_for("the service to have grown", || counts() == [5, 3]);
    world.expect(0, &["scale", common::SERVICE, "2"]);
    world.wait_for("the service to have shrunk", || counts() == [2, 1]);
    let again = world.expect(0, &["scale", "2"]);
    assert!(again.out.contains("has 2 replica(s) already"), "{}", again.out);
    world.expect(2, &["scale", "0"]);
    world.expect(0, &["promote"]);
    assert_eq!(world.outcome("v2"), "promoted");
    world.wait_for("v2 to be alone", || counts() == [0, 2]);
    load.end().assert_none_failed(&world);
    world.down();
}

#[test]
fn the_split_of_a_paused_rollout_is_set_by_hand_and_by_nobody_who_knows_an_old_one() {
    let world = World::alone();
    world.write_spec(&by(&canary(&[("10%", "60s")], "500ms")));
    world.up();
    world.ship("v1");
    let none = world.expect(2, &["weights", "v1=100"]);
    assert!(none.err.contains("no rollout of `shop` is in flight"), "{}", none.err);
    let load = world.load(RATE);
    world.begin("v2", 0);
    world.wait_for_state("watching", Some(0));
    let early = world.expect(2, &["weights", "v1=30", "v2=70"]);
    assert!(early.err.contains("cannot set weights while watching"), "{}", early.err);
    world.expect(0, &["pause"]);
    let shown = world.expect(0, &["weights", "--json"]).json();
    assert_eq!(shown[0]["weights"], json!({"v1": 90.0, "v2": 10.0}));
    let generation = shown[0]["generation"].to_string();
    for (wrong, says) in [
        (["v1=30", "v2=60"], "come to 90 %"),
        (["v1=30", "v7=70"], "`v7` is not part of the rollout"),
        (["v1=30", "v2=much"], "`v2=much` is no share"),
    ] {
        let refused = world.expect(2, &[&["weights"][..], &wrong[..]].concat());
        assert!(refused.err.contains(says), "{}", refused.err);
    }
    world.expect(0, &["weights", "v1=30", "v2=70", "--generation", &generation]);
    // A share of 70 % takes three replicas; it is given when they are there.
    world.wait_for("the split", || world.weight("v2") == Some(7_000));
    assert_eq!(world.replicas_of(2).len(), 3);
    let old = world.expect(2, &["weights", "v1=50", "v2=50", "--generation", &generation]);
    assert!(old.err.contains("somebody else was quicker"), "{}", old.err);
    let events = std::fs::read_to_string(world.state().join("logs/controller.log")).unwrap();
    assert!(events.contains("the split was set by"), "who set it is written down");
    world.expect(0, &["resume"]);
    world.wait_for("the step's own share", || world.weight("v2") == Some(1_000));
    world.expect(0, &["promote"]);
    assert_eq!(world.outcome("v2"), "promoted");
    load.end().assert_none_failed(&world);
    world.down();
}

/// The examples that people copy: they are read, and their service does what it is said to do.
#[test]
fn the_examples_of_the_strategies_are_good_specs() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/strategies");
    let entries = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
    let specs: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    assert_eq!(specs.len(), 7, "{specs:?}");
    for spec in specs {
        let checked = std::process::Command::new(EVENKEEL).arg("check").arg(&spec).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
        let text = std::fs::read_to_string(&spec).unwrap();
        let docs = std::fs::read_to_string(folder.join("../../docs/strategies.md")).unwrap();
        assert!(docs.contains(&text), "{} is another one in docs/strategies.md", spec.display());
    }
}
