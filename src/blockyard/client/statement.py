"""Whether a call stands in a ``with`` statement.

`Client.acquire_block` must give None at the end, because loops ask ``if block is None``, and must be usable as
``with client.acquire_block() as block:``, for which None will not do. Both are the interface of daisy 0.2 and its
successor, so at the end, and only then, the caller's byte code is looked at: what follows the call tells.
"""

from __future__ import annotations

import dis
from types import FrameType

ENTERING = frozenset({"BEFORE_WITH", "SETUP_WITH"})


def called_by_with(frame: FrameType) -> bool:
    """Tell whether the call that `frame` is in the middle of is the expression of a with statement."""
    following = (step for step in dis.get_instructions(frame.f_code) if step.offset > frame.f_lasti)
    first = next(following, None)
    second = next(following, None)
    if first is None:
        return False
    # Python 3.14 and later: COPY 1; LOAD_SPECIAL __exit__
    special = first.opname == "COPY" and second is not None and second.opname == "LOAD_SPECIAL"
    return first.opname in ENTERING or special
