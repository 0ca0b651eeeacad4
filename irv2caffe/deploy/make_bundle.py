"""Makes a bundle: simplifies the net, runs both on images, and writes what a device needs."""

from __future__ import annotations

import io
import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe import __version__
from irv2caffe.atomic import atomic_folder, write_bytes
from irv2caffe.config import templates_dir
from irv2caffe.data.records.class_table import escape_name
from irv2caffe.deploy import onnx_check
from irv2caffe.deploy.comparison import Comparison, compare
from irv2caffe.deploy.fold import simplify
from irv2caffe.deploy.graph import read_graph
from irv2caffe.deploy.onnx.export import write_onnx
from irv2caffe.deploy.options import Bundle, BundleOptions
from irv2caffe.deploy.readme import FILES, readme
from irv2caffe.deploy.samples import run_samples, take_samples, write_expected
from irv2caffe.errors import InputError, OutputError, OutputExistsError, first_of
from irv2caffe.inference.running import start_runner
from irv2caffe.proto.text import write_prototxt
from irv2caffe.shapes.layer_types import SHAPE_RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from irv2caffe.deploy.fold import Folding
    from irv2caffe.deploy.graph import Graph
    from irv2caffe.deploy.samples import Sample
    from irv2caffe.inference.images import Images
    from irv2caffe.inference.model import Model

    Progress = Callable[[int, int], None]

NET, WEIGHTS, ONNX = "deploy.prototxt", "deploy.caffemodel", "net.onnx"
_EXAMPLES = ("prepare.py", "classify_caffe.py", "classify_opencv.py")
_ONNX_EXAMPLE = "classify_onnx.py"
_SAMPLE = re.compile(r"\d{5,}\.(npy|bin)")


