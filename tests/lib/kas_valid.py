"""Loads kas files the way kas does, with its schema and their includes, and says what each would build. Nothing is checked out.

kas_valid.py REPOSITORY FILE...
"""

import argparse
import sys
from pathlib import Path

from kas.context import create_global_context
from kas.includehandler import IncludeHandler


class Arguments(argparse.Namespace):
    """Whatever option kas asks for was not given."""

    def __getattr__(self, name):
        return None


create_global_context(Arguments())
repository = Path(sys.argv[1]).resolve()
for file in sys.argv[2:]:
    config, missing = IncludeHandler([Path(file).resolve()], repository).get_config(repos={})
    if missing:
        sys.exit(f"{file}: includes files of other repositories: {missing}")
    print(config["machine"], config["distro"], *config["target"], *config["repos"])
