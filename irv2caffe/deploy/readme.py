"""The README.md of a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.deploy.options import Bundle, BundleOptions
    from irv2caffe.inference.model import Model

FILES = {
    "deploy.prototxt": "the net for Caffe and what reads its files",
    "deploy.caffemodel": "its weights, float32",
    "net.onnx": "net and weights for what reads ONNX (operator set 13, open batch size)",
    "labels.txt": "the name of class n on line n, counted from 0",
    "preprocessing.json": "what to feed the net, as numbers and as a sentence",
    "mean.binaryproto": "the mean image, channels x height x width of the resized image",
    "mean.npy": "the same for numpy",
    "prepare.py": "the preprocessing as a program: from an image file to the input",
    "classify_caffe.py": "an example for pycaffe",
    "classify_opencv.py": "an example for OpenCV 4 (and for OpenCV 5 where there is a net.onnx)",
    "classify_onnx.py": "an example for onnxruntime",
    "calibration.txt": "the preprocessed images, one path a line, as INT8 tools want them",
    "calibration": "the preprocessed images, float32, channels x height x width",
    "expected.json": "for some of them what the net must give: the best classes and all logits",
}


def readme(bundle: Bundle, model: Model, options: BundleOptions) -> str:
    """The text, which a stranger can read without the program."""
    made = model.preprocessing
    lines = [
        "# A trained net, ready for a device",
        "",
        f"Input `{model.input}`: 1 x {made.channels} x {made.height} x {made.width}, float32.",
        f"Output `{model.probabilities}`: the probabilities of {model.num_classes} classes.",
        "",
        f"**What to feed it.** {made.sentence()}",
        "",
        "| file | what it is |",
        "|---|---|",
        *(f"| `{name}` | {what} |" for name, what in FILES.items() if name in bundle.files),
        "",
        "## Try it",
        "",
        "```sh",
        "python classify_opencv.py IMAGE...   # OpenCV 4",
        "python classify_caffe.py IMAGE...    # pycaffe",
        *(["python classify_onnx.py IMAGE...     # onnxruntime"] if options.onnx else []),
        "```",
        "",
        "## What was checked",
        "",
        *(f"- {line}" for line in _checks(bundle)),
        "",
        "## What was changed",
        "",
        *(f"- {line}" for line in _changes(bundle, options)),
        "",
        "## For quantization",
        "",
        *_quantization(bundle, options, model),
        "",
        *(["## Notes", "", *(f"- {note}" for note in bundle.notes), ""] if bundle.notes else []),
        f"Written by irv2caffe {__version__}.",
    ]
    return "\n".join(lines) + "\n"


def _checks(bundle: Bundle) -> Iterator[str]:
    yield (
        f"`deploy.prototxt` against the net that was trained, {bundle.check.num_images} image(s), "
        f"{bundle.runner}: {bundle.check.text()}."
    )
    for program, check in bundle.onnx.items():
        yield f"`net.onnx` in {program} against `deploy.prototxt`: {check.text()}."
    if bundle.average_pool_cost is not None:
        yield (
            "Caffe's average pool instead of the one that was trained with: "
            f"{bundle.average_pool_cost.text()}."
        )


def _changes(bundle: Bundle, options: BundleOptions) -> Iterator[str]:
    folding = bundle.folding
    before, after = bundle.num_layers
    yield f"{before:,} layers became {after:,}; no layer that only training needs is left."
    if not options.fold:
        yield "BatchNorm, Scale and the factors of sums were left as they are."
    elif count := folding.removed.get("BatchNorm"):
        left = f", except for {len(folding.kept)} Scale layers" if folding.kept else ""
        yield (
            f"{count} BatchNorm layers and the Scale layers behind them were merged into "
            f"the weights and biases of the layers beside them{left}."
        )
    if folding.coefficients:
        yield (
            f"{folding.coefficients} factors of sums (Eltwise coeff) are part of the weights and "
            "biases before them: some programs ignore such factors without a message."
        )
    if folding.kept:
        yield (
            f"{len(folding.kept)} Scale layers are left: between each and the next layer with "
            "weights stands another, such as ReLU, or others read the same values."
        )
    for name in folding.border_maps:
        yield (
            f"Layer `{name}` is the border correction of an average pool: a Scale with one factor "
            "for each value of its input. A program that cannot read it needs a bundle made with "
            "`--average-pool caffe`."
        )
    for name in folding.plain_pools:
        yield f"The border correction `{name}` of an average pool was left out."


def _quantization(bundle: Bundle, options: BundleOptions, model: Model) -> Iterator[str]:
    if not bundle.num_samples:
        yield "No samples were written; `--samples N` writes them."
        return
    made = model.preprocessing
    kind = "arrays of numpy" if options.sample_format == "npy" else "float32 values, no header"
    yield (
        f"`calibration/` holds {bundle.num_samples} preprocessed images ({kind}, {made.channels} x "
        f"{made.height} x {made.width} each), spread over the images that were given; "
        "`calibration.txt` lists them."
    )
