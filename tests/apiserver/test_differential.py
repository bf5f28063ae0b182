"""The same requests to a real kube-apiserver and to ours have the same answers."""

import time

import pytest

from stageline_api.crd import crd
from stageline_local.apiserver import served
from support import steps_kinds, steps_pipelines, steps_tables
from support.apiserver import PIPELINES, ask, normal
from support.kube import ASSETS, NOT_HERE, RealServer

pytestmark = [
    pytest.mark.skipif(not ASSETS, reason=NOT_HERE),
    pytest.mark.timeout(120),
]

STEPS = steps_tables.STEPS | steps_pipelines.STEPS | steps_kinds.STEPS


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    with RealServer(tmp_path_factory.mktemp("kube")) as server:
        where = server.server
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        login = {"token": where.token, "ca_file": where.ca_file}
        made = ask(where.url, "POST", crds, crd(), **login)
        assert made.code == 201, f"the CRD was refused: {made.message}"
        deadline = time.monotonic() + 20
        while (code := ask(where.url, "GET", PIPELINES, **login).code) != 200:
            assert time.monotonic() < deadline, f"the CRD is not served: {code}"
            time.sleep(0.02)
        yield where


@pytest.mark.xdist_group("kube-apiserver")
@pytest.mark.parametrize("name", STEPS)
def test_the_same_requests_have_the_same_answers(real, name):
    login = {"token": real.token, "ca_file": real.ca_file}
    differences = []
    with served() as ours:
        for step in STEPS[name]:
            theirs = ask(real.url, *step[:4], accept=step.accept, **login)
            mine = ask(ours.url, *step[:4], accept=step.accept)
            same = step.only_code or normal(theirs.body) == normal(mine.body)
            if theirs.code != mine.code or not same:
                differences.append((step[:3], theirs, mine))
    assert not differences, "\n\n".join(
        f"{step}\n  real {theirs.code}: {normal(theirs.body)}\n"
        f"  ours {mine.code}: {normal(mine.body)}"
        for step, theirs, mine in differences
    )
