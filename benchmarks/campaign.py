"""The random differential campaign: specs x sizes x forms x dtypes, each compared with the plain model in the same.

    python benchmarks/campaign.py                            # 500 generated specs, then the zoo at small sizes
    python benchmarks/campaign.py --specs 1 --seed 123       # one spec again: the seeds are those of the table
    python benchmarks/campaign.py --cases generated --minutes 8
    python benchmarks/campaign.py --quick

A spec is compiled in every form with the same weights. Compared are names and counts (audit, tensors of the model,
PyTorch's flop counter), outputs in fp32, fp64 and bf16, at the first call and by a plan, gradients and running
statistics of a step, the exported file, checkpoints from form to form, for one spec in fifty `torch.compile`, and the
errors of images that do not fit. A number counts as equal within rounding or within what the plain model itself makes
of noise in the last digit of its image. Dropout is off: forms draw other masks. Ends with 1 where anything differs.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from _common import begin, parser, show, write_json
from _specs import Spec, drawn, least, zoo
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import mgcompile
from mgcompile.errors import MgcompileError
from mgcompile.graph import Graph
from mgcompile.graph.ops import Reference
from mgcompile.lowering.exporting import to_source
from mgcompile.passes import optimize as run_passes
from mgcompile.passes.prune import prune

Tensors = dict[str, torch.Tensor]
FORMS: dict[str, dict[str, Any]] = {
    "training": {"optimize": "training"},
    "inference": {"optimize": "inference"},
    "bf16": {"optimize": "inference", "precision": "bf16"},
}
CLOSE = {torch.float32: 2e-4, torch.float64: 1e-7, torch.bfloat16: 0.1}
"""The largest difference, in parts of a tensor's largest number, for which nobody looks at the plain model's noise."""
DIGIT = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 0.02}
COMPILED = 50  # one spec in so many goes through `torch.compile`


@dataclass(frozen=True)
class Difference:
    """Something that is not as in the plain model."""

    case: str
    check: str
    where: str
    text: str


@dataclass
class Judge:
    """What was compared, by check, and what differs."""

    case: str = ""
    compared: Counter[str] = field(default_factory=Counter)
    found: list[Difference] = field(default_factory=list)

    def same(self, check: str, where: str, right: Any, ours: Any) -> None:
        """Two values that are to be equal."""
        self.compared[check] += 1
        if right != ours:
            if isinstance(right, list) and len(right) == len(ours):
                right, ours = next(pair for pair in zip(right, ours, strict=True) if pair[0] != pair[1])
            self.found.append(Difference(self.case, check, where, f"{right} and {ours}"))

    def close(
        self, check: str, where: str, image: torch.Tensor, plain: Run, ours: Run, *, dtype: torch.dtype | None = None
    ) -> None:
        """Two runs on one image that are to give close tensors, or raise errors of one kind."""
        from tests.laws.pair import differences, sensitivity

        self.compared[check] += 1
        right, other = _tried(plain, image), _tried(ours, image)
        if isinstance(right, Exception) or isinstance(other, Exception):
            if type(right) is not type(other):
                self.found.append(Difference(self.case, check, where, f"plain: {_said(right)}; here: {_said(other)}"))
            return
        try:
            found = differences(right, other, sound=True)
        except AssertionError as error:
            self.found.append(Difference(self.case, check, where, str(error)))
            return
        dtype = dtype or image.dtype
        if any(each > CLOSE[dtype] for each in found.values()):
            noise = sensitivity(plain, image, DIGIT[dtype])
            for name, each in found.items():
                if each > (most := max(CLOSE[dtype], 4 * noise[name])):
                    text = f"{name or 'output'}: {each:.2g} of the largest number, at most {most:.2g}"
                    self.found.append(Difference(self.case, check, where, text))


Run = Callable[[torch.Tensor], Tensors]


@dataclass
class Trial:
    """A spec in every form, with equal weights, and the sizes to try."""

    spec: Spec
    graph: Graph
    models: dict[str, Any]
    sizes: list[tuple[int, int]]

    @classmethod
    def of(cls, spec: Spec, random: Random) -> Trial:
        """Raises `SpecError`, and `MgcompileError` where it cannot be compiled."""
        graph = mgcompile.load(spec).graph
        models = {"plain": _seasoned(mgcompile.compile(spec, seed=0))}
        for name, options in FORMS.items():
            models[name] = mgcompile.compile(spec, seed=1, **options)
            models[name].load_state_dict(models["plain"].state_dict())
        least = graph.smallest_size
        odd = (least[0] + 2 * random.randint(1, 8) + (least[0] + 1) % 2, least[1] + random.randint(0, 16))
        even = (least[0] + 2 * random.randint(1, 8) + least[0] % 2, least[1] + 8 + least[1] % 2)
        return cls(spec, graph, models, [least, odd, even, (32, 32) if max(least) <= 32 else even])

    def image(self, size: tuple[int, int], dtype: torch.dtype = torch.float32, batch: int = 2) -> torch.Tensor:
        channels: int = self.graph.input.op.channels  # type: ignore[attr-defined]
        return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(sum(size))).to(dtype)


# --- the checks


def names(trial: Trial, judge: Judge) -> None:
    """Names of tensors, their order and shapes, in every form."""
    plain = trial.models["plain"]
    for form in FORMS:
        for what in ("state_dict", "named_parameters", "named_buffers"):
            each = [_shapes(getattr(model, what)()) for model in (plain, trial.models[form])]
            judge.same("names", f"{what} of {form}", *each)


def counts(trial: Trial, judge: Judge) -> None:
    """The audit against the model's tensors and PyTorch's flop counter."""
    shadow = mgcompile.compile(trial.spec, device="meta")
    for size in trial.sizes[:2]:
        audit = mgcompile.audit(trial.spec, size=size)
        judge.same("counts", "parameters", sum(each.numel() for each in shadow.parameters()), audit.params)
        with FlopCounterMode(display=False) as counter:
            shadow.eval()(trial.image(size).to("meta"))
        judge.same("counts", f"flops at {_text(size)}", counter.get_total_flops(), 2 * 2 * audit.macs)
    for form in ("training", "inference"):
        params = mgcompile.audit(trial.spec, optimize=form).params  # type: ignore[arg-type]
        judge.same("counts", f"parameters of {form}", params, sum(p.numel() for p in trial.models[form].parameters()))


def outputs(trial: Trial, judge: Judge) -> None:
    """In evaluation, in fp32: the first call at a size and, of inference, the one that a plan runs; bf16, roughly."""
    plain = trial.models["plain"].eval()
    for form, model in trial.models.items():
        model.eval()
        dtype = torch.bfloat16 if form == "bf16" else None
        for size in trial.sizes if form != "plain" else ():
            for call in ("first", "second", "planned") if form == "inference" else ("first",):
                where = f"{form}, {call} call, {_text(size)}"
                judge.close("outputs", where, trial.image(size), _evaluated(plain), _evaluated(model), dtype=dtype)


def precisions(trial: Trial, judge: Judge) -> None:
    """Whole models in fp64, where nothing may be hidden by rounding, and in bf16."""
    for dtype in (torch.float64, torch.bfloat16):
        plain = copy.deepcopy(trial.models["plain"]).to(dtype).eval()
        for form in ("training", "inference"):
            model = copy.deepcopy(trial.models[form]).to(dtype).eval()
            for size in trial.sizes[:2]:
                where = f"{form}, {dtype}, {_text(size)}"
                judge.close("precisions", where, trial.image(size, dtype), _evaluated(plain), _evaluated(model))


def gradients(trial: Trial, judge: Judge) -> None:
    """Of a training step by image and parameters, and the statistics after it; also of a form for inference."""
    graph = run_passes(trial.graph, "training")
    read = {name for node in graph for name in node.inputs}
    # What is dropped stays as a reference that nothing reads: its statistics do not move.
    kept = {node.weights for node in graph if not isinstance(node.op, Reference) or node.name in read}
    for dtype, size in ((torch.float32, trial.sizes[1]), (torch.float64, trial.sizes[2])):
        plain = _step(trial.models["plain"], dtype, kept)
        for form in ("training", "inference"):
            ours = _step(trial.models[form], dtype, kept)
            judge.close("gradients", f"{form}, {dtype}, {_text(size)}", trial.image(size, dtype, batch=3), plain, ours)


def source(trial: Trial, judge: Judge) -> None:
    """The exported file, run alone: the same operations, so the same bits."""
    plain = trial.models["plain"].eval()
    try:
        text = to_source(plain)
    except MgcompileError:
        assert "negate" in json.dumps(trial.spec), "only operations from elsewhere have no source"
        return
    space: dict[str, Any] = {"__name__": "exported"}
    exec(compile(text, "exported.py", "exec"), space)
    model = space[type(plain).__name__]()
    judge.same("source", "names", _shapes(plain.state_dict()), _shapes(model.state_dict()))
    model.load_state_dict(plain.state_dict())
    for size in trial.sizes[:2]:
        judge.close("source", _text(size), trial.image(size), _evaluated(plain), _evaluated(model.eval()))


def checkpoints(trial: Trial, judge: Judge) -> None:
    """Saved from one form, loaded in another."""
    plain, image = trial.models["plain"].eval(), trial.image(trial.sizes[1])
    for saved, form in (("plain", "inference"), ("inference", "plain"), ("training", "inference")):
        with tempfile.TemporaryDirectory() as folder:
            mgcompile.save(trial.models[saved], Path(folder, "w.safetensors"))
            model = mgcompile.load_model(Path(folder, "w.safetensors"), **FORMS.get(form, {}))
        judge.close("checkpoints", f"{saved} as {form}", image, _evaluated(plain), _evaluated(model.eval()))


def errors(trial: Trial, judge: Judge) -> None:
    """Images that do not fit, or are empty."""
    least, size = trial.graph.smallest_size, trial.sizes[1]
    fitting = trial.image(size)
    images = {
        "too small": trial.image((least[0] - 1, least[1])),
        "another number of channels": torch.cat([fitting, fitting], 1),
        "no batch": fitting[:0],
        "of three dimensions": fitting[0],
    }
    if len(prune(trial.graph)) == len(trial.graph):  # what is dropped refuses nothing
        images |= {"of integers": fitting.long(), "another precision": fitting.double()}
    for what, image in images.items():
        for form in ("training", "inference"):
            plain, ours = (_evaluated(trial.models[each].eval()) for each in ("plain", form))
            judge.close("errors", f"{what}, {form}", image, plain, ours, dtype=torch.float32)


def compiled(trial: Trial, judge: Judge) -> None:
    """By `torch.compile`, as far as autograd takes it; its code generator is another's."""
    plain = trial.models["plain"].eval()
    for form in ("plain", "training", "inference"):
        torch._dynamo.reset()
        model = torch.compile(copy.deepcopy(trial.models[form]).eval(), backend="aot_eager", dynamic=False)
        judge.close("compiled", form, trial.image(trial.sizes[1]), _evaluated(plain), _evaluated(model))


