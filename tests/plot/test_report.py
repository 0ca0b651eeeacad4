"""The report in a real browser: curves, values under the mouse, zooming, no network."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest
from helpers.browser import browser, find_browser
from helpers.paths import FILES

from irv2caffe.errors import InputError, UsageError
from irv2caffe.log.read.reader import read_lines, read_log
from irv2caffe.log.reference import references
from irv2caffe.log.table import make_table
from irv2caffe.plot.curves import Run
from irv2caffe.plot.report import write_report
from irv2caffe.plot.style import PlotOptions

LOGS = FILES / "logs"
EVIL = '</script><script>document.title = "owned"</script><img src=x onerror=alert(1)>&"\''


@pytest.fixture(scope="module")
def program():
    found = find_browser()
    if found is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    return found


def run_of(name):
    log = read_log(LOGS / name)
    return Run(name, make_table(log, num_train_images=160), log)


def data_of(path):
    text = path.read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1])


@pytest.mark.slow
def test_values_zoom_and_legend_in_a_real_browser(program, tmp_path):
    runs = [run_of("resumed.log")]
    path = tmp_path / "report.html"
    write_report(runs, path, PlotOptions(references=tuple(references(["lim0606", "paper"]))))
    with browser(program, tmp_path / "profile") as page:
        page.open(path)
        data = data_of(path)
        shown = page.value("document.querySelectorAll('#chart path.curve').length")
        assert shown == len(data["curves"])
        assert page.value("document.querySelectorAll('#chart line.mark').length") == 3 * 2
        box = page.value(
            "(() => { const r = document.querySelector('svg .frame').getBoundingClientRect();"
            " return [r.left, r.top, r.width, r.height]; })()"
        )
        # Over the test at epoch 4: iteration 40 of ten an epoch.
        page.mouse("mouseMoved", box[0] + box[2] * 4 / 8, box[1] + 50)
        tip = page.value("document.getElementById('tip').innerText")
        best = next(row for row in runs[0].table.test if row.iteration == 40)
        assert not page.value("document.getElementById('tip').hidden")
        assert re.search(rf"validation top-1 error\s+{best.top1_error:.4g} %", tip), tip
        loss = next(row for row in runs[0].table.train if row.iteration == 40).loss
        assert re.search(rf"training loss\s+{loss:.4g}", tip), tip
        assert "lim0606: top-1 error" in tip
        # A drag zooms to what lies between; a double click undoes it.
        width = "document.querySelectorAll('#chart circle').length"
        before = page.value(width)
        first, last = box[0] + box[2] * 3.5 / 8, box[0] + box[2] * 6.5 / 8
        page.mouse("mousePressed", first, box[1] + 50, button="left", clickCount=1)
        page.mouse("mouseMoved", last, box[1] + 50, button="left")
        page.mouse("mouseReleased", last, box[1] + 50, button="left", clickCount=1)
        labels = page.value("[...document.querySelectorAll('svg text')].map(t => t.textContent)")
        assert "4.5" in labels
        assert "8" not in labels
        page.value("document.getElementById('whole').click()")
        assert page.value(width) == before
        # The legend hides a run's curve; references are one entry.
        entries = page.value(
            "[...document.querySelectorAll('#legend label')].map(e => e.innerText)"
        )
        assert entries[-2:] == ["lim0606 (reference)", "paper (reference)"]
        page.value("document.querySelector('#legend input').click()")
        assert page.value("document.querySelectorAll('#chart path.curve').length") < shown
        page.value("document.getElementById('log').click()")
        asked = [
            event["params"]["request"]["url"]
            for event in page.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        assert asked == [path.absolute().as_uri()]
        assert not [e for e in page.events if e.get("method") == "Runtime.exceptionThrown"]
        assert not [e for e in page.events if e.get("method") == "Log.entryAdded"], page.events


@pytest.mark.slow
def test_what_a_log_says_stays_text(program, tmp_path):
    """Names from a log are shown as they are; and if one got through, the policy stops it."""
    stamp = "I1124 01:02:03.500000  4242 solver.cpp:239] "
    lines = [
        stamp + "Initializing solver from parameters: ",
        f'type: "{EVIL}"',
        "base_lr: 0.1",
        stamp + "Iteration 0, Testing net (#0)",
        stamp + f"    Test net output #0: acc {EVIL} = 0.25",
        stamp + "Iteration 0, loss = 1",
        stamp + f"    Train net output #0: acc {EVIL} = 0.25",
        stamp + "Iteration 5, loss = 1",
        stamp.replace("I1124", "F1124") + f"Check failed: {EVIL}",
    ]
    log = read_lines(lines)
    path = tmp_path / "report.html"
    write_report([Run(EVIL, make_table(log), log)], path, PlotOptions(title=EVIL))
    text = path.read_text()
    assert text.count("<script") == 2
    assert "<img" not in text
    hole = tmp_path / "hole.html"
    hole.write_text(text.replace("</h1>", "</h1><script>document.title = 'owned'</script>"))
    with browser(program, tmp_path / "profile") as page:
        page.open(path)
        assert page.value("document.title") == EVIL
        assert page.value("document.querySelector('h1').innerText") == EVIL
        assert EVIL in page.value("document.querySelector('.fatal').innerText")
        assert page.value("document.images.length") == 0
        assert EVIL in page.value("document.getElementById('legend').innerText")
    with browser(program, tmp_path / "profile2") as page:
        page.open(hole)
        assert page.value("document.title") == EVIL
        assert page.value("document.querySelectorAll('#chart path.curve').length") > 0


@pytest.mark.slow
@pytest.mark.parametrize("lr", [0.045, 0.1, 0.021, 0.0099])
def test_every_panel_has_numbers_on_its_scale(program, tmp_path, lr):
    lines = [
        line for i in range(9) for line in (f"Iteration {i}, loss = 1", f"Iteration {i}, lr = {lr}")
    ]
    log = read_lines(lines)
    path = tmp_path / "report.html"
    write_report([Run("run", make_table(log), log)], path)
    with browser(program, tmp_path / "profile") as page:
        page.open(path)
        labels = page.value("[...document.querySelectorAll('svg text')].map(t => t.textContent)")
        first = labels.index("training loss") + 1
        assert labels.index("learning rate") - first >= 2


@pytest.mark.parametrize("name", ["healthy.log", "nan.log", "two_tests.log", "killed.log"])
def test_page_holds_its_data_and_needs_nothing_else(tmp_path, name):
    path = tmp_path / "report.html"
    write_report([run_of(name)], path, refresh_s=30)
    text = path.read_text()
    data = data_of(path)
    assert data["unit"] == "epoch"
    assert {curve["panel"] for curve in data["curves"]} == {"main", "lr", "rate"}
    assert not re.search(r"(?:src|href)\s*=", text)
    assert 'http-equiv="refresh" content="30"' in text
    assert "NaN" not in json.dumps(data)


@pytest.mark.slow
def test_close_up_and_scale_that_were_asked_for(program, tmp_path):
    runs = [run_of("resumed.log")]
    path = tmp_path / "report.html"
    write_report(runs, path, PlotOptions(window=(4, None), log_axes=frozenset({"loss"})))
    with browser(program, tmp_path / "profile") as page:
        page.open(path)
        labels = "[...document.querySelectorAll('svg text')].map(t => t.textContent)"
        assert "3.5" not in page.value(labels)
        assert "4.5" in page.value(labels)
        assert page.value("document.getElementById('log').checked")
        page.value("document.getElementById('whole').click()")
        assert "0" in page.value(labels)
        assert "1" in page.value(labels)
    with pytest.raises(InputError, match="no data in these epochs"):
        write_report(runs, path, PlotOptions(window=(9, 10)))


@pytest.mark.slow
def test_a_loss_that_explodes_leaves_the_chart(program, tmp_path):
    losses = [7 / (1 + i / 10) for i in range(50)] + [4e3, 3e20]
    log = read_lines(f"Iteration {i}, loss = {loss:g}" for i, loss in enumerate(losses))
    path = tmp_path / "report.html"
    write_report([Run("exploded", make_table(log), log)], path)
    with browser(program, tmp_path / "profile") as page:
        page.open(path)
        labels = page.value("[...document.querySelectorAll('svg text')].map(t => t.textContent)")
        assert labels[: labels.index("training loss")] == ["0", "2", "4", "6"]
        assert not [e for e in page.events if e.get("method") == "Runtime.exceptionThrown"]


def test_references_need_epochs(tmp_path):
    log = read_log(LOGS / "healthy.log")
    run = Run("healthy", make_table(log), log)
    with pytest.raises(UsageError, match="--num-train-images"):
        write_report(
            [run], tmp_path / "report.html", PlotOptions(references=tuple(references(["paper"])))
        )


@pytest.mark.slow
def test_names_that_are_not_text(tmp_path):
    path = tmp_path / "report.html"
    run = run_of("healthy.log")
    write_report([Run("a\udcff\x1b", run.table, run.log)], path, PlotOptions(title="b\udcff"))
    assert "a\N{REPLACEMENT CHARACTER}" in path.read_text()


def test_long_runs_are_thinned(tmp_path):
    stamp = "I1124 01:{:02d}:{:02d}.500000  4242 solver.cpp:239] "
    lines = [
        stamp.format(i // 600 % 60, i // 10 % 60)
        + f"Iteration {i}, loss = {100 if i == 777 else 1}"
        for i in range(20_000)
    ]
    log = read_lines(lines)
    path = tmp_path / "report.html"
    write_report([Run("long", make_table(log), log)], path)
    curves = {curve["name"]: curve for curve in data_of(path)["curves"]}
    raw = curves["training loss"]
    assert len(raw["x"]) <= 3002
    assert max(raw["y"]) == 100  # a spike is not lost
    mean = raw["mean"]
    assert (mean["per"], len(mean["x"]), mean["x"][-1]) == (7, 2858, 19_999)
    assert mean["y"][777 // 7] == pytest.approx(1 + 99 / 7, rel=1e-5)
    assert path.stat().st_size < 500_000


def displays(iterations, loss, lr=lambda _: 0.1):
    """Lines of a log whose every iteration takes a second."""
    for i in iterations:
        stamp = f"I1124 {i // 3600:02d}:{i // 60 % 60:02d}:{i % 60:02d}.000000 42 solver.cpp:239] "
        yield f"{stamp}Iteration {i}, loss = {loss(i):g}"
        yield f"{stamp}Iteration {i}, lr = {lr(i):g}"


def lines_of(page, kind="path.curve"):
    """What the drawn lines are, by their order: lists of the places of their points."""
    drawn = page.value(
        f"[...document.querySelectorAll('#chart {kind}')].map(p => p.getAttribute('d'))"
    )
    return [re.findall(r"([MLH])([\d.]+),?([\d.]*)", text) for text in drawn]


def choose(page, element, value, event):
    page.value(
        f"(() => {{ const e = document.getElementById('{element}'); e.value = '{value}';"
        f" e.dispatchEvent(new Event('{event}')); }})()"
    )


@pytest.mark.slow
def test_smoothing_is_the_readers_choice_and_looks_back_only(program, tmp_path):
    log = read_lines(displays(range(0, 2000, 10), lambda i: 2 if i < 1000 else 1))
    path = tmp_path / "report.html"
    write_report([Run("run", make_table(log), log)], path)
    tip = "document.getElementById('tip').innerText"
    with browser(program, tmp_path / "profile") as page:
        page.open(path)
        box = page.value(
            "(() => { const r = document.querySelector('svg .frame').getBoundingClientRect();"
            " return [r.left, r.top, r.width, r.height]; })()"
        )
        choose(page, "smooth", 0, "input")  # none
        assert page.value("document.getElementById('mean').innerText") == "none"
        alone = len(lines_of(page))
        choose(page, "smooth", 3, "input")  # after 1, 3 and the 5 that are chosen for 200
        assert page.value("document.getElementById('mean').innerText") == "mean of 7 displays"
        assert len(lines_of(page)) > alone  # the displays are there as well
        # Three displays after the step four of seven are older than it, and none is newer before.
        for at, value in ((990, "2"), (1020, "1.571"), (1060, "1")):
            page.mouse("mouseMoved", box[0] + box[2] * at / 1990, box[1] + 50)
            assert re.search(rf"mean of 7 displays\)\s+{value}\n", page.value(tip) + "\n"), at
        assert not [e for e in page.events if e.get("method") == "Runtime.exceptionThrown"]
        page.call("Page.reload")
        page.events.clear()
        page.wait("Page.loadEventFired")
        assert page.value("document.getElementById('mean').innerText") == "mean of 7 displays"


def test_lines_and_means_begin_anew_where_displays_are_missing(program, tmp_path):
    there = [i for i in range(0, 2000, 10) if not 500 < i < 1000]
    log = read_lines(displays(there, lambda i: 2 if i < 1000 else 1))
    path = tmp_path / "report.html"
    write_report([Run("run", make_table(log), log)], path, PlotOptions(smooth=7))
    loss = next(c for c in data_of(path)["curves"] if c["name"] == "training loss")
    assert loss["mean"]["breaks"] == [51]
    assert loss["mean"]["x"][51] == 1000
    with browser(program, tmp_path / "profile") as page:
        page.open(path)
        smooth = lines_of(page)[1]
        starts = [point for point in smooth if point[0] == "M"]
        assert len(starts) == 2
        ends = {point[2] for point in smooth}
        assert len(ends) == 2  # 2 before and 1 after, nothing between


def test_hours_and_logarithmic_places(program, tmp_path):
    """The second half of the iterations takes three times as long."""
    slow = [i if i <= 1000 else 1000 + 3 * (i - 1000) for i in range(0, 2001, 10)]
    lines = list(displays(slow, lambda _: 1))
    for number, i in enumerate(slow):
        for which in (0, 1):
            place = 2 * number + which
            lines[place] = lines[place].replace(f"Iteration {i},", f"Iteration {10 * number},")
    log = read_lines(lines)
    path = tmp_path / "report.html"
    write_report([Run("run", make_table(log), log)], path)
    labels = "[...document.querySelectorAll('svg text')].map(t => t.textContent)"
    with browser(program, tmp_path / "profile") as page:
        page.open(path)
        choose(page, "smooth", 0, "input")
        middle = lines_of(page)[0][100][1]
        assert "iteration" in page.value(labels)
        choose(page, "axis", "hours", "change")
        assert "hours of training" in page.value(labels)
        found = lines_of(page)[0][100][1]
        assert float(middle) - 58 == pytest.approx((1060 - 2 * 58) / 2, abs=0.2)
        assert float(found) - 58 == pytest.approx((1060 - 2 * 58) / 4, abs=0.2)
        choose(page, "axis", "place", "change")
        page.value("document.getElementById('logx').click()")
        points = lines_of(page)[0]
        assert len(points) == 200  # iteration 0 has no logarithm
        assert float(points[9][1]) - 58 == pytest.approx((1060 - 2 * 58) / 2.301, abs=0.5)
        assert {"10", "100", "1,000"} <= set(page.value(labels))
        assert not [e for e in page.events if e.get("method") == "Runtime.exceptionThrown"]


def test_a_rate_of_many_decades_has_labels_that_can_be_read(program, tmp_path):
    log = read_lines(displays(range(0, 2000, 10), lambda _: 1, lambda i: 0.1 * 0.1 ** (i // 100)))
    path = tmp_path / "report.html"
    write_report([Run("run", make_table(log), log)], path)
    steps = [mark for mark in data_of(path)["marks"] if mark["kind"] == "step"]
    assert [mark["x"] for mark in steps] == list(range(100, 2000, 100))
    assert steps[0]["text"] == "learning rate 0.1 to 0.01"
    with browser(program, tmp_path / "profile") as page:
        page.open(path)
        assert page.value("document.querySelectorAll('#chart line.step').length") == 3 * 19
        tops = page.value(
            "[...document.querySelectorAll('svg text')].filter(t => /^(0\\.|\\d+e-)/.test("
            "t.textContent) && t.getAttribute('text-anchor') === 'end').map("
            "t => t.getBoundingClientRect().top)"
        )
        assert len(tops) > 3
        assert min(abs(a - b) for a, b in pairwise(sorted(tops))) > 12


def test_a_rate_that_falls_smoothly_has_no_steps(tmp_path):
    log = read_lines(displays(range(0, 2000, 10), lambda _: 1, lambda i: 0.1 * (1 - i / 2000)))
    path = tmp_path / "report.html"
    write_report([Run("run", make_table(log), log)], path)
    assert not [mark for mark in data_of(path)["marks"] if mark["kind"] == "step"]


def contrast_of(color, other):
    """WCAG 2: of two values as ``rgb(1, 2, 3)``."""
    levels = []
    for text in (color, other):
        parts = [int(part) / 255 for part in re.findall(r"\d+", text)[:3]]
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        levels.append(0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] + 0.05)
    return max(levels) / min(levels)


STROKES = """(() => { const style = e => getComputedStyle(e);
  return [style(document.body).backgroundColor,
    [...document.querySelectorAll('#chart path.curve')].map(e => style(e).stroke),
    [...document.querySelectorAll('#chart text')].map(e => style(e).fill),
    [...document.querySelectorAll('#legend i')].map(e => style(e).borderTopColor),
    [...document.querySelectorAll('.kind, p, td, small, #controls')].map(e => style(e).color)]; })()
