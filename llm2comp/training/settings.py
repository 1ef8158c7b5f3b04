"""Settings of the training stages: frozen, validated before anything is loaded, one dataclass a stage."""

import math
from collections.abc import Mapping, Sequence
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
]

Objective = Literal["distillation", "continuation", "reconstruction"]


def check_fields(settings: Any, *, least: Mapping[float, Sequence[str]]) -> None:
    """Refuses numbers that are not finite or below their least value (None is none), and words that are none of a field's choices.

    Raises:
        SettingsError: Naming the field.
    """
    for name, hint in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(f"{name} is {value}; give a finite number")
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise SettingsError(f"{name} is {value!r}; give {' or '.join(map(str, get_args(hint)))}")
    for bound, names in least.items():
        for name in names:
            if (value := getattr(settings, name)) is not None and value < bound:
                raise SettingsError(f"{name} is {value}; it must be at least {bound:g}")


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """What every stage shares: how long, how fast, how often to report."""

    steps: int
    """Optimizer updates."""
    batch_size: int
    """Texts (or pairs) per update, summed over devices and accumulation."""
    learning_rate: float
    """Peak learning rate."""
    learning_rate_floor: float = 0.0
    """Learning rate of the first update and the end of the linear decay."""
    decay_steps: int | None = None
    """Updates until the decay reaches the floor, if not `steps`; the published stage 3 stops half way down."""
    warmup_steps: int = 0
    """Updates until the peak, growing with the logarithm of the update as in the published runs."""
    weight_decay: float = 0.0
    clip: float = 1.0
    """Largest norm of the gradient over all trained weights; 0 leaves it as it is."""
    accumulation: int = 1
    """Forward passes per update; divides batch_size. In stages 2 and 3 each pass has its own candidates: micro_batch keeps
    those of the whole batch."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Arithmetic of matrix products; auto is bfloat16 where the hardware multiplies it natively."""
    gradient_checkpointing: bool = False
    seed: int = 0
    log_steps: int = 10
    save_steps: int = 200
    """Updates between checkpoints; an interrupted run loses at most this many."""
    eval_steps: int = 200
    """Updates between measurements of the held-out loss."""
    report_to: tuple[str, ...] = ()
    """Trackers of the trainer's own, such as wandb or tensorboard."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            least={
                1: ("steps", "batch_size", "accumulation", "log_steps", "save_steps", "eval_steps"),
                0: ("warmup_steps", "weight_decay", "clip", "seed"),
            },
        )
        if not 0 <= self.learning_rate_floor <= self.learning_rate or self.learning_rate == 0:
            raise SettingsError(
                f"learning_rate_floor {self.learning_rate_floor} and learning_rate {self.learning_rate}: give 0 <= "
                "floor <= rate and a rate above 0"
            )
        if self.warmup_steps >= (self.decay_steps or self.steps):
            raise SettingsError(
                f"warmup_steps {self.warmup_steps} must be below {'decay_steps' if self.decay_steps else 'steps'} "
                f"{self.decay_steps or self.steps}"
            )
        if self.decay_steps is not None and self.decay_steps < self.steps:
            raise SettingsError(f"decay_steps {self.decay_steps} must not be below steps {self.steps}")
        if self.batch_size % self.accumulation:
            raise SettingsError(f"batch_size {self.batch_size} must be a multiple of accumulation {self.accumulation}")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The encoder that the stages train."""

    backbone: str | None = None
    """Hub id or folder of the language model; None where stage 0 makes it."""
    revision: str | None = None
    memory_tokens: int = 8
    max_length: int = 1024
    """Longest input in tokens, memory tokens included."""
    query_instruction: str = ""
    """Put before queries, never before documents."""
    adapter: AdapterSettings | None = PAPER_ADAPTER
    """LoRA, or null to train all weights."""
    pooling: Mapping[str, Any] = field(default_factory=lambda: {"mode": "mean"})
    weights: Literal["float32", "bfloat16"] = "float32"
    """Precision of the weights in the finished model's files."""

    def __post_init__(self) -> None:
        check_fields(self, least={1: ("memory_tokens",)})
        if self.max_length < self.memory_tokens + 2:
            raise SettingsError(
                f"max_length {self.max_length} leaves no room for a text beside memory_tokens {self.memory_tokens}"
            )
        mode, threshold = self.pooling.get("mode"), self.pooling.get("threshold")
        if not (
            dict(self.pooling) == {"mode": "mean"}
            or (mode == "cluster" and isinstance(threshold, float) and len(self.pooling) == 2)
        ):
            raise SettingsError(
                f"pooling is {dict(self.pooling)}; give {{mode: mean}} or {{mode: cluster, threshold: 0.9}}"
            )


