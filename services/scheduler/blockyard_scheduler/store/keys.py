"""Every key of a run in Redis.

All keys of one run begin with ``blockyard:{NAME}:``; the braces make Redis Cluster keep them on one node, so that one
script may touch all of them. NAME is the run's name, percent-encoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

SCHEMA = 1
"""Version of all that is stored; a newer one is refused, an older one would be converted."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one run."""

    prefix: str

    @classmethod
    def of(cls, run: str) -> Keys:
        """Return the keys of the run of this name."""
        return cls("blockyard:{" + quote(run, safe="") + "}:")

    @property
    def schema(self) -> str:
        """String: the `SCHEMA` that wrote the run."""
        return self.prefix + "schema"

    @property
    def spec(self) -> str:
        """String: the RunSpec as JSON, as it was accepted last."""
        return self.prefix + "spec"

    @property
    def epoch(self) -> str:
        """Counter: how many leaders there were; never reset, also not by --fresh."""
        return self.prefix + "epoch"

    @property
    def lock(self) -> str:
        """String that expires: the identity ``counter:nonce`` of the leader."""
        return self.prefix + "lock"

    @property
    def head(self) -> str:
        """Hash of the journal's head.

        ``writer``: identity of the only leader whose commits are accepted; ``address``: where workers reach it;
        ``process``: identity of a leader and name of its process, by which a successor on its machine knows its death;
        ``seq``: sequence of the last record; ``by``: identity of who wrote that one; ``before``: who led before, the
        last first, so that a leader knows a Redis that went back from another leader; ``server``: run id and promise of
        the Redis that a leader last found to hold all of its records, by which a successor knows what may be lost;
        ``first``: sequence of the first record that the log should still have, ``pages``: number of pages that there
        should be, both as of record ``counted``: so a key that was deleted or evicted is missed; ``kept``: number of
        the last piece of the history.
        """
        return self.prefix + "head"

    @property
    def log(self) -> str:
        """Stream: the records, the ID of each is ``SEQUENCE-0``, its one field is ``r``."""
        return self.prefix + "log"

    @property
    def pages(self) -> str:
        """Hash of snapshot pages: page key to 8 bytes of sequence (little-endian) and data."""
        return self.prefix + "pages"

    @property
    def staged(self) -> str:
        """Hash: pages laid aside while a leader writes all of the run again into a Redis that forgot."""
        return self.prefix + "staged"

    @property
    def errors(self) -> str:
        """Hash of failed attempts: ``task NUL block NUL attempt mod 4`` to a FailureNote in msgpack."""
        return self.prefix + "errors"

    @property
    def history(self) -> str:
        """Stream: what of the record of the run is in no page yet.

        The ID of each piece is ``NUMBER-0``; ``t`` time (Unix seconds), ``b`` list of `core.history.Batch`.
        """
        return self.prefix + "history"

    @property
    def history_pages(self) -> str:
        """Hash of pages of the record of the run: as `pages`, see `core.historypages`."""
        return self.prefix + "history-pages"

    @property
    def page(self) -> str:
        """String: address of the leader's page, for people who come to a standby's."""
        return self.prefix + "page"

    @property
    def scaling(self) -> str:
        """Hash: pool to what a successor must know of its size (`scaling.decide.Note` in msgpack)."""
        return self.prefix + "scaling"

    @property
    def code(self) -> str:
        """Hash: task to the digest of the code that its first blocks ran (`core.code`)."""
        return self.prefix + "code"

    @property
    def of_a_run(self) -> tuple[str, ...]:
        """What a run depends on; --fresh drops it and the history, but not the counter, the lock and the leader."""
        return (self.schema, self.spec, self.log, self.pages, self.errors)
