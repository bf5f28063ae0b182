"""The order in which a resource's pods are stopped."""

from stageline_cli.serving import _leaving_order
from stageline_operator.labels import STAGE


def pod(**labels):
    return {"metadata": {"name": "p", "labels": labels}}


def test_router_goes_before_stages_and_leaders_before_the_stages_behind_them():
    stages = [pod(**{STAGE: str(number)}) for number in (11, 0, 2)]
    router = pod(component="router")
    unlabelled = {"metadata": {"name": "x"}}
    ordered = sorted([*stages, router, unlabelled], key=_leaving_order)
    assert ordered == [router, unlabelled, stages[1], stages[2], stages[0]]
