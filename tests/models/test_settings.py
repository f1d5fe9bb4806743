from __future__ import annotations

import pytest
import transformers

from graft.errors import ConfigError
from graft.models.settings import apply_overrides, set_dropout


def test_dropout_reaches_every_setting_whatever_it_is_called() -> None:
    gpt2 = transformers.GPT2Config()
    assert set_dropout(gpt2, 0.3) == ["attn_pdrop", "embd_pdrop", "resid_pdrop", "summary_first_dropout"]
    assert (gpt2.attn_pdrop, gpt2.embd_pdrop, gpt2.resid_pdrop) == (0.3, 0.3, 0.3)
    t5 = transformers.T5Config()
    assert set_dropout(t5, 0.0) == ["classifier_dropout", "dropout_rate"]
    assert t5.dropout_rate == 0.0


def test_dropout_setting_that_follows_another_stays_unset() -> None:
    bert = transformers.BertConfig()
    assert set_dropout(bert, 0.2) == ["attention_probs_dropout_prob", "hidden_dropout_prob"]
    assert bert.classifier_dropout is None


def test_dropping_of_layers_is_switched_off_with_dropout_and_never_on() -> None:
    config = transformers.Wav2Vec2Config(layerdrop=0.1)
    set_dropout(config, 0.3)
    assert config.layerdrop == 0.1
    set_dropout(config, 0.0)
    assert config.layerdrop == 0.0


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_dropout_outside_its_range_is_refused(probability: float) -> None:
    with pytest.raises(ConfigError, match=r"model.dropout: .* got"):
        set_dropout(transformers.BertConfig(), probability)


def test_all_unknown_settings_are_named_together_with_near_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(transformers.BertConfig(), {"hidden_sise": 3, "num_layerz": 2, "hidden_act": "relu"})
    assert len(caught.value.problems) == 2
    assert "BertConfig has no setting 'hidden_sise'. Did you mean 'hidden_size'?" in caught.value.problems[0]


def test_settings_known_under_a_second_name_are_set() -> None:
    config = transformers.GPT2Config()
    apply_overrides(config, {"num_hidden_layers": 3, "num_labels": 7})
    assert (config.n_layer, config.num_labels) == (3, 7)
