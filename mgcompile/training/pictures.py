"""A picture in a file: the formats that are read, by name; what becomes of depth, orientation and transparency."""

from __future__ import annotations

import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from mgcompile.training.files import DataError, damaged, file_bytes, reading

__all__ = ["FORMATS", "MOST_BYTES", "MOST_PIXELS", "SUFFIXES", "check_picture", "open_picture"]

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff"}
    | {".webp"}
)
"""The suffixes, in lower case, by which a picture is known."""

PLUGINS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    GifImagePlugin.GifImageFile,
    BmpImagePlugin.BmpImageFile,
    TiffImagePlugin.TiffImageFile,
    PpmImagePlugin.PpmImageFile,
    AvifImagePlugin.AvifImageFile,
)
FORMATS = tuple(plugin.format for plugin in PLUGINS)
"""What a picture may be, whatever its suffix, as Pillow calls it. Pillow reads more than these, and for some of them
starts other programs. Where one of these were not loaded, it would load all that it has.
"""

MOST_PIXELS = 89_478_485
"""Of one picture; Pillow warns of more. While it is read it takes up to 13 bytes for each, 1.1 GiB."""
MOST_BYTES = 1 << 29
"""Of one file."""

MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"})
"""What Pillow makes RGB of, eight bits a channel."""
SCALED = frozenset({"PNG", "PPM"})
"""Formats that have at most 16 bits where Pillow has an integer of 32: black is 0, white 65535."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture upright, by its EXIF orientation."""

REPLACE = "replace it or remove it"


def open_picture(path: str | os.PathLike[str]) -> Image.Image:
    """A picture in RGB, eight bits a channel, upright as its EXIF data say, what is transparent on white; of several
    frames or pages the first.

    Raises `DataError` where it is missing, damaged, too large, or of a kind that is not read.
    """
    with _opened(Path(path)) as picture:
        picture.load()
        turn = TURNS.get(_orientation(picture))
        coloured = _coloured(picture)
        return coloured if turn is None else coloured.transpose(turn)


def check_picture(path: str | os.PathLike[str], *, decode: bool) -> None:
    """Raises `DataError` as `open_picture` would; unless it is to be decoded, for what its header shows alone."""
    if decode:
        open_picture(path)
    else:
        with _opened(Path(path)):
            pass


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """The picture in a file, of which only the header is read yet."""
    if (size := file_bytes(file)) > MOST_BYTES:
        raise _large(file, f"{size:,} bytes", f"{MOST_BYTES:,}")
    with (
        reading(file),
        file.open("rb") as stream,
        _decoding(file),
        Image.open(stream, formats=FORMATS) as picture,
    ):
        if picture.width * picture.height > MOST_PIXELS:
            pixels = f"{picture.width:,} x {picture.height:,} = {picture.width * picture.height:,} pixels"
            raise _large(file, pixels, f"{MOST_PIXELS:,}")
        if other := _other(picture):
            raise DataError(f"{file}: {other}; expected 8 or 16 bits a channel, grey or in colour; convert it")
        yield picture


@contextmanager
def _decoding(file: Path) -> Iterator[None]:
    """Whatever goes wrong while a picture is decoded becomes a `DataError`, but for what the disk says."""
    with _QUIET:
        try:
            yield
        except DataError:
            raise
        except Image.DecompressionBombError as error:
            told = re.search(r"\((\d+) pixels\)", str(error))
            found = f"{int(told[1]):,} pixels" if told else "more pixels"
            raise _large(file, found, f"{MOST_PIXELS:,}") from error
        except UnidentifiedImageError as error:
            raise DataError(
                f"{file}: is none of the pictures that are read ({', '.join(FORMATS)}; up to 16 bits a channel), or "
                f"its header is damaged; {REPLACE}"
            ) from error
        except MemoryError as error:
            raise DataError(f"{file}: there is not enough memory for it") from error
        except Exception as error:  # what is damaged makes Pillow's readers fail in many ways
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise damaged(file, f"it cannot be decoded ({error})", "a picture", REPLACE) from error


class _Quiet:
    """While any picture is decoded, Pillow's warnings are not shown: they are of things beside the pixels, and name no
    file. What `warnings` has for that may not be used by several threads at once.
    """

    def __init__(self) -> None:
        self.lock, self.within, self.caught = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self.lock:
            if not self.within:
                self.caught = warnings.catch_warnings()
                self.caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self.within += 1

    def __exit__(self, *raised: object) -> None:
        with self.lock:
            self.within -= 1
            if not self.within:
                self.caught.__exit__(None, None, None)


_QUIET = _Quiet()


def _large(file: Path, found: str, most: str) -> DataError:
    return DataError(f"{file}: too large: {found}; expected at most {most}; make it smaller")


def _other(picture: Image.Image) -> str | None:
    """What is said of values that have no known range, or of colours that Pillow does not convert."""
    match picture.mode:
        case "F":
            return "its values are floating-point numbers"
        case "I" if picture.format not in SCALED:
            return "its values are signed or 32-bit integers"
        case mode if mode in MODES or mode == "I" or mode.startswith("I;16"):
            return None
        case mode:
            return f"its colours are {mode}"


def _orientation(picture: Image.Image) -> int:
    """1 to 8, of EXIF or XMP data; 1 where they are damaged, which says nothing of the pixels."""
    try:
        found = picture.getexif().get(ExifTags.Base.Orientation)
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, OSError, EOFError, struct.error):
        return 1
    return found if isinstance(found, int) else 1


def _coloured(picture: Image.Image) -> Image.Image:
    """In RGB, what is transparent on white."""
    if picture.mode.startswith("I"):
        picture = _of_eight_bits(picture)
    if picture.has_transparency_data:
        clear = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    return picture.convert("RGB")


def _of_eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of 12 or 16 bits, in eight, rounded; Pillow's own conversion cuts at 255."""
    bits, white_is_zero = 16, False
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        bits = picture.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (bits,))[0]
        white_is_zero = picture.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0  # of 16 bits Pillow forgets
    shades = np.rint(np.minimum(np.arange(1 << 16) / (2**bits - 1), 1) * 255).astype(np.uint8)
    if white_is_zero:
        shades = shades[::-1]
    values = np.clip(np.asarray(picture), 0, (1 << 16) - 1)
    key = picture.info.get("transparency")
    if not isinstance(key, int):
        return Image.fromarray(shades[values])
    return Image.fromarray(np.stack([shades[values], np.where(values == key, np.uint8(0), np.uint8(255))], axis=-1))
