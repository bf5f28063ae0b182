"""Probes that ask real servers in real pods."""

from support.embedded import container, is_ready, only, script
from support.processes import alive, until, written

TCP = """
    import socket, sys, time
    server = socket.create_server((sys.argv[1], 7070))
    print("up", flush=True)
    time.sleep(600)
"""
HTTP = """
    import http.server, pathlib, sys
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            good = self.path == "/healthz" and self.headers["X-Asked"] == "yes"
            self.send_response(200 if good and not pathlib.Path(sys.argv[2]).exists() else 503)
            self.end_headers()
        def log_message(self, *_):
            pass
    http.server.HTTPServer((sys.argv[1], 7070), Handler).serve_forever()
"""
GRPC = """
import asyncio, pathlib, sys
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

class Health(health_pb2_grpc.HealthServicer):
    def Check(self, request, context):
        good = request.service == "" or pathlib.Path(sys.argv[2]).exists()
        return health_pb2.HealthCheckResponse(status=1 if good else 2)

from concurrent.futures import ThreadPoolExecutor
server = grpc.server(ThreadPoolExecutor(1))
health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
server.add_insecure_port(sys.argv[1] + ":7070")
server.start()
server.wait_for_termination()
"""
ADDRESS = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]


def serving(code, *arguments, **fields):
    return container(code, args=["$(IP)", *map(str, arguments)], env=ADDRESS, **fields)


async def test_port_that_nobody_listens_on_is_not_ready(pods, tmp_path):
    go = tmp_path / "go"
    wait = f"import pathlib, time\nwhile not pathlib.Path('{go}').exists(): time.sleep(0.01)"
    code = wait + TCP.replace("\n    ", "\n")
    probe = {"tcpSocket": {"port": "http"}, "periodSeconds": 30}
    one = serving(code, readinessProbe=probe, ports=[{"name": "http", "containerPort": 7070}])
    await pods.make("a", one)
    waiting = await pods.until("a", lambda status: only(status).get("started"))
    assert not is_ready(waiting["status"])
    go.touch()
    await pods.until("a", is_ready, 10)


async def test_grpc_health_tells_start_and_readiness_apart(pods, tmp_path):
    startup = {"grpc": {"port": 7070}, "failureThreshold": 60, "periodSeconds": 1}
    readiness = {"grpc": {"port": 7070, "service": "stage"}}
    one = serving(GRPC, tmp_path / "loaded", startupProbe=startup, readinessProbe=readiness)
    one["command"] = ["python", "-c", GRPC]
    await pods.make("a", one)
    started = await pods.until("a", lambda status: only(status).get("started"))
    assert not is_ready(started["status"])
    (tmp_path / "loaded").touch()
    ready = await pods.until("a", is_ready, 5)
    assert only(ready["status"])["restartCount"] == 0


async def test_http_that_turns_ill_is_restarted(pods, kubelet, tmp_path):
    action = {
        "path": "/healthz",
        "port": 7070,
        "httpHeaders": [{"name": "X-Asked", "value": "yes"}],
    }
    probe = {"httpGet": action, "periodSeconds": 1, "failureThreshold": 1}
    startup = {"httpGet": action, "failureThreshold": 60, "periodSeconds": 1}
    one = serving(HTTP, tmp_path / "ill", startupProbe=startup, livenessProbe=probe)
    await pods.make("a", one, terminationGracePeriodSeconds=5)
    first = await pods.until("a", is_ready)
    pid = int(only(first["status"])["containerID"].removeprefix("process://"))
    (tmp_path / "ill").touch()
    await until(lambda: not alive(pid), 10, "the end of an ill container")
    (tmp_path / "ill").unlink()
    second = await pods.until("a", lambda status: only(status)["restartCount"] and is_ready(status))
    assert only(second["status"])["lastState"]["terminated"]["exitCode"] == 143


async def test_startup_that_fails_ends_the_container(pods):
    probe = {"tcpSocket": {"port": 7070}, "periodSeconds": 1, "failureThreshold": 1}
    await pods.make("a", container(startupProbe=probe))
    pod = await pods.until("a", lambda status: only(status)["restartCount"])
    assert only(pod["status"])["lastState"]["terminated"]["exitCode"] == 143


async def test_exec_runs_as_the_container_does(pods, tmp_path):
    check = "import os, sys; open(os.environ['SEEN'], 'w').write(os.environ['IP']); sys.exit(0)"
    env = [*ADDRESS, {"name": "SEEN", "value": f"{tmp_path}/seen"}]
    probe = {"exec": {"command": script(check)}, "timeoutSeconds": 5}
    await pods.make("a", container(env=env, readinessProbe=probe))
    pod = await pods.until("a", is_ready)
    assert written(tmp_path / "seen", pod["status"]["podIP"])


async def test_exec_that_hangs_is_bad_and_leaves_nothing(pods, tmp_path):
    hang = (
        f"import os, time; open('{tmp_path}/pid', 'a').write(f'{{os.getpid()}} '); time.sleep(600)"
    )
    probe = {"exec": {"command": script(hang)}, "timeoutSeconds": 1, "failureThreshold": 1}
    await pods.make("a", container(livenessProbe={**probe, "periodSeconds": 60}))
    await pods.until("a", lambda status: only(status)["restartCount"] >= 1)
    first = int((tmp_path / "pid").read_text().split()[0])
    await until(lambda: not alive(first))