@dataclass(frozen=True, kw_only=True)
class BackboneShape:
    """Shape of a small Llama that is pretrained from scratch."""

    vocabulary: int
    """Entries of the tokenizer: 256 bytes, 3 special tokens, and as many merges as room is left for; two bytes a token on disk."""
    hidden: int
    layers: int
    heads: int
    intermediate: int
    max_positions: int = 2048

    def __post_init__(self) -> None:
        check_fields(self, least={1: ("hidden", "layers", "heads", "intermediate", "max_positions")})
        if not 259 <= self.vocabulary <= 65_536:
            raise SettingsError(
                f"vocabulary is {self.vocabulary}; give between 259 (256 bytes and 3 special tokens) and 65536"
            )
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise SettingsError(
                f"hidden {self.hidden} / heads {self.heads} must be an even whole number: rotary positions turn pairs "
                "of dimensions"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(StageSettings):
    """Stage 0: a tokenizer and a small causal language model from raw text."""

    corpora: tuple[str, ...]
    """Sources that `llm2comp.corpus.read.read_corpus` understands."""
    heldout: str
    """Source of the held-out loss; never trained on."""
    shape: BackboneShape
    sequence_length: int = 512
    """Tokens per row; rows are cut from the documents laid end to end."""
    tokenizer_share: float = 0.3
    """Share of the texts, drawn by hash, that the tokenizer learns its merges from."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, least={2: ("sequence_length",)})
        if not self.corpora:
            raise SettingsError("corpora is empty; name at least one source of text")
        if not 0 < self.tokenizer_share <= 1:
            raise SettingsError(f"tokenizer_share is {self.tokenizer_share}; give a share above 0, at most 1")
        if self.sequence_length > self.shape.max_positions:
            raise SettingsError(
                f"sequence_length {self.sequence_length} exceeds shape.max_positions {self.shape.max_positions}"
            )
        if self.heldout in self.corpora:
            raise SettingsError(
                f"heldout {self.heldout!r} is also in corpora: the held-out loss would be measured on training text"
            )


@dataclass(frozen=True, kw_only=True)
class CompressionSettings(StageSettings):
    """Stage 1: memory tokens learn to replace a text when the frozen language model continues it."""

    corpora: tuple[str, ...]
    """Sources that `llm2comp.corpus.read.read_corpus` understands, of running text."""
    heldout: str | None = None
    """Source of the held-out loss; never trained on."""
    objective: Objective = "distillation"
    """distillation (CTKD, the paper's choice), continuation (NLL) or reconstruction (RC)."""
    min_characters: int = 1000
    """Shortest text used; paragraphs of a document are joined until they reach it."""
    max_tokens: int = 512
    """Longest text in tokens, context and continuation together; longer ones are cut before the split is drawn."""
    margin: int = 10
    """Fewest tokens on either side of the split, which is drawn uniformly between the margins."""
    chunk_rows: int | None = None
    """Rows whose logits exist at one time; None chooses them so that memory is the same for every vocabulary."""
    restart_layers: bool = False
    """Where all weights are trained: the encoder keeps the token embeddings and begins with fresh layers, of which the first and the
    last average; teacher and reader stay the language model as it was. For small backbones (see `fresh_layers`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, least={1: ("margin", "chunk_rows"), 0: ("min_characters",)})
        if not self.corpora:
            raise SettingsError("corpora is empty; name at least one source of running text")
        if self.heldout in self.corpora:
            raise SettingsError(
                f"heldout {self.heldout!r} is also in corpora: the held-out loss would be measured on training text"
            )
        if self.max_tokens < 2 * self.margin + 1:
            raise SettingsError(
                f"max_tokens {self.max_tokens} leaves no room for a split with margin {self.margin} on both sides"
            )


@dataclass(frozen=True, kw_only=True)
class ContrastiveSettings(StageSettings):
    """Stages 2 and 3: texts that belong together move together, away from all others of the batch.

    With `corpora` the two texts are two dropout views of one sentence (unsupervised, SimCSE); with `pairs` they are a
    query and its positive, with hard negatives where a row has them (supervised).
    """

    corpora: tuple[str, ...] = ()
    """Sources of running text whose sentences are the data of stage 2."""
    pairs: tuple[str, ...] = ()
    """Training files, or folders of them, that `llm2comp.corpus.triples.read_triples` understands: the data of stage 3."""
    mixture: Mapping[str, float] = field(default_factory=dict)
    """How many times the rows of a file count, by its stem; 1 for those not named, 0 leaves one out."""
    max_negatives: int = 1
    """Hard negatives used of each row."""
    heldout_rows: int = 64
    """Rows kept for the held-out loss, from each data set that has ten times as many; they are scored against each other."""
    temperature: float = 0.05
    similarity: Literal["cosine", "dot"] = "cosine"
    micro_batch: int | None = None
    """Texts per forward pass (GradCache): memory then does not grow with batch_size. None runs a batch in one pass."""
    max_query_tokens: int | None = None
    """Longest query in training, memory tokens included; None is the model's own maximum."""
    max_passage_tokens: int | None = None
    """Longest positive or negative in training, memory tokens included."""
    embedding_learning_rate: float | None = None
    """Peak rate of the token embeddings, where all weights are trained; None is learning_rate. They see few updates each, and bear a higher one."""
    attention_dropout: float = 0.0
    """Share of attention weights dropped in training; the paper's stage 2 uses 0.2."""
    adapter: Literal["keep", "merge"] = "keep"
    """keep trains the adapter on; merge adds it to the backbone's weights and starts a fresh one, as the published runs do."""
    freeze_memory: bool = False
    """Leave the memory tokens as they are, as the published stage 2 does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.corpora) == bool(self.pairs):
            raise SettingsError(
                "give either corpora (stage 2, unsupervised) or pairs (stage 3, supervised), not both and not neither"
            )
        check_fields(self, least={0: ("max_negatives", "heldout_rows", "attention_dropout")})
        if self.embedding_learning_rate is not None and self.embedding_learning_rate <= 0:
            raise SettingsError(f"embedding_learning_rate is {self.embedding_learning_rate}; it must be above 0")
        if self.temperature <= 0:
            raise SettingsError(f"temperature is {self.temperature}; it must be above 0")
        if self.attention_dropout >= 1:
            raise SettingsError(f"attention_dropout is {self.attention_dropout}; it must be below 1")
        if wrong := [name for name, share in self.mixture.items() if not 0 <= share < math.inf]:
            raise SettingsError(f"mixture of {', '.join(wrong)} must be a finite number of at least 0")
        if self.corpora and self.mixture:
            raise SettingsError("mixture weighs the data sets of pairs; corpora take none")
        if self.micro_batch is not None and not 1 <= self.micro_batch <= self.batch_size:
            raise SettingsError(f"micro_batch {self.micro_batch} must be between 1 and batch_size {self.batch_size}")
