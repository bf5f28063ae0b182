"""A manifest whose model is on a hub: all parts read one commit of it, wherever main goes."""

import os
import signal
from pathlib import Path

from support import hub as hubs
from support.up import container, stageline, up, write_manifest

MODEL = Path(__file__).parents[2] / "examples" / "models" / "tiny-llama"
SECRET = "hf_only-the-hub-may-see-it"


async def test_all_that_reads_a_model_reads_the_commit_that_was_profiled(tmp_path):
    with hubs.serving(hubs.Hub(MODEL, token=SECRET)) as hub:
        path, port = write_manifest(tmp_path)
        path.write_text(path.read_text().replace("file:///nowhere", "hf://owner/model@main"))
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": SECRET, "HF_HUB_OFFLINE": "0"}
        async with up(tmp_path, path, OMP_NUM_THREADS="1", **environment) as running:
            await running.line(f"tiny is ready at 127.0.0.1:{port}")
            assert hub.revisions == {"main", hubs.COMMIT}
            hub.revisions.clear()
            hub.main = hubs.NEXT

            stage = container((await running.pods())[1])["containerID"]
            os.kill(int(stage.removeprefix("process://")), signal.SIGKILL)
            await running.line(f"tiny is ready again at 127.0.0.1:{port}")
            assert hub.revisions == {hubs.COMMIT}, "after main moved, stages read two models"
            stages = (await running.status())["status"]["stages"]
            assert all(0 < each["bytesLoaded"] == each["bytesTotal"] for each in stages)

            call = ("generate", "--address", f"127.0.0.1:{port}", "--max-tokens", "4", "The value")
            code, text = await stageline(*call)
            assert code == 0, "the router has no tokenizer"
            assert text.strip()
            written = [file for file in tmp_path.rglob("*") if file.suffix in (".log", ".json")]
            assert written
            logs = b"".join(file.read_bytes() for file in written)
            assert SECRET.encode() not in logs, "the token was written down"
            running.signal(signal.SIGINT)
            assert await running.end() == 0


async def test_a_stage_that_starts_again_downloads_nothing_where_there_is_a_cache(tmp_path):
    with hubs.serving(hubs.Hub(MODEL)) as hub:
        path, port = write_manifest(tmp_path, more=f", cache: file://{tmp_path}/cache")
        path.write_text(path.read_text().replace("file:///nowhere", "hf://owner/model@main"))
        environment = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
        async with up(tmp_path, path, OMP_NUM_THREADS="1", **environment) as running:
            await running.line(f"tiny is ready at 127.0.0.1:{port}")
            assert sum(hub.served.values()) > MODEL.joinpath("model.safetensors").stat().st_size
            hub.served.clear()
            stage = container((await running.pods())[1])["containerID"]
            os.kill(int(stage.removeprefix("process://")), signal.SIGKILL)
            await running.line(f"tiny is ready again at 127.0.0.1:{port}")
            assert hub.served == {}
            stages = (await running.status())["status"]["stages"]
            assert all(0 < each["bytesLoaded"] == each["bytesTotal"] for each in stages)
            assert not any("message" in each for each in stages)
            running.signal(signal.SIGINT)
            assert await running.end() == 0
