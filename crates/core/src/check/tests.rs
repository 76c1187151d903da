use super::*;
use crate::measure::Query;

fn check(settings: impl FnOnce(&mut Check)) -> Check {
    let query = Query::Metrics { query: "x".into(), range: None };
    let mut check = Check::new("c", Measure { query, timeout: Duration::from_secs(5), secrets: Default::default() });
    (check.rules, check.interval) = (Rules::Argo, Some(Duration::from_secs(60)));
    settings(&mut check);
    check
}

/// Measurements by their first letters, s, f, i and e, taken in order as long as the run goes on.
fn state_after(check: Check, measurements: &str) -> (State, usize) {
    let mut run = Run::new(0, Place::Background, check, Timestamp(0));
    let mut at = Timestamp(0);
    for (number, letter) in measurements.chars().enumerate() {
        let phase = match letter {
            's' => Said::Successful,
            'f' => Said::Failed,
            'i' => Said::Inconclusive,
            _ => Said::Error,
        };
        at = at.after(Duration::from_secs(60));
        let said = Judged { phase, message: String::new() };
        let number = u32::try_from(number).unwrap();
        let sighting = Sighting { rollout: RolloutId(1), run: 0, number, asked: at, said, value: String::new() };
        if !run.take(&sighting, at) {
            return (run.state, run.taken as usize);
        }
    }
    (run.state, run.taken as usize)
}

/// One row for each rule of Argo's `assessMetricStatus`, with the number of measurements after which it holds.
#[test]
fn measurements_add_up_as_argo_rollouts_has_it() {
    use State::{Error, Failed, Inconclusive, Running, Successful};
    type Set = fn(&mut Check);
    let table: [(&str, Set, &str, State, usize); 21] = [
        ("without an interval there is one measurement", |c| c.interval = None, "sss", Successful, 1),
        ("a count of 0 is none", |c| (c.interval, c.count) = (None, Some(0)), "sss", Successful, 1),
        ("with an interval and no count it goes on", |_| {}, "ssssssssssssss", Running, 14),
        ("a count ends it", |c| c.count = Some(3), "ssss", Successful, 3),
        ("errors are not counted", |c| c.count = Some(2), "sesse", Successful, 3),
        (
            "bad and unclear ones within their limits are",
            |c| {
                (c.count, c.failure_limit, c.inconclusive_limit) = (Some(3), Some(1), 1);
            },
            "fis",
            Successful,
            3,
        ),
        ("the failure limit is 0", |_| {}, "ssf", Failed, 3),
        ("one more than the failure limit", |c| c.failure_limit = Some(3), "fsffsf", Failed, 6),
        ("bad ones add up, in a row or not", |c| c.failure_limit = Some(1), "fssssssf", Failed, 8),
        ("the inconclusive limit is 0", |_| {}, "si", Inconclusive, 2),
        ("one more than the inconclusive limit", |c| c.inconclusive_limit = 2, "isii", Inconclusive, 4),
        ("four errors in a row are none too many", |_| {}, "eeee", Running, 4),
        ("the fifth is", |_| {}, "eeeee", Error, 5),
        ("anything else begins the row anew", |c| c.failure_limit = Some(9), "eeeefeeee", Running, 9),
        ("a limit of errors in a row", |c| c.consecutive_error_limit = 0, "se", Error, 2),
        (
            "good ones in a row end it before the count",
            |c| (c.count, c.consecutive_success_limit, c.failure_limit) = (Some(9), 2, Some(5)),
            "sfss",
            Successful,
            4,
        ),
        (
            "a count without them in a row is unclear",
            |c| (c.count, c.consecutive_success_limit, c.failure_limit) = (Some(4), 3, Some(1)),
            "ssfs",
            Inconclusive,
            4,
        ),
        (
            "and has failed where failures have no limit",
            |c| (c.count, c.consecutive_success_limit, c.failure_limit) = (Some(4), 3, None),
            "ssfs",
            Failed,
            4,
        ),
        (
            "without a limit failures do not end it",
            |c| (c.consecutive_success_limit, c.failure_limit) = (3, None),
            "ffffffsss",
            Successful,
            9,
        ),
        (
            "an error breaks the row of good ones",
            |c| (c.consecutive_success_limit, c.failure_limit) = (2, None),
            "sesess",
            Successful,
            6,
        ),
        ("what is over is over", |c| c.count = Some(1), "sf", Successful, 1),
    ];
    for (rule, set, measurements, state, taken) in table {
        assert_eq!(state_after(check(set), measurements), (state, taken), "{rule}");
    }
}

