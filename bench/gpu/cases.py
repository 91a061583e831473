"""Each kernel with fresh inputs, and what its NumPy twin makes of them.

A case names its arrays; where one is in the table of rows, the table points into it. Inputs of a
kernel in the middle of the stage are drawn anew and not taken from the kernel before it, so that an
error of one is not seen as the error of another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels.crop import DIFFERENCE_KEPT, GATES_KEPT, SYNTHETIC
from lipstream.kernels.cuda.stage import ROW
from lipstream.kernels.reference import stage as twins

Array = NDArray[Any]
TABLE: Final = "table"


@dataclass(frozen=True, slots=True)
class TwinResult:
    """What a kernel writes to an array."""

    values: Array
    # Of each row of the batch, whether it is written at all; where not, what was there stays.
    written: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Case:
    """One launch."""

    kernel: str
    arguments: tuple[str | int, ...]  # names of arrays, and i32
    reads: dict[str, Array]
    writes: dict[str, TwinResult]
    pixels: tuple[int, int]  # columns and rows that the launch covers
    batch: int
    table: NDArray[Any] | None  # of ROW, with its pointers 0
    # By field of the table: the array that it points into, and each row's offset; -1 for null.
    pointers: dict[str, tuple[str, NDArray[np.int64]]] = field(default_factory=dict)


class Pictures:
    """A batch of pictures of different sizes in flat arrays, u8, and their table."""

    def __init__(
        self, random: np.random.Generator, batch: int, shape: tuple[int, int], faulty: bool = True
    ) -> None:
        """faulty: one row in five, never the first, is one that the kernels must refuse."""
        self.random, self.batch, self.shape = random, batch, shape
        low = shape[0] // 2
        sides = random.integers(low, shape[1] * 5 // 4, (batch, 2))
        self.sizes = [(int(down), int(across)) for down, across in sides]
        prior_sides = random.integers(4, shape[0] // 2, (batch, 2))
        self.prior_sizes = [(int(down), int(across)) for down, across in prior_sides]
        self.has_prior = random.random(batch) < 0.6
        self.has_previous = random.random(batch) < 0.6
        self.held = (random.random(batch) < 0.8) | (not faulty)
        self.held[0] = True
        if batch > 1 and faulty:
            self.held[-1] = False
        self.table = np.zeros(batch, ROW)
        self.table["height"], self.table["width"] = sides.T
        down, across = np.where(self.has_prior, prior_sides.T, 0)
        self.table["prior_height"], self.table["prior_width"] = down, across
        step = random.uniform(0.3, 1.7, batch).astype(np.float32)
        self.table["left"], self.table["top"] = random.uniform(-20, 20, (2, batch))
        self.table["step"] = np.where(self.held, step, np.float32(np.nan))
        self.table["zoom"] = np.float32(1) / step
        self.table["doubt"], self.table["sharpen"] = random.uniform(0, 1, (2, batch))
        self.table["used"] = 1
        whole = [1] * batch
        self.pictures = self._flat(self.sizes, whole)
        self.maps = self._flat(self.sizes, whole)
        self.priors = self._flat(self.prior_sizes, self.has_prior)
        self.previous = self._flat([shape] * batch, self.has_previous)
        for k in range(batch):
            self._shape_maps(self.of(self.maps, k))

    def _flat(self, sizes: list[tuple[int, int]], there: Any) -> tuple[Array, Array, list[Any]]:
        """Pictures one behind another: the array, and each one's offset and shape."""
        counts = [3 * h * w if here else 0 for (h, w), here in zip(sizes, there, strict=True)]
        ends = np.cumsum(counts)
        flat = self.random.integers(0, 256, int(ends[-1]), dtype=np.uint8)
        offsets = np.where(np.array(counts) > 0, ends - counts, -1)
        return flat, offsets, [(h, w, 3) for h, w in sizes]

    def of(self, flat: tuple[Array, Array, list[Any]], k: int) -> Any:
        """Picture k, a view; None where it has none."""
        values, offsets, shapes = flat
        if offsets[k] < 0:
            return None
        return values[offsets[k] : offsets[k] + np.prod(shapes[k])].reshape(shapes[k])

    def _shape_maps(self, maps: Array) -> None:
        """Opacity that is 0 round the lips; a gap in the lower half."""
        maps[..., 0][self.random.random(maps.shape[:2]) < 0.3] = 0
        maps[..., 2][: len(maps) // 2] = 0

    def place(self, k: int) -> tuple[float, float, float]:
        """Of row k."""
        row = self.table[k]
        return float(row["left"]), float(row["top"]), float(row["step"])


class _Maker:
    """The cases of one batch."""

    def __init__(self, pictures: Pictures) -> None:
        self.p, self.random, self.shape = pictures, pictures.random, pictures.shape
        self.held = pictures.held.astype(np.int32)
        self.tables = np.stack([GATES_KEPT, DIFFERENCE_KEPT])

    def floats(self, planes: int, low: float = 0.0, high: float = 1.0) -> Array:
        sides = (self.p.batch, planes, *self.shape)
        return self.random.uniform(low, high, sides).astype(np.float32)

    def levels(self, *channels: int) -> Array:
        return self.random.integers(0, 256, (self.p.batch, *self.shape, *channels), dtype=np.uint8)

    def each(self, make: Callable[[int], Any], *like: tuple[tuple[int, ...], Any]) -> list[Array]:
        """The twin's results of each row that holds, stacked; 0 for the others."""
        out = [np.zeros((self.p.batch, *shape), dtype) for shape, dtype in like]
        for k in np.flatnonzero(self.p.held):
            made = make(int(k))
            for array, values in zip(
                out, made if isinstance(made, tuple) else (made,), strict=True
            ):
                array[k] = values
        return out

    def case(
        self, kernel: str, order: str, reads: dict[str, Array], writes: dict[str, Array]
    ) -> Case:
        """order: the names of the launch's arguments; "sides" stands for rows and columns."""
        arguments: list[str | int] = []
        for name in order.split():
            values: dict[str, list[str | int]] = {
                "sides": [*self.shape],
                "synthetic": [SYNTHETIC],
            }
            arguments += values.get(name, [name])
        expected = {name: TwinResult(values, self.p.held) for name, values in writes.items()}
        if "held" in order.split() and "held" not in writes:
            reads = {"held": self.held, **reads}
        return Case(
            f"ls_gpu_{kernel}", tuple(arguments), reads, expected, self.shape[::-1],
            self.p.batch, self.p.table if TABLE in arguments else None, self._pointers(),
        )  # fmt: skip

    def _pointers(self) -> dict[str, tuple[str, Array]]:
        p = self.p
        each = 3 * self.shape[0] * self.shape[1]
        return {
            "picture": ("pictures", p.pictures[1]),
            "conditioning": ("maps", p.maps[1]),
            "prior": ("priors", p.priors[1]),
            "previous": ("previous", p.previous[1]),
            "refined": ("outputs", np.arange(p.batch) * each),
        }

    def crop(self) -> Case:
        p = self.p

        def make(k: int) -> Any:
            sources = (p.of(p.pictures, k), p.of(p.maps, k), p.of(p.priors, k), p.of(p.previous, k))
            doubt = float(p.table["doubt"][k])
            return twins.crop(*sources, p.place(k), self.shape, doubt, SYNTHETIC)

        crops, planes = self.each(
            make, ((*self.shape, 6), np.uint8), ((12, *self.shape), np.float32)
        )
        reads = {"pictures": p.pictures[0], "maps": p.maps[0]}
        reads |= {"priors": p.priors[0], "previous": p.previous[0]}
        writes = {"crops": crops, "planes": planes, "held": self.held}
        made = self.case("crop", "table sides synthetic crops planes held", reads, writes)
        everywhere = np.ones(p.batch, np.bool_)  # planes of a row that does not hold are 0
        made.writes["planes"] = TwinResult(planes, everywhere)
        made.writes["held"] = TwinResult(self.held, everywhere)
        return made

    def near_gap(self) -> Case:
        crops = self.levels(6)
        crops[..., 5][self.random.random(crops.shape[:3]) < 0.9] = 0
        (weights,) = self.each(
            lambda k: twins.near_gap(crops[k], self.tables[0 if self.p.has_prior[k] else 1]),
            (self.shape, np.uint8),
        )
        reads = {"crops": crops, "tables": self.tables}
        return self.case("near_gap", "table held sides crops tables weights", reads, {
            "weights": weights})  # fmt: skip

    def mean_once(self) -> Case:
        planes = self.floats(12)
        (once,) = self.each(lambda k: twins.mean_once(planes[k]), ((6, *self.shape), np.float32))
        return self.case("mean_once", "held sides planes once", {"planes": planes}, {"once": once})

    def gates(self) -> Case:
        gates, planes, once = self.floats(3, -1, 2), self.floats(12), self.floats(6, -0.5, 0.5)
        gates[self.random.random(gates.shape) < 0.01] = np.nan
        weights = self._weights()
        (difference,) = self.each(
            lambda k: twins.gates(
                gates[k], planes[k], once[k], weights[k], bool(self.p.has_prior[k])
            ),
            ((3, *self.shape), np.float32),
        )
        reads = {"gates": gates, "planes": planes, "once": once, "weights": weights}
        order = "table held sides gates planes once weights difference"
        return self.case("gates", order, reads, {"difference": difference})

    def grid_along(self) -> Case:
        difference = self.floats(3, -0.5, 0.5)
        (spare,) = self.each(
            lambda k: twins.grid_along(difference[k]), ((3, *self.shape), np.float32)
        )
        reads = {"difference": difference}
        return self.case("grid_along", "held sides difference spare", reads, {"spare": spare})

    def grid_across(self) -> Case:
        spare, crops = self.floats(3, -0.5, 0.5), self.levels(6)
        like = ((3, *self.shape), np.float32)
        difference, refined = self.each(lambda k: twins.grid_across(spare[k], crops[k]), like, like)
        writes = {"difference": difference, "refined": refined}
        order = "held sides spare crops difference refined"
        return self.case("grid_across", order, {"spare": spare, "crops": crops}, writes)

    def sharpen(self) -> Case:
        difference, refined, crops = self.floats(3, -0.6, 0.6), self.floats(3), self.levels(6)
        weights = self._weights()
        like = ((*self.shape, 3), np.uint8)

        def make(k: int) -> Any:
            own = None if self.p.has_prior[k] else weights[k]
            amount = float(self.p.table["sharpen"][k])
            return twins.sharpen(difference[k], refined[k], crops[k], own, amount)

        stored, outputs = self.each(make, like, like)
        reads = {"difference": difference, "refined": refined, "crops": crops, "weights": weights}
        order = "table held sides difference refined crops weights stored"
        return self.case("sharpen", order, reads, {"stored": stored, "outputs": outputs})

    def paste(self) -> Case:
        p, stored = self.p, self.levels(3)
        pictures = p.pictures[0].copy()
        for k in map(int, np.flatnonzero(p.held)):
            own = p.of((pictures, *p.pictures[1:]), k)
            own[:] = twins.paste(own, p.of(p.maps, k), stored[k], p.place(k))
        reads = {"stored": stored, "maps": p.maps[0], "pictures": p.pictures[0]}
        made = self.case("paste", "table held sides stored", reads, {})
        made.writes["pictures"] = TwinResult(pictures[None], np.ones(1, np.bool_))
        sides = (max(w for _, w in p.sizes), max(h for h, _ in p.sizes))
        return Case(
            made.kernel, made.arguments, made.reads, made.writes, sides, p.batch, made.table,
            made.pointers,
        )  # fmt: skip

    def _weights(self) -> Array:
        """Mostly 255, where all of a pixel stays."""
        weights = self.levels()
        weights[self.random.random(weights.shape) < 0.6] = 255
        weights[:, : self.shape[0] // 2] = 255
        return weights


KERNELS: Final = (
    "crop", "near_gap", "mean_once", "gates", "grid_along", "grid_across", "sharpen", "paste",
)  # fmt: skip


def make_case(kernel: str, pictures: Pictures) -> Case:
    """The case of one of `KERNELS` on these pictures, with fresh inputs of its own."""
    made: Case = getattr(_Maker(pictures), kernel)()
    return made
