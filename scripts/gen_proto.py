"""Generate proto/gen from proto/*.proto; with --check, say whether the committed files are current.

The generated modules register in a descriptor pool of their own. In the default pool our package
`inference` would collide with the same messages of tritonclient and the KServe SDK, and a process
that imports both would die with "duplicate symbol".
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "proto" / "stageline").rglob("*.proto"))
GENERATED = ROOT / "proto" / "gen" / "stageline"
POOL = '''"""The descriptor pool of Stageline's own messages (scripts/gen_proto.py says why)."""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
'''


def generate(target: Path) -> None:
    """Write the generated package `stageline` below `target`."""
    arguments = [
        "protoc",
        f"--proto_path={ROOT / 'proto'}",
        f"--python_out={target}",
        f"--pyi_out={target}",
        f"--grpc_python_out={target}",
        *map(str, SOURCES),
    ]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed: see its message above")
    package = target / "stageline"
    for module in package.rglob("*_pb2.py"):
        text = module.read_text()
        text = text.replace(
            "from google.protobuf import descriptor_pool as _descriptor_pool",
            "from stageline.pool import POOL as _POOL",
        ).replace("_descriptor_pool.Default()", "_POOL")
        module.write_text(text)
    (package / "pool.py").write_text(POOL)
    for folder in (package, *(path for path in package.iterdir() if path.is_dir())):
        (folder / "__init__.py").touch()


def differences(fresh: Path, committed: Path) -> list[str]:
    """Paths, relative to the package, that differ or stand on one side only."""
    names = {p.relative_to(fresh) for p in fresh.rglob("*.py*")}
    names |= {p.relative_to(committed) for p in committed.rglob("*.py*") if p.suffix != ".pyc"}
    _, changed, missing = filecmp.cmpfiles(fresh, committed, map(str, names), shallow=False)
    return sorted(changed + missing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing, fail when not current"
    )
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = Path(scratch) / "stageline"
        if not check:
            shutil.rmtree(GENERATED, ignore_errors=True)
            shutil.copytree(fresh, GENERATED)
        elif stale := differences(fresh, GENERATED):
            sys.exit(f"proto/gen is not current ({', '.join(stale)}): run `make proto` and commit")


if __name__ == "__main__":
    main()
