"""A pod's volumes as folders of this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from stageline_local.client import Object
from stageline_local.kubelet.refusals import ConfigError
from stageline_local.kubelet.sources import Sources


def volume_folders(pod: Object, root: Path) -> dict[str, Path]:
    """Where each volume of the pod is: a hostPath where it says, all others below `root`.

    ConfigError for a kind of volume that this machine cannot have.
    """
    return {volume["name"]: _folder(volume, root) for volume in pod["spec"].get("volumes") or ()}


def volume_files(
    pod: Object, sources: Sources, rewrite: Callable[[str], str]
) -> dict[str, dict[str, bytes]]:
    """What is in the volumes that configMaps and secrets fill: volume -> path in it -> content.

    `rewrite` makes a text fit this machine. ConfigError when what they refer to is absent.
    """
    namespace = pod["metadata"]["namespace"]
    found: dict[str, dict[str, bytes]] = {}
    for volume in pod["spec"].get("volumes") or ():
        if reference := volume.get("configMap"):
            data = _chosen(reference, sources.config_map(namespace, reference))
            found[volume["name"]] = {path: _rewritten(data[path], rewrite) for path in data}
        elif reference := volume.get("secret"):
            found[volume["name"]] = _chosen(reference, sources.secret(namespace, reference))
    return found


def fill(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder hold these files and no others; a reader sees the old or the new content."""
    for path, content in files.items():
        target = folder / path
        if target.is_file() and target.read_bytes() == content:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.new")
        fresh.touch(0o600)
        fresh.write_bytes(content)
        fresh.replace(target)
    for there in [path for path in folder.rglob("*") if path.is_file()]:
        if str(there.relative_to(folder)) not in files:
            there.unlink()


def mounted(container: Object, folders: Mapping[str, Path]) -> dict[str, str]:
    """Mount paths of a container, and the real folder or file of each."""
    found: dict[str, str] = {}
    for mount in container.get("volumeMounts") or ():
        if mount["name"] not in folders:
            raise ConfigError(f'volumeMount "{mount["name"]}" names no volume of the pod')
        folder = folders[mount["name"]] / mount.get("subPath", "")
        found[mount["mountPath"].rstrip("/") or "/"] = str(folder)
    return found


def _folder(volume: Object, root: Path) -> Path:
    name: str = volume["name"]
    if reference := volume.get("hostPath"):
        path = Path(reference["path"])
        if reference.get("type") in ("Directory", "File") and not path.exists():
            raise ConfigError(f'volume "{name}": there is no {path} on this machine')
        return path
    if volume.keys() & {"emptyDir", "configMap", "secret"}:
        return root / name
    kind = ", ".join(sorted(volume.keys() - {"name"}))
    raise ConfigError(
        f'volume "{name}" is of a kind that this machine does not have ({kind}): use hostPath'
    )


def _chosen(reference: Object, data: dict[str, bytes]) -> dict[str, bytes]:
    if not reference.get("items"):
        return data
    found: dict[str, bytes] = {}
    for item in reference["items"]:
        if item["key"] in data:
            found[item["path"]] = data[item["key"]]
        elif not reference.get("optional"):
            raise ConfigError(f"references non-existent config key: {item['key']}")
    return found


def _rewritten(content: bytes, rewrite: Callable[[str], str]) -> bytes:
    try:
        return rewrite(content.decode()).encode()
    except UnicodeDecodeError:  # binaryData: no text to rewrite
        return content
