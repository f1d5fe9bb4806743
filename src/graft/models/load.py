"""A pretrained model with the head that a task needs: in train mode, in float32, its new parameters named.

What goes wrong without it (each held by a test): ``from_pretrained`` returns an evaluating model, so dropout
is off for the whole run; ``transformers`` 5 keeps the checkpoint's dtype, so a bfloat16 checkpoint is trained
in bfloat16; a new head is frozen and left out of the adapter when its name is not one that ``peft`` knows.

Chosen with ``model=<name>``; any checkpoint with ``model=custom model.name=<hub name or folder>``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn

from graft.errors import CheckpointError, ConfigError, IncompatibleError, did_you_mean
from graft.log import get_logger
from graft.models import blocks
from graft.models.processor import load_processor, pad_token_id
from graft.models.resolve import portable_name, resolve, weight_files
from graft.models.seeding import seeded
from graft.models.settings import apply_overrides, set_dropout
from graft.step import ModelNeeds

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SHOWN = 6

log = get_logger(__name__)


@dataclass(frozen=True)
class BaseId:
    """Which base model a trained part belongs to.

    Attributes:
        name: Hub name, or absolute folder.
        revision: What was asked for on the hub; None for the default branch or a folder.
        fingerprint: SHA-256 over the content of the weights. Two bases are the same exactly when this agrees;
            the name only tells a person where to look.
    """

    name: str
    revision: str | None
    fingerprint: str


@dataclass(frozen=True)
class Loaded:
    """A model ready to be adapted.

    Attributes:
        model: The model, in train mode.
        new_parameters: Names of the parameters that the checkpoint did not hold; always trained, always
            saved.
        base: Which base it is.
    """

    model: nn.Module
    new_parameters: tuple[str, ...]
    base: BaseId


@final
@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A checkpoint and how to load it: what ``conf/model/*.yaml`` builds.

    Attributes:
        name: Hub name or folder.
        packages: Hub name -> folder in an installed Python package that carries the same files, used for that name.
        revision: Branch, tag or commit on the hub.
        dtype: Of what stays frozen: ``float32``, ``bfloat16`` or ``float16``. What trains is float32 in any
            case; half precision needs a trainer with mixed precision.
        attention: ``eager``, ``sdpa`` or ``flash_attention_2``; the best available if not given.
        dropout: Sets all dropout probabilities of the model; the checkpoint's own if not given.
        config: Further settings of the transformers configuration.
        random_init: Take the architecture only and start from random weights.
        seed: Of the new parameters.
        offline: Do not ask the hub.
        trust_remote_code: Run the Python code that comes with the checkpoint.
        padding_side: ``left`` or ``right``; the tokenizer's own if not given.
    """

    name: str
    packages: Mapping[str, str] | None = None
    revision: str | None = None
    dtype: str = "float32"
    attention: str | None = None
    dropout: float | None = None
    config: Mapping[str, Any] | None = None
    random_init: bool = False
    seed: int | None = None
    offline: bool = False
    trust_remote_code: bool = False
    padding_side: str | None = None

    def load(self, needs: ModelNeeds) -> Loaded:
        """Load the model with the head that ``needs`` describes; see ``load_model``."""
        return load_model(
            self.name,
            needs=needs,
            package=(self.packages or {}).get(self.name),
            revision=self.revision,
            dtype=self.dtype,
            attention=self.attention,
            dropout=self.dropout,
            config=self.config,
            random_init=self.random_init,
            seed=self.seed,
            offline=self.offline,
            trust_remote_code=self.trust_remote_code,
        )

    def processor(self) -> Any:
        """Load its tokenizer, with a padding token; see ``load_processor``."""
        return load_processor(
            self.name,
            package=(self.packages or {}).get(self.name),
            revision=self.revision,
            padding_side=self.padding_side,
            offline=self.offline,
            trust_remote_code=self.trust_remote_code,
        )


def load_model(
    name: str,
    *,
    needs: ModelNeeds,
    package: str | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    attention: str | None = None,
    dropout: float | None = None,
    config: Mapping[str, Any] | None = None,
    random_init: bool = False,
    seed: int | None = None,
    offline: bool = False,
    trust_remote_code: bool = False,
) -> Loaded:
    """Load a checkpoint with the head that a task needs.

    Args:
        name: Hub name or folder.
        needs: The transformers class and the settings of its configuration.
        package: Folder in an installed Python package that carries the same files.
        revision: Branch, tag or commit on the hub.
        dtype: ``float32``, ``bfloat16`` or ``float16``, whatever the checkpoint was saved in.
        attention: Name of the attention implementation.
        dropout: Probability for all dropout settings.
        config: Further settings of the transformers configuration.
        random_init: Start from random weights; all parameters are new then.
        seed: Of the new parameters; the global state if not given.
        offline: Do not ask the hub.
        trust_remote_code: Run the Python code that comes with the checkpoint.

    Returns:
        The model in train mode, the names of its new parameters, and which base it is.

    Raises:
        ConfigError: If there is no such model, class, dtype or setting.
        CheckpointError: If the weights are damaged, or belong to another architecture.
    """
    auto = _auto_class(needs.auto_class)
    if dtype not in _DTYPES:
        raise ConfigError(
            f"model.dtype: there is no dtype '{dtype}' here.{did_you_mean(dtype, _DTYPES)} Choose one of: "
            f"{', '.join(_DTYPES)}."
        )
    folder = resolve(
        name, package=package, revision=revision, offline=offline, want="config" if random_init else "weights"
    )
    settings = _configuration(folder, name, needs, dropout=dropout, config=config, trust_remote_code=trust_remote_code)
    options: dict[str, Any] = {
        "config": settings,
        "dtype": _DTYPES[dtype],
        "trust_remote_code": trust_remote_code,
    }
    if attention is not None:
        options["attn_implementation"] = attention
    with seeded(seed), quiet_transformers():
        if random_init:
            model, new = _initialised(auto, name, options)
            fingerprint = fingerprint_tensors(model.state_dict())
        else:
            model, new = _pretrained(auto, folder, name, options)
            fingerprint = fingerprint_files(weight_files(folder))
    model.name_or_path = model.config._name_or_path = portable_name(name)
    if new and not random_init:
        log.info("%s: new parameters %s; they are trained and saved in any case", name, _some(new))
    # from_pretrained returns an evaluating model and Lightning keeps the mode it finds (since 2.2), so
    # without this line dropout would be off for the whole run.
    model.train()
    return Loaded(model, new, BaseId(portable_name(name), revision, fingerprint))


