"""python -m stageline_worker: run one stage, or say what a model weighs."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from stageline_api.documents import StageDocument
from stageline_worker import signals
from stageline_worker.last_words import leave, packed
from stageline_worker.timing import Timing

DOCUMENT = "STAGELINE_DOCUMENT"
GRACE = "STAGELINE_GRACE_SECONDS"
TERMINATION_LOG = "STAGELINE_TERMINATION_LOG"


class _NoDocument(Exception):
    """There is no stage document; the message says why."""


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run, and give the exit code."""
    options = _parser(os.environ).parse_args(arguments)
    code: int = options.run(options)
    return code


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stageline_worker", description=__doc__)
    commands = parser.add_subparsers(required=True)
    stage = commands.add_parser("stage", help="serve one stage until SIGTERM or SIGINT")
    stage.add_argument(
        "--document", type=Path, help=f"the stage document, JSON (default: the text in {DOCUMENT})"
    )
    stage.add_argument(
        "--grace",
        type=_seconds,
        default=environment.get(GRACE, Timing().drain),
        metavar="SECONDS",
        help=f"for a leader to finish what it has accepted (default: {GRACE}, or %(default)s)",
    )
    stage.set_defaults(run=_stage)
    profile = commands.add_parser("profile", help="print a model's profile as JSON")
    profile.add_argument("uri", help="where the checkpoint is")
    profile.set_defaults(run=_profile)
    for command in (stage, profile):
        command.add_argument(
            "--termination-log",
            type=Path,
            default=environment.get(TERMINATION_LOG),
            metavar="PATH",
            help="takes the sentence of a failure, or the packed profile, for whoever watches the "
            f"pod (default: {TERMINATION_LOG})",
        )
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError
    return value


def _stage(options: argparse.Namespace) -> int:
    try:
        document = _document(options.document, os.environ)
    except _NoDocument as error:
        return _fail(str(error), options.termination_log)
    signals.hold()
    # The core's own lines would stand between ours; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from stageline_worker.process import serve

    timing = Timing(drain=options.grace)
    return serve(document, timing=timing, termination_log=options.termination_log)


def _document(path: Path | None, environment: Mapping[str, str]) -> StageDocument:
    name = DOCUMENT if path is None else str(path)
    try:
        text = environment[DOCUMENT] if path is None else path.read_bytes()
        return StageDocument.model_validate_json(text)
    except KeyError:
        raise _NoDocument(
            f"there is no stage document: give --document PATH, or its text in {DOCUMENT}"
        ) from None
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'it'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise _NoDocument(f"{name} is no stage document: {wrong}") from None
    except OSError as error:
        raise _NoDocument(f"{name} is no stage document: {error.strerror}") from None


def _profile(options: argparse.Namespace) -> int:
    from stageline_worker.model import ModelError, profile

    try:
        found = profile(options.uri)
        if options.termination_log is not None:
            leave(options.termination_log, packed(found))
    except (ModelError, ValueError) as error:
        return _fail(str(error), options.termination_log)
    sys.stdout.write(found.model_dump_json() + "\n")
    return 0


def _fail(sentence: str, termination_log: Path | None) -> int:
    sys.stderr.write(sentence + "\n")
    leave(termination_log, sentence)
    return 1


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: it would wait for a forward or a load that is still running in its thread.
    os._exit(exit_code)
