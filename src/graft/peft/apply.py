"""Any method of the peft library, by one path: targets and head are filled in, and the outcome is checked.

Source: the methods are those of https://github.com/huggingface/peft; each has its paper in its YAML. What is
added here: a new head is always trained and saved, whatever it is called (``peft`` knows only ``classifier``,
``score`` and ``qa_outputs``, so DeBERTa's pooler and BART's head would stay random and be lost); a name among
the targets that matches nothing is an error; everything that trains is float32; the adapter's configuration
is known to be savable before training.

Chosen with ``peft=lora`` and all other YAMLs whose ``_target_`` is ``graft.peft.apply.PeftMethod``.
"""

from __future__ import annotations

import functools
import inspect
import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any, final

from torch import nn

from graft.errors import ConfigError, IncompatibleError
from graft.models import blocks
from graft.models.seeding import seeded
from graft.peft.targets import resolve_targets, shortest_names
from graft.peft.training import head_of, ready
from graft.step import ModelNeeds


@final
class PeftMethod:
    """Wrap a model with an adapter of the peft library.

    Args:
        config: Makes the configuration of the method, such as a partial of ``peft.LoraConfig``; it is called
            with those of ``task_type``, ``target_modules`` and ``modules_to_save`` that it takes.
        targets: Where the adapter sits: a named set, a list of module names, or a regular expression
            (``graft.peft.targets``). Not given: the library's own choice, or the method has no targets.
        train_head: Also train a head that the checkpoint brought along; a new one trains in any case.
        seed: Of the adapter's random initialisation; the global state if not given.

    Raises:
        ConfigError: On call, if the targets match nothing, are set twice, or the configuration cannot be
            saved.
        IncompatibleError: On call, if the model is wrapped already, or the method does not fit the model or
            its head.
    """

    def __init__(
        self,
        config: Callable[..., Any],
        *,
        targets: str | Sequence[str] | None = None,
        train_head: bool = True,
        seed: int | None = None,
    ) -> None:
        self.config = config
        self.targets = targets
        self.train_head = train_head
        self.seed = seed

    def __call__(self, model: nn.Module, needs: ModelNeeds) -> nn.Module:
        """Return the wrapped model, with exactly the adapter and the head trainable."""
        import peft

        _refuse_second_wrap(model)
        head = head_of(model, needs) if self.train_head else list(needs.new_parameters)
        whole = self._with_further(model, _modules_of(model, head))
        settings = self._settings(model, needs, whole)
        adapter = self.config(**settings)
        _check_savable(adapter)
        # The stream is shifted, so that an adapter is not made of the same random numbers as the head before
        # it.
        with seeded(None if self.seed is None else self.seed + 1_000_003), warnings.catch_warnings():
            # What peft warns of here (an unknown module to save, a head found by name) is checked below and
            # raised.
            warnings.simplefilter("ignore")
            try:
                wrapped = peft.get_peft_model(model, adapter)
            except (ValueError, TypeError, NotImplementedError, KeyError, AttributeError) as error:
                raise IncompatibleError(
                    f"peft: {type(adapter).__name__} cannot be applied to {type(model).__name__}: {error}. "
                    "Set peft.targets to modules that the method supports, or choose another method."
                ) from error
        _train_exactly(wrapped, whole)
        return ready(wrapped)

    def _settings(self, model: nn.Module, needs: ModelNeeds, whole: Sequence[str]) -> dict[str, Any]:
        """Return what the method's configuration is completed with."""
        takes = inspect.signature(self.config).parameters
        settings: dict[str, Any] = {"task_type": needs.peft_task_type} if "task_type" in takes else {}
        if self.targets is not None:
            if "target_modules" not in takes:
                raise ConfigError(f"peft.targets: {_name(self.config)} adapts no modules. Remove peft.targets.")
            if takes["target_modules"].default is not None:
                raise ConfigError(
                    f"peft.config.target_modules: it is set to {takes['target_modules'].default} beside "
                    f"peft.targets={self.targets}. Write it as peft.targets and remove "
                    "peft.config.target_modules."
                )
            found = resolve_targets(model, self.targets, exclude=whole)
            settings["target_modules"] = shortest_names(model, found)
        if "modules_to_save" in takes:
            settings["modules_to_save"] = list(whole)
        elif whole:
            raise IncompatibleError(
                f"peft: {_name(self.config)} cannot save a head beside the adapter, and this model has a new "
                f"one ({', '.join(whole)}). Choose another method, such as peft=lora."
            )
        return settings

    def _with_further(self, model: nn.Module, whole: Sequence[str]) -> list[str]:
        """Add the modules that the user wants to train as a whole, by their full names."""
        parameter = inspect.signature(self.config).parameters.get("modules_to_save")
        if parameter is None or not parameter.default:
            return list(whole)
        found = resolve_targets(model, list(parameter.default), where="peft.config.modules_to_save")
        return [*whole, *(name for name in found if not blocks.lies_in(name, whole))]


