"""Certificates in the life of a resource: what follows from them, and what does not."""

import base64
from datetime import timedelta

from stageline_operator.kinds import CONFIG_MAP, DEPLOYMENT, SECRET
from stageline_operator.rotation import AUTHORITY_LIFE, LIFE
from stageline_operator.secrets import are_needed, are_stuck
from support.world import World

SECRETS = {"llama-ca", "llama-router-tls", "llama-stage-tls"}


def settled(**spec):
    one = World(pipeline={"stages": 2}, **spec)
    one.settle()
    return one


def shown(one, role):
    secret = one.children[SECRET][f"llama-{role}-tls"]
    return base64.b64decode(secret["data"]["tls.crt"])


def test_a_year_of_rotations_writes_secrets_and_nothing_else():
    one = settled()
    before = {role: shown(one, role) for role in ("stage", "router")}
    documents = dict(one.children[CONFIG_MAP]), dict(one.children[DEPLOYMENT]), dict(one.pods)
    done, started = [], one.now
    while one.now < started + timedelta(days=365):
        again = one.decide().again
        assert again, "the next step is waited for"
        one.now += timedelta(seconds=again + 1)
        done += one.reconcile()
    assert {name for verb, name in done if verb == "apply"} == SECRETS
    assert {verb for verb, _ in done} <= {"apply", "status"}, "no pod is made or ended for it"
    assert (one.children[CONFIG_MAP], one.children[DEPLOYMENT], one.pods) == documents
    for role, certificate in before.items():
        assert shown(one, role) != certificate
    assert len(done) < 60


def test_a_resource_that_speaks_plaintext_has_no_certificates():
    one = settled(security={"tls": "Disabled"})
    assert SECRET not in one.children
    one.now += AUTHORITY_LIFE
    assert not [name for verb, name in one.reconcile() if verb == "apply"]


def test_certificates_stay_for_pipelines_that_still_ask_for_them():
    """Secrets are never deleted but with the resource."""
    one = settled()
    before = shown(one, "stage")
    one.never_ready = lambda name: name not in pods
    pods = set(one.pods)
    one.change(security={"tls": "Disabled"})
    for _ in range(5):
        one.reconcile()
        one.tick()
    assert one.stage_pods & pods, "the old pipeline serves until the new one does"
    one.now += LIFE
    one.reconcile()
    assert shown(one, "stage") != before, "and its certificates are renewed"
    assert set(one.children[SECRET]) == SECRETS
    assert are_needed(one.observed())


def test_a_router_is_told_of_each_pipeline_whether_it_asks_for_certificates():
    one = settled()
    pods = set(one.pods)
    one.never_ready = lambda name: name not in pods
    one.change(security={"tls": "Disabled"})
    for _ in range(5):
        one.reconcile()
        one.tick()
    document = one.children[CONFIG_MAP]["llama-router"]["data"]["router.json"]
    assert document.count('"tls": true') == document.count('"tls": false') == 1


def waiting(reason):
    state = {"waiting": {"reason": reason}}
    return {"spec": {"nodeName": "n"}, "status": {"containerStatuses": [{"state": state}]}}


def test_a_pod_that_waits_for_what_it_mounts_is_told_from_others():
    assert are_stuck([waiting("ContainerCreating")])
    assert are_stuck([waiting("ImagePullBackOff"), waiting("CreateContainerConfigError")])
    assert not are_stuck([waiting("ImagePullBackOff"), waiting("CrashLoopBackOff")])
    assert not are_stuck([{"spec": {}, "status": {}}, {}])
    no_node = {**waiting("ContainerCreating"), "spec": {}}
    assert not are_stuck([no_node])
