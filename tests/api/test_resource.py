"""The models as a whole: what a CRD will be generated from, and their written reference."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from stageline_api.resource import PipelineDeployment
from stageline_api.status import Condition, PipelineDeploymentStatus

ROOT = Path(__file__).resolve().parents[2]


def everything(schema, path=""):
    """Every field of a JSON schema, with its path."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field


SCHEMA = PipelineDeployment.model_json_schema(by_alias=True)
FIELDS = [
    pytest.param(field, id=path)
    for name, part in [("", SCHEMA), *SCHEMA["$defs"].items()]
    for path, field in everything(part, name)
]


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_described_in_a_sentence(field):
    assert field.get("description", "").endswith("."), field


def test_no_field_is_a_floating_point_number():
    assert '"number"' not in json.dumps(SCHEMA), "Kubernetes APIs have no floats"


def test_the_schema_leaves_room_for_a_small_crd():
    assert len(json.dumps(SCHEMA)) < 30 * 1024


def test_a_status_of_a_newer_operator_is_read():
    status = PipelineDeploymentStatus.model_validate(
        {
            "observedGeneration": 3,
            "conditions": [
                {
                    "type": "Ready",
                    "status": "False",
                    "reason": "StageImagePull",
                    "message": "stage 2 of llama-1 cannot pull its image",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ],
            "stages": [{"pipeline": "llama-0", "stage": 0, "state": "Loading", "temperature": 70}],
            "somethingNew": {"x": 1},
        }
    )
    assert status.observed_generation == 3
    assert status.conditions[0].reason == "StageImagePull"
    assert status.model_dump()["stages"][0]["bytesLoaded"] == 0


@pytest.mark.parametrize("reason", ["", "has spaces", "9lives", "Ends,", "x" * 1025])
def test_a_condition_needs_a_reason_that_programs_can_read(reason):
    with pytest.raises(ValidationError):
        Condition(type="Ready", status="True", reason=reason, last_transition_time="now")


def test_the_reference_of_the_fields_is_current():
    checked = subprocess.run(
        [sys.executable, "scripts/gen_api.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
