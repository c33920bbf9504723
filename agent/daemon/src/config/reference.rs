//! The documentation of the configuration, generated from its types.

use std::fmt::Write as _;

use super::sections;

/// The commented default file: every key with its meaning and default, commented out.
#[must_use]
pub fn default_file() -> String {
    let mut out = String::from(
        "# Configuration of the defender agent. Every key is optional; what is commented out is the default.\n\
         # Drop-ins beside this file, conf.d/*.toml, are applied after it in the order of their names.\n\
         # Check it with: defender config check FILE\n",
    );
    for section in sections() {
        let brackets = if section.list { ("[[", "]]") } else { ("[", "]") };
        // A list's entry must not exist unless somebody wants one.
        let comment = if section.list { "#" } else { "" };
        out.push('\n');
        wrap(&mut out, &section.doc);
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "{comment}{}{}{}", brackets.0, section.name, brackets.1);
        for key in &section.keys {
            wrap(&mut out, &key.doc);
            match &key.default {
                Some(default) if !section.list => {
                    let _ = writeln!(out, "#{} = {default}", key.name);
                }
                _ => {
                    let _ = writeln!(out, "#   {}: {}", key.name, key.kind.replace('`', ""));
                }
            }
        }
    }
    out
}

/// Comment lines of at most 100 columns.
fn wrap(out: &mut String, text: &str) {
    let mut width = 0;
    for word in text.split(' ') {
        if width == 0 || width + word.len() + 1 > 98 {
            if width > 0 {
                out.push('\n');
            }
            out.push('#');
            width = 1;
        }
        out.push(' ');
        out.push_str(word);
        width += word.len() + 1;
    }
    out.push('\n');
}

/// The reference for `docs/configuration.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "# Configuration reference\n\n\
         Generated from the agent's types by `defender config reference`; a test fails when it is stale.\n\n\
         The agent reads `/etc/defender/defender.toml` and then `/etc/defender/conf.d/*.toml` in the order of their names; later \
         files win key by key, `[[...]]` sections add up. An unknown key or a wrong value is an error that names file, line and the \
         nearest key: `defender config check` finds it on the build host, and on a device the file is left out as a whole while \
         the defaults and the other files guard it.\n",
    );
    for section in sections() {
        let brackets = if section.list { ("[[", "]]") } else { ("[", "]") };
        // Writing to a String cannot fail, here and below.
        let _ = write!(out, "\n## `{}{}{}`\n\n{}\n\n", brackets.0, section.name, brackets.1, section.doc);
        out.push_str("| Key | Value | Default | Meaning |\n|---|---|---|---|\n");
        for key in &section.keys {
            let default =
                key.default.as_deref().map_or_else(|| "–".to_owned(), |default| format!("`{default}`"));
            let _ = writeln!(out, "| `{}` | {} | {default} | {} |", key.name, key.kind, key.doc);
        }
    }
    out
}
