"""Traps of the repository itself."""

import operator
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_operator_folder_does_not_shadow_the_standard_library():
    assert not (ROOT / "operator" / "__init__.py").exists(), (
        "operator/__init__.py turns our folder into the module `operator`, and with that in front "
        "of the standard library's even `import collections` dies: remove it"
    )
    assert Path(operator.__file__).parent == Path(sys.modules["os"].__file__).parent
    found = subprocess.run(
        [sys.executable, "-c", "import operator, collections; print(operator.__file__)"],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert found == operator.__file__, f"from the repository's root, operator is {found}"


def test_no_test_lies_where_pytest_would_register_our_folder_as_the_module_operator():
    strays = [*ROOT.glob("operator/**/test_*.py"), *ROOT.glob("worker/**/test_*.py")]
    assert not strays, f"tests belong in tests/: move {strays}"


def test_generated_modules_are_current():
    checked = subprocess.run(
        [sys.executable, "scripts/gen_proto.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr


def test_a_stale_generated_module_is_noticed(tmp_path):
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import gen_proto
    finally:
        sys.path.pop(0)
    gen_proto.generate(tmp_path)
    module = tmp_path / "stageline" / "v1" / "pipeline_pb2.py"
    module.write_text(module.read_text() + "\n# edited by hand\n")
    (tmp_path / "stageline" / "extra.py").touch()
    assert gen_proto.differences(tmp_path / "stageline", gen_proto.GENERATED) == [
        "extra.py",
        "v1/pipeline_pb2.py",
    ]


def test_our_messages_stand_beside_the_same_messages_of_tritonclient():
    program = (
        "import tritonclient.grpc; from stageline.oip import grpc_service_pb2 as ours; "
        "print(ours.ModelInferRequest(model_name='m').model_name)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.stdout.strip() == "m", ran.stderr


def test_every_make_target_is_listed_by_help():
    listed = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for target in ("demo", "test", "e2e", "bench", "lint", "fmt", "proto", "help"):
        assert f"  {target} " in listed, f"make help does not list {target}"
