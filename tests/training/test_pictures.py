"""A picture in a file: every kind that is meant opens upright, in colour and on white; every other is refused by its
right name, and no other program is started.
"""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from mgcompile.training import pictures
from mgcompile.training.files import DataError
from mgcompile.training.pictures import FORMATS, SUFFIXES, check_picture, open_picture

PACKAGE = Path(pictures.__file__).parents[1]
COLOUR = (200, 100, 50)
ORIENTATION = 0x0112


def drawn(width: int, height: int, channels: int = 3) -> Image.Image:
    values = np.random.default_rng((width, height)).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(values.squeeze())


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    return str(caught.value)


def encoded(image: Image.Image, format: str, **more: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **more)
    return buffer.getvalue()


# --- what opens


def test_every_kind_of_picture_opens_in_colour_on_white(tmp_path: Path) -> None:
    colour = Image.new("RGB", (4, 4), COLOUR)
    palette = colour.quantize(4)
    kinds = {"rgb.png": colour, "palette.png": palette, "palette.gif": palette, "alone.avif": colour}
    kinds |= {"grey.png": colour.convert("L"), "bits.png": Image.new("1", (4, 4), 1), "ink.tif": colour.convert("CMYK")}
    kinds |= {f"{mode}{alpha}.{suffix}": Image.new(mode, (4, 4), (*value, alpha))
              for mode, value, suffixes in (("RGBA", COLOUR, ("png", "webp", "tiff", "avif")), ("LA", (90,), ("png",)))
              for alpha in (0, 128, 255) for suffix in suffixes}  # fmt: skip
    for name, image in kinds.items():
        image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    palette.save(tmp_path / "clear.png", transparency=b"\x80\xff")
    palette.save(tmp_path / "one.gif", transparency=0)
    colour.save(tmp_path / "key.png", transparency=COLOUR)
    Image.new("L", (4, 4), 7).save(tmp_path / "greykey.png", transparency=7)
    half = tuple(round(255 - (255 - value) * 128 / 255) for value in COLOUR)
    white = (255, 255, 255)
    expected = dict.fromkeys(("rgb", "palette", "ink", "alone", "RGBA255"), COLOUR)
    expected |= {"grey": (124,) * 3, "LA255": (90,) * 3, "LA128": (172,) * 3, "RGBA128": half, "clear": half}
    for path in sorted(tmp_path.iterdir()):
        opened = open_picture(path)
        assert opened.mode == "RGB"
        most = 3 if path.suffix == ".avif" else 1
        assert np.abs(np.asarray(opened, int) - expected.get(path.stem, white)).max() <= most, path.name


