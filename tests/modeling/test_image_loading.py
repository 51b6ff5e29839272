"""Every odd input becomes the picture a person sees, or an error that names it."""

import pickle
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from PIL import Image, ImageFile

from deepfake_detectors.modeling.image_loading import InputImageError, describe_image_source, load_image

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


@pytest.fixture
def noise() -> np.ndarray:
    """uint8 (40, 60, 3)"""
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def assert_same(image: Image.Image, array: np.ndarray) -> None:
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), array)


# ---- what is accepted -----------------------------------------------------------------------------------------------


def test_one_picture_in_every_guise(tmp_path: Path, noise: np.ndarray) -> None:
    path = tmp_path / "face.png"
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    floats = noise / 255
    guises = [
        path,
        str(path),
        content,
        bytearray(content),
        memoryview(content),
        Image.open(path),
        Image.fromarray(noise),
        noise,
        floats,
        floats.astype(np.float32),
        floats.astype(np.float16),
        torch.from_numpy(noise).permute(2, 0, 1),
        torch.from_numpy(floats).permute(2, 0, 1),
        {"image": path},
        {"image": {"bytes": content, "path": None}, "label": 1},
        {"bytes": content, "path": "gone.png"},
        {"bytes": None, "path": str(path)},
    ]
    for guise in guises:
        assert_same(load_image(guise), noise)


def test_every_8_bit_value_survives_the_trip_through_floats() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    for dtype in (np.float16, np.float32, np.float64):
        assert_same(load_image((values / 255).astype(dtype)), values)


def test_floats_are_truncated_not_rounded() -> None:
    assert load_image(np.full((2, 2, 3), 0.999)).getpixel((0, 0)) == (254, 254, 254)


def test_grey_arrays(noise: np.ndarray) -> None:
    grey = noise[..., 0]
    assert_same(load_image(grey), np.stack([grey] * 3, axis=-1))
    assert_same(load_image(torch.from_numpy(grey)), np.stack([grey] * 3, axis=-1))


def test_arrays_with_alpha_lie_on_white(noise: np.ndarray) -> None:
    alpha = np.dstack([noise, np.full((40, 60), 255, np.uint8)])
    alpha[:10, :, 3] = 0
    expected = noise.copy()
    expected[:10] = 255
    assert_same(load_image(alpha), expected)


def test_views_of_arrays(noise: np.ndarray) -> None:
    assert_same(load_image(noise[::-1, ::2]), noise[::-1, ::2])


# ---- odd but good files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("given", ["path", "bytes", "pil"])
def test_exif_orientation_is_applied(tmp_path: Path, noise: np.ndarray, orientation: int, given: str) -> None:
    stored = {
        1: noise,
        2: noise[:, ::-1],
        3: noise[::-1, ::-1],
        4: noise[::-1],
        5: noise.transpose(1, 0, 2),
        6: np.rot90(noise, 1),
        7: noise[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(noise, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    source = {"path": path, "bytes": path.read_bytes(), "pil": Image.open(path)}[given]
    assert_same(load_image(source), noise)


def test_16_bit_is_scaled_not_clipped() -> None:
    wide = np.array([[0, 257, 256 * 128, 65535]], dtype=np.uint16)
    content = encode(Image.fromarray(wide), "PNG")
    assert Image.open(BytesIO(content)).mode.startswith("I;16")
    assert [pixel[0] for pixel in np.asarray(load_image(content))[0]] == [0, 1, 128, 255]


def test_8_bit_widened_to_16_comes_back_exactly() -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    loaded = np.asarray(load_image(encode(Image.fromarray(values * 257), "PNG")))
    np.testing.assert_array_equal(loaded[..., 0], values)


def test_32_bit_integers_out_of_range_are_refused() -> None:
    with pytest.raises(InputImageError, match=r"integers from 0 to 70000, expected 0 to 65535"):
        load_image(Image.fromarray(np.array([[0, 70000]], dtype=np.int32)))


def test_floating_point_tiff_is_refused() -> None:
    content = encode(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF")
    with pytest.raises(InputImageError, match="floating-point"):
        load_image(content)


def test_cmyk_is_converted() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert load_image(encode(red, "TIFF")).getpixel((0, 0)) == RED
    r, g, b = load_image(encode(red, "JPEG", quality=95)).getpixel((4, 4))
    assert r > 240 and g < 15 and b < 15


def test_palette_with_transparency_lies_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1])
    loaded = load_image(encode(image, "PNG", transparency=1))
    assert [loaded.getpixel((x, 0)) for x in range(2)] == [RED, WHITE]


def test_half_transparent_pixels_mix_with_white() -> None:
    loaded = load_image(encode(Image.new("RGBA", (1, 1), (0, 0, 0, 127)), "PNG"))
    assert loaded.getpixel((0, 0)) == (128, 128, 128)


def test_colour_key_and_grey_alpha() -> None:
    keyed = encode(Image.new("RGB", (1, 1), RED), "PNG", transparency=RED)
    assert load_image(keyed).getpixel((0, 0)) == WHITE
    assert load_image(encode(Image.new("LA", (1, 1), (0, 0)), "PNG")).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    content = encode(frames[0], format, save_all=True, append_images=frames[1:], lossless=True)
    assert Image.open(BytesIO(content)).n_frames == 2
    r, _, b = load_image(content).getpixel((4, 4))
    assert r > 250 and b < 5


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "YCbCr", "HSV"])
def test_other_modes_become_rgb(mode: str) -> None:
    assert load_image(Image.new("RGB", (3, 2), WHITE).convert(mode)).size == (3, 2)


