"""Random numbers of blocks: the block's own generator, and those that user code brings along."""

from __future__ import annotations

import functools
import pickle
import random
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import pipeline, task
from hypothesis import given
from hypothesis import strategies as st

from blockyard import Roi, run_blockwise
from blockyard.plan.grid import Grid
from blockyard.spec.block import Block, GridOfRun
from blockyard.spec.functions import load_function, reference_of
from blockyard.spec.randomness import random_sources, seeding
from blockyard.spec.user_code import check_functions


def block(block_id: int = 0, run: str = "p", task_id: str = "t", attempt: int = 1) -> Block:
    return Block(GridOfRun(Grid.of(pipeline(task("t")).tasks[0]), run), task_id, block_id, attempt)


# ----- the block's own ----------------------------------------------------------------------------------------------


@given(st.text(max_size=5), st.text(max_size=5), st.integers(0, 2**62), st.integers(1, 9))
def test_the_numbers_of_a_block_are_those_of_run_task_and_id(run: str, name: str, number: int, attempt: int) -> None:
    """Not of the attempt, the process, or what was drawn before; and no two blocks have the same."""
    drawn = block(number, run, name).rng.random(4).tolist()
    assert block(number, run, name, attempt).rng.random(4).tolist() == drawn
    for other in (block(number + 1, run, name), block(number, run + "x", name), block(number, run, name + "x")):
        assert other.rng.random(4).tolist() != drawn


def test_a_block_has_one_generator_and_makes_it_when_asked() -> None:
    """Drawing goes on where it stopped; a block sent to another process draws the same."""
    ours = block(3)
    sent = pickle.loads(pickle.dumps(ours))
    with pytest.raises(AttributeError):
        Block.__dict__["_rng"].__get__(ours)
    first, second = ours.rng.random(), ours.rng.random()
    assert first != second
    assert [sent.rng.random(), sent.rng.random()] == [first, second]
    assert pickle.loads(pickle.dumps(ours)).rng.random() == ours.rng.random()


def test_a_run_draws_the_same_serially_as_blocks_of_its_name_do() -> None:
    """A run of `run_blockwise` is called like its function."""
    drawn = {}

    def draw(a_block: Block) -> None:
        drawn[a_block.block_id] = a_block.rng.random()

    unit = Roi((0,), (1,))
    assert run_blockwise(Roi((0,), (5,)), unit, unit, draw, serial=True)
    assert drawn == {number: block(number, "draw", "draw").rng.random() for number in range(5)}


# ----- what user code brings along ----------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[int], Any]] = {
    "generator": np.random.default_rng,
    "philox": lambda seed: np.random.Generator(np.random.Philox(seed)),
    "random state": np.random.RandomState,
    "bit generator": np.random.SFC64,
    "python": random.Random,
}


def draw_from(rng: Any) -> Any:
    draw = next(getattr(rng, name) for name in ("random", "random_sample", "random_raw") if hasattr(rng, name))
    return draw()


def as_closure(rng: Any) -> Any:
    return lambda _block: draw_from(rng)


def as_default(rng: Any) -> Any:
    return lambda _block, held=rng: draw_from(held)


def as_keyword_default(rng: Any) -> Any:
    return lambda _block, *, held=rng: draw_from(held)


def as_argument(rng: Any) -> Any:
    return functools.partial(lambda _block, held: draw_from(held), held=rng)


def as_method(rng: Any) -> Any:
    @dataclass
    class Model:
        parts: Any

        def run(self, _block: Any) -> Any:
            return draw_from(self.parts["deep"][0])

    return Model({"deep": [rng]}).run


def as_object(rng: Any) -> Any:
    class Model:
        __slots__ = ("rng",)

        def __call__(self, _block: Any) -> Any:
            return draw_from(self.rng)

    model = Model()
    model.rng = rng  # type: ignore[attr-defined]
    return model


def as_class_attribute(rng: Any) -> Any:
    class Settings:
        held = rng

    return lambda _block: draw_from(Settings.held)


def as_global(rng: Any) -> Any:
    module = types.ModuleType("made_by_hand_too")
    exec("def f(block):\n    return inner()\ndef inner():\n    return draw(rng)", module.__dict__)
    vars(module).update(rng=rng, draw=draw_from)
    return module.f


def as_bound_draw(rng: Any) -> Any:
    draw = next(getattr(rng, name) for name in ("random", "random_sample", "random_raw") if hasattr(rng, name))
    return lambda _block: draw()


HOLDERS = [
    as_closure,
    as_default,
    as_keyword_default,
    as_argument,
    as_method,
    as_object,
    as_class_attribute,
    as_global,
    as_bound_draw,
]


