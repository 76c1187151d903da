//! Queries that are right and cannot say what they were written for, and what would say it.

use evenkeel_series::{Matcher, labels::NAME};

use crate::expr::{Aggregate, Binary, Call, Expr, Group, Grouping, Selector, Window, WindowOf};
use crate::query::Query;
use crate::subset::{Aggregation, Function, Operator};

/// Why a query cannot say what it was written for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// What it says instead.
    pub message: String,
    /// The query that would say it.
    pub instead: String,
}

impl Query {
    /// What is evidently wrong with the query although it can be evaluated.
    #[must_use]
    pub fn advice(&self) -> Option<Advice> {
        let mut repaired = self.expr.clone();
        let mut said = Vec::new();
        repair(&mut repaired, &mut said);
        (!said.is_empty()).then(|| Advice { message: said.join("; "), instead: repaired.to_string() })
    }
}

/// Repairs what is evidently wrong in a part, and says what it was.
fn repair(expr: &mut Expr, said: &mut Vec<String>) {
    match expr {
        Expr::Number(_) | Expr::Text(_) | Expr::Instant(_) | Expr::Window(_) => {}
        Expr::Negated(inner) => repair(inner, said),
        Expr::Aggregate(parts) => repair(&mut parts.expr, said),
        Expr::Binary(binary) => {
            if let Some(labels) = same_series(binary) {
                said.push(format!(
                    "both sides have the same `{}` where they meet, so this is 1 for every series that it has",
                    labels.join("`, `")
                ));
                for side in [&mut binary.left, &mut binary.right] {
                    let expr = std::mem::replace(side, Expr::Number(0.0));
                    let grouping = Grouping::AllBut(labels.clone());
                    let (aggregation, parameter) = (Aggregation::Sum, None);
                    *side = Expr::Aggregate(Box::new(Aggregate { aggregation, grouping, parameter, expr }));
                }
            } else {
                repair(&mut binary.left, said);
                repair(&mut binary.right, said);
            }
        }
        Expr::Call(call) => {
            if let Some(name) = no_buckets(call) {
                said.push(format!("`{name}` has no buckets, so this never has a value"));
                with_buckets(call, &name);
            }
            call.arguments.iter_mut().for_each(|argument| repair(argument, said));
        }
    }
}

/// A ratio of what is counted in series and in some of the same series: each of them meets itself. Answers the labels by
/// which some of them were chosen.
fn same_series(binary: &Binary) -> Option<Vec<String>> {
    let is_plain = matches!(&binary.matching.labels, Grouping::AllBut(labels) if labels.is_empty());
    if binary.operator != Operator::Divide || !is_plain || binary.matching.group != Group::OneToOne {
        return None;
    }
    let ((left, left_name), (right, right_name)) = (counted(&binary.left)?, counted(&binary.right)?);
    if left_name != right_name || left.when.to_string() != right.when.to_string() {
        return None;
    }
    let written = |selector: &Selector| selector.matchers.iter().map(Matcher::to_string).collect::<Vec<_>>();
    let (of_left, of_right) = (written(left), written(right));
    let more = |selector: &Selector, other: &[String]| {
        let chosen = selector.matchers.iter().filter(|matcher| !other.contains(&matcher.to_string()));
        chosen.map(|matcher| matcher.name().to_owned()).collect::<Vec<_>>()
    };
    let (more_left, more_right) = (more(left, &of_right), more(right, &of_left));
    let labels = if more_right.is_empty() {
        more_left
    } else if more_left.is_empty() {
        more_right
    } else {
        return None;
    };
    (!labels.is_empty() && !labels.iter().any(|label| label == NAME)).then_some(labels)
}

/// The series of `rate(name{…}[5m])` and the like, and what makes two of them count alike.
fn counted(expr: &Expr) -> Option<(&Selector, String)> {
    let Expr::Call(Call { name, function: Function::Over(_), arguments }) = expr else { return None };
    let [Expr::Window(Window { range, of: WindowOf::Series(selector) })] = arguments.as_slice() else { return None };
    let is_change = matches!(*name, "rate" | "increase" | "irate" | "delta");
    is_change.then(|| (selector, format!("{name} {range}")))
}

/// The name of the series in `histogram_quantile(q, name)` when it is not that of buckets.
fn no_buckets(call: &Call) -> Option<String> {
    if !matches!(call.function, Function::HistogramQuantile) {
        return None;
    }
    let selector = innermost(call.arguments.get(1)?)?;
    let name = selector.matchers.iter().find(|matcher| matcher.name() == NAME)?.exact()?;
    let has_edges = selector.matchers.iter().any(|matcher| matcher.name() == "le");
    (!name.ends_with("_bucket") && !name.contains(':') && !has_edges).then(|| name.to_owned())
}

