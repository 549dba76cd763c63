"""How many samples of each MNIST task are made in a second, on one core.

    python benchmarks/tasks.py
    python benchmarks/tasks.py --batch 64 256 --runs 15
    python benchmarks/tasks.py --quick

The digits are made up: as large as those of MNIST, with as many grey pixels. Time is of this process alone.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from _common import begin, parser, show, write_json
from numpy.typing import NDArray

from mgcompile.training.scenes import SCENES, make


def strokes(count: int = 1000) -> NDArray[np.uint8]:
    """Rings of four pixels' width and different form, within 20 of 28 pixels: a fifth of the pixels is not zero."""
    random = np.random.default_rng(0)
    rows, columns = (np.arange(28) - 13.5)[None, :, None], (np.arange(28) - 13.5)[None, None, :]
    height, width = random.uniform(6, 9, (count, 1, 1)), random.uniform(3, 7, (count, 1, 1))
    distance = np.abs(np.hypot(rows / height, columns / width) - 1) * np.minimum(height, width)
    return np.clip(255 * (2 - distance), 0, 255).astype(np.uint8)


def main() -> None:
    arguments = parser(__doc__ or "", cases=list(SCENES))
    arguments.add_argument("--batch", type=int, nargs="+", default=[64, 256], help="samples of a call (default 64 256)")
    options = arguments.parse_args()
    options.threads = 1
    place = begin(options)
    images = strokes()
    labels = (np.arange(len(images)) % 10).astype(np.uint8)
    calls = 1 if options.quick else 8
    rates: dict[str, dict[int, float]] = {}
    for task in options.cases or SCENES:
        rates[task] = {}
        for size in options.batch:
            times = []
            for run in range(options.runs + 1):
                start = time.process_time()
                for call in range(calls):
                    first = (run * calls + call) * size
                    make(task, images, labels, np.arange(first, first + size), seed=0)
                times.append(time.process_time() - start)
            rates[task][size] = calls * size / statistics.median(times[1:])  # the first run warms up
        write_json(options.json, {"machine": place, "samples per second": rates})
    heads = ["samples a second", *(f"batch {size}" for size in options.batch)]
    show(
        "Made on one core",
        heads,
        [[task, *(f"{rate:,.0f}" for rate in found.values())] for task, found in rates.items()],
    )


if __name__ == "__main__":
    main()
