"""Report: an HTML page with interactive curves, summary, findings and configuration.

The page loads nothing from the network. Text from logs is untrusted: it is escaped, and the content
security policy allows only the report's script.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any

from irv2caffe import __version__
from irv2caffe.atomic import write_text
from irv2caffe.log.describe import config_lines, finding_lines, summary_items
from irv2caffe.log.summary import summarize
from irv2caffe.plot.curves import Run, curves_of
from irv2caffe.plot.report_data import page_data
from irv2caffe.plot.report_section import sections_html
from irv2caffe.plot.style import PlotOptions, check_references, color_rules, without_controls

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from irv2caffe.log.summary import Summary
    from irv2caffe.plot.report_section import Section

_DEFAULT = PlotOptions()
_NO_EPOCHS = "over iterations; --num-train-images N turns them into epochs"


def write_report(
    runs: Sequence[Run],
    out: Path,
    options: PlotOptions = _DEFAULT,
    *,
    refresh_s: int | None = None,
    sections: Sequence[Section] = (),
) -> None:
    """Writes a report.

    Args:
        runs: drawn into the same axes; the configuration is shown for those with a log.
        out: an ``.html`` file.
        options: references, scales, title, and the initial view.
        refresh_s: seconds after which the page reloads itself.
        sections: shown above the findings.

    Raises:
        UsageError: references without epochs.
        InputError: there is nothing to draw.
        OutputError: the file cannot be written.
    """
    runs = [Run(without_controls(run.name), run.table, run.log) for run in runs]
    shown = curves_of(runs, smooth=options.smooth)
    check_references(options.references, in_epochs=shown[0].in_epochs)
    summaries = [summarize(run.table) for run in runs]
    script, css = _part("report_math.js") + _part("report.js"), _part("report.css") + color_rules()
    page = Template(_part("report.html")).substitute(
        title=escape(without_controls(options.title) or " and ".join(run.name for run in runs)),
        policy=content_policy(script),
        refresh=f'<meta http-equiv="refresh" content="{refresh_s}">\n' if refresh_s else "",
        css=css,
        about=escape("training of Caffe, " + ("over epochs" if shown[0].in_epochs else _NO_EPOCHS)),
        summary=_summary_table(runs, summaries),
        sections=sections_html(sections),
        findings=_findings(runs, summaries),
        config=_config(runs),
        footer=escape(f"irv2caffe {__version__} plot-log"),
        data=_json(page_data(shown, options)),
        script=script,
    )
    write_text(out, page)


def _part(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def content_policy(script: str) -> str:
    """The content security policy: allows this script and pictures in the page, no requests."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f"default-src 'none'; {allowed}"


def _json(value: Any) -> str:
    """JSON that cannot end the HTML element around it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _summary_table(runs: Sequence[Run], summaries: Sequence[Summary]) -> str:
    """One column per run."""
    columns = [dict(summary_items(summary)) for summary in summaries]
    names = dict.fromkeys(name for column in columns for name in column)
    head = "".join(f"<th>{escape(run.name)}</th>" for run in runs)
    rows = "".join(
        f"<tr><th>{escape(name)}</th>"
        + "".join(f"<td>{escape(column.get(name, ''))}</td>" for column in columns)
        + "</tr>"
        for name in names
    )
    return (
        f'<div class="wide"><table id="summary"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _findings(runs: Sequence[Run], summaries: Sequence[Summary]) -> str:
    parts = []
    for run, summary in zip(runs, summaries, strict=True):
        lines = finding_lines(summary, run.log)
        items = "".join(
            f'<li class="{kind}"><span class="kind">{kind}</span> {escape(text)}</li>'
            for kind, text in lines  # kinds are constants
        )
        found = f'<ul class="findings">{items}</ul>' if items else "<p>no findings</p>"
        parts.append(f"<h3>{escape(run.name)}</h3>{found}")
    return "".join(parts)


def _config(runs: Sequence[Run]) -> str:
    parts = []
    for run in runs:
        lines = config_lines(run.log) if run.log is not None else []
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in lines
        )
        known = f"<table>{rows}</table>" if rows else "<p>not in the log</p>"
        parts.append(f"<h3>{escape(run.name)}</h3>{known}")
    return "".join(parts)