def test_one_pixel() -> None:
    loaded = load_image(encode(Image.new("RGB", (1, 1), RED), "PNG"))
    assert loaded.size == (1, 1) and loaded.getpixel((0, 0)) == RED


def test_content_counts_not_the_extension(tmp_path: Path, noise: np.ndarray) -> None:
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(encode(Image.fromarray(noise), "PNG"))
    assert_same(load_image(path), noise)


def test_the_callers_image_is_left_alone() -> None:
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    load_image(image)
    assert image.mode == "RGBA" and image.getpixel((0, 0)) == (0, 0, 0, 0)


# ---- bad files ------------------------------------------------------------------------------------------------------


def error_for(source: object, **options: float) -> InputImageError:
    with pytest.raises(InputImageError) as caught:
        load_image(source, **options)
    error = caught.value
    assert isinstance(error, ValueError)
    assert error.source == describe_image_source(source)
    assert str(error).startswith(error.source)
    return error


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in str(error_for(tmp_path / "absent.jpg"))


def test_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    error_for(tmp_path / "file" / "face.jpg")


def test_directory(tmp_path: Path) -> None:
    assert "is a folder" in str(error_for(tmp_path))


@pytest.mark.parametrize("kind", ["path", "bytes"])
def test_empty(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "empty.jpg"
    path.touch()
    assert "empty" in str(error_for(path if kind == "path" else b""))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("tolerant", [False, True])
def test_truncated_jpeg_is_never_half_grey(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, noise: np.ndarray, progressive: bool, kept: float, tolerant: bool
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    content = encode(Image.fromarray(noise), "JPEG", progressive=progressive, quality=95)
    path = tmp_path / "cut.jpg"
    path.write_bytes(content[: int(kept * len(content))])
    assert "damaged or incomplete" in str(error_for(path))
    with Image.open(path) as lazy:  # opening reads the header only, so this one breaks inside load_image too
        error_for(lazy)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is tolerant


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_truncated_files_of_other_formats(noise: np.ndarray, format: str) -> None:
    content = encode(Image.fromarray(noise), format)
    error_for(content[: len(content) // 2])


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_flipped_bytes_never_escape_as_another_error(noise: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    outcomes = {"loaded": 0, "refused": 0}
    for format in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF"):
        content = np.frombuffer(encode(Image.fromarray(noise), format), np.uint8)
        for _ in range(40):
            damaged = content.copy()
            where = rng.integers(0, min(len(damaged), 300), size=4)
            damaged[where] = rng.integers(0, 256, size=4)
            try:
                load_image(damaged.tobytes())
                outcomes["loaded"] += 1
            except InputImageError:
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 30


def test_text_renamed_to_jpg(tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("this is not a picture\n" * 20)
    assert "JPEG, MPO, PNG" in str(error_for(path))


def test_postscript_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "program.eps"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    assert "PostScript" in str(error_for(path))


def test_decompression_bomb(tmp_path: Path) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    side = 20_000
    assert side * side > 2 * limit
    path = tmp_path / "bomb.png"
    Image.new("1", (side, side)).save(path)
    assert path.stat().st_size < 2**20
    assert "decompression bomb" in str(error_for(path))
    assert Image.MAX_IMAGE_PIXELS == limit


@pytest.mark.parametrize("size", [(1, 201), (2000, 3)])
def test_strips_are_refused(size: tuple[int, int]) -> None:
    assert f"a strip of {size[0]}x{size[1]} pixels" in str(error_for(encode(Image.new("L", size), "PNG")))
    assert load_image(Image.new("L", (1, 200))).size == (1, 200)


def test_the_budget_is_our_own_not_that_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    content = encode(Image.new("RGB", (15, 10)), "PNG")
    assert load_image(content).size == load_image(content, max_pixels=150).size == (15, 10)
    assert "max_pixels" in str(error_for(content, max_pixels=149))


@pytest.mark.parametrize("source", ["", "face\0.jpg", "x" * 5000, "s3://bucket/face.jpg", "file:///face.jpg"])
def test_strings_that_are_no_path(source: str) -> None:
    error = error_for(source)
    assert len(error.source) <= 1000


# ---- other wrong things ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [None, 3, object(), {}, {"label": 1}, {"bytes": None, "path": None}, ["a.jpg"]])
def test_what_is_no_picture_at_all(source: object) -> None:
    assert "Accepted: a path" in str(error_for(source))


def test_none_inside_a_row() -> None:
    with pytest.raises(InputImageError, match="None is not an image"):
        load_image({"image": None})


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8, 3), np.int64),
        np.zeros((8, 8, 3), np.uint16),
        np.zeros((8, 8, 3), bool),
        np.zeros((8, 8, 3), complex),
        np.zeros((8, 8), np.float32),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros(8, np.uint8),
        np.zeros((), np.uint8),
        np.array([["a"]]),
        np.array([[None]]),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_arrays_of_the_wrong_kind_name_the_right_one(array: np.ndarray) -> None:
    message = str(error_for(array))
    assert str(array.dtype) in message and str(array.shape) in message
    assert "uint8 of shape (H, W), (H, W, 3) or (H, W, 4), or float in [0, 1] of shape (H, W, 3)" in message


@pytest.mark.parametrize("size", [(0, 8, 3), (8, 0, 3), (0, 0)])
def test_arrays_without_pixels(size: tuple[int, ...]) -> None:
    assert "no pixels" in str(error_for(np.zeros(size, np.uint8)))


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "nan"), (np.inf, "infinite"), (255.0, "0 to 255"), (-0.5, "-0.5 to 0")]
)
def test_floats_out_of_range(value: float, message: str) -> None:
    array = np.zeros((4, 4, 3), np.float32)
    array[1, 2, 0] = value
    assert message in str(error_for(array))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(8, 8, 3, dtype=torch.uint8),
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(3, 8, 8, dtype=torch.int64),
        torch.full((3, 8, 8), 2.0),
    ],
)
def test_tensors_of_the_wrong_kind(tensor: torch.Tensor) -> None:
    assert "(3, H, W)" in str(error_for(tensor))


