"""The command that says how good a trained network is: evaluate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from mgcompile.cli.console import command, format_option, output_file, output_option, page, put, say, table_format
from mgcompile.cli.progress import progress_bar

if TYPE_CHECKING:
    import torch

    from mgcompile.training.evaluation import Evaluation
    from mgcompile.training.subject import Subject
    from mgcompile.training.tasks import Data, HeldOut

__all__ = ["checked", "evaluate_", "evaluation_text", "png_file", "split_of", "subject_options", "tell"]

MOST_SAMPLES = 10_000_000
MEANINGS: Mapping[str, str] = {
    "iou": "iou: TP / (TP + FP + FN) of each map that is not empty, at probability 0.5; the mean, in per cent",
    "error": "error: 100 less the mean of TP / (TP + FN), in per cent",
    "top1_error": "top1_error: samples whose class is not the first, in per cent",
    "top5_error": "top5_error: samples whose class is not among the first five, in per cent",
}
PICTURES = 16


def png_file(ctx: click.Context, param: click.Parameter, path: str | None) -> str | None:
    """Refuse before any work what is no name of a PNG file, or cannot be written."""
    if path is not None and not path.lower().endswith(".png"):
        raise click.BadParameter(f"{path}: expected a name that ends in .png", ctx, param)
    return output_file(ctx, param, path)


def subject_options(function: Callable[..., None]) -> Callable[..., None]:
    """MODEL, the task, and where its data are and what they are to be like."""
    side = click.IntRange(1, 4096)
    options = (
        click.argument("model", metavar="MODEL"),
        click.option("--task", metavar="TASK", help="Default: that of the recipe in the folder of a training."),
        click.option("--data", metavar="FOLDER", required=True, help="Where the task's data are."),
        click.option("--split", type=click.Choice(["test", "validation"]), default="test", show_default=True),
        click.option("--size", type=side, help="Side of the input in pixels. Default: the recipe's, else the paper's."),
        click.option("--digit", type=click.IntRange(1, 28), help="Side of MNIST's digits, a divisor of 28."),
        click.option("--some-classes", is_flag=True, help="The data may lack classes that the network was trained on."),
        click.option("--resize", type=side, help="Side to which pictures are brought before they are cropped."),
        click.option(
            "--device", type=click.Choice(["auto", "cpu"]), default="auto", help="Default: a GPU where there is one."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def split_of(subject: Subject, split: HeldOut) -> int:
    """How many samples a split has; one without any is refused."""
    count = subject.data.samples(split)
    if not count:
        raise click.UsageError(f"{subject.task} has no {split} set; --split {subject.data.selection}")
    return count


def tell(lines: Iterable[str]) -> None:
    """Say lines, each once."""
    for line in dict.fromkeys(lines):
        say(line)


def checked(data: Data, *, decode: bool) -> None:
    """Say what was found where data lie, and look at it before anything takes long. Of several processes, the first
    does. Raises `DataError` that lists what is wrong.
    """
    from mgcompile.training.processes import is_first

    if not is_first():
        return
    tell(data.found)
    with progress_bar() as progress:
        what = "decoding pictures" if decode else "looking at the headers of pictures"
        looked = data.check(decode=decode, progress=lambda done, total: progress(done, total, what))
    if looked:
        say(looked)


@command(
    "evaluate",
    "evaluate runs/spatial --data ~/mnist",
    "evaluate network.safetensors --task mnist-translation --data ~/mnist --size 24 --digit 7 --pictures answers.png",
    "evaluate runs/first --data ~/cifar --crops 10 --format json -o figures.json",
)
@subject_options
@click.option("--crops", type=click.Choice(["1", "10"]), default="1", show_default=True, help="Of a picture.")
@click.option("--samples", type=click.IntRange(1, MOST_SAMPLES), help="So many, at equal distances. Default: all.")
@click.option("--batch", type=click.IntRange(1, 65536), default=64, show_default=True, help="Samples at once.")
@click.option("--pictures", metavar="FILE", callback=png_file, help=f"A .png of {PICTURES} samples and answers.")
@format_option
@output_option
def evaluate_(
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
    crops: str,
    samples: int | None,
    batch: int,
    pictures: str | None,
    format: str | None,
    output: str | None,
) -> None:
    """The loss and the score of a trained network on samples that it was not trained on.

    MODEL is a .safetensors file with its spec in it, or the folder of a training, whose recipe then says what flags do
    not. Of several crops of a picture the probabilities are averaged.
    """
    from mgcompile.training.evaluation import baseline, evaluate
    from mgcompile.training.processes import accelerator_for
    from mgcompile.training.subject import open_subject

    accelerator = accelerator_for(None if device == "auto" else device)
    options = {"size": size, "digit": digit, "resize": resize}
    subject = open_subject(
        model, data, task=task, options=options, some_classes=some_classes, device=accelerator.device
    )
    if accelerator.is_main_process:
        tell((*subject.notes, *subject.data.found))
    count = min(split_of(subject, split), samples or MOST_SAMPLES)
    if int(crops) not in subject.data.crops:
        takes = ", ".join(map(str, subject.data.crops))
        raise click.BadParameter(f"{subject.task} has no {crops} crops; expected {takes}", param_hint="--crops")
    found = evaluate(
        subject.model,
        subject.data,
        subject.fit,
        split,
        accelerator=accelerator,
        limit=count,
        batch=batch,
        crops=int(crops),
    )
    if not accelerator.is_main_process:
        return
    if pictures:
        from mgcompile.drawing import write_file

        write_file(pictures, _picture(subject, split, min(count, PICTURES), int(crops), accelerator.device))
        say(f"wrote {pictures}")  # standard output is for the figures
    text = evaluation_text(
        subject.spec.graph.name,
        subject.task,
        subject.data,
        found,
        baseline(subject.data, split, limit=count),
        crops=int(crops),
        format=table_format(format, output),
        look=page(output),
    )
    put(text, output)


def _picture(subject: Subject, split: HeldOut, count: int, crops: int, device: torch.device) -> bytes:
    import torch

    from mgcompile.training.evaluation import answer
    from mgcompile.training.feeding import spread
    from mgcompile.training.sheet import as_png, predictions

    samples = spread(subject.data.samples(split), count)
    examples = subject.data.held_out(split, samples, crops)
    with torch.no_grad():
        outputs, logits = answer(subject.model, examples.to(device), subject.fit)
    return as_png(predictions(subject.data, examples, outputs, logits=logits))


def evaluation_text(
    network: str,
    task: str,
    data: Data,
    found: Evaluation,
    constant: Evaluation,
    *,
    crops: int,
    format: str,
    look: Mapping[str, Any],
) -> str:
    """What an evaluation found, beside what `baseline` found, as a table, JSON, CSV or Markdown."""
    from mgcompile.analysis import tables

    figures, constants = {"loss": found.loss, **found.metrics}, {"loss": constant.loss, **constant.metrics}
    record: dict[str, Any] = {
        "network": network,
        "task": task,
        "size": data.size,
        "split": found.split,
        "samples": found.samples,
        **({"crops": crops} if len(data.crops) > 1 else {}),
    }
    notes = [
        "loss: the mean over the samples",
        *(MEANINGS[name] for name in found.metrics if name in MEANINGS),
        "baseline: of the one answer to all samples that has the least loss, the mean of their targets",
    ]
    if format == "json":
        meanings = dict(note.split(": ", 1) for note in notes)
        return tables.as_json({"conventions": meanings, **record, **_finite(figures), "baseline": _finite(constants)})
    if format == "csv":
        columns = [column for name in figures for column in (name, f"{name}_baseline")]
        values = [str(value) for name in figures for value in (figures[name], constants[name])]
        return tables.as_csv((*record, *columns), [(*record.values(), *values)])
    title = ", ".join([network, task, *(f"{name} {value}" for name, value in list(record.items())[2:])])
    rows = tuple(
        (name, *(f"{value[name]:.5g}" if name == "loss" else f"{value[name]:.2f}" for value in (figures, constants)))
        for name in figures
    )
    sheet = tables.Sheet(title, ("figure", network, "baseline"), rows, tuple(notes), frozenset({"figure"}))
    return tables.as_markdown([sheet]) if format == "markdown" else tables.as_text([sheet], **look)


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    """For JSON, which has no nan."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
