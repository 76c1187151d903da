//! Whatever becomes of others' documents, the reader answers, soon, with places that lie within them.

use evenkeel_manifest::{Problems, manifests, read, read_theirs};
use proptest::prelude::*;

const WHOLE: &str = include_str!("theirs.yaml");

/// What a mutation may put in.
const PIECES: [&str; 22] = [
    "{",
    "}",
    "[",
    "]",
    ": ",
    "- ",
    "\n",
    "\n---\n",
    "null",
    "{}",
    "[]",
    "0",
    "-1",
    "101",
    "1e309",
    "{{args.a}}",
    "{{",
    "$(A)",
    "kind: Rollout\n",
    "pause: {}",
    "日本",
    "\"",
];

fn places_lie_within(problems: &Problems, text: &str) -> Result<(), TestCaseError> {
    for problem in problems.iter() {
        prop_assert!(text.get(problem.at()).is_some(), "{:?} of {} bytes", problem.at(), text.len());
    }
    prop_assert!(!problems.render(100, true).is_empty());
    Ok(())
}

fn check(text: &str) -> Result<(), TestCaseError> {
    for path in manifests(text) {
        prop_assert!(text.get(path.1).is_some());
    }
    match read_theirs(&[("theirs.yaml".to_owned(), text.to_owned())]) {
        Ok(read) => places_lie_within(&read.warnings, text)?,
        Err(problems) => {
            prop_assert!(problems.errors() > 0);
            places_lie_within(&problems, text)?;
        }
    }
    let own = format!("service: web\ncommand: [bin/web]\nlisten: 8080\nchecks: [{{ template: quality }}]\n---\n{text}");
    for text in [text, own.as_str()] {
        match read("evenkeel.yaml", text) {
            Ok(read) => places_lie_within(&read.warnings, text)?,
            Err(problems) => places_lie_within(&problems, text)?,
        }
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
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn good_documents_with_a_few_changes_are_answered(
        changes in proptest::collection::vec((any::<u16>(), 0..12_usize, 0..PIECES.len()), 1..6),
    ) {
        let change = |text: String, (at, out, piece): (u16, usize, usize)| mutated(&text, at.into(), out, PIECES[piece]);
        check(&changes.into_iter().fold(WHOLE.to_owned(), change))?;
    }

    #[test]
    fn documents_with_one_value_replaced_are_answered(line in any::<u16>(), piece in 0..PIECES.len()) {
        let lines: Vec<&str> = WHOLE.lines().collect();
        let n = usize::from(line) % lines.len();
        let key = lines[n].split_once(": ").map_or(lines[n], |(key, _)| key);
        let replaced = format!("{key}: {}", PIECES[piece].trim());
        let text: Vec<&str> = lines.iter().enumerate().map(|(at, line)| if at == n { &*replaced } else { line }).collect();
        check(&text.join("\n"))?;
    }
}

#[test]
fn documents_that_stand_for_much_more_than_they_are_long_are_refused_soon() {
    let metrics = "  - { name: a, provider: { web: { url: 'http://a' } }, successCondition: 'true' }\n".repeat(4_000);
    let templates = "[".to_owned() + &"{ templateName: big }, ".repeat(8_000) + "]";
    let steps = format!("- analysis: {{ templates: {} }}\n      ", "[{ templateName: big }]").repeat(5_000);
    let args = "{ name: a, value: b }, ".repeat(10_000);
    let routes = "- setHeaderRoute: { name: a, match: [{ headerName: a }] }\n      - pause: {}\n      ".repeat(4_000);
    let template =
        format!("apiVersion: a\nkind: AnalysisTemplate\nmetadata: {{ name: big }}\nspec:\n  metrics:\n{metrics}");
    let rollout = |analysis: &str, steps: &str| {
        format!(
            "apiVersion: a\nkind: Rollout\nmetadata: {{ name: web }}\nspec:\n  strategy:\n    canary:\n      analysis: {analysis}\n      \
             steps:\n      {steps}\n---\n{template}"
        )
    };
    let texts = [
        rollout(&format!("{{ templates: {templates} }}"), "- pause: {}"),
        rollout(&format!("{{ templates: [{{ templateName: big }}], args: [{args}] }}"), "- pause: {}"),
        rollout("{ templates: [{ templateName: big }] }", &steps),
        rollout("{ templates: [{ templateName: big }] }", &routes),
    ];
    for text in texts {
        assert!(read_theirs(&[("theirs.yaml".to_owned(), text)]).is_err());
    }
}

#[test]
fn the_documents_that_are_changed_here_are_good_themselves() {
    let read = read_theirs(&[("theirs.yaml".to_owned(), WHOLE.to_owned())]);
    let read = read.unwrap_or_else(|problems| panic!("{}", problems.render(140, false)));
    let names: Vec<&str> = read.specs.iter().map(|spec| spec.service.as_str()).collect();
    assert_eq!(names, ["web", "preview", "shop", "paint", "plain"]);
}
