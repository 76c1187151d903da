//! From text to tree.
//!
//! `promql-parser` parses. What it cannot do is done around it: it keeps no places, so messages find theirs in the
//! tokens; it accepts more than is evaluated here, which is refused by name; and it counts on durations that fit and on
//! nesting that the stack carries, which is looked at before it is asked.

use std::time::{Duration, SystemTime};

use evenkeel_series::{Matcher, Relation, labels::NAME};
use promql_parser::label::{MatchOp, Matcher as ParsedMatcher, Matchers};
use promql_parser::parser::{
    self, AggregateExpr, AtModifier, BinModifier, BinaryExpr, Call as ParsedCall, Expr as Parsed, LabelModifier,
    Offset, SubqueryExpr, VectorMatchCardinality, VectorSelector,
};

use crate::eval;
use crate::expr::{Aggregate, At, Binary, Call, Expr, Group, Grouping, Matching, Selector, When, Window, WindowOf};
use crate::query::BadQuery;
use crate::subset::{self, Aggregation, Function, Operator};
use crate::tokens::{Sort, Token, tokens};

/// Longest query, in bytes.
const BYTES_MAX: usize = 16 << 10;
/// Deepest nesting of brackets.
const DEPTH_MAX: usize = 48;
/// Most operators and windows: `a or b or c …` nests as deep as it is long.
const OPERATORS_MAX: usize = 192;
/// Longest duration: 100 years, in seconds.
const SECONDS_MAX: f64 = 3.2e9;
/// Help with a pattern.
const RE2: &str =
    "patterns are regular expressions as RE2 knows them; a sign that stands for itself has `\\\\` before it";
/// What the parser says when it cannot read on.
const NOT_A_QUERY: &str = "invalid promql query";
/// Ends that make a query of the beginning of one, and how many brackets of the beginning they close.
const ENDS: [(&str, usize); 15] = [
    ("", 0),
    (" x", 0),
    (" 1", 0),
    ("(x)", 0),
    (" (a) x", 0),
    (" (a) (x)", 0),
    ("5m", 0),
    ("\"a\"", 0),
    (",x", 0),
    (",\"a\"", 0),
    ("[5m])", 1),
    ("=\"a\"}", 1),
    ("}", 1),
    ("a=\"b\"}", 1),
    ("5m]", 1),
];
/// What may stand before an opening parenthesis beside functions and aggregations.
const KEYWORDS: [&str; 15] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "and",
    "or",
    "unless",
    "atan2",
    "offset",
    "start",
    "end",
    "inf",
];
/// What the parser knows and Prometheus has, but evenkeel does not evaluate.
const OUTSIDE: [&str; 28] = [
    "double_exponential_smoothing",
    "end",
    "first_over_time",
    "histogram_avg",
    "histogram_count",
    "histogram_fraction",
    "histogram_quantiles",
    "histogram_stddev",
    "histogram_stdvar",
    "histogram_sum",
    "holt_winters",
    "info",
    "integral",
    "limit_ratio",
    "limitk",
    "mad_over_time",
    "max_of",
    "min_of",
    "range",
    "sort_by_label",
    "sort_by_label_desc",
    "start_timestamp",
    "step",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
    "start",
];
/// Modifiers of a later PromQL than the one that is evaluated.
const OUTSIDE_MODIFIERS: [&str; 5] = ["fill", "fill_left", "fill_right", "smoothed", "anchored"];

/// Reads a query; answers its tree and the number of its selectors.
pub(crate) fn read(text: &str) -> Result<(Expr, usize), Vec<BadQuery>> {
    if text.len() > BYTES_MAX {
        let help = format!("a query has at most {BYTES_MAX} bytes: split it, or record parts of it by rules");
        return Err(vec![BadQuery::new(0..0, "this query is too long").help(help)]);
    }
    let tokens = tokens(text).map_err(|bad| vec![bad])?;
    let bad = refused(text, &tokens);
    if !bad.is_empty() {
        return Err(bad);
    }
    let parsed = parser::parse(text).map_err(|why| vec![misread(text, &tokens, &why)])?;
    let mut reader = Reader { text, tokens: &tokens, selectors: 0, bad: Vec::new() };
    let expr = reader.expr(&parsed);
    match expr {
        Some(expr) if reader.bad.is_empty() => Ok((expr, reader.selectors)),
        _ => Err(reader.bad),
    }
}

