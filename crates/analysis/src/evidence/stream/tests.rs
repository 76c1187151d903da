use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn begin(line: &Value) -> Result<Stream, serde_json::Error> {
    Stream::begin(line["test"].as_str().unwrap(), line)
}

#[test]
fn what_is_left_out_has_its_default() {
    let short = begin(&json!({"test": "two_arm"})).unwrap();
    let long = json!({"test": "two_arm", "r": 1.2, "d": 0.001, "rho0": 0.75, "eta": 1.0, "half_life_s": 300, "hist_bad": 0,
        "hist_n": 0, "lifts": null});
    let tick = json!({"groups": [[0.1, 10, 2, 90, 1]], "dt": 1.0, "rho": 0.0});
    let mut answers = Vec::new();
    for mut stream in [short, begin(&long).unwrap()] {
        answers.push(stream.tick(&tick).unwrap());
        answers.push(stream.tick(&json!({"groups": [[0.1, 10, 2, 90, 1]]})).unwrap());
    }
    assert_eq!(answers[..2], answers[2..]);
}

#[test]
fn a_gate_takes_its_factors_under_either_name() {
    for line in [json!({"factors": [0.9], "lifts": null}), json!({"lifts": [0.9]})] {
        let mut line = line;
        line["test"] = "non_inferiority".into();
        assert_eq!(begin(&line).unwrap().pot().unwrap().accounts().len(), 1);
    }
}

#[test]
fn what_is_out_of_range_is_refused_with_what_would_be_right() {
    let cases = [
        (json!({"test": "two_arm", "eta": 1.5}), "expected more than 0 and at most 1"),
        (json!({"test": "two_arm", "d": -0.1}), "expected a share from 0 to 1"),
        (json!({"test": "two_arm", "half_life_s": 0}), "expected more than 0"),
        (json!({"test": "two_arm", "lifts": []}), "expected at least one share"),
        (json!({"test": "two_arm", "r": "1.2"}), "invalid type: string \"1.2\", expected a number"),
        (json!({"test": "two_arm", "hist_bad": 7, "hist_n": 6}), "of `hist_n` 6 requests `hist_bad` 7 cannot be bad"),
        (json!({"test": "failure_owner", "hist_bad": 1}), "of `hist_n` 0 requests `hist_bad` 1 cannot be bad"),
        (json!({"test": "non_inferiority", "hist_bad": 1}), "of `hist_n` 0 requests `hist_bad` 1 cannot be bad"),
        (json!({"test": "combine", "weights": [0.75, 0.5]}), "`weights` are shares, and together 1.25: at most 1"),
        (json!({"test": "two_arm", "lifts": [0.5, 2.0]}), "expected shares, more than 0 and at most 1"),
        (json!({"test": "one_arm", "s": 1.0}), "expected a share between 0 and 1"),
        (json!({"test": "latency"}), "missing field `base_hist`"),
        (json!({"test": "latency", "base_hist": [1]}), "expected at least two buckets"),
        (json!({"test": "rank_blocks", "g": 0}), "expected 1 to 1000 groups of stable"),
        (
            json!({"test": "non_inferiority", "lifts": [0.5], "factors": [0.5]}),
            "`factors` and `lifts` are the same here",
        ),
    ];
    for (line, said) in cases {
        let error = begin(&line).unwrap_err().to_string();
        assert!(error.contains(said), "{line}: {error}");
    }
    let mut latency = begin(&json!({"test": "latency", "base_hist": [1, 2, 3]})).unwrap();
    let error = latency.tick(&json!({"groups": [[0.1, [1, 2], [1, 2, 3]]]})).unwrap_err().to_string();
    assert!(error.contains("a histogram has 2 buckets, and base_hist 3"), "{error}");
    let mut ranks = begin(&json!({"test": "rank_blocks", "g": 3})).unwrap();
    for (stable, said) in
        [(json!([0.1, 0.2]), "`stable` has 2 rates for 3 groups"), (json!([0.1, 0.2, -1]), "expected 0 or more")]
    {
        let error = ranks.tick(&json!({"candidate": 0.5, "stable": stable})).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// Shares at the ends of what there is.
fn a_share() -> impl Strategy<Value = f64> {
    let ends = [0.0, 1.0, f64::MIN_POSITIVE, 1e-300, 1e-17, 1.0 - f64::EPSILON / 2.0];
    prop_oneof![prop::sample::select(ends.to_vec()), 0.0..1.0_f64]
}

/// The same of amounts.
fn an_amount() -> impl Strategy<Value = f64> {
    prop_oneof![prop::sample::select(vec![0.0, 1e-300, 0.5, 1.0, 1e18, 1e300]), 0.0..1e6_f64]
}

/// Counts, each with a part of it.
fn a_count() -> impl Strategy<Value = (u64, u64)> {
    let all = prop_oneof![prop::sample::select(vec![0, 1, 1 << 53]), 0..1_000_000_u64];
    (all, a_share()).prop_map(|(all, part)| (all, (all as f64 * part) as u64))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_numbers_that_are_taken_make_a_panic_or_what_is_no_number(
        shares in prop::collection::vec(a_share(), 4),
        amounts in prop::collection::vec(an_amount(), 4),
        ticks in prop::collection::vec((a_share(), a_count(), a_count(), an_amount()), 1..4),
        lifts in prop::option::of(prop::collection::vec(a_share(), 1..3)),
        histogram in prop::collection::vec(a_count(), 2..20),
        which in 0_usize..5,
    ) {
        let (base, other): (Vec<u64>, Vec<u64>) = histogram.into_iter().unzip();
        let (bad, all) = (amounts[2].min(amounts[3]), amounts[2].max(amounts[3]));
        let name = if which == 0 { "two_arm" } else { "failure_owner" };
        let line = match which {
            0 | 1 => json!({"test": name, "r": amounts[0], "d": shares[0], "rho0": shares[1], "eta": shares[2],
                "half_life_s": amounts[1], "hist_bad": bad, "hist_n": all, "lifts": lifts}),
            2 => json!({"test": "one_arm", "s": shares[0], "rho0": shares[1], "eta": shares[2], "lifts": lifts}),
            3 => json!({"test": "non_inferiority", "r": amounts[0], "d": shares[0], "eta": shares[2],
                "half_life_s": amounts[1], "hist_bad": bad, "hist_n": all, "factors": lifts}),
            _ => json!({"test": "latency", "d": shares[0], "n0": amounts[0], "rho0": shares[1], "eta": shares[2],
                "half_life_s": amounts[1], "share_cuts": shares[3], "base_hist": base, "lifts": lifts}),
        };
        let Ok(mut stream) = begin(&line) else { return Ok(()) };
        for (weight, (nc, kc), (nb, kb), dt) in ticks {
            let tick = match which {
                1 => json!({"groups": [[weight, kc, kb]], "nb": nb, "dt": dt, "rho": weight}),
                2 => json!({"n": nc, "k": kc, "rho": weight}),
                3 => json!({"groups": [[weight, nc, kc, nb, kb], [null, nc, kc, nb, kb]], "dt": dt}),
                4 => json!({"groups": [[weight, base, other], [null, other, base]], "dt": dt, "refit": kc > 1, "rho": weight}),
                _ => json!({"groups": [[weight, nc, kc, nb, kb], [null, nc, kc, nb, kb]], "dt": dt, "rho": weight}),
            };
            let ln_e = stream.tick(&tick);
            prop_assert!(ln_e.as_ref().is_ok_and(|ln_e| !ln_e.is_nan()), "{line} {tick}: {ln_e:?}");
        }
    }
}
