"""Where stages and routers find their certificates and tokens."""

import json

from stageline_operator import render
from support.rendered import container, env, rendered


def mounts_of(container):
    return {mount["mountPath"]: mount for mount in container["volumeMounts"]}


def secrets_of(pod):
    return {v["name"]: v["secret"] for v in pod["spec"]["volumes"] if "secret" in v}


def test_a_stage_finds_its_certificate_where_its_document_says():
    made = rendered()
    worker, secret = made.worker(), secrets_of(made.stage())["tls"]
    folder = json.loads(env(worker)["STAGELINE_DOCUMENT"])["credentials"]
    assert mounts_of(worker)[folder] == {"name": "tls", "mountPath": folder, "readOnly": True}
    assert secret == {"secretName": "llama-stage-tls", "defaultMode": 0o444}, "no root reads it"


def test_probes_ask_a_port_that_speaks_no_tls():
    made = rendered("{router: {tls: {secretName: front}}}")
    router = container(made.router()["spec"]["template"], "router")
    document = json.loads(env(made.worker())["STAGELINE_DOCUMENT"])
    assert document["health"] == "$(POD_IP):7072"
    for each in (made.worker(), router):
        asked = {
            each[f"{kind}Probe"]["grpc"]["port"] for kind in ("startup", "liveness", "readiness")
        }
        assert asked == {7072}
        assert 7072 in {port["containerPort"] for port in each["ports"]}


def test_a_stage_that_speaks_plaintext_has_no_certificate():
    made = rendered("{security: {tls: Disabled}}")
    assert not secrets_of(made.stage())
    assert json.loads(env(made.worker())["STAGELINE_DOCUMENT"])["credentials"] == ""


def test_a_router_has_a_place_for_every_secret_and_says_itself_what_is_missing():
    made = rendered("{router: {tls: {secretName: front}, auth: {tokenSecretName: clients}}}")
    template = made.router()["spec"]["template"]
    router, secrets = container(template, "router"), secrets_of(template)
    told = dict(zip(router["args"][::2], router["args"][1::2], strict=True))
    names = {"--credentials": "llama-router-tls", "--tls": "front", "--tokens": "clients"}
    for flag, name in names.items():
        mount = mounts_of(router)[told[flag]]
        assert secrets[mount["name"]] == {
            "secretName": name, "defaultMode": 0o444, "optional": True,
        }  # fmt: skip
        assert mount["readOnly"]
    (port,) = render.router_service(made.resource, made.deployment)["spec"]["ports"]
    assert port["appProtocol"] == "https"


def test_plaintext_routers_have_a_place_for_their_certificate_too():
    """One of another revision may ask for it, and no router restarts for that."""
    template = rendered("{security: {tls: Disabled}}").router()["spec"]["template"]
    assert template == rendered().router()["spec"]["template"]
    assert set(secrets_of(template)) == {"tls"}
