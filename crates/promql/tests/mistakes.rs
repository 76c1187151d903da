//! What is wrong with a query is said with its place, and nothing that is written breaks the reader.

use evenkeel_promql::Query;
use proptest::prelude::*;

/// The query, what is wrong below it, and what would be right.
fn told(query: &str) -> String {
    let bad = Query::parse(query).expect_err(query);
    let one = |bad: evenkeel_promql::BadQuery| {
        let marks = "^".repeat(bad.at.len().max(1));
        let help = if bad.help.is_empty() { String::new() } else { format!(" ({})", bad.help) };
        format!("{}{marks} {bad}{help}", " ".repeat(bad.at.start))
    };
    let lines: Vec<String> = bad.into_iter().map(one).collect();
    format!("{query}\n{}", lines.join("\n"))
}

#[test]
fn mistakes_have_a_place_and_say_what_would_be_right() {
    let queries = [
        "",
        "rate(up)",
        "sum(rate(up[5m])",
        "sum(rate(up[5m])))",
        "sum(rate(up[5m)])",
        "rte(up[5m])",
        "nonsense(up)",
        "holt_winters(up[5m], 0.5, 0.5) + mad_over_time(up[5m])",
        "limitk(3, up)",
        "up + fill(0) up",
        "up{job=}",
        "up{job=\"web\"",
        "up{job=~\"5(\"}",
        "up{job=\"a\" or job=\"b\"}",
        "up[5x]",
        "up[-5m]",
        "up[nan]",
        "rate(up[1e99])",
        "rate(up[99999999999y])",
        "up offset 0s",
        "up offset Inf",
        "up offset -nan",
        "1 > 2",
        "up and 1",
        "up by (a)",
        "sum by up",
        "sum(up) > 0 or",
        "up up",
        "label_replace(up, \"a\", \"b\", \"c\", \"(\")",
        "clamp(up, 1)",
        "sum(up) + rate(up[5m]) + rate(down)",
        "\"web",
        "up ? 1",
        "histogram_quantile(0.9)",
        "topk(up)",
        "up * group_left(a) up",
        "sum(up[5m])",
        "up{a=b}",
    ];
    let told: Vec<String> = queries.iter().map(|query| told(query)).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    ^ there is no query (write one, such as `sum(rate(http_requests_total[5m]))`)
    rate(up)
    ^^^^ `rate` needs samples over a while (write a range behind the selector, such as `up[5m]`)
    sum(rate(up[5m])
       ^ `(` is not closed (write `)` where it ends)
    sum(rate(up[5m])))
                     ^ `)` closes nothing
    sum(rate(up[5m)])
                  ^ `)` closes `[` (write `]` here)
    rte(up[5m])
    ^^^ there is no function `rte` (did you mean `rate`?)
    nonsense(up)
    ^^^^^^^^ there is no function `nonsense` (docs/promql.md lists the functions)
    holt_winters(up[5m], 0.5, 0.5) + mad_over_time(up[5m])
    ^^^^^^^^^^^^ `holt_winters` is not evaluated by evenkeel (docs/promql.md lists what is; a Prometheus server evaluates all of it)
                                     ^^^^^^^^^^^^^ `mad_over_time` is not evaluated by evenkeel (docs/promql.md lists what is; a Prometheus server evaluates all of it)
    limitk(3, up)
    ^^^^^^ `limitk` is not evaluated by evenkeel (docs/promql.md lists what is; a Prometheus server evaluates all of it)
    up + fill(0) up
         ^^^^ `fill` is not evaluated by evenkeel (docs/promql.md lists what is; a Prometheus server evaluates all of it)
    up{job=}
           ^ `}` cannot stand here
    up{job="web"
      ^ `{` is not closed (write `}` where it ends)
    up{job=~"5("}
            ^^^^ the pattern `5(` cannot be used (patterns are regular expressions as RE2 knows them; a sign that stands for itself has `\\` before it)
    up{job="a" or job="b"}
               ^^ `or` between matchers is not evaluated by evenkeel (write two selectors with `or` between them)
    up[5x]
       ^^ `5x` is no duration (write one such as `5m` or `1h30m`)
    up[-5m]
       ^ `-` is no duration (write one such as `5m` or `1h30m`)
    up[nan]
       ^^^ `nan` is no duration (write one such as `5m` or `1h30m`)
    rate(up[1e99])
            ^^^^ this duration is too long (take one of at most 100 years)
    rate(up[99999999999y])
            ^^^^^^^^^^^^ `99999999999y` is no duration (write one such as `5m` or `1h30m`)
    up offset 0s
              ^^ `0s` is no duration (write one such as `5m` or `1h30m`)
    up offset Inf
              ^^^ `Inf` is no duration (write one such as `5m` or `1h30m`)
    up offset -nan
               ^^^ `nan` is no duration (write one such as `5m` or `1h30m`)
    1 > 2
        ^ a comparison of two numbers leaves nothing to choose (write `bool` behind the operator to get 0 or 1)
    up and 1
       ^^^ `and` stands between two vectors (make a vector of a number with `vector(…)`)
    up by (a)
       ^^ `by` cannot stand here
    sum by up
           ^^ `up` cannot stand here
    sum(up) > 0 or
                ^^ the query ends too early
    up up
       ^^ `up` cannot stand here
    label_replace(up, "a", "b", "c", "(")
                                     ^^^ the pattern `(` cannot be used (patterns are regular expressions as RE2 knows them; a sign that stands for itself has `\\` before it)
    clamp(up, 1)
    ^^^^^ expected 3 argument(s) in call to `clamp`, got 2
    sum(up) + rate(up[5m]) + rate(down)
                             ^^^^ `rate` needs samples over a while (write a range behind the selector, such as `up[5m]`)
    "web
    ^^^^ this text has no end (close it with the same quote that opens it)
    up ? 1
       ^ `?` has no meaning in a query
    histogram_quantile(0.9)
    ^^^^^^^^^^^^^^^^^^ expected 2 argument(s) in call to `histogram_quantile`, got 1
    topk(up)
           ^ wrong number of arguments for aggregate expression provided, expected 2, got 1
    up * group_left(a) up
                   ^ unexpected `group_left`
    sum(up[5m])
              ^ samples over a while cannot stand here (take the range away, or give it to a function such as `rate`)
    up{a=b}
         ^ unexpected identifier `b` in label matching, expected string
    "#);
}

#[test]
fn a_query_that_is_too_long_or_too_deep_is_refused_before_it_is_parsed() {
    for query in [
        "1 + ".repeat(5_000) + "1",
        "1 + ".repeat(300) + "1",
        "-".repeat(300) + "1",
        "(".repeat(60) + "1" + &")".repeat(60),
        format!("up{}", "[1m:]".repeat(300)),
        format!("{}up{}", "sum(".repeat(60), ")".repeat(60)),
    ] {
        let bad = Query::parse(&query).expect_err("refused");
        assert!(bad[0].message.contains("too"), "{}", bad[0]);
    }
}

#[test]
fn what_is_as_deep_as_may_be_is_evaluated_on_a_small_stack() {
    let deep = "sum(".repeat(46) + &"vector(1) + ".repeat(190) + "1" + &")".repeat(46);
    let query = format!("-({deep})");
    let evaluated = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        let query = Query::parse(&query).unwrap();
        let nothing = evenkeel_series::Store::default();
        query.at(&nothing, 0, &evenkeel_promql::Limits::default())
    });
    let labels = evenkeel_series::Labels::default();
    let points = vec![evenkeel_promql::Point { labels, value: -191.0 }];
    assert_eq!(evaluated.unwrap().join().unwrap(), Ok(evenkeel_promql::Value::Vector(points)));
}

/// Pieces of queries in no order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "up",
        "sum",
        "rate",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "5m",
        "1",
        ",",
        "by",
        "on",
        "offset",
        "@",
        "-",
        "+",
        "/",
        "==",
        "=~",
        "=",
        "\"a\"",
        "'",
        "and",
        "bool",
        "group_left",
        ":",
        "1e999",
        "inf",
        "nan",
        "0x",
        "start",
        "0",
        "é",
        "\n",
        "#",
        "topk",
        "label_replace",
        "99999999999y",
        "[5m]",
        "[5m:]",
        "{a=\"b\"}",
        "(up)",
        " ",
        "\\",
        "`",
        "\"\\xff\"",
        ".5",
        "5.",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_breaks_the_reader(query in prop_oneof![pieces(), any::<String>()]) {
        match Query::parse(&query) {
            Ok(query) => drop(query.at(&evenkeel_series::Store::default(), 1_000_000, &evenkeel_promql::Limits::default())),
            Err(bad) => {
                prop_assert!(!bad.is_empty());
                for bad in bad {
                    prop_assert!(query.get(bad.at.clone()).is_some(), "{query:?} has no {:?}", bad.at);
                }
            }
        }
    }
}