/// Everything that keeps the query from being parsed, or evaluated.
fn refused(text: &str, tokens: &[Token]) -> Vec<BadQuery> {
    if tokens.is_empty() {
        return vec![
            BadQuery::new(0..text.len(), "there is no query")
                .help("write one, such as `sum(rate(http_requests_total[5m]))`"),
        ];
    }
    let mut bad: Vec<BadQuery> = unpaired(text, tokens).into_iter().collect();
    let mut operators = 0;
    for (n, token) in tokens.iter().enumerate() {
        let word = token.text(text);
        let (before, after) = (n.checked_sub(1).map(|n| &tokens[n]), tokens.get(n + 1));
        let is = |token: Option<&Token>, sign: &str| token.is_some_and(|token| token.text(text) == sign);
        match token.sort {
            Sort::Word if is(after, "(") => bad.extend(unknown(token, word, is(before, "{"))),
            Sort::Word if OUTSIDE_MODIFIERS.contains(&&*word.to_lowercase()) && n > 0 => {
                bad.push(outside(token, &format!("`{word}`")));
            }
            Sort::Number => bad.extend(bad_duration(text, tokens, n)),
            // Numbers to the parser, which ends the program where they stand for a duration.
            Sort::Word if is_endless(word) && !is(before, "[") => bad.extend(bad_duration(text, tokens, n)),
            _ => {}
        }
        if is(before, "[") && token.sort != Sort::Number && word != "]" {
            let message = format!("`{word}` is no duration");
            bad.push(BadQuery::new(token.at.clone(), message).help("write one such as `5m` or `1h30m`"));
        }
        let is_sign =
            token.sort == Sort::Sign && !matches!(word, "(" | ")" | "{" | "}" | "]" | "," | ":" | "=" | "=~" | "!~");
        operators += usize::from(is_sign || matches!(&*word.to_lowercase(), "and" | "or" | "unless" | "atan2"));
        if operators == OPERATORS_MAX + 1 {
            let help =
                format!("a query has at most {OPERATORS_MAX} operators and windows: record parts of it by rules");
            bad.push(BadQuery::new(token.at.clone(), "there are too many operators").help(help));
        }
    }
    bad.truncate(20);
    bad
}

/// Brackets that are not closed, or not opened, or nested too deep.
fn unpaired(text: &str, tokens: &[Token]) -> Option<BadQuery> {
    let mut open: Vec<(&Token, &str)> = Vec::new();
    for token in tokens.iter().filter(|token| token.sort == Sort::Sign) {
        let closes = match token.text(text) {
            "(" => {
                open.push((token, ")"));
                continue;
            }
            "[" => {
                open.push((token, "]"));
                continue;
            }
            "{" => {
                open.push((token, "}"));
                continue;
            }
            sign @ (")" | "]" | "}") => sign,
            _ => continue,
        };
        match open.pop() {
            Some((_, wanted)) if wanted == closes => {}
            Some((first, wanted)) => {
                let message = format!("`{closes}` closes `{}`", first.text(text));
                return Some(BadQuery::new(token.at.clone(), message).help(format!("write `{wanted}` here")));
            }
            None => return Some(BadQuery::new(token.at.clone(), format!("`{closes}` closes nothing"))),
        }
        if open.len() > DEPTH_MAX {
            break;
        }
    }
    let (first, wanted) = open.get(DEPTH_MAX).or(open.first())?;
    if open.len() > DEPTH_MAX {
        let help = format!("brackets nest at most {DEPTH_MAX} deep");
        return Some(BadQuery::new(first.at.clone(), "this query is nested too deep").help(help));
    }
    let message = format!("`{}` is not closed", first.text(text));
    Some(BadQuery::new(first.at.clone(), message).help(format!("write `{wanted}` where it ends")))
}

/// A name before a parenthesis that is no function and no keyword.
fn unknown(token: &Token, word: &str, is_label: bool) -> Option<BadQuery> {
    let lower = word.to_lowercase();
    let is_known = Function::named(word).is_some()
        || Aggregation::named(&lower).is_some()
        || KEYWORDS.contains(&&*lower)
        || OUTSIDE_MODIFIERS.contains(&&*lower)
        || is_label;
    if is_known {
        return OUTSIDE_MODIFIERS.contains(&&*lower).then(|| outside(token, &format!("`{word}`")));
    }
    if OUTSIDE.contains(&&*lower) {
        return Some(outside(token, &format!("`{word}`")));
    }
    let nearest = subset::functions()
        .chain(subset::aggregations())
        .map(|known| (strsim::damerau_levenshtein(word, known), known))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    let help = match nearest {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None => "docs/promql.md lists the functions".to_owned(),
    };
    Some(BadQuery::new(token.at.clone(), format!("there is no function `{word}`")).help(help))
}

