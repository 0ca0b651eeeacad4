"""The value of ``--gpus``, and words about GPUs that are missing."""

from __future__ import annotations

from irv2caffe.errors import UsageError

_MAX_DIGITS = 9
NO_GPU_HELP = "nvidia-smi lists the GPUs if a driver is installed; --gpus none trains on the CPU"
CAFFE_FOR_GPUS = (
    "irv2caffe install-caffe --cuda builds a Caffe for GPUs; --engine torch trains on GPUs "
    "(pip install 'irv2caffe[torch]'); --caffe, CAFFE_ROOT or --docker name another Caffe"
)
TORCH_FOR_GPUS = (
    "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130 "
    "installs one for drivers from 580 on, cu126 in its place for older drivers and GPUs"
)


def parse_gpus(text: str, *, words: str = "none") -> tuple[int, ...]:
    """Returns the GPU numbers in ``0,1``; an empty tuple for ``none``, which is the CPU.

    Args:
        text: the value of ``--gpus``.
        words: the words that the command accepts beside numbers, for the error message.

    Raises:
        UsageError: not a comma-separated list of numbers, or a number twice.
    """
    if text == "none":
        return ()
    parts = text.split(",")
    is_list = all(part.isascii() and part.isdecimal() for part in parts)
    if not is_list or max(map(len, parts)) > _MAX_DIGITS:
        raise UsageError(f"--gpus {text}: expected {words}, or GPU numbers such as 0,1")
    numbers = tuple(map(int, parts))
    if len(set(numbers)) != len(numbers):
        raise UsageError(f"--gpus {text}: the same GPU is listed twice")
    return numbers