#[test]
fn by_our_rules_a_source_that_fails_ends_nothing() {
    assert_eq!(state_after(check(|c| c.rules = Rules::Evenkeel), "eeeeeeeeee"), (State::Running, 10));
    assert_eq!(state_after(check(|c| c.rules = Rules::Evenkeel), "eeeeeeeeeef"), (State::Failed, 11));
}

fn sighting(run: u32, number: u32, at: Timestamp, phase: Said) -> Sighting {
    let said = Judged { phase, message: "m".into() };
    Sighting { rollout: RolloutId(1), run, number, asked: at, said, value: "1".into() }
}

fn seconds(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1_000_000)
}

#[test]
fn the_next_measurement_is_due_by_the_end_of_the_last_one_and_ten_seconds_after_an_error() {
    let mut run = Run::new(0, Place::Background, check(|c| c.initial_delay = Duration::from_secs(30)), seconds(100));
    assert_eq!(run.next_at(), Some(seconds(130)));
    run.take(&sighting(0, 0, seconds(130), Said::Successful), seconds(133));
    assert_eq!(run.next_at(), Some(seconds(193)), "by its end, not its beginning");
    run.take(&sighting(0, 1, seconds(193), Said::Error), seconds(194));
    assert_eq!(run.next_at(), Some(seconds(204)), "whatever the interval");
    run.check.rules = Rules::Evenkeel;
    run.check.interval = Some(Duration::from_secs(2));
    assert_eq!(run.next_at(), Some(seconds(196)), "by our rules a short interval holds for errors too");
}

#[test]
fn a_measurement_counts_once_and_only_for_the_run_that_asked_for_it() {
    let mut run = Run::new(3, Place::Background, check(|_| {}), seconds(0));
    assert!(run.take(&sighting(3, 0, seconds(1), Said::Successful), seconds(1)));
    assert!(!run.take(&sighting(3, 0, seconds(1), Said::Successful), seconds(2)), "told twice");
    assert!(!run.take(&sighting(2, 1, seconds(3), Said::Failed), seconds(3)), "for an earlier run");
    assert_eq!((run.taken, run.successful), (1, 1));
}

#[test]
fn a_run_that_is_stopped_early_is_a_pass_by_argos_rules_and_nothing_by_ours() {
    for (rules, state) in [(Rules::Argo, State::Successful), (Rules::Evenkeel, State::Stopped)] {
        let mut run = Run::new(0, Place::Background, check(|c| c.rules = rules), seconds(0));
        run.stop();
        assert_eq!(run.state, state);
    }
}

fn begun(background: &[Check], of_step: &[Check], step: usize) -> Checks {
    let mut checks = Checks::default();
    checks.begin(background, of_step, step, false, seconds(0));
    checks
}

#[test]
fn background_checks_begin_with_their_step_and_go_on_while_those_of_a_step_end_with_it() {
    let named = |name: &str, from_step| check(|c| (c.name, c.from_step) = (name.to_owned(), from_step));
    let background = [named("always", 0), named("later", 1)];
    let mut checks = begun(&background, &[named("first", 0)], 0);
    let names = |checks: &Checks| {
        checks.runs.iter().map(|run| format!("{}#{}", run.check.name, run.number)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&checks), "first#0 always#1");
    checks.begin(&background, &[named("first", 0)], 0, false, seconds(5));
    assert_eq!(names(&checks), "first#0 always#1", "the same step, looked at again");
    checks.begin(&background, &[named("second", 0)], 1, false, seconds(9));
    assert_eq!(names(&checks), "always#1 second#2 later#3");
}

#[test]
fn what_could_not_tell_begins_anew_once_people_let_it_go_on() {
    let background = [check(|_| {})];
    let mut checks = begun(&background, &[], 0);
    checks.take(&sighting(0, 0, seconds(1), Said::Inconclusive), seconds(1));
    assert!(matches!(checks.sum(), Sum::Inconclusive { .. }));
    checks.begin(&background, &[], 0, false, seconds(2));
    assert!(matches!(checks.sum(), Sum::Inconclusive { .. }), "nobody has let it go on");
    checks.begin(&background, &[], 0, true, seconds(60));
    assert_eq!((checks.sum(), checks.runs[0].number, checks.runs[0].taken), (Sum::Fine, 1, 0));
}

#[test]
fn a_dry_run_has_no_say_and_a_failure_counts_before_what_is_unclear() {
    let named = |name: &str, dry_run| check(|c| (c.name, c.dry_run) = (name.to_owned(), dry_run));
    let mut checks = begun(&[named("dry", true), named("unclear", false), named("bad", false)], &[], 0);
    checks.take(&sighting(0, 0, seconds(1), Said::Failed), seconds(1));
    assert_eq!((checks.runs[0].state, checks.sum()), (State::Failed, Sum::Fine));
    checks.take(&sighting(1, 0, seconds(1), Said::Inconclusive), seconds(1));
    checks.take(&sighting(2, 0, seconds(1), Said::Failed), seconds(1));
    let Sum::Failed { check, detail } = checks.sum() else { panic!() };
    assert_eq!(check, "bad");
    assert_eq!(detail, "check `bad` failed: 1 of 1 measurements were bad (limit 0); last: m");
}

