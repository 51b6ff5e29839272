"""How a clip was encoded: its frames are compared by it as pictures are by their file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["clip_traces"]


@lru_cache(maxsize=64)
def clip_traces(path: Path) -> dict[str, Any]:
    """Traces of the encoder, the same for every frame.

    Args:
        path: a clip.

    Returns:
        `format`: container and codec, such as `"mov h264"` (FFmpeg's name for MP4, too); `frame_rate`: frames per
        second; `bytes`: of the file per frame; `metadata`: names of its tags. Empty for a clip that cannot be opened,
        of which its builder says why.
    """
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
            return {
                "format": f"{container.format.name.split(',')[0]} {stream.codec_context.name}",
                "frame_rate": f"{float(stream.average_rate or 0):.3g}",
                "bytes": path.stat().st_size // max(frames, 1),
                "metadata": " ".join(sorted({*container.metadata, *stream.metadata})),
            }
    except (av.FFmpegError, IndexError):
        return {}
