"""The language of a CRD's rules, and the rules of our own CRD."""

import pytest

from stageline_api.crd import schema as crd_schema
from stageline_local.apiserver import schema
from stageline_local.apiserver.cel import CelError, evaluate, parse, problems


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3 - 4", 3),
        ("(1 + 2) * 3", 9),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("1 < 2 && 2 <= 2 && 3 > 2 && 3 >= 3 && 1 != 2", True),
        ("true || false && false", True),
        ("!true || !false", True),
        ("1 == 1 ? 'yes' : 'no'", "yes"),
        ("false ? 1 : true ? 2 : 3", 2),
        ("self.list[1]", 20),
        ("self.map['a']", 1),
        ("self.map.a == self['map'].a", True),
        ("has(self.map.a) && !has(self.map.z)", True),
        ("size(self.list) == 3 && self.text.size() == 5", True),
        ("'a' in self.map && !('z' in self.map) && 10 in self.list", True),
        ("self.list.all(x, x > 5) && !self.list.all(x, x > 10)", True),
        ("self.list.exists(x, x == 20)", True),
        ("self.list.exists_one(x, x > 15)", False),
        ("self.list.filter(x, x > 15)", [20, 30]),
        ("self.list.map(x, x * 2)", [20, 40, 60]),
        ("self.list.map(x, self.list.map(y, x + y).max()).max()", 60),
        ("self.map.all(key, key.size() == 1)", True),
        (r"self.text.matches(r'^h\w+$')", True),
        (r"'hello\n'.matches('^hello$')", False),
        ("self.text.startsWith('he') && self.text.endsWith('lo')", True),
        ("self.text.contains('ell')", True),
        ("'a@b'.split('@')[0]", "a"),
        ("type(self.text) == string && type(1) == int", True),
        ("string(1) + 'x' + string(true)", "1xtrue"),
        ("quantity('1Gi').compareTo(quantity('1024Mi'))", 0),
        ("quantity('500m').compareTo(quantity('1'))", -1),
        ("quantity('2k').isInteger() && !quantity('1500m').isInteger()", True),
        ("isQuantity('1e3') && !isQuantity('1x')", True),
        # One side that decides is enough, even when the other has no value.
        ("self.none == 1 || true", True),
        ("self.none == 1 && false", False),
    ],
)
def test_values(text, value):
    names = {"self": {"list": [10, 20, 30], "map": {"a": 1}, "text": "hello"}}
    assert evaluate(parse(text), names) == value, text


@pytest.mark.parametrize(
    "text", ["self.none", "self.list[9]", "1 < 'a'", "unknown(1)", "other", "1 / 0", "'x'.max(1)"]
)
def test_what_has_no_value_is_an_error(text):
    with pytest.raises(CelError):
        evaluate(parse(text), {"self": {"list": []}})


@pytest.mark.parametrize("text", ["", "1 +", "(1", "[1, 2", "a ? b", "1 2", "self.", "#", "'open"])
def test_what_cannot_be_read_is_an_error(text):
    with pytest.raises(CelError, match="cannot be read"):
        parse(text)


NODE = schema.custom(
    {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "x-kubernetes-validations": [
                    {"rule": "self.a <= self.b", "message": "a is too large", "fieldPath": ".a"},
                    {
                        "rule": "self.a >= oldSelf.a",
                        "message": "a may only grow",
                        "messageExpression": "'a was ' + string(oldSelf.a)",
                    },
                ],
                "properties": {
                    "a": {"type": "integer"},
                    "b": {"type": "integer"},
                    "free": {
                        "type": "object",
                        "additionalProperties": {
                            "type": "integer",
                            "x-kubernetes-validations": [{"rule": "self > 0"}],
                        },
                    },
                },
            }
        },
    }
)


def told(new, old=None):
    before = None if old is None else {"spec": old}
    return [(each.field, each.message) for each in problems(NODE, {"spec": new}, before)]


def test_a_rule_that_holds_says_nothing():
    assert told({"a": 1, "b": 2}) == []


def test_a_rule_points_to_its_field():
    assert told({"a": 3, "b": 2}) == [("spec.a", 'Invalid value: "object": a is too large')]


def test_transition_rules_wait_for_a_transition_and_make_their_message():
    assert told({"a": 1, "b": 2}, {"a": 2, "b": 2}) == [
        ("spec", 'Invalid value: "object": a was 2')
    ]


def test_what_has_not_changed_is_not_judged_again():
    assert told({"a": 3, "b": 2}, {"a": 3, "b": 2}) == []


def test_entries_of_maps_are_named():
    assert told({"a": 1, "b": 2, "free": {"x": 0}}) == [
        ("spec.free[x]", 'Invalid value: "integer": failed rule: self > 0')
    ]


def rules_in(node):
    for rule in node.raw.get("x-kubernetes-validations", ()):
        yield rule["rule"]
        if "messageExpression" in rule:
            yield rule["messageExpression"]
    for key, child in (*node.properties.items(), ("", node.values), ("", node.items)):
        if child is not None and (node.name != "ObjectMeta" or key == "name"):
            yield from rules_in(child)


def test_every_rule_of_our_crd_can_be_read():
    rules = set(rules_in(schema.custom(crd_schema())))
    assert rules, "the CRD has no rules"
    for rule in rules:
        parse(rule)
