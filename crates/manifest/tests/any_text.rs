//! Whatever the text, the reader answers, soon, with places that lie within it.

use evenkeel_core::ids::BasisPoints;
use evenkeel_core::plan::Plan;
use evenkeel_core::spec::{Spec, Strategy};
use evenkeel_manifest::{Problems, read};
use proptest::prelude::*;

const WHOLE: &str = include_str!("whole.yaml");

/// What a mutation may put in.
const PIECES: [&str; 24] = [
    "{",
    "}",
    "[",
    "]",
    ": ",
    "- ",
    "\n",
    "\n---\n",
    "\t",
    "\"",
    "'",
    "&a ",
    "*a",
    "? ",
    "| ",
    "!!str ",
    "{{version}}",
    "{{",
    "ü",
    "日本",
    "\u{0}",
    "5%",
    "null",
    "\r\n",
];

fn check(text: &str) -> Result<(), TestCaseError> {
    match read("evenkeel.yaml", text) {
        Ok(read) => {
            prop_assert!(!read.specs.is_empty());
            read.specs.iter().try_for_each(can_be_done)?;
            places_lie_within(&read.warnings, text)
        }
        Err(problems) => {
            prop_assert!(problems.errors() > 0);
            places_lie_within(&problems, text)
        }
    }
}

fn places_lie_within(problems: &Problems, text: &str) -> Result<(), TestCaseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for problem in problems.iter() {
        prop_assert!(text.get(problem.at()).is_some(), "{:?} of {} bytes", problem.at(), text.len());
    }
    prop_assert!(problems.render(100, true).contains("evenkeel.yaml: "));
    prop_assert!(problems.to_json().as_array().is_some_and(|rows| rows.len() == problems.iter().count()));
    Ok(())
}

fn can_be_done(spec: &Spec) -> Result<(), TestCaseError> {
    prop_assert!(!spec.command.is_empty() && (1..=1_000).contains(&spec.replicas));
    prop_assert!(spec.minimum_requests > 0 && spec.analysis.false_rollbacks > 0.0);
    prop_assert!(spec.listen.is_none_or(|listen| listen.port() > 0));
    prop_assert!(spec.listen.is_none() || spec.listen != spec.preview);
    // Whatever was read can be planned.
    for stable in [0, 1, spec.replicas, 1_000] {
        let plan = Plan::of(spec, stable);
        prop_assert!(plan.steps.iter().all(|step| step.replicas <= 1_000));
        prop_assert_eq!(plan.steps.last().map(|step| step.weight), Some(BasisPoints::ALL));
    }
    if let Strategy::Canary { steps, .. } = &spec.strategy {
        prop_assert!(steps.is_sorted_by(|a, b| a.weight <= b.weight));
        prop_assert_eq!(steps.last().map(|step| step.weight), Some(BasisPoints::ALL));
    }
    Ok(())
}

/// `text` with characters from `at` on taken out and a piece put in.
fn mutated(text: &str, at: usize, out: usize, piece: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = at % (chars.len() + 1);
    let rest = chars.iter().skip(at + out);
    chars[..at].iter().copied().chain(piece.chars()).chain(rest.copied()).collect()
}

proptest! {
    #[test]
    fn arbitrary_text_is_answered(text in "\\PC{0,200}") {
        check(&text)?;
    }

    #[test]
    fn pieces_of_yaml_in_any_order_are_answered(pieces in proptest::collection::vec(0..PIECES.len(), 0..60)) {
        check(&pieces.iter().map(|piece| PIECES[*piece]).collect::<String>())?;
    }

    #[test]
    fn a_good_file_with_a_few_changes_is_answered(
        changes in proptest::collection::vec((any::<u16>(), 0..4_usize, 0..PIECES.len()), 1..5),
    ) {
        let change = |text: String, (at, out, piece): (u16, usize, usize)| mutated(&text, at.into(), out, PIECES[piece]);
        check(&changes.into_iter().fold(WHOLE.to_owned(), change))?;
    }

    #[test]
    fn a_file_that_ends_too_early_is_answered(end in any::<u16>()) {
        check(&WHOLE.chars().take(usize::from(end) % WHOLE.len()).collect::<String>())?;
    }
}

#[test]
fn the_file_that_is_changed_here_is_good_itself() {
    let read = read("whole.yaml", WHOLE).unwrap_or_else(|problems| panic!("{}", problems.render(100, false)));
    assert!(read.warnings.is_empty(), "{}", read.warnings);
}

#[test]
fn a_mebibyte_of_anything_is_answered() {
    let laughs = (1..40).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
        format!("{text}a{n}: &a{n} [*a{0}, *a{0}, *a{0}, *a{0}]\n", n - 1)
    });
    let steps = "strategy: { canary: { steps: [".to_owned() + &"{ weight: 5%, hold: 1s }, ".repeat(35_000) + "] } }";
    let pieces = [
        "[",
        "{",
        "- ",
        "? ",
        "a: ",
        "&a ",
        "!!str ",
        "x: y\n",
        "é",
        "\"",
        "|\n",
        "---\n",
        "a: 1\n---\n",
        "\t",
        "[a, ",
    ];
    let repeated = pieces.iter().map(|piece| piece.repeat((1 << 20) / piece.len()));
    for text in repeated.chain([laughs, steps, " ".repeat((1 << 20) + 1)]) {
        let start = text.chars().take(20).collect::<String>();
        let problems = read("evenkeel.yaml", &text).err();
        assert!(problems.is_some_and(|problems| problems.errors() > 0), "{start}");
    }
}