fn outside(token: &Token, what: &str) -> BadQuery {
    let help = "docs/promql.md lists what is; a Prometheus server evaluates all of it";
    BadQuery::new(token.at.clone(), format!("{what} is not evaluated by evenkeel")).help(help)
}

/// A number that is written as a word.
fn is_endless(word: &str) -> bool {
    ["inf", "nan"].iter().any(|number| word.eq_ignore_ascii_case(number))
}

/// A duration that the parser would stumble over; numbers elsewhere are its own business.
fn bad_duration(text: &str, tokens: &[Token], n: usize) -> Option<BadQuery> {
    let before = |back: usize| n.checked_sub(back).map_or("", |at| tokens[at].text(text));
    let is_offset = |word: &str| word.eq_ignore_ascii_case("offset");
    let is_duration = matches!(before(1), "[" | ":")
        || is_offset(before(1))
        || matches!(before(1), "+" | "-") && is_offset(before(2));
    let written = tokens[n].text(text);
    let seconds = seconds(written);
    let is_plain = written.parse::<f64>().is_ok();
    // A number with a unit is one everywhere; a number alone only where a duration must stand.
    if !is_duration && (is_plain || seconds.is_some() || !written.ends_with(['s', 'm', 'h', 'd', 'w', 'y'])) {
        return None;
    }
    match seconds {
        Some(seconds) if seconds > 0.0 && seconds <= SECONDS_MAX => None,
        Some(seconds) if seconds > 0.0 => {
            Some(BadQuery::new(tokens[n].at.clone(), "this duration is too long").help("take one of at most 100 years"))
        }
        _ => {
            let message = format!("`{written}` is no duration");
            Some(BadQuery::new(tokens[n].at.clone(), message).help("write one such as `5m` or `1h30m`"))
        }
    }
}

/// The seconds that a number or a duration says; units must come in the order of their length, each at most once.
fn seconds(written: &str) -> Option<f64> {
    if let Ok(seconds) = written.parse::<f64>() {
        return (seconds.is_finite() && written.starts_with(|c: char| c.is_ascii_digit() || c == '.'))
            .then_some(seconds);
    }
    const UNITS: [(&str, f64); 7] = [
        ("y", 31_536_000.0),
        ("w", 604_800.0),
        ("d", 86_400.0),
        ("h", 3_600.0),
        ("m", 60.0),
        ("s", 1.0),
        ("ms", 0.001),
    ];
    let (mut rest, mut sum, mut units) = (written, 0.0, &UNITS[..]);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|digits| (1..=9).contains(digits))?;
        let (count, unit) = rest.split_at(digits);
        let unit = &unit[..unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len())];
        let place = units.iter().position(|(known, _)| *known == unit)?;
        sum += count.parse::<f64>().ok()? * units[place].1;
        units = &units[place + 1..];
        rest = &rest[digits + unit.len()..];
    }
    Some(sum)
}

/// What the parser says, at the place where it stopped: the first token with which no query can begin any more.
fn misread(text: &str, tokens: &[Token], why: &str) -> BadQuery {
    let can_begin = |count: usize| {
        let Some(last) = count.checked_sub(1).map(|last| &tokens[last]) else { return true };
        let open = open_brackets(text, &tokens[..count]);
        ENDS.iter().filter(|(_, closes)| *closes <= open.len()).any(|(end, closes)| {
            let rest: String = open[..open.len() - closes].iter().rev().copied().collect();
            let tried = format!("{}{end}{rest}", &text[..last.at.end]);
            match parser::lexer(&tried).is_ok().then(|| parser::parse(&tried)) {
                Some(Ok(_)) => true,
                Some(Err(other)) => other != why && other != NOT_A_QUERY,
                None => false,
            }
        })
    };
    // The longest beginning that can still become a query, found by halving.
    let (mut good, mut bad) = (0, tokens.len());
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        if can_begin(middle) { good = middle } else { bad = middle }
    }
    let stopped = bad.min(tokens.len()).saturating_sub(1);
    if why == NOT_A_QUERY {
        let message = match stopped + 1 == tokens.len() && can_begin(tokens.len()) {
            true => "the query ends too early".to_owned(),
            false => format!("`{}` cannot stand here", tokens[stopped].text(text)),
        };
        return BadQuery::new(tokens[stopped].at.clone(), message);
    }
    // The parser names functions in its messages: the last one of that name before the place is meant.
    let name = why.split('\'').nth(1);
    let named = name.and_then(|name| tokens[..=stopped].iter().rfind(|token| token.text(text) == name));
    let at = named.unwrap_or(&tokens[stopped]).at.clone();
    let (message, help) = plainly(why, name.unwrap_or("this"));
    BadQuery::new(at, message).help(help)
}

