"""Blank pages, scanned texts and line drawings, made from a seed."""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

WORDS = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were all her she there would their we him been has when who will no more if out so up said what its about"
).split()


def drawn_page(kind: str, seed: int) -> Image.Image:
    """A page as it comes out of a scanner or a drawing program.

    Args:
        kind: "blank", "text" or "drawing".
        seed: of everything that varies: size, paper, light, noise, content, JPEG quality.
    """
    random = np.random.default_rng([seed, ("blank", "text", "drawing").index(kind)])
    width, height = (int(side) for side in random.integers(500, 1400, 2))
    paper = int(random.integers(215, 256))
    page = Image.new("RGB", (width, height), tuple(min(255, paper + int(x)) for x in random.integers(-8, 6, 3)))
    if kind == "text":
        _write(page, random)
    elif kind == "drawing":
        _draw(page, random)
    return _scanned(page, random, strength=0.3 if kind == "blank" else 1.0)


def _write(page: Image.Image, random: np.random.Generator) -> None:
    pen = ImageDraw.Draw(page)
    size = int(random.integers(14, 34))
    font = ImageFont.load_default(size)
    ink = tuple(int(x) for x in random.integers(0, 70, 3))
    margin = int(random.integers(30, 90))
    y = margin
    while y < page.height - margin - size:
        line = ""
        while pen.textlength(line, font=font) < page.width - 2 * margin:
            line += f" {random.choice(WORDS)}"
        if random.random() < 0.1:
            line = ""  # a paragraph ends
        pen.text((margin, y), line.strip().rpartition(" ")[0], fill=ink, font=font)
        y += int(size * 1.45)


def _draw(page: Image.Image, random: np.random.Generator) -> None:
    pen = ImageDraw.Draw(page)
    thick = int(random.integers(1, 6))
    side = min(page.size)
    for _ in range(int(random.integers(12, 60))):
        ink = tuple(int(x) for x in random.integers(0, 90, 3))
        x, y = random.uniform(0, page.width), random.uniform(0, page.height)
        shape = random.integers(4)
        if shape == 0:
            reach = random.uniform(0.03, 0.25, 2) * side
            pen.ellipse((x, y, x + reach[0], y + reach[1]), outline=ink, width=thick)
        elif shape == 1:
            steps = random.normal(0, side / 40, (30, 2)).cumsum(axis=0) + np.array([x, y])
            pen.line([tuple(point) for point in steps], fill=ink, width=thick, joint="curve")
        elif shape == 2:
            reach = random.uniform(0.03, 0.3, 2) * side
            pen.rectangle((x, y, x + reach[0], y + reach[1]), outline=ink, width=thick)
        else:
            pen.arc((x, y, x + side / 4, y + side / 4), *sorted(random.uniform(0, 360, 2)), fill=ink, width=thick)


def _scanned(page: Image.Image, random: np.random.Generator, strength: float) -> Image.Image:
    page = page.rotate(random.normal(0, 0.7), Image.Resampling.BICUBIC, fillcolor=page.getpixel((0, 0)))
    page = page.filter(ImageFilter.GaussianBlur(random.uniform(0, 0.9)))
    pixels = np.asarray(page).astype(np.float64)
    rows, columns = np.linspace(0, 1, page.height)[:, None], np.linspace(0, 1, page.width)
    light = random.uniform(-25, 0, 2) * strength  # a page that lies unevenly
    pixels += (light[0] * rows + light[1] * columns)[..., None]
    pixels += random.normal(0, random.uniform(0, 5) * strength, (*pixels.shape[:2], 1))
    page = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
    content = io.BytesIO()
    page.save(content, "JPEG", quality=int(random.integers(40, 95)))
    return Image.open(content).convert("RGB")
