"""Look at a video at a glance: python contact_sheet.py VIDEO OUT.png [FIRST EVERY X0 Y0 SIDE]

Sixteen frames, `EVERY` apart, cut to a square of `SIDE` px at (X0, Y0). docs/demo.png is the demo
seen this way: contact_sheet.py demo.mp4 docs/demo.png 12 7 150 110 220
"""

import sys

import av
import numpy as np

video, out = sys.argv[1:3]
first, every, x0, y0, side = (int(v) for v in sys.argv[3:] or ("0", "1", "0", "0", "0"))
columns, rows, tile_px = 8, 2, 160

tiles = []
with av.open(video) as container:
    for index, frame in enumerate(container.decode(video=0)):
        if index < first or (index - first) % every:
            continue
        picture = frame.to_ndarray(format="rgb24")
        cut = side or min(picture.shape[:2])
        square = np.ascontiguousarray(picture[y0 : y0 + cut, x0 : x0 + cut])
        small = av.VideoFrame.from_ndarray(square, format="rgb24")
        tiles.append(small.reformat(tile_px, tile_px).to_ndarray(format="rgb24"))
        if len(tiles) == columns * rows:
            break
blank = np.zeros((tile_px, tile_px, 3), np.uint8)
tiles += [blank] * (columns * rows - len(tiles))
sheet = np.concatenate(
    [np.concatenate(tiles[r * columns : (r + 1) * columns], axis=1) for r in range(rows)]
)

with av.open(out, "w", format="image2") as container:
    stream = container.add_stream("png", rate=1)
    stream.width, stream.height, stream.pix_fmt = sheet.shape[1], sheet.shape[0], "rgb24"
    picture = av.VideoFrame.from_ndarray(sheet, format="rgb24")
    container.mux(stream.encode(picture) + stream.encode(None))
print(f"{sheet.shape[1]}x{sheet.shape[0]} px of {video}")
