"""A chat model's verdict by one prefill against writing an answer of 64 tokens.

    OMP_NUM_THREADS=1 python benchmarks/chat_vlm.py
    python benchmarks/chat_vlm.py --architecture gemma3 --tokens 64 --repeats 5

Both sides run in one process on the same random weights, a model cut down in width, with a picture of some 250 tokens.
Quote the ratios.
"""

import argparse
import statistics
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import compare, hardware

from deepfake_detectors.train.mini import Size, tiny_model
from deepfake_detectors.train.mini.chat_vlm import ARCHITECTURES

CUT_DOWN = Size(448, 14, 256, 688, heads=8, vision_layers=6, language_layers=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=list(ARCHITECTURES), default="qwen2_5_vl")
    parser.add_argument("--tokens", type=int, default=64, help="length of the written answer")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each side")
    options = parser.parse_args()
    model, processor = tiny_model("chat_vlm", size=CUT_DOWN, vlm_config={"model_type": options.architecture})
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (448, 448, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    inputs = processor(images=picture).to(model.device)

    def write() -> Any:
        length = {"max_new_tokens": options.tokens, "min_new_tokens": options.tokens}
        return model.generate(**inputs, do_sample=False, **length)

    written = write().shape[1] - inputs["input_ids"].shape[1]
    assert written == options.tokens, f"{written} tokens were written"
    found = compare(options.architecture, write, lambda: model.detect(**inputs), options.repeats)
    slow, fast = (statistics.median(times) for times in (found.slow, found.fast))
    print(f"{hardware()}\n")
    print(
        f"{options.architecture}, prompt of {inputs['input_ids'].shape[1]} tokens, {model.num_parameters():,} weights"
    )
    print(f"{options.tokens} tokens {slow:.3f} s, verdict {fast:.3f} s: {statistics.median(found.ratios):.2f}x")


if __name__ == "__main__":
    main()