def fingerprint_files(files: list[Path]) -> str:
    """Return the SHA-256 over the names and contents of weight files.

    The Hugging Face cache stores a file under the SHA-256 of its content, which is used then in place of
    reading it.

    Args:
        files: Weight files in a fixed order.

    Returns:
        64 hexadecimal digits; the same for the same weights wherever they lie.
    """
    total = hashlib.sha256()
    for file in files:
        blob = file.resolve()
        if blob.parent.name == "blobs" and len(blob.name) == 64:
            digest = blob.name
        else:
            with file.open("rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
        total.update(f"{file.name}={digest}\n".encode())
    return total.hexdigest()


def fingerprint_tensors(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over named tensors on the CPU, for a base that no file holds.

    Args:
        state: Name -> tensor.

    Returns:
        64 hexadecimal digits.
    """
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().contiguous()
        total.update(f"{name}={tensor.dtype}{tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and load reports off the screen; we say what matters in them.

    Yields:
        Nothing.
    """
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _auto_class(name: str) -> Any:
    known = [attribute for attribute in dir(transformers) if attribute.startswith("AutoModel")]
    if name not in known:
        raise ConfigError(f"ModelNeeds.auto_class: transformers has no class '{name}'.{did_you_mean(name, known)}")
    return getattr(transformers, name)


def _configuration(
    folder: Path,
    name: str,
    needs: ModelNeeds,
    *,
    dropout: float | None,
    config: Mapping[str, Any] | None,
    trust_remote_code: bool,
) -> Any:
    """Return the transformers configuration with the task's and the user's settings and a padding token."""
    with quiet_transformers():
        try:
            settings = transformers.AutoConfig.from_pretrained(
                folder, trust_remote_code=trust_remote_code, **needs.config
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"model.name: the configuration of {name} cannot be used: {error}. Check its config.json; "
                "code that comes with a checkpoint runs only with model.trust_remote_code=true."
            ) from error
        apply_overrides(settings, config or {})
        if dropout is not None:
            set_dropout(settings, dropout)
        if settings.to_dict().get("pad_token_id") is None:
            # Decoders find the last real token of a row by the padding token; without one they refuse
            # batches.
            settings.pad_token_id = pad_token_id(folder, settings, trust_remote_code=trust_remote_code)
    return settings


def _initialised(auto: Any, name: str, options: Mapping[str, Any]) -> tuple[Any, tuple[str, ...]]:
    options = dict(options)
    try:
        model = auto.from_config(options.pop("config"), **options)
    except ValueError as error:
        raise _unfit(auto, name, error) from error
    return model, tuple(parameter for parameter, _ in model.named_parameters())


def _pretrained(auto: Any, folder: Path, name: str, options: Mapping[str, Any]) -> tuple[Any, tuple[str, ...]]:
    try:
        # A head of another size (a classifier for other labels) is made anew; another size elsewhere is
        # refused below.
        model, report = auto.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    except ValueError as error:
        raise _unfit(auto, name, error) from error
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"model.name: the weights of {name} in {folder} cannot be read: {error}. Fetch them again."
        ) from error
    named = dict(model.named_parameters())
    resized = {key for key, *_ in report["mismatched_keys"]}
    new = tuple(parameter for parameter in named if parameter in resized or parameter in report["missing_keys"])
    _check_base_was_loaded(model, name, new, resized)
    return model, new


def _check_base_was_loaded(model: nn.Module, name: str, new: tuple[str, ...], resized: set[str]) -> None:
    """Refuse a checkpoint that leaves blocks or embeddings at random, or differs in the size of the base."""
    found = blocks.parts(model)
    body = [*found.embeddings, *found.blocks]
    lacking = [parameter for parameter in new if parameter not in resized and blocks.lies_in(parameter, body)]
    if lacking:
        raise CheckpointError(
            f"model.name: the checkpoint {name} lacks {len(lacking)} parameters of the blocks and embeddings "
            f"of {type(model).__name__}, such as {_some(lacking)}. It belongs to another architecture or was "
            "cut off: check its config.json, or fetch it again."
        )
    in_base = [parameter for parameter in resized if not blocks.lies_in(parameter, found.head)]
    if in_base:
        raise CheckpointError(
            f"model.name: the checkpoint {name} has other sizes than {type(model).__name__} for "
            f"{_some(sorted(in_base))}. Remove what changes its size from model.config."
        )


def _unfit(auto: Any, name: str, error: ValueError) -> IncompatibleError | ConfigError:
    first_line = str(error).splitlines()[0]
    if first_line.startswith("Unrecognized configuration class"):
        return IncompatibleError(
            f"model.name: transformers has no {auto.__name__} for the architecture of {name}. Choose another "
            "model or another task."
        )
    return ConfigError(f"model: {name} cannot be loaded: {first_line} Change the setting that it names.")


def _some(names: tuple[str, ...] | list[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
