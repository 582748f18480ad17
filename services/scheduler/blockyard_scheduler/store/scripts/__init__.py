"""The Lua scripts: each is one atomic step in Redis, and each may be sent again when its answer was lost.

One file a script; a first line ``-- uses: NAMES`` puts the functions of those files before it, since Redis has no
modules.
"""

from __future__ import annotations

from importlib.resources import files

_USES = "-- uses: "


def _script(name: str) -> str:
    """Return a script with what it uses before it."""
    text = files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
    first = text.partition("\n")[0]
    used = first.removeprefix(_USES).split() if first.startswith(_USES) else []
    return "\n".join([*map(_script, used), text])


TAKE = _script("take")
RENEW = _script("renew")
RESIGN = _script("resign")
BEGIN = _script("begin")
COMMIT = _script("commit")
STAGE = _script("stage")
SWITCH = _script("switch")
NOTE = _script("note")
RECORD = _script("record")
LACKS = _script("lacks")
RIGHTS = _script("rights")
