"""The page of an evaluation: one HTML file that loads nothing from the network.

Names of classes and images are untrusted: they are escaped, and the content security policy allows
only the page's own script.
"""

from __future__ import annotations

import base64
import itertools
import tempfile
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from irv2caffe import __version__
from irv2caffe.atomic import write_text
from irv2caffe.evaluate.pictures import draw_pictures
from irv2caffe.plot.report import content_policy
from irv2caffe.plot.style import without_controls

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from irv2caffe.evaluate.evaluation import Evaluation
    from irv2caffe.evaluate.examples import Example, Examples

_NUM_MISTAKES = 10
_COLUMNS = (
    ("class", "class"), ("name", "name"), ("support", "images"), ("right", "right"),
    ("predicted", "predicted"), ("precision", "precision"), ("recall", "recall"), ("f1", "F1"),
)  # fmt: skip


def write_page(evaluation: Evaluation, examples: Examples, out: Path) -> None:
    """Writes the page.

    Raises:
        OutputError: it cannot be written.
    """
    script = _part("page.js")
    css = (resources.files("irv2caffe.plot") / "report.css").read_text("utf-8") + _part("page.css")
    figures = evaluation.metrics
    pictures = _pictures(evaluation)
    name = " and ".join(path.stem for path in evaluation.models)
    page = Template(_part("page.html")).substitute(
        title=_text(f"{name} on {evaluation.data.name}"),
        policy=content_policy(script),
        css=css,
        about=_text(_about(evaluation)),
        figures=_headline(evaluation),
        findings=_list("Findings", evaluation.findings) + _list("Notes", evaluation.notes),
        tables=_more_tables(evaluation),
        confusion=pictures.get("confusion", "<p>Too many classes for a picture.</p>"),
        calibration=pictures["calibration"],
        mistakes=_mistakes(evaluation),
        worst_words=_text(
            f"The {len(examples.worst)} of {figures.num_images:,} images with the smallest "
            "probability of their own class, smallest first."
            if examples.worst
            else "Every image is right."
        ),
        worst=_tiles(examples.worst),
        confused=_by_mistake(examples.confused),
        class_head="".join(
            f"<th{' class=number' * (key != 'name')}>{words}</th>" for key, words in _COLUMNS
        ),
        class_rows="".join(_class_row(row) for row in evaluation.class_rows()),
        footer=_text(f"irv2caffe {__version__} evaluate"),
        script=script,
    )
    write_text(out, page)


