//! `profile learn`, `profile check`, `profile diff`.

use std::path::Path;

use defender_detect::profile::{difference, Document, Entry, Facet, Learner, MAX_BYTES};
use defender_model::text::printable;
use serde_json::{json, Map, Value};

use super::arguments::Given;
use super::{complain, query, replay, Failure, Outcome, Streams};
use crate::profile::{load, Problem};

/// Learns from recordings and prints, or writes, the profile.
pub(super) fn learn(given: &Given, streams: &mut Streams<'_>) -> Result<Outcome, Failure> {
    if given.arguments.is_empty() {
        return Err(Failure::usage("no recording to learn from; name files of events, or `-`"));
    }
    let mut learner = Learner::default();
    let (mut events, mut not_understood) = (0, 0);
    for path in &given.arguments {
        let counts = replay::read(path, &mut *streams.input, &mut |events| {
            events.drain(..).for_each(|event| learner.learn(&event));
            Ok(())
        })?;
        events += counts.events;
        not_understood += counts.not_understood;
    }
    let (used, left_out) = (learner.used(), learner.left_out());
    let document = learner.finish();
    let text = document.to_toml();
    if text.len() > MAX_BYTES {
        let words =
            format!("the profile would have {} bytes; an agent reads at most {MAX_BYTES}", text.len());
        return Err(Failure::failed(words));
    }
    let sizes = sizes(&document);
    match &given.posture.output {
        None => streams.output.write_all(text.as_bytes())?,
        Some(file) => {
            std::fs::write(file, &text)
                .map_err(|error| Failure::failed(format!("cannot write {}: {error}", file.display())))?;
            if given.json {
                query::print(streams.output, &Value::Object(sizes.clone()))?;
            }
        }
    }
    streams.output.flush()?;
    complain(streams, &format!("{used} of {events} events told something: {}", listed(&sizes)));
    if left_out > 0 {
        complain(
            streams,
            &format!("{left_out} events were left out: too much, or names longer than any path"),
        );
    }
    if not_understood > 0 {
        complain(streams, &format!("{not_understood} lines were not understood"));
    }
    Ok(if used == 0 { Outcome::No } else { Outcome::Fine })
}

/// Checks a profile.
pub(super) fn check(given: &Given, streams: &mut Streams<'_>) -> Result<Outcome, Failure> {
    let [document] = documents(given)?;
    let (sizes, wide) = (sizes(&document), document.too_wide());
    if given.json {
        let mut answer = sizes;
        let wide = wide.iter().map(|(entry, why)| {
            let mut entry = object(entry);
            entry.insert("why".to_owned(), (*why).into());
            Value::Object(entry)
        });
        answer.insert("too_wide".to_owned(), wide.collect());
        query::print(streams.output, &Value::Object(answer))?;
    } else {
        for (entry, why) in &wide {
            writeln!(streams.output, "{}: {why}", printable(&entry.to_string()))?;
        }
        writeln!(streams.output, "{}; {} too wide", listed(&sizes), wide.len())?;
    }
    Ok(if wide.is_empty() { Outcome::Fine } else { Outcome::No })
}

/// Shows what two profiles do not have in common.
pub(super) fn diff(given: &Given, streams: &mut Streams<'_>) -> Result<Outcome, Failure> {
    let [old, new] = documents(given)?;
    let changes = difference(&old, &new);
    if given.json {
        let changes = changes.iter().map(|(new, entry)| {
            let mut entry = object(entry);
            entry.insert("change".to_owned(), if *new { "added" } else { "removed" }.into());
            Value::Object(entry)
        });
        query::print(streams.output, &json!({ "changes": changes.collect::<Value>() }))?;
    } else {
        for (new, entry) in &changes {
            let sign = if *new { '+' } else { '-' };
            writeln!(streams.output, "{sign} {}", printable(&entry.to_string()))?;
        }
    }
    Ok(if changes.is_empty() { Outcome::Fine } else { Outcome::No })
}

/// The profiles named on the command line.
fn documents<const N: usize>(given: &Given) -> Result<[Document; N], Failure> {
    let mut all: [Document; N] = std::array::from_fn(|_| Document::default());
    for (document, file) in all.iter_mut().zip(&given.arguments) {
        *document = load(Path::new(file)).map_err(|problem| match problem {
            Problem::Unreadable(words) => Failure::failed(words),
            Problem::Mistaken(words) => Failure::usage(words),
        })?;
    }
    Ok(all)
}

/// How many programs, and entries of each kind.
fn sizes(document: &Document) -> Map<String, Value> {
    let count = |facet: Option<Facet>| {
        document.entries().filter(|entry| entry.value.map(|(facet, _)| facet) == facet).count().into()
    };
    let mut sizes = Map::new();
    sizes.insert("programs".to_owned(), count(None));
    for facet in Facet::ALL {
        sizes.insert(facet.key().to_owned(), count(Some(facet)));
    }
    sizes
}

fn listed(sizes: &Map<String, Value>) -> String {
    sizes.iter().map(|(key, count)| format!("{count} {key}")).collect::<Vec<_>>().join(", ")
}

fn object(entry: &Entry<'_>) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("program".to_owned(), if entry.program.is_empty() { "any" } else { entry.program }.into());
    if let Some((facet, text)) = entry.value {
        object.insert("key".to_owned(), facet.key().into());
        object.insert("entry".to_owned(), text.into());
    }
    object
}
