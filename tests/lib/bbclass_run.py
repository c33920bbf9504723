"""Runs a python function of bitbake classes on the variables given, with stand-ins for what bitbake hands to it.

bbclass_run.py FUNCTION CLASS... -- NAME=VALUE...

Prints "note: ", "warning: " or "error: " and what the function said; ends with 1 when the function would have failed its task.
"""

import os
import re
import sys
import textwrap
import types


class Fatal(Exception):
    pass


def fatal(said):
    print("error:", said)
    raise Fatal


class Datastore:
    def __init__(self, variables):
        self.variables = variables

    def getVar(self, name):
        value = self.variables.get(name)
        return value if value is None else self.expand(value)

    def expand(self, text):
        return re.sub(r"\$\{([^}@]+)\}", lambda found: self.getVar(found[1]) or "", text)


function, *rest = sys.argv[1:]
classes, given = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
variables = {}
bb = types.SimpleNamespace(
    note=lambda said: print("note:", said), warn=lambda said: print("warning:", said), fatal=fatal
)
space = {"bb": bb, "os": os}
for file in classes:
    text = open(file).read()
    # Defaults that need no python to expand.
    for name, value in re.findall(r'^(\w+) \?= "([^"@]*)"$', text, re.M):
        variables.setdefault(name, value)
    for name, value in re.findall(r'^(DEFENDER_\w+) = "([^"@]*)"$', text, re.M):
        variables[name] = value
    for definition in re.findall(r"^def .*?\n(?=\S)", text, re.M | re.S):
        exec(definition, space)
    for name, body in re.findall(r"^python (\w+) \(\) \{\n(.*?)^\}", text, re.M | re.S):
        exec(f"def {name}(d):\n{textwrap.indent(textwrap.dedent(body), '    ')}", space)
variables.update(item.split("=", 1) for item in given)
try:
    space[function](Datastore(variables))
except Fatal:
    sys.exit(1)
