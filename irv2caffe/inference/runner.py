"""A process that runs a net."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


class Runner(Protocol):
    """A process that runs a net, in Caffe or in PyTorch.

    Attributes:
        title: what runs it, for the user: program, version, device.
    """

    title: str

    def forward(self, images: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """Runs the net on a batch of any size, as one batch.

        Args:
            images: [images, channels, height, width], preprocessed.

        Returns:
            The values of the wanted blobs, by name.

        Raises:
            CaffeFailedError: the process has died, or refuses the net.
        """
        ...

    def summarize(self, images: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """The same, but of each blob what :func:`irv2caffe.inference.worker.summary` says."""
        ...

    def gradient(self, labels: NDArray[np.float32]) -> Mapping[str, float]:
        """Runs a net backward that has ``force_backward`` and ends in the scores of classes.

        Args:
            labels: of the images of the last forward pass, [images].

        Returns:
            The L2 norm of the gradient of the weights of each layer; the loss is SoftmaxWithLoss.
        """
        ...

    def save(self, path: Path) -> None:
        """Writes the weights as they are now, a .caffemodel; for nets that run as in training."""
        ...
