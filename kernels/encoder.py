"""A step of the encoder as a kernel: one call, the weights as integers and halves.

The twin of the step is `engine.networks.encoder_numpy`, which does not round activations to 16
bits; docs/kernels.md says how far the two are apart. The two products of a matrix and a vector have
twins of their own, with the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.checks import require
from lipstream.kernels.dispatch import kernel
from lipstream.kernels.errors import UsageError
from lipstream.kernels.reference import encoder as reference

F16 = NDArray[np.float16]
F32 = NDArray[np.float32]
I8 = NDArray[np.int8]

# As in encoder.cpp.
_COLUMNS: Final = 64  # of a block of weights
_BANDS, _WIDTH, _RAISED, _HEADS, _KEPT = 80, 384, 4 * 384, 6, 62
_BLOCKS, _TAPS = 2, 3
_STATES: Final = {
    "features": (2 * _BANDS,),
    "frames": (2 * _BANDS,),
    "lifted": (_WIDTH,),
    "waiting": (_BLOCKS, 2, _WIDTH),
    "memory": (_BLOCKS, 2, _KEPT, _WIDTH),
}


def packed(weights: NDArray[Any]) -> NDArray[Any]:
    """A layer's [outputs, inputs] as blocks of 64 outputs, [blocks, inputs, 64]."""
    outputs, inputs = weights.shape
    blocks = -(-outputs // _COLUMNS)
    padded = np.zeros((blocks * _COLUMNS, inputs), weights.dtype)
    padded[:outputs] = weights
    return np.ascontiguousarray(padded.reshape(blocks, _COLUMNS, inputs).transpose(0, 2, 1))


def packed_in_pairs(weights: I8) -> I8:
    """A layer's i8 [outputs, inputs] as i8 [blocks, inputs / 2, 64, 2]; a last single input is
    paired with one of weight 0."""
    outputs, inputs = weights.shape
    even = np.zeros((outputs, inputs + inputs % 2), np.int8)
    even[:, :inputs] = weights
    blocks = packed(even)
    pairs = blocks.reshape(len(blocks), -1, 2, _COLUMNS)
    return np.ascontiguousarray(pairs.transpose(0, 1, 3, 2))


@kernel(reference.affine)
def affine(x: F32, weights: F16, bias: F32) -> F32:
    """bias + sum over i, in order, of x[i] * weights[:, i]: f32 [outputs]."""
    layers = _Layers()
    layer = layers.half(weights, bias)
    out = native.empty(layer.outputs, np.float32)
    native.library().ls_affine(np.ascontiguousarray(x), layer, out)
    return out[: len(bias)]


@kernel(reference.integer_affine)
def integer_affine(x: F32, weights: I8, scale: F32, bias: F32) -> F32:
    """bias + scale * (weights @ x), x rounded to levels of 16 bits: f32 [outputs]."""
    layers = _Layers()
    layer = layers.integer(weights, scale, bias)
    even = np.zeros(layer.inputs, np.float32)
    even[: len(x)] = x
    out = native.empty(layer.outputs, np.float32)
    levels = native.empty(layer.inputs, np.int16)
    native.library().ls_integer_affine(even, layer, levels, out)
    return out[: len(bias)]


class _Layers:
    """Makes the structures of layers and holds the arrays that they point at."""

    def __init__(self) -> None:
        self._held: list[NDArray[Any]] = []

    def half(self, weights: F16, bias: F32) -> Any:
        """`LsLayer` of f16 [outputs, inputs]."""
        blocks = packed(weights)
        outputs = len(blocks) * _COLUMNS
        return native.structure("LsLayer")(
            self.address(blocks), self._padded(bias, outputs), weights.shape[1], outputs
        )

    def integer(self, weights: I8, scale: F32, bias: F32) -> Any:
        """`LsIntegerLayer` of i8 [outputs, inputs]."""
        blocks = packed_in_pairs(weights)
        outputs = len(blocks) * _COLUMNS
        return native.structure("LsIntegerLayer")(
            self.address(blocks),
            self._padded(scale, outputs),
            self._padded(bias, outputs),
            2 * blocks.shape[1],
            outputs,
            reference.level_limit(weights),
        )

    def address(self, array: NDArray[Any]) -> int:
        """Where an array lies that stays as long as this object."""
        self._held.append(array)
        return native.address(array)

    def _padded(self, values: F32, size: int) -> int:
        padded = np.zeros(size, np.float32)
        padded[: len(values)] = values
        return self.address(padded)


class _Weights:
    """Takes tensors by name, in the form that the kernel needs."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._tensors = tensors
        self.layers = _Layers()  # what the structures point at

    def tensor(self, name: str, dtype: Any, shape: tuple[int | None, ...]) -> NDArray[Any]:
        """One tensor. Raises: UsageError where it is missing or of another form."""
        found = self._tensors.get(name)
        if found is None:
            raise UsageError(f"{name} is missing")
        require(name, found, dtype, shape)
        return found

    def vector(self, name: str, size: int) -> F32:
        """f32 [size], of a tensor of floats of any precision."""
        found = self._tensors.get(name)
        if found is None or found.dtype.kind != "f" or found.shape != (size,):
            raise UsageError(f"{name}: expected floats [{size}]")
        return np.ascontiguousarray(found, np.float32)

    def half(self, name: str, bias: str, outputs: int | None, inputs: int) -> Any:
        """`LsLayer`, and its true number of outputs."""
        weights = self.tensor(name, np.float16, (outputs, inputs))
        return self.layers.half(weights, self.vector(bias, len(weights))), len(weights)

    def integer(self, name: str, outputs: int, inputs: int, has_bias: bool = True) -> Any:
        """`LsIntegerLayer`."""
        weights = self.tensor(f"{name}.weight", np.int8, (outputs, inputs))
        scale = self.vector(f"{name}.scale", outputs)
        bias = self.vector(f"{name}.bias", outputs) if has_bias else np.zeros(outputs, np.float32)
        return self.layers.integer(weights, scale, bias)

    def norm(self, name: str) -> Any:
        """`LsNorm`."""
        return native.structure("LsNorm")(
            *(
                self.layers.address(self.vector(f"{name}.{part}", _WIDTH))
                for part in ("weight", "bias")
            )
        )

    def block(self, index: int) -> Any:
        """`LsBlock`."""
        name = f"blocks.{index}"
        offsets = self.tensor("offsets", np.float32, (_BLOCKS, _HEADS, None))[index, :, : _KEPT + 1]
        if offsets.shape[1] != _KEPT + 1:
            raise UsageError(f"offsets reach {offsets.shape[1]} tokens; expected {_KEPT + 1}")
        square = {
            part: self.integer(f"{name}.{part}", _WIDTH, _WIDTH, part != "key")
            for part in ("query", "key", "value", "out")
        }
        return native.structure("LsBlock")(
            before=self.norm(f"{name}.before"),
            middle=self.norm(f"{name}.middle"),
            **square,
            up=self.integer(f"{name}.up", _RAISED, _WIDTH),
            down=self.integer(f"{name}.down", _WIDTH, _RAISED),
            offsets=self.layers.address(np.ascontiguousarray(offsets)),
        )


class EncoderStep:
    """The encoder with its weights; any number of threads may call it.

    Raises: UsageError when a tensor is missing or has another type or size than the others ask for.
    """

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        take = _Weights(weights)
        look_aheads = len(take.tensor("look_aheads_ms", np.int32, (None,)))
        taps, widths = zip(
            *(take.half(f"tap{i}.weight", f"tap{i}.bias", None, _WIDTH) for i in range(_TAPS)),
            strict=True,
        )
        hidden = take.tensor("head_gru.weight_hh_l0", np.float16, (None, None)).shape[1]
        gru_input, gru_state = (
            take.half(f"head_gru.weight_{end}", f"head_gru.bias_{end}", 3 * hidden, inputs)[0]
            for end, inputs in (("ih_l0", sum(widths)), ("hh_l0", hidden))
        )
        phone, phones = take.half("phone.weight", "phone.bias", None, hidden)
        head, outputs = take.half("head.weight", "head.bias", None, hidden)
        if phones % look_aheads or outputs % look_aheads:
            raise UsageError(
                f"{phones} phones and {outputs} outputs; expected multiples of {look_aheads}, the "
                "number of look-aheads"
            )
        structure = native.structure
        self._encoder = structure("LsEncoder")(
            conv1=take.integer("conv1", _WIDTH, 3 * _BANDS),
            conv2=take.integer("conv2", _WIDTH, 3 * _WIDTH),
            base=take.layers.address(take.vector("base", _WIDTH)),
            blocks=(structure("LsBlock") * _BLOCKS)(*(take.block(i) for i in range(_BLOCKS))),
            taps=(structure("LsLayer") * _TAPS)(*taps),
            tap_widths=tuple(widths),
            gru_input=gru_input,
            gru_state=gru_state,
            phone=phone,
            head=head,
            hidden=hidden,
            look_aheads=look_aheads,
            phones=phones // look_aheads,
            outputs=outputs,
        )
        self._held = take.layers
        self._shapes = {**_STATES, "hidden": (hidden,)}
        self._expression_shape = (look_aheads, outputs // look_aheads)
        most = max(gru_input.outputs + gru_state.outputs, phone.outputs, head.outputs)
        self._scratch_size = sum(widths) + _COLUMNS + most

    def __call__(self, *inputs: F32) -> tuple[F32, ...]:
        """features f32 [160], frames f32 [160], lifted f32 [384], waiting f32 [2, 2, 384], memory
        f32 [2, 2, 62, 384] and hidden f32 [width] to expression f32 [look-aheads, K], speech
        f32 [look-aheads] and the next five states."""
        for (name, shape), array in zip(self._shapes.items(), inputs, strict=True):
            require(name, array, np.float32, shape)
        shapes = (self._expression_shape, self._expression_shape[:1], *self._shapes.values())
        outputs = tuple(native.empty(shape, np.float32) for shape in (*shapes[:2], *shapes[3:]))
        native.library().ls_encoder_step(
            self._encoder,
            *map(np.ascontiguousarray, inputs),
            native.empty(self._scratch_size, np.float32),
            *outputs,
        )
        return outputs
