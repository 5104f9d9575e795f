"""Charts of a page, and the library that draws them."""

import hashlib
import json
import re

import numpy as np
from matplotlib.figure import Figure

from mbpo_jax.reports import charts
from mbpo_jax.reports.statistics import Estimate


def test_lines_of_other_steps_share_a_chart():
    nothing = np.full(2, np.nan)
    lines = [
        charts.Line(
            "</script><b>",
            np.array([1, 3]),
            Estimate(np.array([0.5, 1 / 3]), nothing, nothing),
            "k",
            "--",
        ),
        charts.Line(
            "b", np.array([2, 3]), Estimate(*np.arange(6.0).reshape(3, 2)), "C0", "-", False
        ),
    ]
    text = charts.chart_of(lines, "Steps", "Return", Figure(figsize=(5, 3)), "of <two>")
    assert "<b>" not in text
    assert "of &lt;two&gt;" in text
    (data,) = re.findall(r"<script type=application/json>(.*?)</script>", text)
    found = json.loads(data)
    assert found["x"] == [1, 2, 3]
    first, second = found["lines"]
    assert first["name"] == "</script><b>"
    assert first["value"] == [0.5, None, 0.333333]
    assert first["low"] == [None] * 3
    assert (first["dash"], first["drawn"]) == ([8, 4], True)
    assert (second["value"], second["high"]) == ([None, 0.0, 1.0], [None, 4.0, 5.0])
    assert not second["drawn"]


def test_the_library_is_the_one_that_is_named_and_its_licence_goes_with_it():
    notices = (charts.ASSETS / "THIRD_PARTY.md").read_text()
    named = dict(re.findall(r"^\| `(.*?)` \|.*\| ([0-9a-f]{64}) \|$", notices, re.MULTILINE))
    there = {path.name for path in charts.ASSETS.iterdir()} - {"THIRD_PARTY.md"}
    assert named.keys() == there
    for name, digest in named.items():
        assert hashlib.sha256((charts.ASSETS / name).read_bytes()).hexdigest() == digest
    assert "Permission is hereby granted" in charts.assets()
