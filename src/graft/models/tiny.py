"""Tiny random models of the real transformers classes and their tokenizers, for tests and ``model=tiny_*``.

Two blocks, hidden size 32. A tiny model stands in for a checkpoint: its base depends on the seed alone, and
only its head counts as new. Weights are drawn wider than a real model's, near ``1 / sqrt(32)``, so that it
learns in a few steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
import transformers

from graft.errors import ConfigError, IncompatibleError, did_you_mean
from graft.models import blocks
from graft.models.load import BaseId, Loaded, fingerprint_tensors, quiet_transformers
from graft.models.seeding import seeded
from graft.models.settings import apply_overrides, set_dropout
from graft.step import ModelNeeds

_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_BERT_LIKE = {**_SIZES, "max_position_embeddings": 512, "initializer_range": 0.15, "pad_token_id": 0}
_LLAMA_LIKE = {**_BERT_LIKE, "num_key_value_heads": 2, "pad_token_id": None, "tie_word_embeddings": True}

_WORD_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ROBERTA_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_T5_TOKENS = ("<pad>", "</s>", "<unk>")
_LLAMA_TOKENS = ("<unk>", "<s>", "</s>")
_END_OF_TEXT = ("<|endoftext|>",)

_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Profit rose sharply in the third quarter, while sales were flat.",
    "I did not like this film at all; the plot was dull and far too long.",
    "What a wonderful, funny and moving story! It is one of the best this year.",
    "How do I change the address on my card?",
    "The company said on Monday that it expects costs to fall by 12 % in 2024.",
    "She wrote: 'Nobody knows what they are doing', and left the room.",
    "Numbers such as 0, 1, 23, 456 and 7890 appear in many sentences.",
    "A man is playing a guitar, and a woman is singing in the kitchen.",
    "Shares of the bank fell after a weak report and a negative outlook.",
)


@dataclass(frozen=True)
class _Family:
    """How a tiny model of one architecture is configured, and which tokenizer goes with it."""

    config: str
    sizes: Mapping[str, Any]
    tokens: tuple[str, ...] = ()
    tokenizer: str | None = None
    segments: bool = False


_FAMILIES: Mapping[str, _Family] = {
    "bert": _Family("BertConfig", _BERT_LIKE, _WORD_PIECES, "word_piece", segments=True),
    "roberta": _Family(
        "RobertaConfig",
        {**_BERT_LIKE, "max_position_embeddings": 514, "pad_token_id": 1, "type_vocab_size": 1},
        _ROBERTA_TOKENS,
        "byte_level",
    ),
    "distilbert": _Family(
        "DistilBertConfig",
        {
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 64,
            "initializer_range": 0.15,
            "pad_token_id": 0,
        },
        _WORD_PIECES,
        "word_piece",
    ),
    "deberta_v2": _Family(
        "DebertaV2Config",
        {
            **_BERT_LIKE,
            "relative_attention": True,
            "position_biased_input": False,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "type_vocab_size": 0,
        },
        _WORD_PIECES,
        "word_piece",
    ),
    "electra": _Family(
        "ElectraConfig", {**_BERT_LIKE, "embedding_size": 16}, _WORD_PIECES, "word_piece", segments=True
    ),
    "modernbert": _Family(
        "ModernBertConfig",
        {**_BERT_LIKE, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
        _WORD_PIECES,
        "word_piece",
    ),
    "gpt2": _Family(
        "GPT2Config",
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_inner": 64,
            "n_positions": 512,
            "initializer_range": 0.15,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        _END_OF_TEXT,
        "byte_level",
    ),
    "llama": _Family("LlamaConfig", {**_LLAMA_LIKE, "bos_token_id": 1, "eos_token_id": 2}, _LLAMA_TOKENS, "byte_level"),
    "qwen": _Family(
        "Qwen3Config",
        {**_LLAMA_LIKE, "head_dim": 8, "bos_token_id": 0, "eos_token_id": 0},
        _END_OF_TEXT,
        "byte_level",
    ),
    "t5": _Family(
        "T5Config",
        {
            "d_model": 32,
            "num_layers": 2,
            "num_heads": 4,
            "d_kv": 8,
            "d_ff": 64,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "decoder_start_token_id": 0,
        },
        _T5_TOKENS,
        "byte_level",
    ),
    "bart": _Family(
        "BartConfig",
        {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 512,
            "init_std": 0.15,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": 2,
        },
        _ROBERTA_TOKENS,
        "byte_level",
    ),
    "vit": _Family("ViTConfig", {**_SIZES, "image_size": 32, "patch_size": 8, "initializer_range": 0.15}),
    "wav2vec2": _Family(
        "Wav2Vec2Config",
        {
            **_SIZES,
            "vocab_size": 32,
            "conv_dim": [16, 16],
            "conv_kernel": [10, 8],
            "conv_stride": [5, 4],
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            "classifier_proj_size": 32,
            "initializer_range": 0.15,
        },
    ),
}


@final
@dataclass(frozen=True, kw_only=True)
class TinyModel:
    """A tiny random model and its processor: what ``conf/model/tiny_*.yaml`` builds.

    Attributes:
        family: One of the families in this file, such as ``bert``.
        weights_seed: Of all weights. Not the run's seed: a checkpoint does not change with that either.
        vocab_size: Rows of the embedding, and at most as many tokens; at least 300 for byte-level tokenizers.
        texts: What the tokenizer is trained on; a few English sentences if not given.
        dropout: Sets all dropout probabilities; the architecture's own if not given.
        attention: ``eager`` or ``sdpa``; the best available if not given.
        config: Further settings of the transformers configuration.
        padding_side: ``left`` or ``right``.
    """

    family: str
    weights_seed: int = 0
    vocab_size: int = 384
    texts: Sequence[str] | None = None
    dropout: float | None = None
    attention: str | None = None
    config: Mapping[str, Any] | None = None
    padding_side: str = "right"

    def load(self, needs: ModelNeeds) -> Loaded:
        """Make the model with the head that ``needs`` describes; see ``tiny_model``."""
        return tiny_model(
            self.family,
            needs=needs,
            seed=self.weights_seed,
            vocab_size=self.vocab_size,
            dropout=self.dropout,
            attention=self.attention,
            config=self.config,
        )

    def processor(self) -> Any:
        """Make its tokenizer, image processor or feature extractor."""
        if self.family == "vit":
            return transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})
        if self.family == "wav2vec2":
            return transformers.Wav2Vec2FeatureExtractor()
        tokenizer = tiny_tokenizer(self.family, texts=self.texts, vocab_size=self.vocab_size)
        tokenizer.padding_side = self.padding_side
        return tokenizer


def tiny_model(
    family: str,
    *,
    needs: ModelNeeds,
    seed: int = 0,
    vocab_size: int = 384,
    dropout: float | None = None,
    attention: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Loaded:
    """Make a tiny random model of a real transformers class.

    Args:
        family: One of the families in this file.
        needs: The transformers class and the settings of its configuration.
        seed: Of all weights.
        vocab_size: Rows of the embedding, for models that read text.
        dropout: Sets all dropout probabilities; the architecture's own if not given.
        attention: Name of the attention implementation.
        config: Further settings of the transformers configuration.

    Returns:
        The model in train mode with the head as its new parameters.

    Raises:
        ConfigError: If there is no such family.
        IncompatibleError: If transformers has no such class for it.
    """
    chosen = _family(family)
    sizes = dict(chosen.sizes) | ({"vocab_size": vocab_size} if chosen.tokenizer else {})
    settings = getattr(transformers, chosen.config)(**sizes, **needs.config)
    apply_overrides(settings, config or {})
    if dropout is not None:
        set_dropout(settings, dropout)
    if chosen.tokenizer and settings.pad_token_id is None:
        settings.pad_token_id = settings.eos_token_id
    # Said, so that the numbers do not change where a trainer makes another dtype the default.
    options: dict[str, Any] = {"dtype": torch.float32}
    if attention is not None:
        options["attn_implementation"] = attention
    with seeded(seed), quiet_transformers():
        try:
            model = getattr(transformers, needs.auto_class).from_config(settings, **options)
        except ValueError as error:
            raise IncompatibleError(
                f"model.family: transformers has no {needs.auto_class} for {family}. Choose another model or task."
            ) from error
    model.train()
    found = blocks.parts(model)
    new = tuple(blocks.head_parameters(model))
    in_base = {name: tensor for name, tensor in model.state_dict().items() if not blocks.lies_in(name, found.head)}
    return Loaded(model, new, BaseId(f"tiny_{family}", None, fingerprint_tensors(in_base)))


def tiny_tokenizer(family: str, *, texts: Sequence[str] | None = None, vocab_size: int = 384) -> Any:
    """Train a small tokenizer of the kind that a family uses, with its special tokens.

    Args:
        family: One of the families in this file that read text.
        texts: What to train on; a few English sentences if not given.
        vocab_size: At most so many tokens.

    Returns:
        A ``transformers.PreTrainedTokenizerFast`` with a padding token.

    Raises:
        ConfigError: If there is no such family, or it reads no text.
    """
    chosen = _family(family)
    if chosen.tokenizer is None:
        raise ConfigError(f"model.family: {family} reads no text and has no tokenizer. Choose bert or gpt2.")
    backend = _BUILDERS[chosen.tokenizer](chosen.tokens, list(texts or _TEXTS), vocab_size)
    inputs = ["input_ids", "attention_mask"]
    if chosen.segments:
        inputs.insert(1, "token_type_ids")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=512, model_input_names=inputs, **_ROLES[chosen.tokens]
    )


def _family(name: str) -> _Family:
    if name not in _FAMILIES:
        raise ConfigError(
            f"model.family: there is no tiny '{name}'.{did_you_mean(name, _FAMILIES)} Choose one of: "
            f"{', '.join(_FAMILIES)}."
        )
    return _FAMILIES[name]


def _word_piece(tokens: tuple[str, ...], texts: list[str], vocab_size: int) -> Any:
    """BERT's: lower case, common words whole, others letter by letter; every printable ASCII character is known.

    Counted here, because the library's own trainer takes words in the order of a hash table and so gives other
    pieces each time.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter(
        word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    ).most_common()
    letters = sorted({chr(code).lower() for code in range(33, 127)} | {letter for word, _ in words for letter in word})
    pieces = [*tokens, *letters, *(f"##{letter}" for letter in letters), *(word for word, _ in words)]
    vocabulary = {piece: number for number, piece in enumerate(list(dict.fromkeys(pieces))[:vocab_size])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def _byte_level(tokens: tuple[str, ...], texts: list[str], vocab_size: int) -> Any:
    """GPT-2's: byte pairs over all 256 bytes; the end tokens are placed as the family does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokens in _TEMPLATES:
        single, pair = _TEMPLATES[tokens]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=[(token, index) for index, token in enumerate(tokens)]
        )
    return tokenizer


_BUILDERS: Mapping[str, Callable[[tuple[str, ...], list[str], int], Any]] = {
    "word_piece": _word_piece,
    "byte_level": _byte_level,
}

_TEMPLATES: Mapping[tuple[str, ...], tuple[str, str]] = {
    _ROBERTA_TOKENS: ("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
    _T5_TOKENS: ("$A </s>", "$A </s> $B </s>"),
    _LLAMA_TOKENS: ("<s> $A", "<s> $A $B"),
}

_ROLES: Mapping[tuple[str, ...], Mapping[str, str]] = {
    _WORD_PIECES: {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
    _ROBERTA_TOKENS: {
        "bos_token": "<s>",
        "cls_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    },
    _T5_TOKENS: {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
    _LLAMA_TOKENS: {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"},
    _END_OF_TEXT: {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
}
