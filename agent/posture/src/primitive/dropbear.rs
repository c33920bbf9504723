//! `dropbear`: the options the small ssh server is started with.

use super::Primitive;
use crate::comparison::Comparison;
use crate::expression::Outcome;
use crate::facts::image;
use crate::policy::keys::{Fault, Keys};
use crate::root::Unreadable;
use crate::scan::Scan;

/// What is asked, by the options of dropbear(8).
#[derive(Debug, Clone, Copy, PartialEq)]
enum Question {
    /// One of these is given.
    Given(&'static [char]),
    /// None of these is given.
    NotGiven(&'static [char]),
    /// The value of an option, with its default.
    Value(char, &'static str),
}

const QUESTIONS: &[(&str, Question)] = &[
    ("no_root_login", Question::Given(&['w'])),
    ("no_password", Question::Given(&['s'])),
    ("no_root_password", Question::Given(&['g', 's', 'w'])),
    ("no_local_forwarding", Question::Given(&['j'])),
    ("no_remote_forwarding", Question::Given(&['k'])),
    ("no_blank_password", Question::NotGiven(&['B'])),
    ("no_gateway_ports", Question::NotGiven(&['a'])),
    ("host_keys_on_device", Question::Given(&['R'])),
    ("max_auth_tries", Question::Value('T', "10")),
    ("idle_timeout", Question::Value('I', "0")),
    ("keepalive", Question::Value('K', "0")),
    ("port", Question::Value('p', "22")),
];

#[derive(Debug)]
struct Dropbear {
    name: &'static str,
    question: Question,
    comparison: Comparison,
}

pub(super) fn parse(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let question =
        keys.word("dropbear", QUESTIONS)?.ok_or_else(|| Fault::new(keys.at, "`dropbear` is missing"))?;
    let name = QUESTIONS.iter().find(|(_, known)| *known == question).map_or("", |(name, _)| *name);
    let comparison = Comparison::parse(keys)?;
    if matches!(question, Question::Value(..)) == comparison.is_empty() {
        let message = match question {
            Question::Value(..) => format!("`{name}` needs a comparison"),
            _ => format!("`{name}` takes no comparison"),
        };
        return Err(keys.fault("dropbear", message));
    }
    Ok(Box::new(Dropbear { name, question, comparison }))
}

/// Options that take a value.
const WITH_VALUE: &[char] = &['b', 'r', 'D', 'p', 'P', 'W', 'K', 'I', 'T', 'c', 'A', 'U', 'L', 'l', 'G', 'z'];

/// Options with their values, in order, as getopt reads them.
fn options(arguments: &str) -> Vec<(char, String)> {
    let mut options = Vec::new();
    let mut words = arguments.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
    while let Some(word) = words.next() {
        let Some(letters) = word.strip_prefix('-') else { continue };
        let mut letters = letters.chars();
        while let Some(letter) = letters.next() {
            if WITH_VALUE.contains(&letter) {
                let rest = letters.as_str();
                let value = if rest.is_empty() { words.next().unwrap_or_default() } else { rest };
                options.push((letter, value.to_owned()));
                break;
            }
            options.push((letter, String::new()));
        }
    }
    options
}

/// What a shell file assigns to variables of arguments, and what command lines give after the program's name.
fn arguments_in(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let assigned = ["DROPBEAR_ARGS=", "DROPBEAR_EXTRA_ARGS=", "DROPBEAR_OPTS=", "OPTIONS="];
        if let Some(value) =
            assigned.iter().find_map(|name| line.trim_start_matches("export ").strip_prefix(name))
        {
            let value = value.trim();
            // Only what is between the quotes: a comment may follow.
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
            found.push(match quote {
                Some(quote) => value[1..].split(quote).next().unwrap_or_default(),
                None => value.split(" #").next().unwrap_or_default(),
            });
        } else if let Some(at) = line.find("dropbear ") {
            // A command line, of a unit, an inittab or a script.
            if line.starts_with("ExecStart")
                || line.contains(":respawn:")
                || line.contains("start-stop-daemon")
            {
                let rest = &line[at + "dropbear ".len()..];
                found.push(rest.split_once("-- ").map_or(rest, |(_, arguments)| arguments));
            }
        }
    }
    found
}

const FILES: &[&str] = &[
    "/etc/default/dropbear",
    "/etc/sysconfig/dropbear",
    "/etc/conf.d/dropbear",
    "/etc/init.d/*dropbear*",
    "/etc/inittab",
    "/{etc,usr/lib,lib}/systemd/system/dropbear*.service",
    "/{etc,usr/lib,lib}/systemd/system/dropbear*.service.d/*.conf",
];

impl Dropbear {
    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        if image::has(scan.root, "dropbear")?.is_none()
            && image::any(scan.root, FILES.get(..4).unwrap_or_default())?.is_none()
        {
            return Ok(Outcome::absent("no dropbear in the image"));
        }
        let (mut given, mut read) = (Vec::new(), Vec::new());
        for pattern in FILES {
            for path in scan.root.glob(pattern)? {
                let Some(text) = scan.root.text(&path)? else { continue };
                let arguments = arguments_in(&text);
                if !arguments.is_empty() {
                    read.push(path.display().to_string());
                }
                given.extend(arguments.into_iter().flat_map(options));
            }
        }
        let from = if read.is_empty() { "dropbear's defaults".to_owned() } else { read.join(", ") };
        Ok(match self.question {
            Question::Given(letters) => match given.iter().find(|(letter, _)| letters.contains(letter)) {
                Some((letter, _)) => Outcome::yes(vec![format!("{from}: -{letter} is given")]),
                None => Outcome::no(vec![format!(
                    "{from}: -{} is not given",
                    letters.iter().map(char::to_string).collect::<Vec<_>>().join(" or -")
                )]),
            },
            Question::NotGiven(letters) => match given.iter().find(|(letter, _)| letters.contains(letter)) {
                Some((letter, _)) => Outcome::no(vec![format!("{from}: -{letter} is given")]),
                None => Outcome::yes(vec![format!("{from}: {} as wanted", self.name)]),
            },
            Question::Value(wanted, default) => {
                let found = given.iter().rfind(|(letter, _)| *letter == wanted);
                let value = found.map_or(default, |(_, value)| value);
                let holds = self.comparison.holds(Some(value));
                Outcome::of(
                    holds,
                    vec![self.comparison.evidence(&format!("{from}: -{wanted}"), Some(value), holds)],
                )
            }
        })
    }
}

impl Primitive for Dropbear {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_options_as_getopt_does() {
        let given = options("-swp2222 -T 3 \"-K\" 60 x");
        assert_eq!(
            given,
            [
                ('s', String::new()),
                ('w', String::new()),
                ('p', "2222".into()),
                ('T', "3".into()),
                ('K', "60".into())
            ]
        );
        assert_eq!(arguments_in("#DROPBEAR_ARGS=\"-s\"\nDROPBEAR_ARGS=\"-R -w\" # x\nstart-stop-daemon -S -x /usr/sbin/dropbear -- -g $DROPBEAR_ARGS\n"), ["-R -w", "-g $DROPBEAR_ARGS"]);
        assert_eq!(
            arguments_in("ExecStart=-/usr/sbin/dropbear -i -r /k $DROPBEAR_EXTRA_ARGS"),
            ["-i -r /k $DROPBEAR_EXTRA_ARGS"]
        );
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".{0,80}") {
            let _ = (options(&text), arguments_in(&text));
        }
    }
}
