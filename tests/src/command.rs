//! Programs of the build machine, run with a bound on their time.

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Runs `command` to its end, at most `limit`; whatever its status.
///
/// # Errors
/// When it cannot be started, or is killed because the time is over.
pub fn output(command: &mut Command, limit: Duration) -> Result<Output> {
    let name = describe(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io(format!("cannot start `{name}`")))?;
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(Error::io(format!("cannot wait for `{name}`")))? {
            break status;
        }
        if start.elapsed() > limit {
            // It may end by itself in this very moment.
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::TimedOut { what: format!("`{name}`"), after: limit, seen: String::new() });
        }
        thread::sleep(Duration::from_millis(5));
    };
    let join = |thread: Option<thread::JoinHandle<Vec<u8>>>| thread.map(|t| t.join().unwrap_or_default());
    Ok(Output { status, stdout: join(stdout).unwrap_or_default(), stderr: join(stderr).unwrap_or_default() })
}

/// Runs `command` and returns its standard output; a failure is an error.
///
/// # Errors
/// As [`output`], and when the status is not 0.
pub fn run(command: &mut Command, limit: Duration) -> Result<Vec<u8>> {
    let output = output(command, limit)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let mut said = if output.stderr.is_empty() { output.stdout } else { output.stderr };
    let cut = said.len().saturating_sub(2000);
    said.drain(..cut);
    Err(Error::Command {
        command: describe(command),
        status: output.status.to_string(),
        said: String::from_utf8_lossy(&said).into_owned(),
    })
}

fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    if text.len() > 300 {
        let end = (0..=300).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        // What was read before an error is still worth showing.
        let _ = pipe.read_to_end(&mut all);
        all
    })
}