/// What the parser means, and what would be right.
fn plainly(why: &str, name: &str) -> (String, &'static str) {
    let says = |parts: &[&str]| parts.iter().all(|part| why.contains(part));
    let bool_help = "write `bool` behind the operator to get 0 or 1";
    let vector_help = "make a vector of a number with `vector(…)`";
    let range_help = "write a range behind the selector, such as `up[5m]`";
    let instant_help = "take the range away, or give it to a function such as `rate`";
    if says(&["expected type matrix", "got vector"]) {
        (format!("`{name}` needs samples over a while"), range_help)
    } else if says(&["expected type", "got matrix"]) {
        ("samples over a while cannot stand here".to_owned(), instant_help)
    } else if says(&["BOOL modifier"]) {
        ("a comparison of two numbers leaves nothing to choose".to_owned(), bool_help)
    } else if says(&["set operator"]) {
        (format!("`{name}` stands between two vectors"), vector_help)
    } else if let Some(pattern) = why.strip_prefix("illegal regex for ") {
        (format!("the pattern `{pattern}` cannot be used"), RE2)
    } else {
        (why.replace(['\'', '<', '>'], "`"), "")
    }
}

/// The brackets that are open after some tokens, as what closes them, innermost last.
fn open_brackets(text: &str, tokens: &[Token]) -> Vec<&'static str> {
    let mut open = Vec::new();
    for token in tokens.iter().filter(|token| token.sort == Sort::Sign) {
        match token.text(text) {
            "(" => open.push(")"),
            "[" => open.push("]"),
            "{" => open.push("}"),
            ")" | "]" | "}" => drop(open.pop()),
            _ => {}
        }
    }
    open
}

/// Turns what was parsed into what can be evaluated.
struct Reader<'a> {
    text: &'a str,
    tokens: &'a [Token],
    selectors: usize,
    bad: Vec<BadQuery>,
}

