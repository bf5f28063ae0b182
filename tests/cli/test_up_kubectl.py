"""kubectl against a running `stageline up`, as against any cluster."""

import asyncio
import json
import sys
from pathlib import Path

import yaml

from support.up import up, write_manifest
from support.zoo import checkpoint

KUBECTL = Path(sys.executable).with_name("kubectl")


async def kubectl(*arguments):
    """What it prints."""
    process = await asyncio.create_subprocess_exec(
        KUBECTL,
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, f"kubectl {' '.join(map(str, arguments))}: {errors.decode()}"
    return out.decode()


async def test_a_user_of_kubectl_finds_what_he_is_used_to(tmp_path):
    path, _ = write_manifest(tmp_path, checkpoint("bert"))
    async with up(tmp_path, path, OMP_NUM_THREADS="1") as running:
        await running.line("tiny is ready at")
        config = tmp_path / "state" / "tiny" / "kubeconfig"
        server = yaml.safe_load(config.read_text())["clusters"][0]["cluster"]["server"]

        async def here(*arguments):
            return await kubectl("--kubeconfig", config, *arguments)

        assert "condition met" in await here("wait", "pld/tiny", "--for=condition=Ready")
        heading, row = (await here("get", "pld")).splitlines()
        shown = dict(zip(heading.split(), row.split(), strict=True))
        assert {"NAME": "tiny", "READY": "True", "STAGES": "2", "PIPELINES": "1/1"}.items() <= (
            shown.items()
        )
        told = await here("describe", "pld", "tiny")
        assert "Serving" in told.partition("\nEvents:")[2], "no Event of it is shown"
        pods = await kubectl("--server", server, "get", "pods", "--output", "name")
        assert len([name for name in pods.split() if "router" not in name]) == 2

        manifest = yaml.safe_load(path.read_text())
        manifest["metadata"]["labels"] = {"team": "a"}
        manifest["spec"]["replicas"] = 1
        path.write_text(yaml.safe_dump(manifest))
        await here("apply", "--filename", path)
        labels = json.loads(await here("get", "pld/tiny", "--output", "json"))["metadata"]["labels"]
        assert labels == {"team": "a"}

        await here("scale", "pld/tiny", "--replicas=2")
        ready = "--for=jsonpath={.status.readyReplicas}=2"
        await here("wait", "pld/tiny", ready, "--timeout=90s")
        logs = await here("logs", "--selector", "stageline.dev/stage=1", "--tail=-1")
        assert logs.count("loaded") >= 2, "the logs of both pipelines"

        await here("delete", "pld/tiny", "--timeout=60s")
        assert await running.end() == 0
    assert running.errors == []