def _refuse_second_wrap(model: nn.Module) -> None:
    import peft

    kinds = peft.PeftModel | peft.tuners.tuners_utils.BaseTunerLayer
    if any(isinstance(module, kinds) for module in model.modules()):
        raise IncompatibleError(
            "peft: the model carries an adapter already, and a second one would be stacked on it. Load the base again."
        )


def _modules_of(model: nn.Module, parameters: Sequence[str]) -> list[str]:
    """Return the outermost modules that hold exactly these parameters and no other.

    Raises:
        IncompatibleError: If one lies directly in a module with others that do not train.
    """
    rest = [name for name, _ in model.named_parameters() if name not in set(parameters)]
    found: list[str] = []
    bare: list[str] = []
    for parameter in parameters:
        if blocks.lies_in(parameter, found):
            continue
        components = parameter.split(".")[:-1]
        owners = [".".join(components[:end]) for end in range(1, len(components) + 1)]
        owner = next((name for name in owners if not any(blocks.lies_in(other, [name]) for other in rest)), None)
        if owner is None:
            bare.append(parameter)
        else:
            found.append(owner)
    if bare:
        raise IncompatibleError(
            f"peft: the new parameters {', '.join(bare)} lie beside pretrained ones in one module, so an "
            "adapter cannot hold them. Choose peft=full, or peft=regex."
        )
    return found


def _train_exactly(wrapped: nn.Module, whole: Sequence[str]) -> None:
    """Let only the meant modules train as a whole, and see that all of them do.

    ``peft`` adds ``classifier`` and ``score``, and matches by the end of a name (``pre_classifier`` as well).
    """
    import peft

    wrapper = peft.utils.other.ModulesToSaveWrapper
    prefix, inner = blocks.inner_model(wrapped)
    copies = {name: module for name, module in inner.named_modules() if isinstance(module, wrapper)}
    lost = [name for name in whole if name not in copies]
    if lost:
        raise IncompatibleError(
            f"peft: {', '.join(prefix + name for name in lost)} would be neither trained nor saved with this "
            "method. Choose another method, such as peft=lora."
        )
    for name, module in copies.items():
        if name not in whole:
            module.requires_grad_(False)


def _check_savable(adapter: Any) -> None:
    """Refuse a configuration that could not be written, before training and not after it."""
    settings = {key: sorted(value) if isinstance(value, set) else value for key, value in adapter.to_dict().items()}
    for key, value in settings.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise ConfigError(
                f"peft.config.{key}: the value {value!r} cannot be saved with the adapter: {error}. Give "
                "plain numbers, strings, lists or mappings."
            ) from error


def _name(config: Callable[..., Any]) -> str:
    """Return the name of the class behind partials."""
    inner: Any = config
    while isinstance(inner, functools.partial):
        inner = inner.func
    return str(inner.__name__)