@pytest.mark.parametrize("suffix", [".png", ".pgm", ".tif"])
def test_sixteen_bits_are_scaled(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 0x80FF, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep{suffix}")
    assert np.asarray(open_picture(tmp_path / f"deep{suffix}"))[0, :, 1].tolist() == [0, 0, 1, 1, 128, 255]


def tiff(data: bytes, width: int, **other: int) -> bytes:
    """A TIFF of one row as Pillow does not write it, with other bits a sample or another format of samples."""
    tags = {256: width, 257: 1, 258: other["bits"], 259: 1, 273: 8, 277: 1, 278: 1, 279: len(data)}
    tags |= {262: other.get("white_is", 1), 339: other.get("format", 1)}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + directory + bytes(4)


def test_other_depths_are_scaled_to_their_own_white(tmp_path: Path) -> None:
    ten = written(tmp_path / "ten.pgm", b"P5 2 1 1023 " + np.array([0, 1023], ">u2").tobytes())
    assert np.asarray(open_picture(ten))[0, :, 0].tolist() == [0, 255]
    twelve = written(tmp_path / "twelve.tif", tiff(b"\x00\x0f\xff\x80\x00\x00", 4, bits=12))
    assert np.asarray(open_picture(twelve))[0, :, 0].tolist() == [0, 255, 128, 0]
    negative = written(tmp_path / "negative.tif", tiff(np.array([0, 65535], "<u2").tobytes(), 2, bits=16, white_is=0))
    assert np.asarray(open_picture(negative))[0, :, 0].tolist() == [255, 0]
    key = Image.fromarray(np.array([[300, 65535, 5000]], np.uint16))
    key.save(tmp_path / "key.png", transparency=300)
    assert np.asarray(open_picture(tmp_path / "key.png"))[0, :, 0].tolist() == [255, 255, 19]


UPRIGHT = drawn(5, 3)
SIDEWAYS = {  # how a camera stores what is upright, by EXIF's own words: where its row 0 and its column 0 are
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
@pytest.mark.parametrize("orientation", SIDEWAYS)
def test_every_orientation_is_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    stored = Image.fromarray(np.ascontiguousarray(SIDEWAYS[orientation](np.asarray(UPRIGHT))))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(tmp_path / f"x{suffix}", exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    assert np.array_equal(open_picture(tmp_path / f"x{suffix}"), UPRIGHT)


@given(exif=st.binary(max_size=40) | st.binary(max_size=40).map(lambda data: b"Exif\0\0II*\0\x08\0\0\0" + data))
@settings(max_examples=60, deadline=None)
def test_broken_exif_data_do_not_cost_a_picture(tmp_path_factory: pytest.TempPathFactory, exif: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "exif.png"
    UPRIGHT.save(path, exif=exif)
    assert sorted(open_picture(path).size) == [3, 5]


def test_of_several_frames_the_first_is_taken(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (4, 4), COLOUR), Image.new("RGB", (4, 4))
    for name in ("a.gif", "a.png", "a.webp", "a.tiff"):
        first.save(
            tmp_path / name, save_all=True, append_images=[second], **({"lossless": True} if name == "a.webp" else {})
        )
        assert open_picture(tmp_path / name).getpixel((1, 1)) == COLOUR


def test_a_suffix_may_lie_about_the_format(tmp_path: Path) -> None:
    for format in FORMATS:
        assert open_picture(written(tmp_path / "x.jpg", encoded(drawn(9, 9), format))).size == (9, 9)


# --- what is refused


def test_values_of_no_known_range_are_called_by_their_name(tmp_path: Path) -> None:
    Image.new("F", (4, 4), 0.5).save(tmp_path / "floats.tiff")
    Image.new("I", (4, 4), 70_000).save(tmp_path / "long.tiff")
    Image.new("LAB", (4, 4)).save(tmp_path / "lab.tiff")
    written(tmp_path / "double.tif", tiff(np.ones(2).tobytes(), 2, bits=64, format=3))
    written(tmp_path / "f.pnm", b"Pf 1 1 -1.0 " + np.float32(0.5).tobytes())
    for name, said in (
        ("floats.tiff", "its values are floating-point numbers; expected 8 or 16 bits a channel"),
        ("f.pnm", "its values are floating-point numbers"),
        ("long.tiff", "its values are signed or 32-bit integers"),
        ("lab.tiff", "its colours are LAB"),
        ("double.tif", "is none of the pictures that are read (JPEG"),
    ):
        for decode in (False, True):
            message = refusal(lambda name=name, decode=decode: check_picture(tmp_path / name, decode=decode))
            assert message.startswith(f"{tmp_path / name}: {said}")
            assert ": damaged" not in message


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims so many pixels, and has none."""
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    buffer = io.BytesIO()
    buffer.write(b"\x89PNG\r\n\x1a\n")
    for kind, data in ((b"IHDR", head), (b"IDAT", b""), (b"IEND", b"")):
        PngImagePlugin.putchunk(buffer, kind, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("width", "height", "said"),
    [(10_000, 9_000, "90,000,000 pixels"), (20_000, 10_000, "200,000,000 pixels"), (2**31 - 1, 2**31 - 1, " pixels")],
)
def test_a_large_picture_is_large_and_not_damaged(tmp_path: Path, width: int, height: int, said: str) -> None:
    path = written(tmp_path / "large.png", bomb(width, height))
    message = refusal(lambda: open_picture(path))
    assert message.startswith(f"{path}: too large: ")
    assert said in message
    assert message.endswith("pixels; expected at most 89,478,485; make it smaller")


def test_a_large_file_and_what_is_no_file(tmp_path: Path) -> None:
    with (tmp_path / "x.webp").open("wb") as file:
        file.write(b"RIFF\xff\xff\xff\xffWEBPVP8L")
        file.truncate(1 << 40)
    assert "too large: 1,099,511,627,776 bytes; expected at most" in refusal(lambda: open_picture(tmp_path / "x.webp"))
    assert "is no regular file" in refusal(lambda: open_picture(tmp_path))
    assert refusal(lambda: open_picture(tmp_path / "y.png")) == f"{tmp_path / 'y.png'}: missing: it does not exist"


def test_a_damaged_picture_says_which(tmp_path: Path) -> None:
    for format in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"):
        data = encoded(drawn(64, 64), format)
        for cut in {*range(20), *range(20, len(data) // 2, 211)}:
            path = written(tmp_path / f"cut.{format}", data[:cut])
            message = refusal(lambda path=path: open_picture(path))
            assert message.startswith((f"{path}: damaged: ", f"{path}: is none of the pictures that are read"))
            assert message.endswith("; replace it or remove it")
            assert "0x" not in message


@given(seed=st.integers(0, 2**32), format=st.sampled_from(FORMATS))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_a_picture_or_an_error(tmp_path_factory: pytest.TempPathFactory, seed: int, format: str) -> None:
    chance = np.random.default_rng(seed)
    data = np.frombuffer(encoded(drawn(9, 7), format), np.uint8).copy()
    places = chance.integers(0, len(data), chance.integers(1, 9))
    data[places] = chance.integers(0, 256, len(places))
    path = written(tmp_path_factory.getbasetemp() / "flipped.png", data.tobytes())
    try:
        opened = open_picture(path)
    except DataError:
        return
    assert opened.mode == "RGB"


# --- other programs

WATCHED = """
import sys
started = []
sys.addaudithook(lambda event, args: started.append(event) if event in WATCH else None)
WATCH = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn"}
from mgcompile.training.files import DataError
from mgcompile.training.pictures import FORMATS, open_picture
from PIL import Image
for path in sys.argv[1:]:
    try:
        open_picture(path)
        print("opened")
    except DataError as error:
        print(error)
print(started, sorted(set(Image.OPEN) - set(FORMATS)), "PIL.EpsImagePlugin" in sys.modules)
"""


OTHERS = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    "dos eps": b"\xc5\xd0\xd3\xc6" + bytes(28) + b"%!PS",
    "pdf": b"%PDF-1.4\n",
    "grib": b"GRIB" + bytes(40),
    "bufr": b"BUFR" + bytes(40),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(40),
    "heic": b"\0\0\0\x18ftypheic" + bytes(40),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


def test_nothing_else_is_started_or_loaded(tmp_path: Path) -> None:
    paths = [str(written(tmp_path / f"{name}.jpg", content)) for name, content in OTHERS.items()]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *paths], capture_output=True, text=True, check=True, timeout=120
    )
    *lines, last = done.stdout.splitlines()
    for path, line in zip(paths, lines, strict=True):
        assert line.startswith(f"{path}: is none of the pictures that are read (JPEG, PNG, ")
    assert last == "[] ['DIB'] False"


def test_pictures_are_opened_in_one_place() -> None:
    places = [
        path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if "Image.open(" in path.read_text()
    ]
    assert places == ["training/pictures.py"]
    assert pictures.FORMATS == ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
    known = {suffix for suffix, format in Image.registered_extensions().items() if format in FORMATS}
    assert known - {".apng", ".dib", ".avifs", ".pfm"} == SUFFIXES


def test_nothing_is_said_of_what_lies_beside_the_pixels(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(20)
    drawn(8, 8).save(tmp_path / "x.jpg", exif=exif)
    palette = drawn(8, 8).quantize(4)
    palette.save(tmp_path / "y.png", transparency=b"\x80\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_picture(tmp_path / "x.jpg").size == open_picture(tmp_path / "y.png").size == (8, 8)


PEAK = """
import re, sys
from pathlib import Path
from mgcompile.training.pictures import open_picture
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
open_picture(sys.argv[1])
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says how much memory a process had at most")
def test_a_large_picture_takes_what_is_said(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("RGBA", (4096, 4096), (1, 2, 3, 4)).save(path, compress_level=1)
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    assert 4 * (1 << 24) < int(done.stdout) << 10 < 13.5 * (1 << 24)


def test_threads_leave_the_filters_of_warnings_as_they_were(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(24)]
    for path in paths:
        drawn(40, 30).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(20))
    before = list(warnings.filters)
    with ThreadPoolExecutor(6) as pool:
        assert all(picture.size == (40, 30) for picture in pool.map(open_picture, paths))
    assert warnings.filters == before