CHECKS: dict[str, Callable[[Trial, Judge], None]] = {
    check.__name__: check
    for check in (names, counts, outputs, precisions, gradients, source, checkpoints, errors, compiled)
}


# --- running models


def _seasoned(model: Any) -> Any:
    """With statistics and factors of its norms that matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_mean"):
                tensor.uniform_(-0.3, 0.3, generator=generator)
            elif name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5, generator=generator)
    return model


def _evaluated(model: Callable[[torch.Tensor], Any]) -> Run:
    def run(x: torch.Tensor) -> Tensors:
        with torch.no_grad():
            found = model(x)
        return dict(found) if isinstance(found, dict) else {"": found}

    return run


def _step(model: nn.Module, dtype: torch.dtype, kept: Collection[str]) -> Run:
    """A step's outputs, gradients and the statistics of the modules that are `kept`, of a copy."""
    own = copy.deepcopy(model).to(dtype).train().requires_grad_(True)
    for module in own.modules():
        if "Drop" in type(module).__name__:
            module.eval()
    before = {name: value.clone() for name, value in sorted(own.named_buffers())}

    def run(x: torch.Tensor) -> Tensors:
        from tests.laws.pair import gradients, named

        own.load_state_dict(before, strict=False)
        leaf = x.clone().requires_grad_()
        found = named(own(leaf))
        statistics = {name: value.clone() for name, value in own.named_buffers() if name.rpartition(".")[0] in kept}
        return found | gradients(own, leaf, found) | statistics

    return run


