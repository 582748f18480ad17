"""What a pipeline file says to `blockyard run` it says to the chart, as the real Helm reads it."""

from __future__ import annotations

import base64
import json
import random
import subprocess

import msgspec
import pytest
from chart import TINY

from blockyard.cli.values_command import chart_values
from blockyard.spec.errors import SpecError
from blockyard.spec.load import load_text, parse_pipeline
from blockyard.spec.yaml_text import read_yaml, write_yaml

PIECES = ["0", "1", "7", "8", "_", ".", "-", "+", ":", "e", "E", "x", "o", "b", "X", "B", "a", "f", "y", "n", "T", "Z"]
WORDS = [
    *("y", "Y", "yes", "Yes", "YES", "yEs", "n", "N", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF", "oN"),
    *("true", "True", "TRUE", "tRue", "false", "False", "FALSE", "null", "Null", "NULL", "nUll", "~", "="),
    *("10:20", "1:2:3", "2026-11-27", "2026-11-27T10:20:30Z", "017", "0o17", "0x1F", "0b11", "1_000", "1e3", "1.5e-3"),
]


@pytest.fixture(scope="module")
def helm_reads(helm, tmp_path_factory):
    """Call with YAML text; gives the value of `p` in it as Helm reads it."""
    chart = tmp_path_factory.mktemp("reader")
    (chart / "templates").mkdir()
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: reader\nversion: 1.0.0\n")
    (chart / "templates" / "p.yaml").write_text("p: {{ toJson .Values.p | b64enc }}\n")

    def read(text: str) -> object:
        (chart / "in.yaml").write_text(text)
        command = [str(helm), "template", "t", str(chart), "-f", str(chart / "in.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(base64.b64decode(done.stdout.rsplit("p: ", 1)[1]))

    return read


def test_any_plain_word_is_read_as_helm_reads_it_or_refused(helm_reads):
    """5,000 words of digits, signs, letters and underscores, and those that mean something in some YAML."""
    chance = random.Random(3)
    words = sorted({"".join(chance.choices(PIECES, k=chance.randint(1, 6))) for _ in range(5000)} - {"-"})
    ours = {}
    for word in [*WORDS, *words]:
        try:
            ours[word] = read_yaml(f"p: [{word}]", "file.yaml")[0]["p"][0]
        except SpecError:
            continue
    assert len(ours) > 3000
    theirs = helm_reads("p:\n" + "".join(f"- [{word}]\n" for word in ours))
    exact = {word: value for word, value in ours.items() if not isinstance(value, float) or abs(value) < 1e300}
    differ = [
        (word, value, got[0])
        for (word, value), got in zip(ours.items(), theirs, strict=True)
        if word in exact and not (value == got[0] and isinstance(value, bool) == isinstance(got[0], bool))
    ]
    assert differ == []


def test_values_of_a_pipeline_come_back_through_helm_as_the_pipeline(helm_reads, render):
    """With texts that look like numbers, dates, truths and escapes; and through the chart's own ConfigMap."""
    texts = [
        *WORDS,
        "größe 🧠",
        "a: b",
        "- a",
        "#",
        "'",
        '"',
        "\\",
        "\t",
        "\n",
        "line\nline\n",
        "\x85\u2028\ufeff",
        " a ",
        "",
    ]
    params = {"texts": texts, "numbers": [0, -7, 1.5, 1e-7, 1e22, 2**53 - 1], "rest": [None, True, False, [], {}]}
    params |= {text or "empty": {text: 1} for text in texts if text not in {"true", "false"}}
    pipeline = parse_pipeline(msgspec.json.decode(msgspec.json.encode(load_text(TINY))))
    pipeline = msgspec.structs.replace(pipeline, tasks=(msgspec.structs.replace(pipeline.tasks[0], params=params),))
    values = write_yaml(chart_values(pipeline))
    assert load_text(write_yaml(read_yaml(values, "values.yaml")[0]["pipeline"])) == pipeline
    assert parse_pipeline(helm_reads(values.replace("pipeline:", "p:", 1))) == pipeline
    config = render(values).one("ConfigMap", "seg-pipeline")
    assert load_text(config["data"]["pipeline.yaml"]) == pipeline
