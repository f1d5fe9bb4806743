"""The tokenizer of a checkpoint, always with a padding token.

The padding token of a tokenizer without one (GPT-2, Llama) is its end-of-text token: it is masked by the
attention mask and, on the side of the model, found by the same rule, so that both agree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from graft.errors import ConfigError, MissingDependencyError
from graft.models.resolve import resolve

_VOCABULARIES = ("tokenizer.json", "tokenizer_config.json", "vocab.*", "*.model", "*.tiktoken")


def load_processor(
    name: str,
    *,
    package: str | None = None,
    revision: str | None = None,
    padding_side: str | None = None,
    offline: bool = False,
    trust_remote_code: bool = False,
) -> Any:
    """Load the tokenizer of a checkpoint.

    Args:
        name: Hub name or folder.
        package: Folder in an installed Python package that carries the same files.
        revision: Branch, tag or commit on the hub.
        padding_side: ``left`` or ``right``; the tokenizer's own if not given.
        offline: Do not ask the hub.
        trust_remote_code: Run the Python code that comes with the checkpoint.

    Returns:
        A ``PreTrainedTokenizerBase`` with a padding token, without padding or truncation set beforehand.

    Raises:
        ConfigError: If there is no tokenizer, or no token to pad with.
    """
    if padding_side not in {None, "left", "right"}:
        raise ConfigError(f"model.padding_side: expected left or right, got '{padding_side}'. Choose one of the two.")
    folder = resolve(name, package=package, revision=revision, offline=offline, want="tokenizer")
    tokenizer = _tokenizer(folder, name, trust_remote_code=trust_remote_code)
    if padding_side is not None:
        tokenizer.padding_side = padding_side
    return tokenizer


def pad_token_id(folder: Path, config: Any, *, trust_remote_code: bool = False) -> int | None:
    """Return the padding token for a model whose configuration names none.

    Args:
        folder: The model's folder.
        config: Its ``transformers.PretrainedConfig``.
        trust_remote_code: Run the Python code that comes with the checkpoint.

    Returns:
        The tokenizer's padding token, else the end-of-text token of the configuration; None for a model that
        reads no text.
    """
    settings = config.to_dict()
    if settings.get("vocab_size") is None:
        return None
    if _has_tokenizer(folder):
        found: int = _tokenizer(folder, str(folder), trust_remote_code=trust_remote_code).pad_token_id
        return found
    end: int | list[int] | None = settings.get("eos_token_id")
    return end[0] if isinstance(end, list) else end


def ensure_pad_token(tokenizer: Any, name: str) -> None:
    """Give a tokenizer that has no padding token its end-of-text token as one, in place.

    Args:
        tokenizer: A ``PreTrainedTokenizerBase``.
        name: The checkpoint, for the message.

    Raises:
        ConfigError: If it has neither.
    """
    if tokenizer.pad_token_id is not None:
        return
    if tokenizer.eos_token is None:
        raise ConfigError(
            f"model.name: the tokenizer of {name} has neither a padding nor an end-of-text token. Add a "
            "pad_token to its tokenizer_config.json."
        )
    tokenizer.pad_token = tokenizer.eos_token


def _has_tokenizer(folder: Path) -> bool:
    return any(file for pattern in _VOCABULARIES for file in folder.glob(pattern))


def _tokenizer(folder: Path, name: str, *, trust_remote_code: bool) -> Any:
    if not _has_tokenizer(folder):
        # transformers would make one up from the model's configuration, without a vocabulary.
        raise ConfigError(
            f"model.name: {name} has no tokenizer in {folder}. Save one there with tokenizer.save_pretrained."
        )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except ImportError as error:
        raise MissingDependencyError(
            f"model.name: the tokenizer of {name} needs a package that is not installed: {error}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"model.name: {name} has no tokenizer that can be read: {error}. Save one into the same folder "
            "with tokenizer.save_pretrained."
        ) from error
    ensure_pad_token(tokenizer, name)
    if tokenizer.is_fast:
        # Some checkpoints (MiniLM among them) carry "pad to 128" in their tokenizer.json.
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
    return tokenizer
