"""Custom resources are checked by the schema in their CRD, in Kubernetes' words."""

import pytest

from stageline_local.apiserver import schema, validation
from stageline_local.apiserver.decoding import pruned, unknown_fields

NODE = schema.custom(
    {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["uri"],
                "properties": {
                    "uri": {"type": "string", "maxLength": 5, "minLength": 2, "pattern": "^f"},
                    "count": {"type": "integer", "minimum": 1, "maximum": 9, "default": 2},
                    "share": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
                    "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
                    "on": {"type": "boolean"},
                    "parts": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 2,
                        "items": {"type": "integer"},
                    },
                    "limits": {
                        "type": "object",
                        "additionalProperties": {"x-kubernetes-int-or-string": True},
                    },
                    "inner": {
                        "type": "object",
                        "default": {},
                        "properties": {"depth": {"type": "integer", "default": 3}},
                    },
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "when": {"type": "string", "format": "date-time"},
                    "conditions": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["type"],
                        "items": {"type": "object", "properties": {"type": {"type": "string"}}},
                    },
                },
            }
        },
    }
)


def told(spec, old=None):
    """Field and message of each problem."""
    before = None if old is None else {"spec": old}
    found = validation.problems(NODE, {"spec": spec}, before)
    return [(each.field, each.message) for each in found]


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({}, "spec.uri", "Required value"),
        (
            {"uri": 1},
            "spec.uri",
            'Invalid value: "integer": spec.uri in body must be of type string: "integer"',
        ),
        ({"uri": "ffffff"}, "spec.uri", "Too long: may not be more than 5 bytes"),
        (
            {"uri": "f"},
            "spec.uri",
            'Invalid value: "f": spec.uri in body should be at least 2 chars long',
        ),
        ({"uri": "gg"}, "spec.uri", "Invalid value: \"gg\": spec.uri in body should match '^f'"),
        (
            {"uri": "ff", "count": 0},
            "spec.count",
            "Invalid value: 0: spec.count in body should be greater than or equal to 1",
        ),
        (
            {"uri": "ff", "count": 10},
            "spec.count",
            "Invalid value: 10: spec.count in body should be less than or equal to 9",
        ),
        (
            {"uri": "ff", "count": True},
            "spec.count",
            'Invalid value: "boolean": spec.count in body must be of type integer: "boolean"',
        ),
        (
            {"uri": "ff", "share": 0},
            "spec.share",
            "Invalid value: 0: spec.share in body should be greater than 0",
        ),
        (
            {"uri": "ff", "mode": "c"},
            "spec.mode",
            'Unsupported value: "c": supported values: "a", "b"',
        ),
        (
            {"uri": "ff", "on": "yes"},
            "spec.on",
            'Invalid value: "string": spec.on in body must be of type boolean: "string"',
        ),
        (
            {"uri": "ff", "parts": []},
            "spec.parts",
            "Invalid value: 0: spec.parts in body should have at least 1 items",
        ),
        ({"uri": "ff", "parts": [1, 2, 3]}, "spec.parts", "Too many: 3: must have at most 2 items"),
        (
            {"uri": "ff", "parts": ["x"]},
            "spec.parts[0]",
            'Invalid value: "string": spec.parts[0] in body must be of type integer: "string"',
        ),
        (
            {"uri": "ff", "limits": {"cpu": 1.5}},
            "spec.limits.cpu",
            'Invalid value: "number": spec.limits.cpu in body must be of type '
            'integer,string: "number"',
        ),
        (
            {"uri": "ff", "when": "yesterday"},
            "spec.when",
            'Invalid value: "yesterday": spec.when in body must be of type date-time: "yesterday"',
        ),
        (
            {"uri": "ff", "conditions": [{"type": "a"}, {"type": "a"}]},
            "spec.conditions[1]",
            'Duplicate value: {"type":"a"}',
        ),
    ],
)
def test_what_is_wrong_is_said(spec, field, message):
    assert told(spec) == [(field, message)]


@pytest.mark.parametrize(
    "spec",
    [
        {"uri": "ff"},
        {"uri": "ff", "count": 9, "share": 0.1, "mode": "b", "on": False, "parts": [1, 2]},
        {"uri": "ff", "limits": {"cpu": 1, "memory": "1Gi"}, "free": {"any": [1, {"thing": None}]}},
        {"uri": "ff", "when": "2026-01-01T00:00:00Z", "conditions": [{"type": "a"}, {"type": "b"}]},
    ],
)
def test_what_is_right_is_taken(spec):
    assert told(spec) == []


def test_what_was_wrong_before_does_not_block_other_changes():
    wrong = {"uri": "gg", "count": 3}
    assert told({**wrong, "count": 4}, wrong) == []
    assert [field for field, _ in told({**wrong, "count": 0}, wrong)] == ["spec.count"]


def test_defaults_are_filled_in_at_every_depth():
    found = validation.defaulted(NODE, {"spec": {"uri": "ff", "mode": None, "when": None}})
    assert found["spec"] == {"uri": "ff", "mode": "a", "count": 2, "inner": {"depth": 3}}


def test_unknown_fields_are_found_and_pruned():
    obj = {
        "metadata": {"name": "x", "lables": {}, "labels": {"any": "thing"}},
        "spec": {"uri": "ff", "url": 1, "inner": {"deep": 1}, "free": {"x": 1}, "limits": {"x": 1}},
        "stauts": {},
    }
    assert unknown_fields(NODE, obj) == [
        *("metadata.lables", "spec.inner.deep", "spec.url", "stauts")
    ]
    assert pruned(NODE, obj) == {
        "metadata": {"name": "x", "labels": {"any": "thing"}},
        "spec": {"uri": "ff", "inner": {}, "free": {"x": 1}, "limits": {"x": 1}},
    }
