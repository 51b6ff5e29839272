"""Do time and memory of reading a video grow with the frames looked at, and not with its length?

    python benchmarks/long_video.py                    # 1080p, 20 seconds and two hours, 8 and 32 frames
    python benchmarks/long_video.py --faces            # with the default face finder on every frame
    python benchmarks/long_video.py --examine          # the whole of `examine` with the built-in detector

The long file is the short one repeated, packets copied, so that making it costs little. Each row is a process of its
own, whose highest resident memory the operating system reports.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
from PIL import Image

RATE = 25
SECONDS = 20
PROGRAM = """
import resource, sys, time
from deepfake_detectors.examination.faces import face_finder
from deepfake_detectors.examination.video import sample_frames
path, frames, faces = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
finder = face_finder() if faces else None
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start, used, seen = time.perf_counter(), time.process_time(), 0
for frame in sample_frames(path, frames):
    seen += 1
    if finder is not None:
        finder.find(frame.image)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
wall, work = time.perf_counter() - start, time.process_time() - used
print(f"{seen} | {wall:.1f} s | {work:.1f} s | {peak:.0f} MB | {before:.0f} MB")
"""
EXAMINE = """
import resource, sys, time
from deepfake_detectors import examine
path, frames = sys.argv[1], int(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start, used = time.perf_counter(), time.process_time()
found = examine(path, frames=frames)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
wall, work = time.perf_counter() - start, time.process_time() - used
faces = sum(len(frame["faces"]) for frame in found.frames)
print(f"{len(found.frames)}, {faces} faces | {wall:.1f} s | {work:.1f} s | {peak:.0f} MB | {before:.0f} MB")
"""
FACE = Path(__file__).parents[1] / "examples/pictures/real_astronaut.jpg"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--size", type=int, nargs=2, default=(1920, 1080), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--faces", action="store_true")
    parser.add_argument("--examine", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder, "short.mp4"), Path(folder, "long.mp4")
        write_short(short, tuple(arguments.size))
        start = time.perf_counter()
        repeat(short, long, round(arguments.hours * 3600 / SECONDS))
        print(f"{long.stat().st_size / 1e6:.0f} MB in {time.perf_counter() - start:.0f} s")
        print("| length | frames | time | CPU | peak memory | of which imports |\n" + "| --- " * 6 + "|")
        for path, length in ((short, f"{SECONDS} s"), (long, f"{arguments.hours:g} h")):
            for frames in (8, 32):
                program = EXAMINE if arguments.examine else PROGRAM
                command = [sys.executable, "-c", program, str(path), str(frames), str(arguments.faces)]
                row = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
                print(f"| {length} | {row} |", flush=True)
    return 0


def write_short(path: Path, size: tuple[int, int]) -> None:
    """Write a portrait that moves over a slope, with a key frame every ten seconds, as many encoders set them.

    The slope is smooth, so that two hours are some hundred megabytes: gigabytes would measure the disk.
    """
    slope = Image.linear_gradient("L").resize(size).convert("RGB")
    side = size[1] // 3
    with Image.open(FACE) as face:
        portrait = face.convert("RGB").resize((side, side))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "35"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = RATE * SECONDS // 2
        for number in range(RATE * SECONDS):
            image = slope.copy()
            left = number * 3 % (size[0] - side)
            image.paste(portrait, (left, side))
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())


def repeat(source: Path, target: Path, times: int) -> None:
    """Copy the packets of a video one after the other, so often."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        length = stream.duration
        with av.open(str(target), "w") as output:
            copy = output.add_stream_from_template(stream)
            for turn in range(times):
                container.seek(0)
                for packet in container.demux(stream):
                    if packet.dts is None:
                        continue
                    packet.dts += turn * length
                    packet.pts += turn * length
                    packet.stream = copy
                    output.mux(packet)


if __name__ == "__main__":
    raise SystemExit(main())