/// The only selector of a part that leaves names and edges alone, or takes sums of them.
fn innermost(expr: &Expr) -> Option<&Selector> {
    match expr {
        Expr::Instant(selector) => Some(selector),
        Expr::Aggregate(parts) => innermost(&parts.expr),
        Expr::Call(call) => match call.arguments.as_slice() {
            [Expr::Window(Window { of: WindowOf::Series(selector), .. })] => Some(selector),
            _ => None,
        },
        _ => None,
    }
}

/// The rate of the buckets in place of what has none.
fn with_buckets(call: &mut Call, name: &str) {
    fn mend(expr: &mut Expr, name: &str) {
        let renamed = |selector: &mut Selector| {
            let is_name = |matcher: &&mut Matcher| matcher.name() == NAME;
            if let Some(matcher) = selector.matchers.iter_mut().find(is_name) {
                *matcher = Matcher::equal(NAME, format!("{name}_bucket"));
            }
        };
        match expr {
            Expr::Instant(selector) => {
                renamed(selector);
                let window = Window { range: 300_000, of: WindowOf::Series(selector.clone()) };
                let function = Function::Over(crate::window::rate);
                *expr = Expr::Call(Call { name: "rate", function, arguments: vec![Expr::Window(window)] });
            }
            Expr::Window(Window { of: WindowOf::Series(selector), .. }) => renamed(selector),
            Expr::Aggregate(parts) => mend(&mut parts.expr, name),
            Expr::Call(call) => call.arguments.iter_mut().for_each(|argument| mend(argument, name)),
            _ => {}
        }
    }
    if let Some(argument) = call.arguments.get_mut(1) {
        mend(argument, name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advised(query: &str) -> Option<(String, String)> {
        Query::parse(query).expect(query).advice().map(|Advice { message, instead }| (message, instead))
    }

    #[test]
    fn a_ratio_of_series_to_themselves_is_told_with_the_one_that_was_meant() {
        let (message, instead) =
            advised(r#"(rate(a{status=~"5..", x="1"}[5m]) / rate(a{x="1"}[5m])) > 0.01"#).expect("advice");
        assert_eq!(
            message,
            "both sides have the same `status` where they meet, so this is 1 for every series that it has"
        );
        assert_eq!(
            instead,
            r#"(sum without (status) (rate(a{status=~"5..",x="1"}[5m])) / sum without (status) (rate(a{x="1"}[5m]))) > 0.01"#
        );
        assert_eq!(Query::parse(&instead).expect("a query").advice(), None);
    }

    #[test]
    fn a_quantile_of_what_has_no_buckets_is_told_with_the_one_that_was_meant() {
        let (_, instead) = advised("histogram_quantile(0.95, latency_seconds) > 0.5").expect("advice");
        assert_eq!(instead, "histogram_quantile(0.95, rate(latency_seconds_bucket[5m])) > 0.5");
        let (_, instead) = advised("histogram_quantile(0.9, sum by (le) (rate(latency[1m])))").expect("advice");
        assert_eq!(instead, "histogram_quantile(0.9, sum by (le) (rate(latency_bucket[1m])))");
    }

    #[test]
    fn what_may_be_meant_as_it_is_gets_no_advice() {
        for query in [
            r#"sum(rate(a{status="500"}[5m])) / sum(rate(a[5m]))"#,
            r#"rate(a{status="500"}[5m]) / ignoring (status) rate(a{status="200"}[5m])"#,
            r#"rate(a{status="500"}[5m]) / rate(b[5m])"#,
            "rate(a[5m]) / rate(a[5m] offset 1h)",
            "rate(a[5m]) / rate(a[1h])",
            "(a - b) / a",
            "histogram_quantile(0.9, rate(a_bucket[5m]))",
            "histogram_quantile(0.9, job:latency:rate5m)",
        ] {
            assert_eq!(advised(query), None, "{query}");
        }
    }

    #[test]
    fn a_query_that_is_written_out_reads_the_same() {
        for query in [
            "sum by (a, b) (rate(x{a=\"1\"}[5m] offset 1m)) / on (a) group_left (c) (y @ 17 > bool 3)",
            "-(a + b) * topk without (a) (3, x) or vector(-1)",
            "max_over_time((a - 1)[1h:90s] @ end()) unless ignoring (z) {__name__=~\"a.*\"}",
            "label_replace(x, \"a\", \"$1\", \"b\", \"(.*)\") + Inf",
        ] {
            let once = Query::parse(query).expect(query).expr.to_string();
            let twice = Query::parse(&once).expect(&once).expr.to_string();
            assert_eq!(once, twice);
        }
    }
}
