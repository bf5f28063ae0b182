"""Where a checkpoint may be."""

import re
from pathlib import PurePosixPath

import pytest

from stageline_api.uri import check_uri, resolve_uri


@pytest.mark.parametrize(
    "uri",
    [
        "hf://meta-llama/Llama-3.1-70B-Instruct@main",
        "hf://gpt2",
        "hf://a/b@refs/pr/3",
        "pvc://models/llama",
        "pvc://models",
        "s3://bucket/a/b",
        "file:///srv/models/my model",
        "file://./model",
        "file://../model",
    ],
)
def test_good_addresses_pass(uri):
    check_uri(uri)  # which raises where it does not


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("meta-llama/Llama-3.1-70B", "has no scheme"),
        ("", "has no scheme"),
        ("http://host/model", "unknown scheme http://; use hf://, pvc://, s3:// or file://"),
        ("HF://a/b", "unknown scheme HF://"),
        ("hf://", "write hf://owner/model"),
        ("hf://a/b/c", "write hf://owner/model"),
        ("hf://../../etc", "write hf://owner/model"),
        ("hf://a/b@x/../y", "write hf://owner/model"),
        ("pvc://", "write pvc://claim/folder"),
        ("pvc://claim/../other", "write pvc://claim/folder"),
        ("s3://B/x", "write s3://bucket/folder"),
        ("file://models/x", "write file:///folder or file://./folder"),
        ("file:///a\nb", "write file:///folder"),
        ("file:///a\0b", "write file:///folder"),
    ],
)
def test_bad_addresses_are_refused_with_the_form_to_write(uri, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        check_uri(uri)


@pytest.mark.parametrize(
    ("uri", "resolved"),
    [
        ("file://./model", "file:///home/me/work/model"),
        ("file://../model", "file:///home/me/model"),
        ("file://../../../../model", "file:///model"),
        ("file://./a/../b/./c", "file:///home/me/work/b/c"),
        ("file:///srv/model", "file:///srv/model"),
        ("hf://a/b", "hf://a/b"),
    ],
)
def test_relative_files_lie_beside_the_manifest(uri, resolved):
    assert resolve_uri(uri, PurePosixPath("/home/me/work")) == resolved
