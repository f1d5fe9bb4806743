"""Settings of a transformers configuration, changed by name: overrides and dropout.

``transformers`` names one thing differently in each architecture (``hidden_dropout_prob``, ``dropout``,
``resid_pdrop``, ``dropout_rate``); here all of them are found by what their names share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graft.errors import ConfigError, did_you_mean


def apply_overrides(config: Any, overrides: Mapping[str, Any]) -> None:
    """Set settings of a transformers configuration, refusing those it does not have.

    Args:
        config: A ``transformers.PretrainedConfig``; changed in place.
        overrides: Setting -> value.

    Raises:
        ConfigError: If the configuration has no such setting; all of them at once.
    """
    known = set(config.to_dict()) | set(config.attribute_map) | {"num_labels"}
    problems = [
        f"model.config.{key}: {type(config).__name__} has no setting "
        f"'{key}'.{did_you_mean(key, sorted(known))} Correct the name or remove it."
        for key in overrides
        if key not in known
    ]
    if problems:
        raise ConfigError(problems)
    for key, value in overrides.items():
        setattr(config, key, value)


def set_dropout(config: Any, probability: float) -> list[str]:
    """Set every dropout probability of a transformers configuration, those of nested configurations too.

    A setting that is None follows another one (``classifier_dropout``) and stays None. Dropping whole layers
    or paths (``layerdrop``, ``drop_path_rate``) is another method and is only ever switched off, by a
    probability of 0.

    Args:
        config: A ``transformers.PretrainedConfig``; changed in place.
        probability: From 0 to below 1.

    Returns:
        The names of the settings that were set, sorted.

    Raises:
        ConfigError: If the probability is not in [0, 1), or the model has no dropout to set.
    """
    if not 0.0 <= probability < 1.0:
        raise ConfigError(f"model.dropout: expected a probability from 0 to below 1, got {probability}. Set 0.1.")
    changed = sorted(_set_dropout(config, float(probability)))
    if not changed and probability > 0.0:
        raise ConfigError(
            f"model.dropout: {type(config).__name__} has no dropout setting, got {probability}. Remove model.dropout."
        )
    return changed


def _set_dropout(config: Any, probability: float) -> list[str]:
    changed = []
    for key, value in config.to_dict().items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        is_dropout = "dropout" in key or key.endswith("pdrop")
        drops_layers = "layerdrop" in key or "drop_path" in key
        if is_dropout or (drops_layers and probability == 0.0):
            setattr(config, key, probability)
            changed.append(key)
    for name in config.sub_configs:
        nested = getattr(config, name)
        if nested is not None:
            changed += [f"{name}.{key}" for key in _set_dropout(nested, probability)]
    return changed
