"""Image files of all kinds, made by Pillow and by hand, for tests to convert."""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from PIL.Image import Resampling

if TYPE_CHECKING:
    from pathlib import Path

SIZES = ((500, 375), (333, 251), (64, 48), (17, 19), (1, 1), (2, 3), (640, 3), (9, 7), (656, 400))


def photo(rng, width, height, mode="RGB"):
    """Smooth shapes with noise: something a JPEG encoder has work with."""
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, channels), np.uint8)
    planes = [
        np.asarray(Image.fromarray(coarse[:, :, plane]).resize((width, height), Resampling.BICUBIC))
        for plane in range(channels)
    ]
    values = np.stack(planes, axis=2) + rng.normal(0, 8, (height, width, channels))
    values = values.clip(0, 255).astype(np.uint8)
    return Image.frombytes(mode, (width, height), values.tobytes())


def sampled(width, height, rng, factors):
    """A JPEG file with rarer chroma sampling factors, by OpenCV."""
    import cv2

    image = np.asarray(photo(rng, width, height))
    parameters = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factors, cv2.IMWRITE_JPEG_RST_INTERVAL, 3]
    return cv2.imencode(".jpg", image, parameters)[1].tobytes()


def file_bytes(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_orientation(orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


def save_kinds(folder: Path, rng, width, height):
    """One file of every kind in one size."""
    name = f"{width}x{height}"

    def save(kind, image, **options):
        image.save(folder / f"{name} {kind}", **options)

    for subsampling in (0, 1, 2):
        save(f"s{subsampling}.jpg", photo(rng, width, height), subsampling=subsampling, quality=80)
    progressive = {"progressive": True, "optimize": True, "quality": 60}
    save("progressive.jpeg", photo(rng, width, height), **progressive)
    save("gray.jpg", photo(rng, width, height, "L"))
    save("gray progressive.JPG", photo(rng, width, height, "L"), format="jpeg", progressive=True)
    save("cmyk.jpg", photo(rng, width, height, "CMYK"))
    save("rgb, not ycc.jpg", photo(rng, width, height), keep_rgb=True)
    (folder / f"{name} 411.jpg").write_bytes(sampled(width, height, rng, 0x411111))
    (folder / f"{name} 440.jpg").write_bytes(sampled(width, height, rng, 0x121111))
    for mode in ("RGB", "L", "RGBA"):
        save(f"{mode}.png", photo(rng, width, height, mode))
    save("LA.png", photo(rng, width, height, "RGBA").convert("LA"))
    save("1.png", photo(rng, width, height).convert("1"))
    palette = photo(rng, width, height).convert("P", palette=Image.Palette.ADAPTIVE)
    save("palette.png", palette)
    save("palette with a hole.png", palette, transparency=0)
    save("16.png", Image.fromarray(rng.integers(0, 65_536, (height, width), np.uint16)))
    (folder / f"{name} rgb16.png").write_bytes(png16(rng, width, height, 3))
    (folder / f"{name} rgba16.png").write_bytes(png16(rng, width, height, 4))
    save("c.bmp", photo(rng, width, height))
    save("p.bmp", palette)
    save("lossy.webp", photo(rng, width, height, "RGBA"), quality=80)
    save("lossless.webp", photo(rng, width, height), lossless=True)
    save("c.ppm", photo(rng, width, height))
    save("g.pgm", photo(rng, width, height, "L"))
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg"):
        save(f"{compression}.tif", photo(rng, width, height), compression=compression)


def png16(rng, width, height, channels):
    """A PNG file of 16 bits, which Pillow cannot write in colour."""
    rows = rng.integers(0, 65_536, (height, width * channels)).astype(">u2")
    data = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind, body):
        check = zlib.crc32(kind + body).to_bytes(4, "big")
        return len(body).to_bytes(4, "big") + kind + body + check

    kind = {1: 0, 3: 2, 4: 6}[channels]
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, kind, 0, 0, 0])
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def save_oriented(folder: Path, rng):
    """Every EXIF orientation, in every kind of file that can say it."""
    for orientation in range(1, 9):
        exif = with_orientation(orientation)
        for suffix, mode in (("jpg", "RGB"), ("jpg", "L"), ("png", "RGB"), ("webp", "RGB")):
            image = photo(rng, 60, 40, mode)
            image.save(folder / f"exif{orientation} {mode}.{suffix}", exif=exif)
        photo(rng, 60, 40).save(folder / f"exif{orientation}.tif", exif=exif)


def cut_short(rng):
    """(name, bytes): files whose end is missing."""
    for kind, options in (
        ("jpeg", {}),
        ("png", {}),
        ("bmp", {}),
        ("webp", {"quality": 80}),
        ("tiff", {}),
        ("ppm", {}),
        ("jpeg2000", {}),
        ("gif", {}),
        ("avif", {}),
    ):
        data = file_bytes(photo(rng, 100, 80), kind, **options)
        suffix = {"jpeg2000": "jp2"}.get(kind, kind)
        for share in (0.05, 0.3, 0.6, 0.9, 0.999):
            yield f"{kind} {share}.{suffix}", data[: int(len(data) * share)]


def save_odd(folder: Path, rng):
    """Wrong suffixes, rubbish behind the end, damage in the middle."""
    jpeg = file_bytes(photo(rng, 100, 80), "jpeg")
    png = file_bytes(photo(rng, 100, 80), "png")
    (folder / "a png.jpg").write_bytes(png)
    (folder / "a jpeg.png").write_bytes(jpeg)
    (folder / "rubbish behind.jpg").write_bytes(jpeg + b"rubbish" * 30)
    (folder / "rubbish behind.png").write_bytes(png + b"rubbish" * 30)
    (folder / "stray bytes.jpg").write_bytes(jpeg[:20] + b"stray\xff\0\x12" + jpeg[20:])
    (folder / "two in one.jpg").write_bytes(jpeg + file_bytes(photo(rng, 50, 40), "jpeg"))
    for number in range(20):
        for data, suffix in ((jpeg, "jpg"), (png, "png")):
            damaged = bytearray(data)
            damaged[rng.integers(200, len(data) - 60)] ^= int(rng.integers(1, 256))
            (folder / f"damaged {number}.{suffix}").write_bytes(bytes(damaged))
    thumbnail = b"Exif\0\0" + file_bytes(photo(rng, 16, 16), "jpeg")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    (folder / "with a thumbnail.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])


def save_bad(folder: Path, rng):
    """What is no image, or only a part of one; cut JPEG files are readable for Caffe."""
    for name, data in cut_short(rng):
        (folder / name).write_bytes(data)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    (folder / "html.png").write_text("<html>404</html>")
    (folder / "nul.jpg").write_bytes(bytes(1000))


def make_zoo(root: Path):
    """Class folders with images of all kinds that can be read."""
    rng = np.random.default_rng(0)
    first, second = root / "a class", root / "b"
    (second / "deeper ünï").mkdir(parents=True)
    first.mkdir()
    for number, (width, height) in enumerate(SIZES):
        save_kinds((first, second, second / "deeper ünï")[number % 3], rng, width, height)
    save_oriented(first, rng)
    save_odd(second, rng)
    return root