@pytest.mark.parametrize("hold", HOLDERS)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_generator_is_found_and_seeded_for_each_block(kind: str, hold: Callable[[Any], Any]) -> None:
    """Wherever the function has it from; order of blocks and repeats change nothing, the user's own seed does."""

    def draws(seed: int, order: list[int]) -> dict[int, Any]:
        call = hold(MAKERS[kind](seed))
        (source,) = random_sources(call)
        call = seeding(call, [source])
        return {number: call(block(number)) for number in order}

    first = draws(1, [0, 1, 2, 3])
    assert len(set(first.values())) == 4
    assert draws(1, [3, 1, 1, 0, 2]) == first
    assert set(draws(2, [0, 1, 2, 3]).values()).isdisjoint(first.values())


@pytest.mark.parametrize("hold", [as_closure, as_default, as_argument, as_method, as_object, as_class_attribute])
def test_a_pickled_function_draws_in_another_process_as_here(tmp_path: Path, hold: Callable[[Any], Any]) -> None:
    """What it is when it is pickled is what seeds it."""
    function = hold(np.random.default_rng(5))
    sent = load_function(reference_of(function, str(tmp_path)), pickle_dir=str(tmp_path))
    here, there = (seeding(call, random_sources(call)) for call in (function, sent))
    assert [here(block(number)) for number in range(4)] == [there(block(number)) for number in range(4)]


def test_generators_of_one_function_draw_different_numbers() -> None:
    """Also two that were seeded alike; one that is held twice is one."""
    ours = [random.Random(1), random.Random(1), np.random.default_rng(1)]
    ours.append(ours[0])

    def call(_block: Any) -> list[float]:
        return [rng.random() for rng in ours]

    sources = random_sources(call)
    assert len(sources) == 3
    assert len(set(seeding(call, sources)(block()))) == 4


def test_what_draws_no_numbers_is_called_as_it_is() -> None:
    """Nor do the generators of the process count, the operating system's, or those of libraries nobody calls."""
    numbers, system = np.zeros(5), random.SystemRandom()

    def call(_block: Any) -> Any:
        return np.random.rand() + random.random() + system.random() + numbers[0]  # noqa: NPY002 - what users do

    assert random_sources(call) == []
    assert seeding(call, []) is call


class Torch(types.ModuleType):
    """As much of it as is asked for; there, every process begins with the same seed."""

    class Generator:
        def __init__(self) -> None:
            self.manual_seed(0)

        def manual_seed(self, seed: int) -> None:
            self.rng = random.Random(seed)

        def get_state(self) -> Any:
            return types.SimpleNamespace(numpy=lambda: np.array([self.rng.getstate()[1][0]]))

    def __init__(self) -> None:
        super().__init__("torch")
        self.default = self.Generator()
        self.manual_seed = self.default.manual_seed

    def initial_seed(self) -> int:
        return 67280421310721


def test_generators_of_torch_are_seeded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is captured; those of the process are looked at when user code has been loaded."""
    torch = Torch()
    monkeypatch.setitem(sys.modules, "torch", torch)
    generator = torch.Generator()
    sources = [source for source in random_sources(lambda _: generator) if "torch.Generator" in source.name]
    call = seeding(lambda _block: generator.rng.random(), sources)
    drawn = [call(block(number)) for number in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]


# ----- modules ------------------------------------------------------------------------------------------------------


@pytest.fixture
def _same_numbers_afterwards() -> Iterator[None]:
    state, python = np.random.get_state(), random.getstate()  # noqa: NPY002 - what users do
    yield
    np.random.set_state(state)  # noqa: NPY002
    random.setstate(python)


@pytest.mark.usefixtures("_same_numbers_afterwards")
@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import numpy\nrng = numpy.random.default_rng(0)\ndef f(block): rng.random()", "'rng' (Generator of numpy)"),
        ("import numpy\nnumpy.random.seed(0)\ndef f(block): ...", "'numpy.random' (RandomState of numpy)"),
        ("import random\nrandom.seed(0)\ndef f(block): ...", "'random' (random.Random)"),
        ("from random import Random\ndef f(block, rng=Random(0)): ...", "'a default' (random.Random)"),
        ("import numpy, random\ndef f(block): return numpy.random.rand() + random.random()", ""),
    ],
)
def test_a_module_that_gives_every_worker_the_same_numbers_is_told(tmp_path: Path, code: str, names: str) -> None:
    """Before a run; one that leaves it to chance is not."""
    module = f"draws_{abs(hash(code))}"
    (tmp_path / f"{module}.py").write_text(code)
    said = check_functions(
        pipeline(task("a", function=f"{module}:f"), task("b", function=f"{module}:f")), [str(tmp_path)]
    )
    if not names:
        assert said == []
    else:
        assert said[0].startswith(f"task 'a' and 1 more: random numbers come from {names}, which each worker has")
        assert said[0].endswith("block.rng is a generator of the block's own")
        assert len(said) == 1
