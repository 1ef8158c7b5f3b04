"""A corpus in several files, with what makes dividing it hard: rows without ids, equal rows, empty ones, metadata."""

import json
import random
from pathlib import Path

from tests.word_encoder import WORDS


def write_corpus(folder: Path, *, files: int = 4, rows: int = 60) -> Path:
    """The folder, with JSON lines files of so many rows each; every third row has no id, some of them equal."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(7)
    for file in range(files):
        lines = []
        for row in range(rows):
            text = " ".join(draw.choices(WORDS, k=draw.randint(2, 30)))
            content: dict[str, object] = {"text": text, "year": 2000 + row % 7}
            if row % 3:
                content["id"] = f"d{file}-{row}"
            elif not row % 15:
                content = {"text": "the same text everywhere"}
            lines.append(json.dumps(content) + "\n")
        lines.append(json.dumps({"id": f"empty{file}", "text": " "}) + "\n")
        (folder / f"part{file}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder
