"""Where a presenter's frames go: a window, a virtual camera."""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np

from lipstream.engine.errors import VideoOutputError
from lipstream.engine.extras import pip_install
from lipstream.engine.types import VideoFrame


class VideoOutput(Protocol):
    """Shows frames as they come."""

    def show(self, frame: VideoFrame) -> None:
        """One frame, now."""
        ...

    def close(self) -> None:
        """No more."""
        ...


class Window:
    """A window that scales with its frame; SDL converts I420 to RGB on the graphics card.

    Keys: Esc or Q closes, F fills the screen, M mutes the microphone, space interrupts the speech.
    """

    KEYS: Final = {"escape": "quit", "q": "quit", "f": "full", "m": "mute", "space": "interrupt"}

    def __init__(self, title: str, width: int, height: int, full: bool = False) -> None:
        """Open it.

        Raises: VideoOutputError without SDL or without a display.
        """
        try:
            import sdl2
            import sdl2.surface
        except ImportError as error:
            raise VideoOutputError(f"a window needs SDL: {pip_install('present')}") from error
        self._sdl: Any = sdl2
        if sdl2.SDL_InitSubSystem(sdl2.SDL_INIT_VIDEO):
            raise self._error("no display")
        sdl2.SDL_SetYUVConversionMode(sdl2.surface.SDL_YUV_CONVERSION_BT709)
        sdl2.SDL_SetHint(sdl2.SDL_HINT_RENDER_SCALE_QUALITY, b"linear")
        middle = sdl2.SDL_WINDOWPOS_CENTERED
        self._window = sdl2.SDL_CreateWindow(
            title.encode(), middle, middle, width, height, sdl2.SDL_WINDOW_RESIZABLE
        )
        self._renderer = self._window and sdl2.SDL_CreateRenderer(self._window, -1, 0)
        self._texture = self._renderer and sdl2.SDL_CreateTexture(
            self._renderer, sdl2.SDL_PIXELFORMAT_IYUV, sdl2.SDL_TEXTUREACCESS_STREAMING,
            width, height,
        )  # fmt: skip
        if not self._texture:
            raise self._error("no window")
        # Black bars, not a stretched face, when the window has another shape.
        sdl2.SDL_RenderSetLogicalSize(self._renderer, width, height)
        self._width, self._full = width, False
        if full:
            self._toggle_full()

    def show(self, frame: VideoFrame) -> None:
        """One frame, now."""
        sdl = self._sdl
        picture = np.ascontiguousarray(frame.i420)
        if sdl.SDL_UpdateTexture(self._texture, None, picture.ctypes.data, self._width):
            raise self._error("the frame cannot be shown")
        sdl.SDL_RenderClear(self._renderer)
        sdl.SDL_RenderCopy(self._renderer, self._texture, None, None)
        sdl.SDL_RenderPresent(self._renderer)

    def commands(self) -> list[str]:
        """What the user asked for since the last call: quit, mute, interrupt."""
        sdl, commands = self._sdl, []
        event = sdl.SDL_Event()
        while sdl.SDL_PollEvent(event):
            if event.type == sdl.SDL_QUIT:
                commands.append("quit")
            elif event.type == sdl.SDL_KEYDOWN and not event.key.repeat:
                name = sdl.SDL_GetKeyName(event.key.keysym.sym).decode().lower()
                command = self.KEYS.get(name, "")
                if command == "full":
                    self._toggle_full()
                elif command:
                    commands.append(command)
        return commands

    def title(self, text: str) -> None:
        """Set its title."""
        self._sdl.SDL_SetWindowTitle(self._window, text.encode())

    def close(self) -> None:
        """Close it."""
        sdl = self._sdl
        sdl.SDL_DestroyTexture(self._texture)
        sdl.SDL_DestroyRenderer(self._renderer)
        sdl.SDL_DestroyWindow(self._window)
        sdl.SDL_QuitSubSystem(sdl.SDL_INIT_VIDEO)

    def _toggle_full(self) -> None:
        self._full = not self._full
        flags = self._sdl.SDL_WINDOW_FULLSCREEN_DESKTOP if self._full else 0
        self._sdl.SDL_SetWindowFullscreen(self._window, flags)

    def _error(self, what: str) -> VideoOutputError:
        return VideoOutputError(
            f"{what}: {self._sdl.SDL_GetError().decode() or 'SDL gives no reason'}"
        )


class Camera:
    """A virtual camera that other programs find in their list of cameras."""

    def __init__(self, width: int, height: int, fps: float, device: str | None = None) -> None:
        """Open it; device None takes the first.

        Raises: VideoOutputError when the machine has none; the message names what provides one.
        """
        try:
            import pyvirtualcam
        except ImportError as error:
            raise VideoOutputError(
                f"a virtual camera needs pyvirtualcam: {pip_install('present')}"
            ) from error
        try:
            self._camera: Any = pyvirtualcam.Camera(
                width, height, fps, fmt=pyvirtualcam.PixelFormat.I420, device=device
            )
        except (RuntimeError, ValueError) as error:
            raise VideoOutputError(
                f"no virtual camera: {' '.join(str(error).split())}; on Linux it is the module "
                "v4l2loopback (apt-get install v4l2loopback-dkms), on macOS and Windows OBS Studio"
            ) from error

    @property
    def name(self) -> str:
        """As other programs list it."""
        return str(self._camera.device)

    def show(self, frame: VideoFrame) -> None:
        """One frame, now."""
        self._camera.send(np.ascontiguousarray(frame.i420).reshape(-1))

    def close(self) -> None:
        """Release the device."""
        self._camera.close()