def test_bfloat16_tensors() -> None:
    assert load_image(torch.ones(3, 2, 2, dtype=torch.bfloat16)).getpixel((0, 0)) == WHITE


def test_the_error_survives_pickling() -> None:
    error = error_for("absent.jpg")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.source) == (str(error), "absent.jpg")


def test_an_undecoded_cell_is_named_by_its_path() -> None:
    assert str(error_for({"bytes": b"text", "path": "train/0.jpg"})).startswith("train/0.jpg")


# ---- URLs -----------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    picture = encode(Image.new("RGB", (4, 4), RED), "PNG")

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(3)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/face")
            self.end_headers()
            return
        known = self.path in ("/face", "/slow", "/text", "/drip", "/cut")
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(self.picture) if self.path != "/text" else 5))
        self.end_headers()
        if self.path == "/drip":
            for byte in self.picture:
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)
        elif self.path == "/cut":
            self.wfile.write(self.picture[:20])
        else:
            self.wfile.write(b"hello" if self.path == "/text" else self.picture)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    # The Hub's offline switch holds for pictures too, and may be set where the suite runs.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    close_session()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # clients that hang up on purpose
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    close_session()


@pytest.mark.parametrize("page", ["face", "moved"])
def test_url(server: str, page: str) -> None:
    assert load_image(f"{server}/{page}", allow_private_hosts=True).getpixel((0, 0)) == RED


def test_url_not_found(server: str) -> None:
    assert "404" in str(error_for(f"{server}/absent", allow_private_hosts=True))


def test_url_of_something_else(server: str) -> None:
    assert "JPEG, MPO, PNG" in str(error_for(f"{server}/text", allow_private_hosts=True))


def test_url_that_breaks_off(server: str) -> None:
    assert "could not be downloaded" in str(error_for(f"{server}/cut", allow_private_hosts=True))


@pytest.mark.parametrize("page", ["slow", "drip"])
def test_url_that_takes_too_long(server: str, page: str) -> None:
    start = time.monotonic()
    assert "within 0.5 seconds" in str(error_for(f"{server}/{page}", timeout=0.5, allow_private_hosts=True))
    assert time.monotonic() - start < 2


def test_url_that_is_too_large(server: str) -> None:
    assert "larger than the limit of 10 bytes" in str(
        error_for(f"{server}/face", max_bytes=10, allow_private_hosts=True)
    )


def test_url_without_a_server(server: str) -> None:
    assert "could not be downloaded" in str(error_for("http://127.0.0.1:9/face.jpg", allow_private_hosts=True))


def test_url_without_network(server: str) -> None:
    assert "could not be downloaded" in str(error_for("http://no-such-host.invalid/face.jpg", timeout=5))


def test_url_in_offline_mode(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in str(error_for(f"{server}/face"))


@pytest.mark.parametrize("url", ["http://", "https://[::1", "http://a b/face.jpg"])
def test_malformed_url(server: str, url: str) -> None:
    error_for(url, timeout=2)