"""


@pytest.mark.slow
def test_dark_mode_is_legible(program, tmp_path):
    path = tmp_path / "report.html"
    published = PlotOptions(references=tuple(references(["all"])))
    write_report([run_of("two_tests.log"), run_of("nan.log")], path, published)
    with browser(program, tmp_path / "profile") as page:
        page.open(path)
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        page.call("Emulation.setEmulatedMedia", features=dark)
        paper, *groups = page.value(STROKES)
        assert contrast_of(paper, "rgb(255, 255, 255)") > 15
        for colors in groups:
            assert colors
            assert min(contrast_of(color, paper) for color in colors) >= 4.4


@pytest.mark.slow
def test_the_best_test_and_the_last_marker(program, tmp_path):
    """A star on the best point; the marker of a test at the right edge is not cut off."""
    path = tmp_path / "report.html"
    run = run_of("resumed.log")
    write_report([run], path)
    best = min(run.table.test, key=lambda row: row.top1_error)
    last = run.table.test[-1].top1_error
    with browser(program, tmp_path / "profile") as page:
        page.open(path)
        title = page.value("document.querySelector('#chart .best title').textContent")
        assert title == f"best: {best.top1_error:.4g} % at epoch {best.epoch:.4g}"
        legend = page.value("document.getElementById('legend').innerText")
        assert f"(last {last:.4g}, best {best.top1_error:.4g} %)" in legend
        edge, reach = page.value(
            "(() => { const r = e => document.querySelector(e).getBBox();"
            " const c = [...document.querySelectorAll('#chart circle')].map(e => e.getBBox());"
            " const clip = r('#clip-main rect');"
            " return [clip.x + clip.width, Math.max(...c.map(b => b.x + b.width))]; })()"
        )
        assert reach <= edge
