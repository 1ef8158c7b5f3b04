"""Files changed as by an attacker, who also updates the checksum of the manifest."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the manifest and updates its checksum."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    content.pop("checksum", None)
    content["checksum"] = hashlib.sha256(
        json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()
    path.write_text(json.dumps(content, indent=1))


def forge_file(folder: Path, name: str, data: bytes) -> None:
    """Replaces a file of the first segment and its record."""
    (folder / "segments" / "000001" / name).write_bytes(data)
    record = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    forge(folder, lambda manifest: manifest["segments"][0]["files"].update({name: record}))
