#!/usr/bin/env python3
"""Random Sigma rules and events, and what pySigma with SQLite makes of them.

usage: sigma_differential.py DIRECTORY SEED RULES EVENTS

Writes rules.yml (one document a rule, named r0, r1, ...), events.json (a list of field maps) and verdicts.json (for each rule
the numbers of the events it holds for; null where pySigma refuses the rule) into DIRECTORY. The same seed gives the same files.
"""
import json
import random
import re
import sqlite3
import sys
import uuid

import yaml
from sigma.backends.sqlite import sqliteBackend
from sigma.collection import SigmaCollection
from sigma.exceptions import SigmaError

TEXT = ["Image", "CommandLine", "ParentImage", "ParentCommandLine", "CurrentDirectory", "User", "tty"]
NUMBER = ["ProcessId", "uid", "euid", "gid", "auid", "LogonId"]
# What patterns and values are made of: few pieces, so that rules and events meet; among them all that is special to Sigma, to
# LIKE, to GLOB or to SQL, both cases, and letters beyond ASCII.
PIECES = ["a", "A", "b", "B", "ab", "c", "/", "-x", " ", ".", "%", "_", "[", "]", "'", '"', "é", "É", "ß", "日", "7", "42"]
LITERAL_SPECIAL = ["*", "?", "\\"]
ADDRESSES = ["192.0.2.7", "192.0.2.200", "198.51.100.1", "10.1.2.3", "10.200.0.1", "172.16.5.4"]
# pySigma turns a network into patterns; for these the patterns say the same as the network for every address above, and nothing else
# in this set of values looks like an address.
NETWORKS = ["192.0.2.0/24", "10.0.0.0/8", "198.51.100.0/24", "172.16.0.0/16"]


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def chance(self, of):
        return self.random.random() < of

    def value(self):
        """A value an event may hold."""
        if self.chance(0.06):
            return self.random.choice(ADDRESSES)
        parts = PIECES + LITERAL_SPECIAL
        return "".join(self.random.choice(parts) for _ in range(self.random.randint(1, 6)))

    def event(self):
        event = {"Image": "/" + self.value(), "CommandLine": self.value() if self.chance(0.95) else ""}
        for name in TEXT[2:]:
            if self.chance(0.7):
                event[name] = self.value()
        for name in NUMBER:
            if self.chance(0.7):
                event[name] = self.random.choice([0, 1, 7, 42, 1000, 65534])
        event.setdefault("ProcessId", 42)
        if event.get("uid") == 0:
            # A device calls user id 0 root even where names are unknown.
            event.setdefault("User", "root")
        return event

    def pattern(self, wildcards=True):
        """A value a rule may hold, in Sigma's writing."""
        out = []
        for _ in range(self.random.randint(1, 4)):
            roll = self.random.random()
            if roll < 0.15 and wildcards:
                out.append(self.random.choice(["*", "?"]))
            elif roll < 0.25:
                out.append(self.random.choice(["\\*", "\\?", "\\\\"]))
            elif roll < 0.28:
                out.append("\\")
            else:
                out.append(self.random.choice(PIECES))
        return "".join(out)

    def regex(self):
        parts = ["a", "b", "A", "[ab]", "[^a]", ".", ".*", "a+", "(a|B)", "\\.", "\\d", "^", "$", "/", "x?", "b{1,2}", "\\w", "\\s"]
        return "".join(self.random.choice(parts) for _ in range(self.random.randint(1, 4)))

    def item(self):
        """One `field|modifiers: value`."""
        roll = self.random.random()
        if roll < 0.13:
            field = self.random.choice(NUMBER)
            if self.chance(0.5):
                return field, self.random.choice([0, 1, 7, 42, 1000])
            return f"{field}|{self.random.choice(['lt', 'lte', 'gt', 'gte'])}", self.random.choice([0, 7, 42])
        field = self.random.choice(TEXT)
        if roll < 0.18:
            return f"{field}|exists", self.chance(0.5)
        if roll < 0.24:
            return field, self.random.choice([None, "", [None, "ab"], ["", "a*"]])
        if roll < 0.31:
            flags = self.random.choice(["", "", "|i", "|m", "|s", "|i|s"])
            return f"{field}|re{flags}", self.regex()
        if roll < 0.36:
            return f"{field}|cidr", self.random.choice(NETWORKS)
        if roll < 0.42:
            other = self.random.choice([name for name in TEXT if name != field])
            return f"{field}|fieldref{self.random.choice(['', '|contains', '|startswith', '|endswith'])}", other
        if roll < 0.45:
            return f"{field}|windash|contains", self.random.choice(["-x", " -x", "a -x"])
        if roll < 0.48:
            return f"{field}|base64{self.random.choice(['', 'offset'])}|contains", self.random.choice(["a", "ab", "abc"])
        where = self.random.choice(["", "", "|contains", "|contains", "|startswith", "|endswith"])
        if self.chance(0.4):
            values = [self.pattern() for _ in range(self.random.randint(2, 4))]
            every = "|all" if where == "|contains" and self.chance(0.4) else ""
            values = values[:2] if every else values
        else:
            values, every = self.pattern(), ""
        cased = "|cased" if self.chance(0.15) else ""
        return f"{field}{where}{every}{cased}", values

    def search(self):
        items = dict(self.item() for _ in range(self.random.choice([1, 1, 2])))
        if self.chance(0.15):
            return [items, dict([self.item()])]
        return items

    def rule(self, number):
        names = ["sel1", "sel2", "other"][: self.random.randint(1, 3)]
        detection = {name: self.search() for name in names}
        if len(names) == 1:
            forms = ["sel1", "not sel1", "1 of them", "all of sel*"]
        elif len(names) == 2:
            forms = ["sel1 and sel2", "sel1 or sel2", "sel1 and not sel2", "not (sel1 or sel2)", "1 of sel*", "all of them",
                     "not 1 of sel*"]
        else:
            forms = ["sel1 or sel2 and other", "(sel1 or sel2) and not other", "1 of sel* and other", "not all of sel* and other",
                     "sel1 and not (sel2 or other)", "not sel1 and not sel2 or other", "any of them"]
        detection["condition"] = self.random.choice(forms)
        return {
            "title": f"Rule {number}",
            "id": str(uuid.UUID(int=number, version=4)),
            "name": f"r{number}",
            "status": "test",
            "logsource": {"product": "linux", "category": "process_creation"},
            "detection": detection,
            "level": "low",
        }


def table(events):
    connection = sqlite3.connect(":memory:")
    # Python's expressions find anywhere, as Sigma asks. `\w`, `\d` and `\s` mean ASCII's here, which is what the devices' do.
    compiled = {}

    def matches(expression, value):
        if value is None:
            return None
        if expression not in compiled:
            compiled[expression] = re.compile(expression, re.ASCII)
        return compiled[expression].search(str(value)) is not None

    connection.create_function("REGEXP", 2, matches, deterministic=True)
    columns = [f"`{name}` TEXT" for name in TEXT] + [f"`{name}` INTEGER" for name in NUMBER]
    connection.execute(f"CREATE TABLE logs (number INTEGER PRIMARY KEY, {', '.join(columns)})")
    fields = TEXT + NUMBER
    connection.executemany(
        f"INSERT INTO logs VALUES ({', '.join('?' * (len(fields) + 1))})",
        [[number] + [event.get(name) for name in fields] for number, event in enumerate(events)],
    )
    return connection


def verdict(connection, backend, rule):
    """Numbers of the events `rule` holds for; None where pySigma refuses it."""
    try:
        # From the text, as everybody's rules come.
        [query] = backend.convert(SigmaCollection.from_yaml(yaml.safe_dump(rule, allow_unicode=True)))
        query = query.replace("<TABLE_NAME>", "logs").replace("SELECT *", "SELECT number", 1)
        return sorted(row[0] for row in connection.execute(query))
    except (SigmaError, sqlite3.Error, NotImplementedError) as error:
        print(f"{rule['name']}: pySigma refuses it: {error}", file=sys.stderr)
        return None


def main(directory, seed, rules, events):
    maker = Maker(seed)
    events = [maker.event() for _ in range(events)]
    rules = [maker.rule(number) for number in range(rules)]
    connection = table(events)
    # Strings compare without regard to ASCII case, as Sigma has it.
    backend = sqliteBackend(collate_nocase=True)
    verdicts = [verdict(connection, backend, rule) for rule in rules]
    with open(f"{directory}/rules.yml", "w", encoding="utf-8") as file:
        yaml.safe_dump_all(rules, file, allow_unicode=True)
    with open(f"{directory}/events.json", "w", encoding="utf-8") as file:
        json.dump(events, file, ensure_ascii=False)
    with open(f"{directory}/verdicts.json", "w", encoding="utf-8") as file:
        json.dump(verdicts, file)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
