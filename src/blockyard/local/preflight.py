"""The check that user code can be imported and called, in a process of its own, beside whatever else starts.

What modules do when they are imported (threads, a GPU's context, gigabytes) leaves with that process, and a module that
crashes takes nothing else along::

    check = FunctionCheck(pipeline, module_path)   # starts it
    ...                                            # Redis and the scheduler start meanwhile
    check.finish()                                 # SpecError where a task could not run
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from blockyard.spec.errors import NotImportableError
from blockyard.spec.model import PipelineSpec
from blockyard.spec.module_path import python_of
from blockyard.spec.user_code import fault_in, question, said_in

PATIENCE_S = 15.0


class FunctionCheck:
    """A running check of all functions that a pipeline names; leave it by `finish` or `close`, or use it in `with`."""

    def __init__(
        self,
        pipeline: PipelineSpec,
        module_path: Sequence[str],
        environment: Mapping[str, str] | None = None,
        work_dir: Path | None = None,
    ) -> None:
        """Start it. `module_path`, `environment` and `work_dir` are what workers get; None: those of this process."""
        self._name = pipeline.name
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - files, not pipes: nobody reads while it runs
        with tempfile.TemporaryFile() as asked:
            asked.write(question(pipeline, module_path))
            asked.seek(0)
            self._process = subprocess.Popen(
                python_of("blockyard.spec.user_code"),
                stdin=asked,
                stdout=self._output,
                stderr=self._errors,
                env=environment,
                cwd=work_dir,
            )

    def finish(self, say: Callable[[str], None] = lambda _: None) -> list[str]:
        """Wait for it, and `say` so where that takes long: a module that never ends its import looks like a hang.

        Return what should be known of the functions, in sentences. Raises SpecError that names task, field and function
        where one cannot be used, NotImportableError where that may be so on this machine alone.
        """
        try:
            status = self._wait(say)
            if status == 0:
                return said_in(_content(self._output))
            fault = fault_in(_content(self._output))
            if fault is not None:
                raise fault
            last = _content(self._errors).decode(errors="replace").strip().splitlines()[-1:]
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise NotImportableError(
                f"importing the functions of pipeline '{self._name}' ended its process with {how}: {' '.join(last)}"
            )
        finally:
            self.close()

    def _wait(self, say: Callable[[str], None]) -> int:
        try:
            return self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            say(f"importing the functions of pipeline '{self._name}' takes long; nothing runs before it has ended")
            return self._process.wait()

    def close(self) -> None:
        """End it, whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._output.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
