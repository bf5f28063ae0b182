"""python -m stageline_worker: run one stage, or say what a model weighs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from stageline_api.documents import StageDocument


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run, and give the exit code."""
    parser = argparse.ArgumentParser(prog="stageline_worker", description=__doc__)
    commands = parser.add_subparsers(required=True)
    stage = commands.add_parser("stage", help="serve one stage until SIGTERM or SIGINT")
    stage.add_argument("--document", type=Path, required=True, help="the stage document, JSON")
    stage.set_defaults(run=lambda options: _stage(options.document))
    profile = commands.add_parser("profile", help="print a model's profile as JSON")
    profile.add_argument("uri", help="where the checkpoint is")
    profile.set_defaults(run=lambda options: _profile(options.uri))
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


def _stage(path: Path) -> int:
    try:
        document = StageDocument.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        return _fail(f"{path} is no stage document: {' '.join(str(error).split())}")
    # The core's own lines would stand between ours; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from stageline_worker.process import serve

    return serve(document)


def _profile(uri: str) -> int:
    from stageline_worker.model import ModelError, profile

    try:
        found = profile(uri)
    except ModelError as error:
        return _fail(str(error))
    sys.stdout.write(found.model_dump_json() + "\n")
    return 0


def _fail(sentence: str) -> int:
    sys.stderr.write(sentence + "\n")
    return 1


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: it would wait for a forward or a load that is still running in its thread.
    os._exit(exit_code)
