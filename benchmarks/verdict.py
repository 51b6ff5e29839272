"""One-pass verdicts of the language-model detectors against the way the official code gets them.

    OMP_NUM_THREADS=1 python benchmarks/verdict.py

Both sides run in one process on the same random weights; what they have in common is checked before timing. Quote the
ratios. The ratio of multiply-adds beside them is what a machine limited by arithmetic alone would give; writing an
answer token by token is limited by memory, so the measured ratio may be higher.
"""

import argparse
import statistics

from peak_memory import peak_megabytes
from timing import compare, hardware
from verdict_antifakeprompt import antifakeprompt_rows
from verdict_fakevlm import fakevlm_rows

HEAD = (
    "| work | the official way | here | ratio (range of pairs) | multiply-adds | memory on top of the weights |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each side")
    options = parser.parse_args()
    print(f"{hardware()}\n")
    print(HEAD)
    for row in (*fakevlm_rows(), *antifakeprompt_rows()):
        result = compare(row.name, row.official, row.ours, options.repeats)
        slow, fast = (row.batch / statistics.median(times) for times in (result.slow, result.fast))
        ratios = result.ratios
        print(
            f"| {row.name} | {slow:.3g} images/s | {fast:.3g} images/s "
            f"| {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f}) | {row.ceiling:.2f}x "
            f"| {peak_megabytes(row.official):.0f} against {peak_megabytes(row.ours):.0f} MiB |"
        )


if __name__ == "__main__":
    main()