#[test]
fn no_step_ends_on_checks_that_have_not_said_what_they_were_to_say() {
    let ours = |set: fn(&mut Check)| {
        check(|c| {
            c.rules = Rules::Evenkeel;
            set(c);
        })
    };
    // In the step: all of them, by both rules.
    let step = |rules| [check(|c| (c.rules, c.count) = (rules, Some(2)))];
    for rules in [Rules::Argo, Rules::Evenkeel] {
        let mut checks = begun(&[], &step(rules), 0);
        checks.take(&sighting(0, 0, seconds(1), Said::Successful), seconds(1));
        let held_up = checks.hold_up(false, false).unwrap();
        assert_eq!(held_up.what, "check `c` to take 2 measurements, it has 1");
        assert_eq!(held_up.until, seconds(130), "two of 60 s and 5 s each");
        checks.take(&sighting(0, 1, seconds(61), Said::Successful), seconds(61));
        assert_eq!(checks.hold_up(false, false), None);
    }
    // Beside the steps: by ours one good measurement in each, and all that it was to take at the end.
    let mut checks = begun(&[ours(|c| c.count = Some(2))], &[], 0);
    assert!(checks.hold_up(false, false).is_some());
    assert_eq!(checks.hold_up(false, true), None, "a batch ends with its time");
    checks.take(&sighting(0, 0, seconds(1), Said::Successful), seconds(1));
    assert_eq!(checks.hold_up(false, false), None);
    assert!(checks.hold_up(true, false).is_some(), "it was to take two");
    checks.begin(&[ours(|c| c.count = Some(2))], &[], 1, false, seconds(30));
    assert!(checks.hold_up(false, false).is_some(), "nothing was measured in this step yet");
    // By Argo's nothing is waited for.
    assert_eq!(begun(&[check(|c| c.count = Some(2))], &[], 0).hold_up(true, false), None);
}

#[test]
fn a_state_that_waits_says_for_what() {
    let mut checks = begun(&[check(|c| (c.count, c.rules) = (Some(5), Rules::Evenkeel))], &[], 0);
    checks.take(&sighting(0, 0, seconds(1), Said::Successful), seconds(1));
    assert_eq!(checks.waiting().unwrap(), "check `c`: 1 of 5 measurements, one every 1 min");
    checks.take(&sighting(0, 1, seconds(61), Said::Error), seconds(61));
    assert_eq!(checks.waiting().unwrap(), "check `c`: 1 of 5 measurements, one every 1 min (m)");
    assert_eq!(checks.next_at(), Some(seconds(71)));
}

#[test]
fn checks_of_a_pool_share_their_limit_and_a_round_counts_once() {
    let pooled = |name: &str| {
        let mut check = check(|c| (c.rules, c.failure_limit, c.pool) = (Rules::Evenkeel, Some(2), Some("shop".into())));
        check.name = name.to_owned();
        check
    };
    let mut checks = Checks::default();
    checks.begin(&[pooled("a"), pooled("b")], &[], 0, false, seconds(0));
    let mut take = |run: u32, number: u32, phase| {
        let at = seconds(60 * u64::from(number) + 60);
        checks.take(&sighting(run, number, at, phase), at);
        checks.sum() == Sum::Fine
    };
    // Both are bad in the first round, one of them in the second: two rounds.
    assert!(take(0, 0, Said::Failed) && take(1, 0, Said::Failed));
    assert!(take(0, 1, Said::Successful) && take(1, 1, Said::Failed));
    // A source that fails is no bad round by our rules.
    assert!(take(0, 2, Said::Error) && take(1, 2, Said::Successful));
    assert!(!take(0, 3, Said::Failed));
    let Sum::Failed { check, detail } = checks.sum() else { panic!() };
    assert_eq!(check, "a");
    assert!(detail.contains("more than 2 rounds of `shop` were bad"), "{detail}");
}

#[test]
fn by_flagger_s_rules_what_cannot_be_measured_is_bad() {
    let mut flagger = check(|c| c.rules = Rules::Flagger);
    flagger.success = Some("result >= 1".into());
    let said = |measured: Result<Value, SourceError>| flagger.judge(&measured).phase;
    assert_eq!(said(Err(SourceError::Failed { what: "gone".into() })), Said::Failed);
    assert_eq!(said(Ok(Value::Number(f64::NAN))), Said::Failed);
    assert_eq!(said(Ok(Value::Number(1.0))), Said::Successful);
}
