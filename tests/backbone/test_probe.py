"""What the probe refuses: one-line models with one mistake each, and families that stay causal."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.probe import PROBE_TEXTS, probe
from llm2comp.errors import BackboneError, SettingsError
from tests.families import REFUSED, VOCABULARY, build


def cumulated(embeddings: Tensor, lengths: Sequence[int], causal: bool) -> Tensor:
    """A language model in one line: each state is the mean of what its token sees."""
    texts = [
        text.cumsum(0) / torch.arange(1, len(text) + 1)[:, None] if causal else text.mean(0).expand_as(text)
        for text in embeddings.split(list(lengths))
    ]
    return torch.cat(texts) + embeddings


class TestProbe:
    embedding = torch.nn.Embedding(20, 8)

    def run(self, forward: Callable[[Tensor, Sequence[int], bool], Tensor]) -> None:
        with torch.no_grad():
            expected = [cumulated(self.embedding(torch.tensor(text)), [len(text)], True) for text in PROBE_TEXTS]
        probe(forward, self.embedding, expected, name="Toy", device=torch.device("cpu"))

    def test_accepts_what_reads_both_ways(self) -> None:
        self.run(cumulated)

    def test_refuses_what_stays_causal(self) -> None:
        with pytest.raises(
            BackboneError, match="Toy stays causal: changing a text's last token moves only 1 of its 6 states"
        ):
            self.run(lambda embeddings, lengths, causal: cumulated(embeddings, lengths, True))

    def test_refuses_what_stays_causal_without_padding_only(self) -> None:
        with pytest.raises(BackboneError, match="Toy stays causal"):
            self.run(lambda embeddings, lengths, causal: cumulated(embeddings, lengths, causal or len(lengths) == 1))

    def test_refuses_what_leaks(self) -> None:
        with pytest.raises(BackboneError, match="leak into one another"):
            self.run(
                lambda embeddings, lengths, causal: cumulated(embeddings, lengths if causal else [sum(lengths)], causal)
            )

    def test_refuses_what_looks_ahead(self) -> None:
        with pytest.raises(BackboneError, match="Toy looks ahead when it should be causal"):
            self.run(lambda embeddings, lengths, causal: cumulated(embeddings, lengths, False))

    def test_refuses_what_does_not_react(self) -> None:
        with pytest.raises(BackboneError, match="does not react to its input"):
            self.run(
                lambda embeddings, lengths, causal: (
                    torch.ones_like(embeddings) if causal else cumulated(embeddings, lengths, causal)
                )
            )

    def test_refuses_what_reads_differently_than_by_itself(self) -> None:
        """As a model whose attention bias is lost in the pass."""
        with pytest.raises(BackboneError, match="Toy reads differently than by itself"):
            self.run(
                lambda embeddings, lengths, causal: (
                    cumulated(embeddings, lengths, causal) * (1 if not causal else 1.5) + 0.1 * embeddings
                )
            )

    def test_refuses_states_of_another_shape(self) -> None:
        with pytest.raises(BackboneError, match=r"shape \(6, 8\) into states of shape \(6, 4\)"):
            self.run(lambda embeddings, lengths, causal: cumulated(embeddings, lengths, causal)[:, :4])

    def test_leaves_no_trace(self) -> None:
        plain = build("bloom")
        before = plain.config.to_dict()
        backbone = Backbone(plain)
        with torch.no_grad():
            backbone.encode(backbone.embed(torch.arange(4)), [4])
        changed = {name for name, value in plain.config.to_dict().items() if value != before.get(name)}
        assert changed == {"hidden_dropout"}

    def test_ways_that_are_none(self) -> None:
        with pytest.raises(SettingsError, match="attention is 'flash'; give auto, packed or padded"):
            Backbone(build("llama"), "flash")  # type: ignore[arg-type]
        with pytest.raises(BackboneError, match="StableLmForCausalLM cannot be made bidirectional"):
            Backbone(build("stablelm"), "packed")

    @pytest.mark.parametrize("family", REFUSED)
    def test_refuses_families_that_stay_causal_by_name(self, family: str) -> None:
        plain = build(family)
        with pytest.raises(BackboneError, match=f"{type(plain).__name__} cannot be made bidirectional") as refused:
            Backbone(plain)
        assert "\n" not in str(refused.value)

    def test_refuses_half_precision_alike(self) -> None:
        with pytest.raises(BackboneError, match="GPTNeoForCausalLM cannot be made bidirectional"):
            Backbone(build("gpt_neo").bfloat16())
        assert Backbone(build("mixtral").bfloat16()).attention == "packed"
        assert Backbone(build("stablelm").bfloat16()).attention == "padded"


def test_vocabulary_of_the_families_suffices_for_the_probe() -> None:
    assert max(token for text in PROBE_TEXTS for token in text) < VOCABULARY
