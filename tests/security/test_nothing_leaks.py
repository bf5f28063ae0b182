"""A whole deployment with secrets of every kind, and all that can be read of it beside Secrets."""

import base64
import json
import signal

from stageline_local.ports import free_ports
from stageline_operator.kinds import CHILDREN, EVENT, PIPELINE_DEPLOYMENT, SECRET, Kind
from support.certificates import front_pair
from support.up import stageline, up
from support.zoo import checkpoint

SOURCE_TOKEN = "hf-sesame-open-7d1c"
CLIENT_TOKEN = "client-sesame-open-93ab"
EVERY_KIND = (*CHILDREN, PIPELINE_DEPLOYMENT, EVENT, Kind("v1", "Event", "events"))

MANIFEST = """
apiVersion: stageline.dev/v1alpha1
kind: PipelineDeployment
metadata: {{name: tiny}}
spec:
  model: {{uri: "file://{model}", dtype: float32, secretName: source}}
  pipeline: {{stages: 2, device: cpu}}
  router:
    port: {port}
    tls: {{secretName: front}}
    auth: {{tokenSecretName: clients}}
"""


def secret(name, **data):
    encoded = {
        key.replace("_", "."): base64.b64encode(value).decode() for key, value in data.items()
    }
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


def needles(secrets):
    """Every way in which a secret value may be written."""
    for found in secrets:
        for key, text in found["data"].items():
            value = base64.b64decode(text)
            if key.endswith(".crt"):  # whoever calls a port may read those
                continue
            if b"PRIVATE KEY" in value:
                yield from value.decode().splitlines()[1:-1]
            else:
                yield value.decode().strip()
            yield text


async def test_no_secret_value_is_anywhere_but_in_secrets(tmp_path):
    port = free_ports(1)[0]
    manifest, pair = tmp_path / "tiny.yaml", front_pair()
    manifest.write_text(MANIFEST.format(model=checkpoint("bert"), port=port))
    (tmp_path / "ca.crt").write_bytes(pair.certificate)
    (tmp_path / "token").write_text(CLIENT_TOKEN)
    address = f"127.0.0.1:{port}"
    call = ("infer", "--address", address, "--input", "input_ids=[[5, 6, 7]]", "--json")
    let_in = ("--ca", tmp_path / "ca.crt", "--token-file", tmp_path / "token")
    async with up(tmp_path, manifest, OMP_NUM_THREADS="1") as running:
        await running.line("look from another terminal")
        async with running.api() as client:
            for made in (
                secret("source", HF_TOKEN=SOURCE_TOKEN.encode()),
                secret("front", tls_crt=pair.certificate, tls_key=pair.key),
                secret("clients", token=f"{CLIENT_TOKEN}\n".encode()),
            ):
                await client.create(SECRET.path("default"), made)
            await running.line(f"tiny is ready at {address}")
            code, answer = await stageline(*call, *let_in)
            assert code == 0, answer
            secrets = await client.list(SECRET.path("default"))
            objects = [
                obj for kind in EVERY_KIND for obj in await client.list(kind.path("default"))
            ]
        said = {
            path: path.read_text(errors="replace")
            for path in (tmp_path / "state").rglob("*")
            if path.is_file() and path.suffix in (".log", ".termination")
        }
        mounted = [path for path in (tmp_path / "state").rglob("tls.key") if path.is_file()]
        assert {path.stat().st_mode & 0o777 for path in mounted} == {0o600}
        running.signal(signal.SIGINT)
        assert await running.end() == 0
    said |= {obj["metadata"]["name"]: json.dumps(obj) for obj in objects}
    said |= {"stdout": "\n".join(running.lines), "stderr": "\n".join(running.errors)}

    hidden = list(needles(secrets))
    assert {SOURCE_TOKEN, CLIENT_TOKEN} <= set(hidden)
    assert {found["metadata"]["name"] for found in secrets} >= {"tiny-ca", "tiny-stage-tls"}
    assert sum("operator" in str(where) for where in said), "the operator's log was looked at"
    leaks = {str(where) for where, text in said.items() for needle in hidden if needle in text}
    assert not leaks

    assert len(mounted) == 4, "two stages, and a router with two certificates"
    assert not any(path.exists() for path in mounted), "what a pod had goes with it"