def make_bundle(
    model: Model,
    images: Images,
    out: Path,
    options: BundleOptions,
    *,
    force: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> Bundle:
    """Writes a bundle for a device, and compares its net with the original.

    Args:
        model: the trained net.
        images: real images; the first are compared and written as samples.
        out: the folder.
        options: of the bundle.
        force: replace an existing bundle.
        progress: is told how many images have run, of how many.

    Raises:
        OutputExistsError: the folder exists, and ``force`` is not set or it is no bundle.
        OutputError: the new net is not the same net; nothing is written then.
        WeightsError: weights that do not fit the net.
        InputError: no images, or images that do not fit.
        NetError: a net that Caffe would refuse, or that cannot be written as ONNX.
        CaffeFailedError: the program that runs the nets has failed.
    """
    if force:
        refuse_other(out)
    with atomic_folder(out, force=force) as folder:
        samples, files = take_samples(
            images,
            model,
            folder,
            num_kept=options.num_checked,
            num_written=options.num_samples,
            kind=options.sample_format,
        )
        maker = _Maker(model, folder, options, samples, files, progress)
        bundle = maker.make(out)
        text = readme(bundle, model, options).encode("utf-8", "backslashreplace")
        write_bytes(folder / "README.md", text)
    return bundle


def refuse_other(out: Path) -> None:
    """Raises OutputExistsError for what ``force`` must not replace: what is no bundle."""
    if not (out.exists() or out.is_symlink()):
        return
    what = "is no folder"
    if out.is_dir():
        names = {path.name for path in out.iterdir()}
        other = names - FILES.keys() - {"README.md"}
        samples = out / "calibration"
        if samples.is_dir():
            files = {path.name for path in samples.iterdir()}
            other |= {f"calibration/{name}" for name in files if not _SAMPLE.fullmatch(name)}
        if not other and (not names or NET in names):
            return
        what = f"holds {first_of(sorted(other), 3)}" if other else f"has no {NET}"
    raise OutputExistsError(f"{out} is no bundle: it {what}", "choose another --out")


class _Maker:
    """Makes the files of a bundle in a folder."""

    def __init__(
        self,
        model: Model,
        folder: Path,
        options: BundleOptions,
        samples: Sequence[Sample],
        files: Sequence[str],
        progress: Progress,
    ) -> None:
        self._model = model
        self._folder = folder
        self._options = options
        self._checked = samples
        self._files = files
        self._progress = progress
        self._done = 0
        self._total = len(self._checked) * (2 + (options.average_pool == "caffe"))
        self.runner = ""

    def make(self, out: Path) -> Bundle:
        """Writes and checks everything but the README."""
        ends = (self._model.probabilities, self._model.logits)  # dnn.forward() gives the first
        original = read_graph(self._model.net, self._model.weights, ends)
        graph = original.copy()
        folding = simplify(
            graph,
            fold=self._options.fold,
            plain_average_pool=self._options.average_pool == "caffe",
        )
        net = self._write_net(graph)
        wanted = self._run(original.to_net(), self._model.weights, ends)[1]
        if not np.isfinite(wanted).all():
            raise InputError(
                f"{self._model.weights}: its scores are not finite (NaN or infinity)",
                "take an earlier snapshot: the training has diverged, or the input is scaled wrong",
            )
        cost = None
        if folding.plain_pools:
            wanted, cost = self._with_plain_pools(original, wanted)
        names = [graph.outputs[end].name for end in ends]
        probabilities, logits = self._run(net, self._folder / WEIGHTS, names)
        check = compare(wanted, logits)
        _require(check, "the net of the bundle is not the net that was trained")
        onnx = self._write_onnx(graph, logits) if self._options.onnx else {}
        self._write_rest(logits, probabilities)
        return Bundle(
            folder=out,
            files=_sizes(self._folder),
            num_layers=(len(original.nodes), len(graph.nodes)),
            num_parameters=(original.num_parameters(), graph.num_parameters()),
            folding=folding,
            runner=self.runner,
            check=check,
            average_pool_cost=cost,
            onnx=onnx,
            num_samples=len(self._files),
            notes=tuple(_notes(graph, folding, self._options, self._model)),
        )

    def _write_net(self, graph: Graph) -> Any:
        made = self._model.preprocessing
        net = graph.to_net()
        prob = graph.outputs[self._model.probabilities].name
        header = [
            f"irv2caffe {__version__} deploy, of {self._model.weights.name}",
            f"output: {prob}, {self._model.num_classes} class probabilities",
            f"input: {made.sentence()}",
        ]
        write_prototxt(self._folder / NET, net, header="\n".join(header))
        graph.write_weights(self._folder / WEIGHTS, net)
        return net

    def _run(self, net: Any, weights: Path, blobs: Sequence[str]) -> list[NDArray[np.float32]]:
        def done(count: int) -> None:
            self._done += count
            self._progress(self._done, self._total)

        with start_runner(
            net,
            weights,
            blobs=blobs,
            engine=self._options.engine,
            gpus=self._options.gpus,
            caffe=self._options.caffe,
        ) as runner:
            self.runner = runner.title
            return run_samples(runner, self._checked, blobs, done)

    def _with_plain_pools(
        self, original: Graph, wanted: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], Comparison]:
        """The logits of the original with Caffe's average pools, and what that changes."""
        graph = original.copy()
        simplify(graph, fold=False, plain_average_pool=True)
        logits = [graph.outputs[self._model.logits]]
        net = graph.to_net()
        found = self._run(net, self._model.weights, [value.name for value in logits])[0]
        return found, compare(wanted, found)

    def _write_onnx(self, graph: Graph, logits: NDArray[np.float32]) -> dict[str, Comparison]:
        path = self._folder / ONNX
        write_onnx(graph, path)
        result = {}
        for program, run in onnx_check.programs(path, graph.outputs[self._model.logits].name):
            found = np.stack([run(sample.values[None]).ravel() for sample in self._checked])
            result[program] = compare(logits, found, tolerance=onnx_check.TOLERANCE)
            _require(result[program], f"net.onnx gives other results in {program}")
        return result

    def _write_rest(self, logits: NDArray[np.float32], probabilities: NDArray[np.float32]) -> None:
        model, folder = self._model, self._folder
        model.preprocessing.write(folder)
        if model.preprocessing.has_mean_image:
            stream = io.BytesIO()
            np.save(stream, model.preprocessing.mean, allow_pickle=False)
            write_bytes(folder / "mean.npy", stream.getvalue())
        if model.class_names:
            names = "".join(f"{escape_name(name)}\n" for name in model.class_names)
            write_bytes(folder / "labels.txt", names.encode("utf-8", "surrogateescape"))
        if self._files:
            path = folder / "expected.json"
            write_expected(path, self._checked, self._files, logits, probabilities)
        for name in (*_EXAMPLES, *([_ONNX_EXAMPLE] if self._options.onnx else [])):
            shutil.copyfile(templates_dir() / "deploy" / name, folder / name)


def _require(check: Comparison, problem: str) -> None:
    if not check.passes:
        raise OutputError(
            f"{problem}: {check.text()}; allowed is {check.tolerance:g}",
            "nothing was written; please report it with the net",
        )


def _notes(graph: Graph, folding: Folding, options: BundleOptions, model: Model) -> Iterator[str]:
    yield from graph.notes
    foreign = sorted({node.type for node in graph.nodes} - SHAPE_RULES.keys())
    if foreign:
        yield f"layers that Caffe 1.0 does not have: {', '.join(foreign)}"
    if options.average_pool == "caffe" and not folding.plain_pools:
        yield "--average-pool caffe: the net has no TF-exact average pool, nothing changed"
    yield from model.notes


def _sizes(folder: Path) -> dict[str, int]:
    return {
        path.name: path.stat().st_size
        if path.is_file()
        else sum(file.stat().st_size for file in path.iterdir())
        for path in sorted(folder.iterdir())
    }
