//! The index changes nothing about what rules mean.

use proptest::prelude::*;

use super::*;
use crate::pattern::{Part, Pattern};
use crate::predicate::{Comparison, Number, RegexFlags};

/// The meaning of a rule, written down without regard to speed.
fn reference(expr: &Expr, values: &Values<'_>) -> bool {
    match expr {
        Expr::Ask(q) => answer(q, values),
        Expr::Not(inner) => !reference(inner, values),
        Expr::All(parts) => parts.iter().all(|p| reference(p, values)),
        Expr::Any(parts) => parts.iter().any(|p| reference(p, values)),
        Expr::AtLeast(n, parts) => parts.iter().filter(|p| reference(p, values)).count() >= *n,
    }
}

fn answer(q: &Question, values: &Values<'_>) -> bool {
    let text = match values.get(q.field) {
        Value::Absent => return false,
        Value::Text(text) => text.to_owned(),
        Value::Number(n) => n.to_string(),
    };
    let fold = |s: &str, cased: bool| if cased { s.to_owned() } else { s.to_ascii_lowercase() };
    match &q.test {
        Test::Exists => true,
        Test::Literal { place, bytes, cased } => {
            let literal = fold(std::str::from_utf8(bytes).unwrap(), *cased);
            let text = fold(&text, *cased);
            match place {
                Place::Whole => text == literal,
                Place::Start => text.starts_with(&literal),
                Place::End => text.ends_with(&literal),
                Place::Anywhere => text.contains(&literal),
            }
        }
        // Their own definitions are tested beside them; here it is about the index.
        _ => Predicate::new(q.clone()).unwrap().holds(values),
    }
}

fn test() -> impl Strategy<Value = Test> {
    let place = prop_oneof![Just(Place::Whole), Just(Place::Start), Just(Place::End), Just(Place::Anywhere)];
    prop_oneof![
        4 => (place, "[abAB]{0,3}", any::<bool>())
            .prop_map(|(place, l, cased)| Test::Literal { place, bytes: l.into_bytes(), cased }),
        1 => "[ab*?]{1,5}".prop_map(|p| Test::from_pattern(Pattern::parse(&p), false)),
        1 => prop::sample::select(vec!["a+b", "^(ab|ba)", "(a|b)?", "[ab]b$", "aa|bb", "(?i)aB"]).prop_map(|e| {
            Test::Regex { expression: e.to_owned(), flags: RegexFlags::default() }
        }),
        1 => Just(Test::Exists),
        1 => (0i64..3).prop_map(|n| Test::Number { comparison: Comparison::Gte, bound: Number::Whole(n) }),
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    // Two fields of text, one of numbers.
    let leaf = (prop::sample::select(vec![0u8, 1, 7]), test())
        .prop_map(|(field, test)| Expr::Ask(Question { field: Field(field), test }));
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(Expr::not),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Expr::All),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Expr::Any),
            (1usize..3, prop::collection::vec(inner, 2..4)).prop_map(|(n, parts)| Expr::AtLeast(n, parts)),
        ]
    })
}

fn value() -> impl Strategy<Value = Option<String>> {
    // Short ones come again, which what is kept of the last event must not change.
    prop::option::weighted(0.9, prop_oneof!["[abABß]{0,6}", "[ab]{1,2}"])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn agrees_with_the_meaning_of_the_rules(
        rules in prop::collection::vec(expr(), 1..8),
        events in prop::collection::vec((value(), value(), prop::option::of(0i64..3)), 1..8),
    ) {
        let mut builder = MatcherBuilder::new(Class::ProcessCreation);
        for (number, rule) in (0u32..).zip(&rules) {
            builder.add(number, rule).unwrap();
        }
        let matcher = builder.build().unwrap();
        let mut answers = Answers::new(&matcher);
        for (a, b, n) in &events {
            let mut values = Values::none();
            values.fixed[0] = a.as_deref().map_or(Value::Absent, Value::Text);
            values.fixed[1] = b.as_deref().map_or(Value::Absent, Value::Text);
            values.fixed[7] = n.map_or(Value::Absent, Value::Number);
            let mut found = Vec::new();
            matcher.run(&values, &mut answers, &mut found);
            let expected: Vec<u32> =
                (0u32..).zip(&rules).filter(|(_, r)| reference(r, &values)).map(|(n, _)| n).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn answers_of_one_event_are_not_those_of_the_next_even_when_the_count_wraps() {
    let parts = vec![Part::Many, Part::Literal(b"x".to_vec()), Part::Many];
    let question = Question { field: Field(0), test: Test::from_pattern(Pattern { parts }, false) };
    let mut builder = MatcherBuilder::new(Class::ProcessCreation);
    builder.add(0, &Expr::Ask(question)).unwrap();
    let matcher = builder.build().unwrap();
    let mut answers = Answers::new(&matcher);
    let run = |answers: &mut Answers, text| {
        let mut values = Values::none();
        values.fixed[0] = Value::Text(text);
        let mut found = Vec::new();
        matcher.run(&values, answers, &mut found);
        found.len()
    };
    assert_eq!((run(&mut answers, "x"), run(&mut answers, "y")), (1, 0));
    answers.epoch = (1 << 30) - 2;
    assert_eq!((run(&mut answers, "x"), run(&mut answers, "y"), run(&mut answers, "x")), (1, 0, 1));
}
