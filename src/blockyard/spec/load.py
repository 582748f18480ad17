"""Pipeline files: YAML text to a checked `PipelineSpec`, with errors that name file, line, task and field."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import yaml

from blockyard.spec.errors import SpecError
from blockyard.spec.model import PipelineSpec
from blockyard.spec.validate import validate


def load_pipeline(path: str | os.PathLike[str]) -> PipelineSpec:
    """Give the pipeline of a YAML file, checked. Raises SpecError that names file, line, task and field."""
    return parse_pipeline(yaml.safe_load(Path(path).read_text()), str(path))


def parse_pipeline(mapping: Any, source: str = "pipeline.yaml") -> PipelineSpec:
    """Give the pipeline of a mapping (of YAML or JSON), checked; `source` is how errors call it. Raises SpecError."""
    try:
        pipeline = msgspec.convert(mapping, PipelineSpec)
        validate(pipeline)
    except (msgspec.ValidationError, SpecError) as error:
        raise SpecError(f"{source}: {error}") from None
    return pipeline
