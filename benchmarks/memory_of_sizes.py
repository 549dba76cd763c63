"""How much memory the forms of a compiled network take after images of many sizes.

    python benchmarks/memory_of_sizes.py                                   # 1,000 sizes of R-MG-22 and R-MG-12
    python benchmarks/memory_of_sizes.py --models cifar100/r-mg-12 --sizes 200

Every form runs in a process of its own: images of random heights and widths, one after the other, no gradients. What is
printed is the resident memory of the process at its end and at its highest, and the bytes of packed weights.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from _common import begin, parser, show, write_json

import mgcompile
from mgcompile.lowering.fused import FusedConv2d

MODELS = ["cifar100/r-mg-22", "cifar100/r-mg-12"]
FORMS = {"plain": None, "inference": "inference"}
SIDES = (16, 64)
MIB = 1 << 20


def resident() -> int:
    """MiB of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() // MIB


@torch.no_grad()
def measured(name: str, form: str, sizes: int) -> dict[str, int]:
    """Memory in MiB of one form, in this process, after so many sizes."""
    model = mgcompile.compile(name, seed=0, optimize=FORMS[form]).eval()  # type: ignore[arg-type]
    channels = mgcompile.load(name).graph.input.op.channels  # type: ignore[attr-defined]
    chance = random.Random(0)
    for _ in range(sizes):
        model(torch.randn(1, channels, chance.randint(*SIDES), chance.randint(*SIDES)))
    stores = {module.packed.store for module in model.modules() if isinstance(module, FusedConv2d)}
    return {
        "end": resident(),
        "highest": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // MIB,
        "packed": sum(store.bytes for store in stores) // MIB,
        "weights": sum(each.numel() * each.element_size() for each in model.parameters()) // MIB,
    }


def in_own_process(name: str, form: str, options: argparse.Namespace) -> dict[str, int]:
    """Memory in MiB of one form, in a fresh process."""
    words = ["--one", name, form, "--sizes", str(options.sizes), "--threads", str(options.threads)]
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
    figures: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Measure every form of every model, and print the table."""
    words = parser(__doc__ or "", runs=1)
    words.add_argument("--models", nargs="+", default=MODELS, metavar="SPEC", help="specs of the zoo")
    words.add_argument("--sizes", type=int, default=1000, help="how many sizes (default 1000)")
    words.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = words.parse_args()
    if options.one:
        torch.set_num_threads(options.threads)
        print(json.dumps(measured(*options.one, options.sizes)))
        return
    options.sizes = min(options.sizes, 20) if options.quick else options.sizes
    machine = begin(options, how=f"{options.sizes} sizes of {SIDES[0]} to {SIDES[1]} a side, a process for each form")
    figures: dict[str, Any] = {}
    for name in options.models:
        figures[name] = {form: in_own_process(name, form, options) for form in FORMS}
        write_json(options.json, {"machine": machine, "MiB": figures})
    rows = [
        [name, form, *(str(found[key]) for key in ("weights", "packed", "end", "highest"))]
        for name, forms in figures.items()
        for form, found in forms.items()
    ]
    show("MiB", ["", "form", "weights", "packed weights", "at the end", "at the highest"], rows)


if __name__ == "__main__":
    main()
