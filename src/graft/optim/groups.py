"""Parameter groups: which parameters share a learning rate and a weight decay.

Every function here takes a model and returns the groups that an optimizer is built from. All of them keep
one promise: each trainable parameter is in exactly one group, a weight that two modules share is there once,
and a frozen parameter is never there. Biases, normalisation weights and other vectors are not decayed, but
by ``uniform``.

Chosen with ``param_groups=no_decay`` (the default), ``uniform``, ``layerwise``, ``lora_plus`` or
``by_regex``. The base ``lr`` and ``weight_decay`` are those of ``optimizer``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

from torch import nn

from graft.errors import ConfigError, IncompatibleError, did_you_mean
from graft.models.blocks import depth_of, lies_in, parts


class Group(TypedDict):
    """One parameter group, as every ``torch.optim`` optimizer takes it.

    Attributes:
        name: What it holds; shown by the learning-rate monitor and different in every group.
        params: The parameters.
        names: Their names in the model, in the same order; kept in the optimizer's state, so that a
            checkpoint says what it belongs to.
        lr: Learning rate before the schedule.
        weight_decay: Decoupled weight decay, in the optimizer's own sense.
        hidden: For each parameter, whether it is a matrix of a hidden layer: two dimensions, inside a block.
            Read by optimizers that treat those differently (``optim/muon.py``).
    """

    name: str
    params: list[nn.Parameter]
    names: list[str]
    lr: float
    weight_decay: float
    hidden: list[bool]


Place: TypeAlias = Callable[[str, nn.Parameter], tuple[str, float, float]]
"""From a parameter's name and itself to its group's name, learning rate and weight decay."""


def uniform(model: nn.Module, *, lr: float, weight_decay: float) -> list[Group]:
    """Give every parameter the same learning rate and weight decay.

    Args:
        model: The model; only its trainable parameters are taken.
        lr: Learning rate.
        weight_decay: Weight decay, of biases and normalisation weights too.

    Returns:
        One group.
    """
    return _collect(model, lambda _name, _parameter: ("all", lr, weight_decay))


def no_decay(model: nn.Module, *, lr: float, weight_decay: float) -> list[Group]:
    """Decay matrices only: no weight decay on biases, normalisation weights and other vectors.

    The usual practice since BERT; the Hugging Face Trainer makes the same two groups.

    Args:
        model: The model; only its trainable parameters are taken.
        lr: Learning rate.
        weight_decay: Weight decay of the rest.

    Returns:
        The groups ``decay`` and ``no_decay``, without an empty one.
    """
    spared = _spared_of_decay(model)

    def place(_name: str, parameter: nn.Parameter) -> tuple[str, float, float]:
        return ("no_decay", lr, 0.0) if parameter in spared else ("decay", lr, weight_decay)

    return _collect(model, place)


def layerwise(model: nn.Module, *, lr: float, weight_decay: float, decay: float = 0.9) -> list[Group]:
    """Train lower blocks more slowly: the learning rate shrinks by a factor from each block to the one below.

    With ``n`` blocks, the head gets ``lr``, block ``k`` (1 is the lowest) ``lr * decay ** (n + 1 - k)``, the
    embeddings ``lr * decay ** (n + 1)``. Howard and Ruder 2018, https://arxiv.org/abs/1801.06146; in this
    form Clark et al. 2020 (ELECTRA), https://arxiv.org/abs/2003.10555, and Bao et al. 2021 (BEiT),
    https://arxiv.org/abs/2106.08254. Works on whatever ``graft.models.blocks`` finds blocks in: encoders,
    decoders, ViT, wav2vec2, and the adapters in them.

    Args:
        model: The model; only its trainable parameters are taken.
        lr: Learning rate of the head.
        weight_decay: Weight decay of the matrices.
        decay: Factor from one block to the one below, above 0 and at most 1.

    Returns:
        Up to two groups a depth (decayed and not), from the embeddings to the head.

    Raises:
        ConfigError: If ``decay`` is out of range.
        IncompatibleError: If the model has no blocks.
    """
    if not 0.0 < decay <= 1.0:
        raise ConfigError(
            f"param_groups.decay: must be above 0 and at most 1, got {decay}. "
            "It multiplies the learning rate from one block to the one below; 0.9 is a usual start."
        )
    depths = depth_of(model)
    top = len(parts(model).blocks) + 1
    if top == 1:
        raise IncompatibleError(
            f"param_groups=layerwise: no blocks were found in {type(model).__name__}, so there are no layers "
            "to tell apart. Use param_groups=by_regex to give learning rates by name."
        )
    digits = len(str(top))
    spared = _spared_of_decay(model)

    def place(name: str, parameter: nn.Parameter) -> tuple[str, float, float]:
        depth = depths[name]
        if depth == 0:
            label = "embeddings"
        elif depth == top:
            label = "head"
        else:
            label = f"block_{depth:0{digits}d}"
        scaled = lr * decay ** (top - depth)
        return (f"{label}_no_decay", scaled, 0.0) if parameter in spared else (label, scaled, weight_decay)

    return sorted(_collect(model, place), key=lambda group: depths[group["names"][0]])


def lora_plus(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    ratio: float = 16.0,
    embedding_lr: float = 1e-6,
) -> list[Group]:
    """LoRA+: train the B matrices with a higher learning rate than the A matrices.

    Hayou et al. 2024, https://arxiv.org/abs/2402.12354: with width going to infinity, LoRA learns features
    efficiently only if ``lr_B / lr_A`` grows with the width; they suggest a ratio near 16. Everything that is
    no B matrix, the new head included, gets ``lr``. (``peft.optimizers.create_loraplus_optimizer`` gives also
    every vector, such as the head's bias, the raised rate; otherwise the groups are the same.)

    Args:
        model: A model with LoRA matrices; only its trainable parameters are taken.
        lr: Learning rate of the A matrices and of everything else.
        weight_decay: Weight decay of the matrices.
        ratio: Learning rate of the B matrices over ``lr``, above 0.
        embedding_lr: Learning rate of LoRA matrices that sit on embeddings.

    Returns:
        The groups ``base``, ``lora_b`` and ``lora_embedding``, decayed and not, without empty ones.

    Raises:
        ConfigError: If ``ratio`` is not above 0.
        IncompatibleError: If the model trains no LoRA B matrix.
    """
    if ratio <= 0:
        raise ConfigError(
            f"param_groups.ratio: must be above 0, got {ratio}. It is the B matrices' learning rate over the "
            "A matrices'; the paper suggests 16."
        )
    spared = _spared_of_decay(model)

    def place(name: str, parameter: nn.Parameter) -> tuple[str, float, float]:
        path = name.split(".")
        if "lora_embedding_A" in path or "lora_embedding_B" in path:
            label, rate = "lora_embedding", embedding_lr
        elif "lora_B" in path:
            label, rate = "lora_b", lr * ratio
        else:
            label, rate = "base", lr
        return (f"{label}_no_decay", rate, 0.0) if parameter in spared else (label, rate, weight_decay)

    groups = _collect(model, place)
    if not any(group["name"].startswith("lora_") for group in groups):
        raise IncompatibleError(
            "param_groups=lora_plus: the model trains no LoRA B matrix, so there is nothing to train faster. "
            "Choose peft=lora, or param_groups=no_decay."
        )
    return groups


def by_regex(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    rules: Sequence[Mapping[str, Any]],
) -> list[Group]:
    """Give learning rates and weight decays by the parameters' names.

    The first rule whose pattern is found in a name (``re.search``) takes the parameter; what no rule takes
    gets the base values. A rule that gives ``weight_decay`` decays all it takes, vectors too; one that gives
    none keeps the base weight decay and spares biases and normalisation weights.

    Args:
        model: The model; only its trainable parameters are taken.
        lr: Learning rate where no rule gives one.
        weight_decay: Weight decay where no rule gives one.
        rules: Mappings with ``pattern`` and, each if wanted, ``lr`` and ``weight_decay``.

    Returns:
        Up to two groups a rule and two for the rest.

    Raises:
        ConfigError: If a rule has no pattern, an unknown key or a pattern that is no regular expression.

    Warns:
        UserWarning: If a rule takes no parameter.
    """
    patterns = _compiled(rules)
    spared = _spared_of_decay(model)
    used: set[int] = set()

    def place(name: str, parameter: nn.Parameter) -> tuple[str, float, float]:
        index = next((i for i, pattern in enumerate(patterns) if pattern.search(name)), None)
        rule: Mapping[str, Any] = {} if index is None else rules[index]
        if index is not None:
            used.add(index)
        label = "rest" if index is None else f"rule_{index}"
        rate = float(rule.get("lr", lr))
        if "weight_decay" in rule:
            return label, rate, float(rule["weight_decay"])
        return (f"{label}_no_decay", rate, 0.0) if parameter in spared else (label, rate, weight_decay)

    groups = _collect(model, place)
    for index, pattern in enumerate(patterns):
        if index not in used:
            warnings.warn(
                f"param_groups.rules[{index}]: the pattern {pattern.pattern!r} takes no trainable parameter"
                " (frozen, misspelt, or taken by an earlier rule), so its values have no effect.",
                stacklevel=2,
            )
    return groups


def _compiled(rules: Sequence[Mapping[str, Any]]) -> list[re.Pattern[str]]:
    """Compile the patterns of ``by_regex``'s rules; reports all problems at once."""
    legal = ("pattern", "lr", "weight_decay")
    problems: list[str] = []
    patterns: list[re.Pattern[str]] = []
    for index, rule in enumerate(rules):
        where = f"param_groups.rules[{index}]"
        problems.extend(
            f"{where}: there is no key '{key}'.{did_you_mean(key, legal)} A rule has: {', '.join(legal)}."
            for key in rule
            if key not in legal
        )
        if "pattern" not in rule:
            problems.append(f"{where}: there is no pattern. Write the regular expression that names must match.")
            continue
        try:
            patterns.append(re.compile(rule["pattern"]))
        except re.error as error:
            problems.append(f"{where}.pattern: {rule['pattern']!r} is no regular expression ({error}).")
    if problems:
        raise ConfigError(problems)
    return patterns


def _spared_of_decay(model: nn.Module) -> set[nn.Parameter]:
    """Return what is not decayed: normalisation weights, biases and other vectors.

    A bias may be a module of its own with two dimensions (T5's ``relative_attention_bias``).
    """
    spared: set[nn.Parameter] = set()
    for path, module in model.named_modules():
        own_name = path.rpartition(".")[2]
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.ndim < 2 or "bias" in own_name or "bias" in leaf:
                spared.add(parameter)
    return spared


def _collect(model: nn.Module, place: Place) -> list[Group]:
    """Sort the trainable parameters into groups; ``named_parameters`` gives a shared weight once."""
    blocks = parts(model).blocks
    spared = _spared_of_decay(model)
    groups: dict[str, Group] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        label, lr, weight_decay = place(name, parameter)
        group = groups.setdefault(
            label, Group(name=label, params=[], names=[], lr=lr, weight_decay=weight_decay, hidden=[])
        )
        group["params"].append(parameter)
        group["names"].append(name)
        group["hidden"].append(parameter.ndim == 2 and parameter not in spared and lies_in(name, blocks))
    if not groups:
        raise IncompatibleError(
            f"param_groups: {type(model).__name__} has no trainable parameter. "
            "Choose what is trained with peft=, for example peft=full, peft=head_only or peft=lora."
        )
    return list(groups.values())
