"""Blocks that start processes and threads of their own, with functions of the script, as in any Python program."""

import subprocess
import sys

SCRIPT = '''
import concurrent.futures as futures, dataclasses, functools, multiprocessing, sys, threading
import blockyard
from blockyard import Client, Parameter, Roi, Task

def square(x):
    return x * x

def deep(x):
    return 1 if x < 2 else x * deep(x - 1)

def cached(x):
    return lookup(x)

@functools.lru_cache
def lookup(x):
    return -x

@dataclasses.dataclass
class Point:
    x: int
    def moved(self, by): return Point(self.x + by)

def move(point): return point.moved(1)

def started(queue): queue.put("started")

def begin(): BEGUN.append(1)

BEGUN = []

def pool(method):
    context = multiprocessing.get_context(method)
    with context.Pool(2, initializer=begin) as pool:
        assert pool.map(square, range(4)) == [0, 1, 4, 9]
        assert pool.map(deep, [4]) == [24]
        assert pool.map(cached, [4]) == [-4]
        assert pool.map(move, [Point(1)]) == [Point(2)]
        assert pool.starmap(Point.moved, [(Point(1), 2)]) == [Point(3)]
        assert pool.map(functools.partial(pow, 2), [3]) == [8]

def executor(method):
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        assert list(pool.map(square, range(3))) == [0, 1, 4]

def process(method):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=started, args=(queue,), daemon=True)
    child.start()
    assert queue.get() == "started"
    child.join()

def threads(method):
    with futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(square, range(3))) == [0, 1, 4]

WAYS = [
    (pool, "fork"), (pool, "spawn"), (pool, "forkserver"), (executor, "spawn"), (process, "spawn"), (threads, ""),
]

def block_function(block):
    way, method = WAYS[block.block_id]
    way(method)

class Other(Task):
    """Another pickle, with functions of the same names; in the same slot, by turns."""
    def prepare(self):
        self.schedule(Roi((0,), (40,)), Roi((0,), (10,)), Roi((0,), (10,)), self.run, max_retries=0)
    def run(self, block):
        pool("fork")

class Built:
    def __init__(self): pool("fork")
    def __call__(self, block): pool("fork")

def loop():
    client = Client()
    while True:
        with client.acquire_block() as block:
            if block is None: break
            pool("fork")

def run(name, function, blocks=2):
    roi = Roi((0,), (10,))
    good = blockyard.run_blockwise(Roi((0,), (10 * blocks,)), roi, roi, function, max_retries=0, task_id=name)
    print(name, bool(good))

if __name__ == "__main__":
    run("function", block_function, len(WAYS))
    run("class", Built)
    run("own", loop)
    print("tasks", blockyard.distribute([Other("one"), Other("two")], workers=1))
'''


def run_script(folder, text):
    (folder / "script.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, check=False, timeout=170
    )
    return done.stdout, done.stdout + done.stderr


def test_pools_and_processes_of_every_kind_work_in_a_block_of_a_script(tmp_path):
    """By fork, spawn and forkserver; with functions, methods and classes of the script, and in a worker of its own."""
    said, everything = run_script(tmp_path, SCRIPT)
    lines = [line for line in said.splitlines() if line.startswith(("function", "class", "own", "tasks"))]
    assert lines == ["function True", "class True", "own True", "tasks True"], everything


UNGUARDED = """
import multiprocessing
import blockyard
from blockyard import Roi

def square(x): return x * x

def process(block):
    with multiprocessing.get_context("spawn").Pool(1) as pool: assert pool.map(square, [2]) == [4]

print("run", blockyard.run_blockwise(Roi((0,), (10,)), Roi((0,), (10,)), Roi((0,), (10,)), process, timeout_s=5))
"""


def test_a_process_started_afresh_in_a_block_never_starts_the_run_again(tmp_path):
    """It reads the script, where nothing keeps it from what starts the run; it is told what does."""
    said, everything = run_script(tmp_path, UNGUARDED.replace("timeout_s=5", "timeout_s=5, max_retries=0"))
    assert "run False" in said, everything
    assert "a process that multiprocessing starts in a block would start a run; " in everything
