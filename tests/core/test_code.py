"""Which version of its code a task's blocks ran: kept, compared, and told where two meet in one result."""

from blockyard.core.code import KIND, CodeVersions
from blockyard.core.notices import Notices


class Life:
    """One scheduler's life of a run; what it would keep goes into `kept`."""

    def __init__(self, kept):
        self.notices = Notices()
        self.versions = CodeVersions(self.notices)
        self.versions.load(kept)
        self.kept = kept

    def hear(self, code, task="a", *, begun=False, worker="w"):
        self.versions.heard(worker, task, code, begun=begun)
        self.kept.update(self.versions.unsaved)

    @property
    def told(self):
        return [notice.task for notice in self.notices.listed() if notice.kind == KIND]


def test_one_version_is_nothing_to_tell():
    """However many workers say so, in however many lives; tasks are apart."""
    kept = {}
    for _ in range(2):
        life = Life(kept)
        for _ in range(3):
            life.hear("1", begun=bool(kept))
        life.hear("2", "b")
        assert life.told == []
    assert kept == {"a": "1", "b": "2"}


def test_another_version_is_told_and_the_first_one_kept():
    """Also where no block is done yet: those that run are of the first one."""
    for begun in (False, True):
        life = Life({})
        life.hear("1")
        life.hear("2", begun=begun)
        life.hear("2", begun=begun)
        assert life.told == ["a"]
        assert life.kept == {"a": "1"}


def test_a_later_scheduler_knows_the_version_of_the_blocks_that_are_done():
    """A resume with edited code: wanted, perhaps, and said, as long as it is so."""
    life = Life({"a": "1"})
    life.hear("2", begun=True)
    assert life.told == ["a"]
    again = Life(life.kept)
    again.hear("1", begun=True)
    assert again.told == []


def test_what_was_edited_before_any_block_was_done_is_the_version_of_the_run():
    """The bug that failed everything was mended: nothing is mixed."""
    life = Life({"a": "1"})
    life.hear("2")
    assert (life.told, life.kept) == ([], {"a": "2"})


def test_who_is_gone_without_a_block_done_has_mixed_nothing():
    """The image was mended and the pods replaced, while the scheduler waited: there is nothing to tell."""
    life = Life({})
    life.hear("1", worker="old")
    life.hear("1", worker="older")
    life.versions.left("old")
    life.hear("2", worker="new")
    assert life.told == ["a"], "one that runs the first version is still there"
    life.versions.left("older")
    life.versions.left("new")
    life.hear("2", worker="newer")
    assert (life.told, life.kept) == ([], {"a": "2"})
    life.versions.left("newer")
    life.hear("3", begun=True)
    assert life.told == ["a"], "its blocks are done"
