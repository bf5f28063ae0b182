"""Which namespaces an operator of all leaves to others, by what their Leases have told and when."""

import pytest

from stageline_operator import lease
from stageline_operator.elsewhere import Elsewhere


def held(beat, holder="b", namespace="web", duration=15):
    """A Lease as the API server has it, renewed for the `beat`th time."""
    spec = {"holderIdentity": holder, "renewTime": str(beat), "leaseDurationSeconds": duration}
    return {"metadata": {"namespace": namespace, "name": lease.NAME}, "spec": spec}


GONE = None
LET_GO = held(1, holder="")
CASES = {
    "nobody": ([], 0, False),
    "a holder": ([(0, held(1))], 14.9, True),
    "one that was let go before we looked": ([(0, LET_GO)], 0, False),
    "one that nobody renews": ([(0, held(1))], 15, False),
    "one that is renewed": ([(0, held(1)), (14, held(2))], 28.9, True),
    "one that is told again, unchanged": ([(0, held(1)), (14, held(1))], 15, False),
    "one that was let go just now": ([(0, held(1)), (10, LET_GO)], 24.9, True),
    "one that was let go a while ago": ([(0, held(1)), (10, LET_GO)], 25, False),
    "one that was deleted just now": ([(0, held(1)), (10, GONE)], 24.9, True),
    "one that was deleted a while ago": ([(0, held(1)), (10, GONE)], 25, False),
    "one that came back": ([(0, held(1)), (10, LET_GO), (20, held(2, "c"))], 34.9, True),
    "one that ran out and was renewed": ([(0, held(1)), (50, held(2))], 60, True),
    "one that lasts longer": ([(0, held(1, duration=60))], 59.9, True),
    "one that is marked by who waits": (
        [(0, held(1)), (14, {**held(1), "metadata": {
            "namespace": "web", "name": lease.NAME, "annotations": {lease.CONTENDER: "c 1"},
        }})], 15, False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_namespace_is_left_to_who_renews_its_lease(case):
    told, now, is_left = CASES[case]
    for listed in (False, True):
        elsewhere = Elsewhere()
        for time, found in told:
            if listed:
                elsewhere.listed([] if found is GONE else [found], time)
            else:
                elsewhere.heard(found or held(1), time, is_gone=found is GONE)
        assert ("web" in elsewhere.namespaces(now)) == is_left, f"listed: {listed}"


def test_each_namespace_stands_for_itself_and_says_who_has_it():
    elsewhere = Elsewhere()
    elsewhere.listed([held(1), held(1, "web/c/x_1", "chat")], 0)
    elsewhere.heard(held(2, "web/c/x_1", "chat"), 10)
    assert elsewhere.namespaces(11) == {"web": "b", "chat": "web/c/x_1"}
    assert elsewhere.namespaces(20) == {"chat": "web/c/x_1"}
