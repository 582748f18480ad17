"""What the demo has made in its output folder, so that it replaces that and nothing else.

A list in the folder names the files with a checksum each; of the zarr group it may replace the arrays of its own names.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

from inputs import InputError

LIST = ".demo-made"
ARRAYS = ("raw", "smoothed", "fragments", "segments", "counts", "pairs", "offsets", "table")
FILES = ("pipeline.yaml", "watershed.py", "demo.png")
FOLDERS = ("volume.zarr", "record")
RUN = ".blockyard/demo"
"""The run's own folder, which `--fresh` starts over."""
OTHER = "choose another folder with OUT= (--out), or move it away"


def refuse_others(out: Path, source: Path | None) -> None:
    """Raise InputError where starting over in `out` would replace what the demo did not make, or its own input."""
    if source is not None and any(source.resolve().is_relative_to(out / name) for name in FOLDERS):
        raise InputError(f"input '{source}' lies in '{out}', where this demo writes; {OTHER}")
    made = _made(out)
    for name in (*FOLDERS, *FILES, RUN):
        path = out / name
        if not path.exists():
            continue
        if made is None or (name in FILES and name not in made):
            raise InputError(f"'{out}' holds '{name}', which no demo made; {OTHER}")
        if name in FILES and made[name] != _checksum(path.read_bytes()):
            raise InputError(f"'{path}' was changed since a demo wrote it; {OTHER}")
    for name in sorted(_strangers(out)):
        raise InputError(f"'{out}' holds '{name}', which no demo made; {OTHER}")


def start_over(out: Path) -> None:
    """Make the folder and remove what an earlier demo made in it."""
    out.mkdir(parents=True, exist_ok=True)
    if _made(out) is None:
        (out / LIST).write_text("{}\n")
    for name in FOLDERS:
        if (out / name).exists():
            shutil.rmtree(out / name)


def write(out: Path, name: str, data: bytes) -> None:
    """Write a file, which is on the list before it is there."""
    (out / LIST).write_text(json.dumps((_made(out) or {}) | {name: _checksum(data)}) + "\n")
    part = out / f".{name}.part"
    part.write_bytes(data)
    part.replace(out / name)


def _strangers(out: Path) -> set[str]:
    """Return what is in the demo's folders and has none of its names."""
    arrays, record = ({path.name for path in (out / name).glob("*")} for name in FOLDERS)
    others = {f"volume.zarr/{name}" for name in arrays - {*ARRAYS, "zarr.json"}}
    return others | {f"record/{name}" for name in record if not re.fullmatch(r"\d+\.csv", name)}


def _made(out: Path) -> dict[str, str] | None:
    """Return the list: name to checksum; None where no demo was here."""
    try:
        return dict(json.loads((out / LIST).read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read '{out / LIST}' ({error}); {OTHER}") from error


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
