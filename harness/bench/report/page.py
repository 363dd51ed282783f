"""A benchmark as a folder: its data, its pictures, and one page that needs nothing else. jinja2 is imported here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from harness.atomic import write_atomically
from harness.bench.profiles import Profile
from harness.bench.record import Record
from harness.bench.report import plots
from harness.bench.report.tables import COLUMNS, LEGEND, facts, grouped, heading, label

DATA = "bench.json"
PAGE = "report.html"
_PROFILE = "profile-*.json"
_VARIANTS = {
    "textbook": "the network as the framework's tutorials write it, with the framework's own defaults",
    "compiled": "the textbook's network with the framework's own compilation switch",
    "tuned": "this project's network",
    "session": "the graph that this project exports, in ONNX Runtime",
}
_TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
body { font: 16px/1.45 sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.92rem; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td.text { text-align: left; }
td.text { white-space: normal; }
pre { background: #f5f5f5; padding: 0.8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.warning { color: #8a5a00; } .problem { color: #a00; }
svg { max-width: 100%; height: auto; }
p.note { color: #555; font-size: 0.9rem; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<pre>$ {{ command }}</pre>
{% if not complete %}<p class="problem">Not complete: it was interrupted.</p>{% endif %}
{% for warning in warnings %}<p class="warning">Warning: {{ warning }}.</p>
{% endfor %}
{% for table in tables %}
<h2>{{ table.heading }}</h2>
<div class="wide"><table>
<tr><th></th>{% for name in columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr><td>{{ row.label }}</td>
{%- if row.cells %}{% for cell in row.cells %}<td>{{ cell }}</td>{% endfor %}
{%- else %}<td class="text problem" colspan="{{ columns | length }}">{{ row.problem }}</td>{% endif %}</tr>
{% endfor %}</table></div>
{% endfor %}
<p class="note">{{ legend }}</p>
{% if ratios %}<h2>Ratios</h2>
<ul>{% for text in ratios %}<li>{{ text }}</li>
{% endfor %}</ul>
<p class="note">Of the medians, with a 95 % bootstrap interval over the rounds; where that holds 1, no difference was \
shown.</p>{% endif %}
{% for name, picture in pictures %}<h2>{{ name }}</h2>
<div class="wide">{{ picture }}</div>
{% endfor %}
<h2>What differs between the rows</h2>
<div class="wide"><table>
<tr><th></th><th>framework</th><th>dtype</th><th>device</th><th>threads told</th><th>threads busy</th><th>what</th></tr>
{% for row in rows %}<tr><td>{{ row.name }}</td><td>{{ row.framework }}</td><td>{{ row.dtype }}</td>\
<td>{{ row.device }}</td><td>{{ row.threads }}</td><td>{{ row.busy }}</td><td class="text">{{ row.what }}</td></tr>
{% endfor %}</table></div>
<h2>Held against the referee before being timed</h2>
<div class="wide"><table>
<tr><th></th><th>what</th><th>relative error</th><th>at most</th></tr>
{% for name, check in checks %}<tr{% if not check.passed %} class="problem"{% endif %}><td>{{ name }}</td>\
<td>{{ check.what }}</td><td>{{ "%.1e" | format(check.error) }}</td><td>{{ "%g" | format(check.bound) }}</td></tr>
{% endfor %}</table></div>
<h2>Environment</h2>
<pre>{% for fact in facts %}{{ fact }}
{% endfor %}</pre>
<p class="note">Every measurement is in {{ data }}.</p>
</body>
</html>
"""


def write_folder(record: Record, folder: Path) -> None:
    """Write data, pictures and page; profiles that lie there already are shown too."""
    write_json(folder / DATA, record.as_json())
    pictures = plots.draw(record)
    for name, svg in pictures.items():
        write_atomically(folder / f"{name}.svg", svg.encode())
    profiles = [json.loads(path.read_text()) for path in sorted(folder.glob(_PROFILE))]
    shown = [(name.capitalize(), svg) for name, svg in pictures.items()]
    shown += [(f"Stages of {p['settings']['backend']}", plots.draw_stages(p)) for p in profiles if p["stages"]]
    write_atomically(folder / PAGE, page(record, shown).encode())


def write_profile(profile: Profile, folder: Path) -> None:
    """Write a profile's data and its bar chart."""
    found, backend = profile.as_json(), profile.candidate.backend
    write_json(folder / _PROFILE.replace("*", backend), found)
    if found["stages"]:
        write_atomically(folder / f"stages-{backend}.svg", plots.draw_stages(found).encode())


def write_json(path: Path, value: Any) -> None:
    """The value as text, all of it or nothing."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def page(record: Record, pictures: list[tuple[str, str]]) -> str:
    """The report as HTML that refers to nothing outside itself; `pictures` are headings and SVG elements."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    tables = [
        {
            "heading": heading(record, task, batch),
            "rows": [
                {
                    "label": label(record, row),
                    "cells": [cell(record, row) for cell in COLUMNS.values()] if row.samples else [],
                    "problem": row.problem or "not measured",
                }
                for row in rows
            ],
        }
        for (task, batch), rows in grouped(record).items()
    ]
    rows = [
        {
            "name": str(row.candidate),
            "framework": f"{row.framework or ''} {row.version or ''}",
            "dtype": row.candidate.dtype,
            "device": row.device or "",
            "threads": row.threads or "",
            "busy": row.busy_threads or "",
            "what": _VARIANTS[row.candidate.variant]
            + ("; each call loads its images" if row.candidate.pipeline else "; images on the device beforehand"),
        }
        for row in record.rows
    ]
    return environment.from_string(_TEMPLATE).render(
        title=f"{record.config.preset} at {record.size} x {record.size} pixels",
        command=record.about["command"],
        complete=record.complete,
        warnings=record.warnings,
        tables=tables,
        columns=list(COLUMNS),
        legend=LEGEND[0].upper() + LEGEND[1:],
        ratios=[str(comparison) for comparison in record.comparisons()],
        pictures=[(name, Markup(plots.inline(svg))) for name, svg in pictures],
        rows=rows,
        checks=[(str(row.candidate), check) for row in record.rows for check in row.proof],
        facts=facts(record),
        data=DATA,
    )
