"""The "restricted" level of the Pod Security Standards, rule by rule, as Kubernetes checks it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}  # fmt: skip
_SECCOMP = {"RuntimeDefault", "Localhost"}


def restricted(pod: dict[str, Any]) -> list[str]:
    """What the level forbids of a pod (or of a pod template), empty when it may run."""
    spec = pod["spec"]
    return [*_of_pod(spec), *(wrong for each in _containers(spec) for wrong in _of_one(spec, each))]


def _containers(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(kind) or ()


def _of_pod(spec: dict[str, Any]) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"{name} is true"
    for volume in spec.get("volumes") or ():
        for kind in set(volume) - {"name"} - _VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    security = spec.get("securityContext") or {}
    for sysctl in security.get("sysctls") or ():
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']} is set"
    yield from _of_both("the pod", security)


def _of_one(spec: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    name, own = f"container {container['name']}", container.get("securityContext") or {}
    of_pod = spec.get("securityContext") or {}
    yield from _of_both(name, own)
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may gain privileges"
    if own.get("privileged"):
        yield f"{name} is privileged"
    if own.get("procMount", "Default") != "Default":
        yield f"{name} sees all of /proc"
    if not own.get("runAsNonRoot", of_pod.get("runAsNonRoot")):
        yield f"{name} may run as root"
    if (own.get("seccompProfile") or of_pod.get("seccompProfile") or {}).get("type") is None:
        yield f"{name} has no seccomp profile"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()):
        yield f"{name} keeps capabilities"
    if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
        yield f"{name} adds capabilities"
    for port in container.get("ports") or ():
        if port.get("hostPort"):
            yield f"{name} has a port of the host"


def _of_both(name: str, security: dict[str, Any]) -> Iterator[str]:
    if security.get("runAsNonRoot") is False or security.get("runAsUser") == 0:
        yield f"{name} runs as root"
    if (security.get("windowsOptions") or {}).get("hostProcess"):
        yield f"{name} is a process of the host"
    if (profile := security.get("seccompProfile")) and profile["type"] not in _SECCOMP:
        yield f"{name} has the seccomp profile {profile['type']}"
    if (security.get("appArmorProfile") or {}).get("type") == "Unconfined":
        yield f"{name} is not confined by AppArmor"
    options = security.get("seLinuxOptions") or {}
    if options.get("user") or options.get("role"):
        yield f"{name} sets SELinux user or role"
