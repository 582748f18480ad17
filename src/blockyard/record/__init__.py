"""What the blocks of a run took: told by the core through `core/observer.py`, kept beside what the run depends on."""
