"""What a worker reads in its set-up, before its first block, is what the upstream tasks of this run have written."""

import pytest

from blockyard import Client, Parameter, Roi, Task, distribute

TOTAL = Roi((0,), (40,))


class Table(Task):
    """Writes a look-up table, when it is let."""

    out = Parameter()

    def prepare(self):
        self.schedule(TOTAL, TOTAL, TOTAL, self.process)

    def process(self, block):
        (self.out / "table").write_text("new")


class Relabel(Task):
    """Reads the table before it has a block."""

    out = Parameter()

    def requires(self):
        return [Table(out=self.out)]

    def prepare(self):
        block = Roi((0,), (10,))
        self.schedule(TOTAL, block, block, self.worker(), num_workers=2)

    def note(self, block, table):
        (self.out / f"block-{block.block_id}").write_text(table)

    def worker(self):
        raise NotImplementedError


class OwnLoop(Relabel):
    """In a loop of the user's own."""

    def worker(self):
        def loop():
            table = (self.out / "table").read_text()
            client = Client()
            while (block := client.acquire_block()) is not None:
                self.note(block, table)
                client.release_block(block, 0)

        return loop


class Loads(Relabel):
    """In a class, of which each slot builds one."""

    def worker(self):
        task = self

        class Loaded:
            def __init__(self):
                self.table = (task.out / "table").read_text()

            def __call__(self, block):
                task.note(block, self.table)

        return Loaded


@pytest.mark.parametrize("kind", [OwnLoop, Loads])
def test_a_table_that_the_last_run_has_left_is_not_the_one_that_is_read(kind, tmp_path):
    """Workers of a task begin when one of its blocks can run, not when the run begins; again and again."""
    (tmp_path / "table").write_text("old")
    assert distribute([{"task": kind(out=tmp_path)}])
    assert {path.read_text() for path in tmp_path.glob("block-*")} == {"new"}
    assert len(list(tmp_path.glob("block-*"))) == 4
