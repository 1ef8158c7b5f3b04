"""Your own backbone trained, and compared with what it was before.

    pip install "llm2comp[cpu,eval]"
    python examples/train_your_backbone.py HuggingFaceTB/SmolLM2-135M

Pairs of question and answer are derived from the docstrings of this Python; the model is scored on docstrings that are
never trained on. The defaults show the way in a few minutes; docs/training.md has the stages before this one, and
recipes have the steps that it takes to get far.
"""

import argparse
from pathlib import Path

from llm2comp import LLM2Comp
from llm2comp.corpus.python_docs import read_python_docs
from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.pairs.derive import PairSettings, derive_pairs
from llm2comp.training.settings import ContrastiveSettings
from llm2comp_benchmarks import TaskResult, evaluate
from llm2comp_benchmarks.compare.significance import paired_difference
from llm2comp_benchmarks.systems.bm25 import Bm25
from llm2comp_benchmarks.tasks.python_docs import build_task


def settings(pairs: Path, steps: int, batch: int) -> ContrastiveSettings:
    """Settings of a short run."""
    return ContrastiveSettings(
        pairs=(str(pairs),),
        steps=steps,
        batch_size=batch,
        micro_batch=min(batch, 32),  # texts in memory at once; all of the batch stay each other's negatives
        learning_rate=1e-3,
        warmup_steps=steps // 10,
        max_query_tokens=48,
        max_passage_tokens=96,
    )


def compare(name: str, before: TaskResult, after: TaskResult) -> str:
    """A line with the difference and its 95 % interval."""
    assert before.samples
    assert after.samples
    difference = paired_difference(before.samples, after.samples)
    low, high = difference.interval or (difference.value, difference.value)
    return f"trained minus {name}: {difference.value:+.3f} ({low:+.3f} to {high:+.3f}), p {difference.p:.4f}"


def main() -> None:
    """Trains the backbone and prints what that changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", help="folder or Hub id of a causal language model, or a GGUF file")
    parser.add_argument("-o", "--output", type=Path, default=Path("my-encoder"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--queries", type=int, default=300, help="questions to score with")
    arguments = parser.parse_args()
    if not (pairs := arguments.output / "pairs").exists():
        derive_pairs(PairSettings(docstrings=("python-docs:",)), pairs)
    task = build_task(read_python_docs(), queries=arguments.queries)
    model = LLM2Comp.from_backbone(arguments.backbone, memory_tokens=8, max_length=128)
    before = evaluate(model, task)
    run = settings(pairs, arguments.steps, arguments.batch)
    train_contrastive(model, run, arguments.output / "supervised")  # goes on where it was interrupted
    model.save(arguments.output / "model")
    after, words = evaluate(model, task), evaluate(Bm25(), task)
    for name, result in (("untrained", before), ("trained", after), ("BM25", words)):
        print(f"{name:<10} nDCG@10 {result.metrics['ndcg_at_10']:.3f}")
    print(compare("untrained", before, after))
    print(compare("BM25", words, after))
    print(f'\nUse it: llm2comp.load("{arguments.output / "model"}")')


if __name__ == "__main__":
    main()
