"""Read the manifest file that a command was given."""

from __future__ import annotations

from pathlib import Path

from stageline_api.manifest import ManifestError, read_manifest, resolve_model
from stageline_api.resource import PipelineDeployment


def load_manifest(path: Path) -> PipelineDeployment:
    """The PipelineDeployment in `path`, its relative file:// model taken from the file's folder.

    ManifestError says what is wrong with the file or what is in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ManifestError(f"{path} is not UTF-8 text: a manifest is YAML") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ManifestError(f"{path} cannot be read: {reason}") from None
    return resolve_model(read_manifest(text, str(path)), path.absolute().parent)
