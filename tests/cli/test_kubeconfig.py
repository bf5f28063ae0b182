"""Kubeconfigs, read as kubectl reads them."""

import base64
import os
import sys

import pytest
import yaml

from stageline_cli.failure import Failure
from stageline_cli.kubeconfig import kubeconfig_files, read_access


def config(folder, name="config", user=None, cluster=None, context=None, current="a"):
    path = folder / name
    context = {"cluster": "c", "user": "u", **(context or {})}
    cluster = {"server": "https://k:6443/", **(cluster or {})}
    content = {
        "current-context": current,
        "contexts": [{"name": "a", "context": context}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user or {}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def test_plain(tmp_path):
    access = read_access([config(tmp_path, user={"token": "t"}, context={"namespace": "n"})])
    assert (access.server, access.namespace, access.token) == ("https://k:6443", "n", "t")
    assert (access.ca, access.certificate, access.insecure) == ("", b"", False)


def test_certificates_by_content_and_by_file(tmp_path):
    (tmp_path / "ca.pem").write_text("CA")
    path = config(
        tmp_path,
        cluster={"certificate-authority": "ca.pem"},
        user={"client-certificate-data": encoded("CERT"), "client-key-data": encoded("KEY")},
    )
    access = read_access([path])
    assert (access.ca, access.certificate) == ("CA", b"CERT\nKEY")


def test_token_file_lies_beside_the_config(tmp_path):
    (tmp_path / "secret").write_text("from a file\n")
    assert read_access([config(tmp_path, user={"tokenFile": "secret"})]).token == "from a file"


def test_plugin_gives_the_token(tmp_path):
    code = "import os; print('{\"status\": {\"token\": \"' + os.environ['GIVEN'] + '\"}}')"
    plugin = {"command": sys.executable, "args": ["-c", code], "apiVersion": "v1"}
    user = {"exec": plugin | {"env": [{"name": "GIVEN", "value": "by the plugin"}]}}
    assert read_access([config(tmp_path, user=user)]).token == "by the plugin"


def test_first_file_is_right_and_the_second_adds(tmp_path):
    first = config(tmp_path, "one", user={"token": "first"}, current="")
    second = config(tmp_path, "two", user={"token": "second"})
    assert read_access([first, second]).token == "first"


def test_files_in_the_order_of_kubectl(tmp_path):
    one, two = (config(tmp_path, name) for name in ("one", "two"))
    named = {"KUBECONFIG": f"{one}{os.pathsep}{tmp_path / 'none'}{os.pathsep}{two}"}
    assert kubeconfig_files(None, named) == [one, two]
    assert kubeconfig_files(two, named) == [two]


@pytest.mark.parametrize(
    ("change", "context", "sentence"),
    [
        ({"current": ""}, None, "no current context: name one with --context"),
        ({}, "b", "no context 'b'; it has: a"),
        ({"context": {"cluster": "x"}}, None, "no cluster 'x'; it has: c"),
        ({"user": {"auth-provider": {"name": "gcp"}}}, None, "user u .* signs in by auth-provider"),
        ({"user": {"tokenFile": "none"}}, None, "tokenFile .*none .*: No such file"),
        ({"user": {"exec": {"command": "/nowhere"}}}, None, "credential plugin of user u failed"),
        ({"user": {"exec": {"command": "echo"}}}, None, "user u gave no token"),
        ({"cluster": {"tls-server-name": "z"}}, None, "tls-server-name of cluster c"),
    ],
)  # fmt: skip
def test_what_is_not_there_or_not_known_is_a_sentence(tmp_path, change, context, sentence):
    with pytest.raises(Failure, match=sentence):
        read_access([config(tmp_path, **change)], context)


@pytest.mark.parametrize("text", ["[", "a: b: c", "just words"])
def test_file_that_is_no_kubeconfig(tmp_path, text):
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(Failure, match=r"^kubeconfig .*config (is not YAML|has no contexts)"):
        read_access([path])
