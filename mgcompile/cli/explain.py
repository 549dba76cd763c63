"""The command that shows what a trained network looks at: explain."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import click

from mgcompile.cli.console import command, write
from mgcompile.cli.evaluate import png_file, split_of, subject_options, tell
from mgcompile.cli.progress import Progress, progress_bar

if TYPE_CHECKING:
    import torch

    from mgcompile.training.saliency import Explained
    from mgcompile.training.subject import Subject
    from mgcompile.training.tasks import HeldOut

__all__ = ["explain"]

POINTS = 3
SAMPLES = (0, 1, 2)


@command(
    "explain",
    "explain runs/translation --saliency --data ~/mnist -o saliency.png",
    "explain network.safetensors --saliency --task mnist-seg --data ~/mnist --sample 7 --points 5 -o seven.png",
    "explain runs/spatial --saliency --data ~/mnist --sample 3 --window 5 --stride 2",
)
@subject_options
@click.option("--saliency", "asked", is_flag=True, help="Which pixels of the input move which points of the output.")
@click.option(
    "--sample",
    "samples",
    type=click.IntRange(0),
    multiple=True,
    help="Of the split, from 0. Repeatable. Default: 0, 1, 2.",
)
@click.option("--points", type=click.IntRange(1, 12), help=f"Of the output maps of a sample. Default: {POINTS}.")
@click.option(
    "--window", type=click.IntRange(1, 512), default=3, show_default=True, help="Side of what is replaced, in pixels."
)
@click.option(
    "--stride", type=click.IntRange(1, 512), default=1, show_default=True, help="From one window to the next."
)
@click.option("--batch", type=click.IntRange(1, 65536), default=64, show_default=True, help="Windows at once.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default="saliency.png",
    show_default=True,
    callback=png_file,
    help="The picture, .png.",
)
def explain(
    *,
    model: str,
    task: str | None,
    data: str,
    split: HeldOut,
    size: int | None,
    digit: int | None,
    resize: int | None,
    some_classes: bool,
    device: str,
    asked: bool,
    samples: tuple[int, ...],
    points: int | None,
    window: int,
    stride: int,
    batch: int,
    output: str,
) -> None:
    """A picture of what moves the answers of a trained network.

    MODEL is a .safetensors file with its spec in it, or the folder of a training, whose recipe then says what flags do
    not. With --saliency the input is changed, a window of pixels at a time, at every place: the windows become their
    complement, 1 - x, or in pictures that are normalised their mean colour. Maps are asked about a few points that lie
    far apart on what is to be found; classes about the true and the predicted one.
    """
    if not asked:
        raise click.UsageError("say --saliency; it is the only explanation that there is")
    import torch

    from mgcompile.training.saliency import saliency_plot
    from mgcompile.training.subject import open_subject
    from mgcompile.training.tasks import ClassData

    where = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else "cpu")
    options = {"size": size, "digit": digit, "resize": resize}
    subject = open_subject(model, data, task=task, options=options, some_classes=some_classes, device=where)
    tell((*subject.notes, *subject.data.found))
    if points and not subject.data.in_maps:
        raise click.BadParameter(f"{subject.task} has classes; points are of maps", param_hint="--points")
    count = split_of(subject, split)
    for sample in samples:
        if sample >= count:
            found = f"the {split} set of {subject.task} has no sample {sample}; expected 0 to {count - 1}"
            raise click.BadParameter(found, param_hint="--sample")
    with progress_bar() as progress:
        rows = list(
            _rows(
                subject, split, samples or tuple(range(min(count, len(SAMPLES)))), points or POINTS,
                window=window, stride=stride, batch=batch, device=where, progress=progress,
            )
        )  # fmt: skip
    title = f"{subject.spec.graph.name} on {subject.task}: which pixels of the input move the output"
    picture = saliency_plot(
        rows,
        title=title,
        unit="logit" if subject.fit.logits else "probability",
        window=window,
        classes=subject.data.classes if isinstance(subject.data, ClassData) else (),
    )
    write(picture, output)


def _rows(
    subject: Subject,
    split: HeldOut,
    samples: tuple[int, ...],
    points: int,
    *,
    window: int,
    stride: int,
    batch: int,
    device: torch.device,
    progress: Progress,
) -> Iterator[Explained]:
    import numpy as np
    import torch

    from mgcompile.analysis import receptive_field
    from mgcompile.training.evaluation import output
    from mgcompile.training.saliency import Explained, chosen_points, saliency

    data, graph = subject.data, subject.spec.graph
    field = receptive_field(graph, (data.size, data.size))
    node = graph.outputs[subject.fit.output]
    for sample in dict.fromkeys(samples):
        examples = data.held_out(split, np.array([sample])).to(device)
        image, target = examples.inputs[0], examples.targets[0]
        with torch.no_grad():
            answer = output(subject.model, image[None], subject.fit)[0]
        if data.in_maps and subject.fit.logits:
            answer = answer.sigmoid()
        chosen = chosen_points(target, answer, points)
        name = f"{split} sample {sample}"
        maps = saliency(
            subject.model, subject.fit, image, chosen, window=window, stride=stride, batch=batch,
            progress=partial(_tell, progress, name),
        )  # fmt: skip
        cells = [(point[1], point[2]) if len(point) == 3 else (0, 0) for point in chosen]
        fields = tuple(field.sees(node, cell) for cell in cells)
        yield Explained(name, image, target, answer, chosen, maps, fields)


def _tell(progress: Progress, name: str, done: int, total: int) -> None:
    progress(done, total, name)
