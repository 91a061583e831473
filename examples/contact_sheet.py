"""Frames of videos side by side, one row a video: python contact_sheet.py OUT.png VIDEO [VIDEO ...]

A video may be cut to a square: VIDEO@X,Y,SIDE, in px. The same frames are taken of every video, so
a recording and what was made of it can be compared:

    python contact_sheet.py docs/footage.png --first 13 --every 4 \
        recorded.mp4@116,146,96 dubbed.mp4@106,152,96

The picture of the photo in the README, after `make demo`:

    python contact_sheet.py docs/photo.png --first 24 --every 4 demo.mp4@150,110,220
"""

import argparse

import av
import numpy as np
from numpy.typing import NDArray

from lipstream.engine.output_paths import refuse_to_overwrite


def row(video: str, frames: range, tile_px: int) -> NDArray[np.uint8]:
    """The chosen frames of one video from left to right, u8 [tile_px, columns * tile_px, 3]."""
    path, _, square = video.partition("@")
    tiles = []
    with av.open(path) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index not in frames:
                continue
            picture = frame.to_ndarray(format="rgb24")
            x, y, side = map(int, square.split(",")) if square else (0, 0, min(picture.shape[:2]))
            cut = np.ascontiguousarray(picture[y : y + side, x : x + side])
            tile = av.VideoFrame.from_ndarray(cut, format="rgb24")
            small = tile.reformat(tile_px, tile_px, interpolation="LANCZOS")
            tiles.append(small.to_ndarray(format="rgb24"))
    blank = np.zeros((tile_px, tile_px, 3), np.uint8)
    return np.concatenate(tiles + [blank] * (len(frames) - len(tiles)), axis=1)


parser = argparse.ArgumentParser(description="Frames of videos side by side, one row a video.")
parser.add_argument("out", help="PNG to write")
parser.add_argument("videos", nargs="+", help="VIDEO or VIDEO@X,Y,SIDE")
parser.add_argument("--first", type=int, default=0, help="first frame")
parser.add_argument("--every", type=int, default=1, help="frames from one to the next")
parser.add_argument("--columns", type=int, default=9)
parser.add_argument("--tile", type=int, default=144, help="px")
args = parser.parse_args()

refuse_to_overwrite(args.out, *(video.partition("@")[0] for video in args.videos))
frames = range(args.first, args.first + args.columns * args.every, args.every)
sheet = np.concatenate([row(video, frames, args.tile) for video in args.videos])
with av.open(args.out, "w", format="image2") as container:
    stream = container.add_stream("png", rate=1)
    stream.width, stream.height, stream.pix_fmt = sheet.shape[1], sheet.shape[0], "rgb24"
    picture = av.VideoFrame.from_ndarray(sheet, format="rgb24")
    container.mux(stream.encode(picture) + stream.encode(None))
print(f"{sheet.shape[1]}x{sheet.shape[0]} px, {len(args.videos)} rows")