def _tried(run: Run, image: torch.Tensor) -> Any:
    try:
        return run(image)
    except Exception as error:
        return error


def _said(value: Any) -> str:
    return f"{type(value).__name__}: {value}"[:160] if isinstance(value, Exception) else "no error"


def _shapes(tensors: Any) -> list[tuple[str, tuple[int, ...]]]:
    pairs = tensors.items() if isinstance(tensors, dict) else tensors
    return [(name, tuple(tensor.shape)) for name, tensor in pairs]


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


# --- the campaign


def differs(spec: Spec, check: str, seed: int) -> bool:
    """Whether a check finds something in a spec."""
    judge = Judge()
    try:
        CHECKS[check](Trial.of(spec, Random(seed)), judge)
    except MgcompileError:  # no right spec
        return False
    return bool(judge.found)


def campaign(cases: Iterable[tuple[str, int, Spec]], judge: Judge, *, until: float = float("inf")) -> int:
    """Try cases (name, seed, spec) until a time of `time.monotonic`; how many were tried."""
    tried = 0
    for name, seed, spec in cases:
        if time.monotonic() > until:
            break
        judge.case, before = name, len(judge.found)
        tried += 1
        trial = Trial.of(spec, Random(seed))
        for check, run in CHECKS.items():
            if check != "compiled" or tried % COMPILED == 0:
                run(trial, judge)
        for each in judge.found[before:]:
            print(f"{each.case}: {each.check}, {each.where}: {each.text}"[:300], flush=True)
        for check in {each.check for each in judge.found[before:]} - {"names"} if name.startswith("seed") else ():
            small = least(spec, partial(differs, check=check, seed=seed))
            print(f"  least spec for {check}: {json.dumps(small)}", flush=True)
    return tried


