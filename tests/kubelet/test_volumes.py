"""What is in a pod's volumes, and how it comes there."""

import base64
from pathlib import Path

import pytest

from stageline_local.kubelet.refusals import ConfigError
from stageline_local.kubelet.sources import Sources
from stageline_local.kubelet.volumes import fill, mounted, volume_files, volume_folders

ROOT = Path("/state/volumes")


def pod(*volumes):
    return {"metadata": {"namespace": "ml"}, "spec": {"volumes": list(volumes)}}


def sources(data=None, binary=None, secret=None):
    return Sources(
        {("ml", "cm"): {"data": data or {}, "binaryData": binary or {}}},
        {("ml", "s"): {"data": secret or {}}},
    )


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_where_volumes_are(tmp_path):
    volumes = [
        {"name": "cache", "emptyDir": {}},
        {"name": "config", "configMap": {"name": "cm"}},
        {"name": "model", "hostPath": {"path": str(tmp_path), "type": "Directory"}},
    ]
    folders = volume_folders(pod(*volumes), ROOT)
    assert folders == {"cache": ROOT / "cache", "config": ROOT / "config", "model": tmp_path}


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}, "(persistentVolumeClaim)"),
        ({"name": "v", "hostPath": {"path": "/no/such", "type": "Directory"}}, "no /no/such"),
    ],
)
def test_volume_that_cannot_be_had_is_a_sentence(volume, words):
    with pytest.raises(ConfigError, match=r'volume "v"') as refused:
        volume_folders(pod(volume), ROOT)
    assert words in str(refused.value)


def test_files_are_rewritten_but_neither_bytes_nor_secrets():
    volumes = [
        {"name": "config", "configMap": {"name": "cm"}},
        {"name": "keys", "secret": {"secretName": "s"}},
    ]
    have = sources({"a.json": "x"}, {"b.bin": encoded(b"\xff\x00")}, {"key": encoded(b"x")})
    assert volume_files(pod(*volumes), have, str.upper) == {
        "config": {"a.json": b"X", "b.bin": b"\xff\x00"},
        "keys": {"key": b"x"},
    }


def test_items_choose_and_rename():
    items = [{"key": "a", "path": "deep/b"}]
    volume = {"name": "v", "configMap": {"name": "cm", "items": items}}
    files = volume_files(pod(volume), sources({"a": "1", "c": "2"}), str)
    assert files == {"v": {"deep/b": b"1"}}
    with pytest.raises(ConfigError, match="non-existent config key: a"):
        volume_files(pod(volume), sources({"c": "2"}), str)


def test_absent_config_map_is_a_sentence_unless_optional():
    volume = {"name": "v", "configMap": {"name": "no"}}
    with pytest.raises(ConfigError, match='configmap "no" not found'):
        volume_files(pod(volume), sources(), str)
    volume["configMap"]["optional"] = True
    assert volume_files(pod(volume), sources(), str) == {"v": {}}


def test_filling_replaces_whole_files_and_removes_old_ones(tmp_path):
    fill(tmp_path, {"a": b"1", "deep/b": b"2"})
    with (tmp_path / "a").open() as reader:
        fill(tmp_path, {"a": b"much longer"})
        assert reader.read() == "1", "a reader saw the file change under it"
    assert (tmp_path / "a").read_bytes() == b"much longer"
    assert not (tmp_path / "deep/b").exists()


def test_file_that_is_the_same_is_left_alone(tmp_path):
    fill(tmp_path, {"a": b"1"})
    before = (tmp_path / "a").stat().st_ino
    fill(tmp_path, {"a": b"1"})
    assert (tmp_path / "a").stat().st_ino == before


def test_mounts():
    mounts = [
        {"name": "v", "mountPath": "/etc/x/"},
        {"name": "v", "mountPath": "/f", "subPath": "f"},
    ]
    folders = {"v": Path("/state/v")}
    assert mounted({"volumeMounts": mounts}, folders) == {"/etc/x": "/state/v", "/f": "/state/v/f"}
    with pytest.raises(ConfigError, match='"w" names no volume'):
        mounted({"volumeMounts": [{"name": "w", "mountPath": "/w"}]}, folders)
