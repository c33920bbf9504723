//! What the person watching sees: each step with the time since the start.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

thread_local! {
    static SUBJECT: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Every line this thread says from now on begins with `subject`: several machines are worked on at once.
pub fn about(subject: &'static str) {
    SUBJECT.set(Some(subject));
}

/// Time since the first call.
#[must_use]
pub fn elapsed() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}

/// Prints one line with the elapsed time before it.
pub fn say(text: impl fmt::Display) {
    let mut out = io::stdout().lock();
    // A closed standard output is no reason to stop a test.
    let _ = match SUBJECT.get() {
        Some(subject) => writeln!(out, "[{:7.1} s] {subject:7} {text}", elapsed().as_secs_f64()),
        None => writeln!(out, "[{:7.1} s] {text}", elapsed().as_secs_f64()),
    };
    let _ = out.flush();
}

/// Does `work`, saying that it started, and how long it took if that was noticeable.
pub fn step<T>(what: &str, work: impl FnOnce() -> T) -> T {
    say(format_args!("{what} ..."));
    let start = Instant::now();
    let result = work();
    if start.elapsed() > Duration::from_secs(1) {
        say(format_args!("{what}: {:.1} s", start.elapsed().as_secs_f64()));
    }
    result
}