impl Reader<'_> {
    /// The first place of a text in the query; all of the query when there is none.
    fn place(&self, wanted: &str) -> std::ops::Range<usize> {
        let is_quoted =
            |token: &&Token| token.sort == Sort::Text && token.text(self.text).trim_matches(['"', '\'', '`']) == wanted;
        let quoted = self.tokens.iter().find(is_quoted);
        let token = quoted.or_else(|| self.tokens.iter().find(|token| token.text(self.text) == wanted));
        token.map_or(0..self.text.len(), |token| token.at.clone())
    }

    fn refuse(&mut self, wanted: &str, message: impl Into<String>, help: &str) {
        self.bad.push(BadQuery::new(self.place(wanted), message).help(help));
    }

    fn expr(&mut self, parsed: &Parsed) -> Option<Expr> {
        Some(match parsed {
            Parsed::NumberLiteral(number) => Expr::Number(number.val),
            Parsed::StringLiteral(text) => Expr::Text(text.val.clone()),
            Parsed::Paren(inner) => self.expr(&inner.expr)?,
            Parsed::Unary(inner) => Expr::Negated(Box::new(self.expr(&inner.expr)?)),
            Parsed::VectorSelector(selector) => Expr::Instant(self.selector(selector)?),
            Parsed::MatrixSelector(parsed) => {
                let of = WindowOf::Series(self.selector(&parsed.vs)?);
                Expr::Window(Window { range: milliseconds(parsed.range), of })
            }
            Parsed::Subquery(parsed) => self.subquery(parsed)?,
            Parsed::Binary(parsed) => self.binary(parsed)?,
            Parsed::Aggregate(parsed) => self.aggregate(parsed)?,
            Parsed::Call(parsed) => self.call(parsed)?,
            Parsed::Extension(_) => return None,
        })
    }

    fn selector(&mut self, parsed: &VectorSelector) -> Option<Selector> {
        let Matchers { matchers, or_matchers } = &parsed.matchers;
        if !or_matchers.is_empty() {
            self.refuse(
                "or",
                "`or` between matchers is not evaluated by evenkeel",
                "write two selectors with `or` between them",
            );
        }
        let name = parsed.name.as_ref().map(|name| Matcher::equal(NAME, name));
        let named: Vec<Option<Matcher>> = matchers.iter().map(|matcher| self.matcher(matcher)).collect();
        let matchers = name.into_iter().map(Some).chain(named).collect::<Option<Vec<Matcher>>>()?;
        let id = self.selectors;
        self.selectors += 1;
        Some(Selector { id, matchers, when: when(parsed.at.as_ref(), parsed.offset.as_ref()) })
    }

    fn matcher(&mut self, parsed: &ParsedMatcher) -> Option<Matcher> {
        let relation = match parsed.op {
            MatchOp::Equal => Relation::Equal,
            MatchOp::NotEqual => Relation::Unequal,
            MatchOp::Re(_) => Relation::Like,
            MatchOp::NotRe(_) => Relation::Unlike,
        };
        match Matcher::new(&parsed.name, relation, &parsed.value) {
            Ok(matcher) => Some(matcher),
            Err(bad) => {
                self.refuse(&parsed.value, bad.to_string(), RE2);
                None
            }
        }
    }

    fn subquery(&mut self, parsed: &SubqueryExpr) -> Option<Expr> {
        let of = WindowOf::Subquery {
            expr: Box::new(self.expr(&parsed.expr)?),
            step: parsed.step.map(milliseconds).filter(|step| *step > 0),
            when: when(parsed.at.as_ref(), parsed.offset.as_ref()),
        };
        Some(Expr::Window(Window { range: milliseconds(parsed.range), of }))
    }

    fn binary(&mut self, parsed: &BinaryExpr) -> Option<Expr> {
        let sign = parsed.op.to_string();
        let Some(operator) = Operator::named(&sign) else {
            self.refuse(&sign, format!("`{sign}` is not evaluated by evenkeel"), "");
            return None;
        };
        let (left, right) = (self.expr(&parsed.lhs), self.expr(&parsed.rhs));
        let matching = parsed
            .modifier
            .as_ref()
            .map_or_else(|| Matching { labels: Grouping::AllBut(Vec::new()), group: Group::OneToOne }, matching);
        let is_bool = parsed.return_bool();
        Some(Expr::Binary(Box::new(Binary { operator, left: left?, right: right?, is_bool, matching })))
    }

    fn aggregate(&mut self, parsed: &AggregateExpr) -> Option<Expr> {
        let name = parsed.op.to_string();
        let Some(aggregation) = Aggregation::named(&name) else {
            self.refuse(&name, format!("the aggregation `{name}` is not evaluated by evenkeel"), "");
            return None;
        };
        let parameter = match &parsed.param {
            Some(parameter) => Some(self.expr(parameter)?),
            None => None,
        };
        let grouping = parsed.modifier.as_ref().map_or(Grouping::Only(Vec::new()), grouping);
        Some(Expr::Aggregate(Box::new(Aggregate { aggregation, grouping, parameter, expr: self.expr(&parsed.expr)? })))
    }

    fn call(&mut self, parsed: &ParsedCall) -> Option<Expr> {
        let name = parsed.func.name;
        let Some(function) = Function::named(name) else {
            self.refuse(name, format!("the function `{name}` is not evaluated by evenkeel"), "");
            return None;
        };
        let arguments: Vec<Option<Expr>> = parsed.args.args.iter().map(|argument| self.expr(argument)).collect();
        let arguments = arguments.into_iter().collect::<Option<Vec<Expr>>>()?;
        if let (Function::LabelReplace, Some(Expr::Text(pattern))) = (function, arguments.get(4))
            && eval::pattern(pattern).is_none()
        {
            self.refuse(pattern, format!("the pattern `{pattern}` cannot be used"), RE2);
        }
        Some(Expr::Call(Call { name, function, arguments }))
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn when(at: Option<&AtModifier>, offset: Option<&Offset>) -> When {
    let moment = |time: &SystemTime| match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => milliseconds(since),
        Err(before) => -milliseconds(before.duration()),
    };
    let at = at.map(|at| match at {
        AtModifier::Start => At::Start,
        AtModifier::End => At::End,
        AtModifier::At(time) => At::Moment(moment(time)),
    });
    let offset = match offset {
        None => 0,
        Some(Offset::Pos(earlier)) => milliseconds(*earlier),
        Some(Offset::Neg(later)) => -milliseconds(*later),
    };
    When { at, offset }
}

fn grouping(parsed: &LabelModifier) -> Grouping {
    match parsed {
        LabelModifier::Include(labels) => Grouping::Only(labels.labels.clone()),
        LabelModifier::Exclude(labels) => Grouping::AllBut(labels.labels.clone()),
    }
}

fn matching(modifier: &BinModifier) -> Matching {
    let group = match &modifier.card {
        VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => Group::OneToOne,
        VectorMatchCardinality::ManyToOne(labels) => Group::ManyToOne(labels.labels.clone()),
        VectorMatchCardinality::OneToMany(labels) => Group::OneToMany(labels.labels.clone()),
    };
    Matching { labels: modifier.matching.as_ref().map_or(Grouping::AllBut(Vec::new()), grouping), group }
}
