#!/usr/bin/env python3
"""Checks JSON lines, a security message each, against a schema of it.

usage: security_message_validate.py SCHEMA FILE   prints how many events of each name, and mistakes; exit 1 on a mistake
"""
import json
import sys

import jsonschema


def main(schema, path):
    with open(schema, encoding="utf-8") as text:
        schema = json.load(text)
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema, format_checker=jsonschema.Draft7Validator.FORMAT_CHECKER)
    seen, identifiers, mistakes = {}, set(), []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            message = json.loads(line)
            for error in validator.iter_errors(message):
                best = jsonschema.exceptions.best_match([error])
                mistakes.append(f"line {number}: {best.json_path}: {best.message[:200]}")
            for event in message["Events"]:
                seen[event["Name"]] = seen.get(event["Name"], 0) + 1
                if event["Id"] in identifiers:
                    mistakes.append(f"line {number}: the identifier {event['Id']} was there before")
                identifiers.add(event["Id"])
    for name, count in sorted(seen.items()):
        print(f"event {name}: {count}")
    for mistake in mistakes:
        print(f"MISTAKE {mistake}")
    return 1 if mistakes or not seen else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2]))
