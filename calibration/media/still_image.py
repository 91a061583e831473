"""Reads photos upright and in sRGB."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from lipstream.calibration.media.color import MAX_SIDE_PX
from lipstream.engine.errors import MediaError
from lipstream.engine.types import U8

# Pillow's names.
_KINDS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000", "AVIF")
_ANIMATED: Final = ("PNG", "WEBP", "GIF", "AVIF")  # with more than one frame these are footage
_MOTION_JPEG: Final = (".mjpeg", ".mjpg")
_HEAD_BYTES: Final = 64
_MAX_PIXELS: Final = 120_000_000  # larger is a decompression bomb, or no portrait
# What Pillow raises for damaged pictures, each as it comes; MemoryError for a wrong length.
_DECODER_ERRORS: Final = (
    OSError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, SyntaxError,
    EOFError, AttributeError, MemoryError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
_MAX_FILE_SIDE_PX: Final = 30_000  # of no photo; a damaged header says such things
_BACKDROP: Final = (128, 128, 128)  # behind transparency: neither black nor white fringes


def is_photo(path: str | Path) -> bool:
    """Whether the file is a still picture, by its first bytes and the number of its frames.

    JPEGs behind one another are footage where the name says so: phones put others behind a photo.

    A HEIC picture counts: it cannot be read, and `read_photo` says what to do.
    """
    path = Path(path)
    if not path.is_file() or path.suffix.lower() in _MOTION_JPEG:
        return False  # to open a pipe would wait for ever
    head = b""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
        if head.startswith(b"\xff\xd8\xff") or _is_heic(head):
            return True
        with Image.open(path, formats=_KINDS) as image:
            return image.format not in _ANIMATED or getattr(image, "n_frames", 1) == 1
    except UnidentifiedImageError:
        return False
    except _DECODER_ERRORS:
        return head.startswith((b"\x89PNG\r\n\x1a\n", b"BM", b"GIF8", b"II*\0", b"MM\0*"))


def _is_heic(head: bytes) -> bool:
    # ISO base media: size, "ftyp", the brand, the brands it is compatible with.
    brands = head[8:] if head[4:8] == b"ftyp" else b""
    return brands[:4] in (b"heic", b"heix", b"mif1", b"heim", b"heis") and b"avif" not in brands


def read_photo(path: str | Path) -> U8:
    """Photo as u8 [h, w, 3] RGB with even sides, at most 1920 on the long one.

    The EXIF orientation is applied, a color profile is converted to sRGB, and transparency is
    laid over mid grey.

    Raises:
        MediaError: not a photo, damaged, or too small or too large.
    """
    path = Path(path)
    try:
        with Image.open(path, formats=_KINDS) as opened:
            if opened.width * opened.height > _MAX_PIXELS or max(opened.size) > _MAX_FILE_SIDE_PX:
                raise MediaError(
                    f"{path}: is {opened.width}x{opened.height}; expected at most 120 megapixels, "
                    f"and {_MAX_FILE_SIDE_PX} on a side"
                )
            opened.load()
            image = ImageOps.exif_transpose(_in_rgb(opened))
    except FileNotFoundError:
        raise MediaError(f"{path}: there is no such file") from None
    except UnidentifiedImageError:
        raise MediaError(
            f"{path}: is not a photo of a known kind (JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF, "
            "JPEG 2000); save it as JPEG"
        ) from None
    except _DECODER_ERRORS as error:
        raise MediaError(f"{path}: the photo is damaged or cut short ({error})") from None
    if max(image.size) > MAX_SIDE_PX:
        image = ImageOps.contain(image, (MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
    if min(image.size) < 64:
        raise MediaError(f"{path}: is {image.width}x{image.height}; expected 64 pixels or more")
    pixels = np.asarray(image, np.uint8)
    return np.ascontiguousarray(pixels[: image.height // 2 * 2, : image.width // 2 * 2])


def _in_rgb(image: Image.Image) -> Image.Image:
    exif = image.getexif()
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):  # 16-bit grey; convert() would clip it at 255
        grey = np.asarray(image, np.float64) / 257.0
        image = Image.fromarray(np.clip(grey + 0.5, 0, 255).astype(np.uint8))
        profile = None
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        flat = Image.new("RGB", image.size, _BACKDROP)
        flat.paste(with_alpha, mask=with_alpha.getchannel("A"))
        image = flat
    if profile and image.mode in ("RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            image = converted or image
        except ImageCms.PyCMSError:
            pass  # a broken profile is common; viewers ignore it too
    image = image.convert("RGB")
    image.info["exif"] = exif.tobytes() if exif else b""
    image.getexif().update(exif)
    return image