def main() -> int:
    arguments = parser(__doc__ or "", cases=["generated", "zoo"])
    arguments.add_argument("--specs", type=int, default=500, help="generated specs (default %(default)s)")
    arguments.add_argument("--seed", type=int, default=0, help="of the first; each next one has the next seed")
    arguments.add_argument("--minutes", type=float, default=60, help="the most that it takes (default %(default)s)")
    options = arguments.parse_args()
    place = begin(options, "differences from the plain model")
    chosen = options.cases or ["generated", "zoo"]
    specs = min(options.specs, 5) if options.quick else options.specs
    start, judge = time.monotonic(), Judge()
    until = start + 60 * options.minutes
    tried = {}
    if "generated" in chosen:
        generated = ((f"seed {seed}", seed, drawn(seed)) for seed in range(options.seed, options.seed + specs))
        tried["generated"] = campaign(generated, judge, until=until)
    if "zoo" in chosen and not options.quick:
        tried["zoo"] = campaign(((name, 0, spec) for name, spec in zoo()), judge, until=until)
    seconds = time.monotonic() - start
    differing = Counter(each.check for each in judge.found)
    show(
        f"{sum(tried.values())} specs ({', '.join(f'{n} {kind}' for kind, n in tried.items())}), {seconds:.0f} s",
        ["check", "comparisons", "differences"],
        [
            *([check, f"{judge.compared[check]:,}", str(differing[check])] for check in CHECKS),
            ["all", f"{judge.compared.total():,}", str(len(judge.found))],
        ],
    )
    write_json(
        options.json,
        {
            "machine": place,
            "specs": tried,
            "seconds": seconds,
            "comparisons": judge.compared,
            "differences": [vars(each) for each in judge.found],
        },
    )
    return 1 if judge.found else 0


if __name__ == "__main__":
    sys.exit(main())