def _part(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _text(text: str) -> str:
    return escape(without_controls(text))


def _about(evaluation: Evaluation) -> str:
    parts = [
        f"{evaluation.metrics.num_images:,} images of {evaluation.data}",
        evaluation.part,
        f"{evaluation.crops} crop{'s' * (evaluation.crops > 1)}",
        evaluation.engine,
        f"{evaluation.images_per_second:,.1f} images a second",
    ]
    if len(evaluation.models) > 1:
        parts.insert(2, f"mean probabilities of {len(evaluation.models)} models")
    return "; ".join(part for part in parts if part)


def _headline(evaluation: Evaluation) -> str:
    figures = evaluation.metrics
    shown = [
        (f"{100 * (1 - share):.2f} %", f"top-{rank} error") for rank, share in figures.top.items()
    ]
    shown += [
        (f"{figures.loss:.4f}", "loss"),
        (f"{100 * figures.mean_recall:.2f} %", "mean recall of the classes"),
        (f"{100 * figures.calibration.ece:.2f} %", "calibration error"),
    ]
    return "".join(f"<div><b>{value}</b><span>{words}</span></div>" for value, words in shown)


def _list(heading: str, lines: Iterable[str]) -> str:
    items = "".join(f"<li>{_text(line)}</li>" for line in lines)
    return f'<h2>{heading}</h2><ul class="findings">{items}</ul>' if items else ""


def _more_tables(evaluation: Evaluation) -> str:
    """What caffe test prints, and figures with other batches or statistics."""
    parts = []
    if evaluation.caffe is not None:
        test = evaluation.caffe
        values = ", ".join(f"{name} = {test.text(name)}" for name in test.values)
        parts.append(
            f"<p><code>caffe test -iterations {test.iterations}</code> (batches of "
            f"{test.batch_size}) prints {_text(values)}.</p>"
        )
    rows = [(f"batches of {size}", metrics) for size, metrics in evaluation.by_batch_size]
    if evaluation.reestimated is not None:
        path, metrics = evaluation.reestimated
        rows += [("as trained", evaluation.metrics), (f"new statistics, {path.name}", metrics)]
    if rows:
        ranks = list(evaluation.metrics.top)
        head = "".join(f"<th>top-{rank} error</th>" for rank in ranks)
        lines = "".join(
            f"<tr><th>{_text(words)}</th>"
            + "".join(f"<td>{100 * (1 - metrics.top[rank]):.2f} %</td>" for rank in ranks)
            + f"<td>{metrics.loss:.4f}</td></tr>"
            for words, metrics in rows
        )
        parts.append(
            f"<h2>BatchNorm</h2><table><thead><tr><th></th>{head}<th>loss</th></tr></thead>"
            f"<tbody>{lines}</tbody></table>"
        )
    return "".join(parts)


def _mistakes(evaluation: Evaluation) -> str:
    rows = "".join(
        f"<tr><td>{_text(row['true'])}</td><td class=wrong>{_text(row['predicted'])}</td>"
        f"<td>{row['count']:,}</td></tr>"
        for row in evaluation.mistakes(_NUM_MISTAKES)
    )
    head = "<tr><th>is</th><th>is taken for</th><th>images</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>" if rows else ""


def _tiles(examples: Sequence[Example]) -> str:
    return "".join(
        f"<figure>{_thumbnail(one)}is {_text(one.true)}<br>"
        f'<span class="wrong">{100 * one.confidence:.0f} % {_text(one.predicted)}</span>'
        f"<small>{100 * one.label_probability:.2g} % {_text(one.true)}</small>"
        f"<small>{_text(one.name)}</small></figure>"
        for one in examples
    )


def _by_mistake(examples: Sequence[Example]) -> str:
    """The examples of each mistake under a heading; those of one mistake are neighbours."""
    groups = itertools.groupby(examples, key=lambda one: (one.true, one.predicted))
    return "".join(
        f"<h3>{_text(true)} taken for {_text(predicted)}</h3>"
        f'<div class="tiles">{_tiles(list(group))}</div>'
        for (true, predicted), group in groups
    )


def _thumbnail(example: Example) -> str:
    if example.pixels is None:
        return "<p>cannot be read</p>"
    from irv2caffe.data.inspect.sheet import thumbnail

    return f'<img alt="" src="data:image/jpeg;base64,{_base64(thumbnail(example.pixels))}">'


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _pictures(evaluation: Evaluation) -> dict[str, str]:
    """The pictures in a light and a dark version, as elements."""
    sources: dict[str, list[str]] = {}
    for dark in (False, True):
        with tempfile.TemporaryDirectory(prefix="irv2caffe-") as folder:
            draw_pictures(evaluation, Path(folder), dark=dark)
            for path in Path(folder).iterdir():
                uri = f"data:image/png;base64,{_base64(path.read_bytes())}"
                sources.setdefault(path.stem, []).append(uri)
    return {
        name: f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark_uri}">'
        f'<img alt="{name}" src="{uri}"></picture>'
        for name, (uri, dark_uri) in sources.items()
    }


def _class_row(row: dict[str, Any]) -> str:
    cells = []
    for key, _ in _COLUMNS:
        value = row[key]
        if key == "name":
            cells.append(f"<td>{_text(value)}</td>")
        elif isinstance(value, float):
            known = value == value  # noqa: PLR0124  not NaN
            text = f"{100 * value:.1f} %" if known else ""
            cells.append(f'<td class="number" data-value="{value if known else -1}">{text}</td>')
        else:
            cells.append(f'<td class="number" data-value="{value}">{value:,}</td>')
    return f"<tr>{''.join(cells)}</tr>"
