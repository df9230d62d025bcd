"""The declared models in a file beside the blocks that outlive the server."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from zeekdb.errors import CommandError
from zeekdb.tensors.layout import Model

log = logging.getLogger("zeekdb")


def save_models(path: Path, models: Iterable[Model]) -> None:
    """Replaces the file as a whole. OSError."""
    table = {}
    for model in models:
        options = {key: value for key, value in model.fields().items() if key not in ("token-bytes", "block-bytes")}
        table[model.name.decode("latin-1")] = options
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        json.dump(table, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def load_models(path: Path) -> list[Model]:
    """What the file declares; what cannot be read is reported and left out."""
    models = []
    with contextlib.suppress(FileNotFoundError):
        try:
            table = json.loads(path.read_bytes())
            for name, options in table.items():
                words = [str(word).encode() for option in options.items() for word in option]
                models.append(Model.parse(name.encode("latin-1"), words))
        except (ValueError, AttributeError, CommandError) as error:
            log.warning("%s is not whole, its other models have to be declared again: %s", path, error)
    return models
