#!/usr/bin/env python3
"""Checks JSON lines against the published OCSF schema of the version they state.

usage: ocsf_validate.py FILE [MOST-PER-CLASS]   prints classes and mistakes; exit 1 on a mistake, 2 on an empty file
"""
import json
import sys

import jsonschema
from ocsf_json_schema import OcsfJsonSchema, get_ocsf_schema
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

VERSION = "1.8.0"


def main(path, most):
    schema = OcsfJsonSchema(get_ocsf_schema(version=VERSION))
    registry = Registry(
        retrieve=lambda uri: Resource.from_contents(
            schema.get_schema_from_uri(uri), default_specification=DRAFT202012
        )
    )
    validators, seen, mistakes = {}, {}, {}
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            event = json.loads(line)
            kind = (event["class_uid"], event["activity_id"])
            seen[kind] = seen.get(kind, 0) + 1
            if seen[kind] > most:
                continue
            if event["metadata"]["version"] != VERSION:
                mistakes.setdefault(f"line {number} states version {event['metadata']['version']}")
            if event["type_uid"] != event["class_uid"] * 100 + event["activity_id"]:
                mistakes.setdefault(f"line {number}: type_uid {event['type_uid']} does not fit {kind}")
            profiles = event["metadata"].get("profiles", [])
            key = (event["class_uid"], tuple(profiles))
            if key not in validators:
                name = schema.lookup_class_name_from_uid(event["class_uid"])
                validators[key] = jsonschema.Draft202012Validator(
                    schema.get_class_schema(name, profiles), registry=registry
                )
            for error in validators[key].iter_errors(event):
                mistakes.setdefault(f"line {number}, class {kind}: {error.json_path}: {error.message[:200]}")
    for (class_uid, activity), count in sorted(seen.items()):
        print(f"class {class_uid} activity {activity}: {count}")
    for mistake in mistakes:
        print(f"MISTAKE {mistake}")
    return 2 if not seen else 1 if mistakes else 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 200))
