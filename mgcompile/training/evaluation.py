"""How good a network is on samples that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mgcompile.training.feeding import Place, held_out_batches, spread
from mgcompile.training.fitting import Fit
from mgcompile.training.metrics import Score
from mgcompile.training.stopping import Asked
from mgcompile.training.tasks import Data, Examples, HeldOut

__all__ = ["Evaluation", "answer", "baseline", "evaluate", "output", "place_of"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The mean loss over so many samples of a split, and the score."""

    split: HeldOut
    samples: int
    loss: float
    score: Score

    @property
    def metrics(self) -> Mapping[str, float]:
        """In per cent, by name."""
        return self.score.metrics


def evaluate(
    model: nn.Module,
    data: Data,
    fit: Fit,
    split: HeldOut,
    *,
    accelerator: Accelerator,
    limit: int,
    batch: int,
    crops: int = 1,
    workers: int = 0,
    asked: Asked | None = None,
) -> Evaluation:
    """The model, in evaluation mode, on `limit` samples of a split, spread over it; fewer where it was asked to stop.

    All processes take a part each and all are told the whole. Of several crops of a picture, the probabilities are
    averaged. The loss is rounded to multiples of 2^-32 of a sample's, so that it does not depend on the processes.
    """
    training = model.training
    model.eval()
    score, total, samples = data.empty_score(), 0.0, 0
    try:
        with torch.no_grad():
            for cpu in held_out_batches(
                data, split, place_of(accelerator), limit=limit, batch=batch, crops=crops, workers=workers
            ):
                if asked:
                    break
                examples = cpu.to(accelerator.device)
                outputs, logits = answer(model, examples, fit)
                score = score + data.score(outputs, examples.targets, logits=logits)
                total += _total_loss(data, outputs, examples, logits)
                samples += len(examples)
    finally:
        model.train(training)
    sums = torch.tensor([samples, total, *astuple(score)], dtype=torch.float64)
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums.to(accelerator.device), "sum").cpu()
    count, loss, *rest = sums.tolist()
    whole = type(score)(*(type(old)(new) for old, new in zip(astuple(score), rest, strict=True)))
    return Evaluation(split, int(count), loss / count if count else math.nan, whole)


BASELINE_BATCH = 256


def baseline(data: Data, split: HeldOut, *, limit: int) -> Evaluation:
    """The best answer in the loss that does not look at the image, on `limit` samples of a split, spread over it.

    It is the mean of these very targets: of maps pixel by pixel, of classes their shares. No network that ignores the
    image has less loss on them, and one that has no less has learnt nothing of them. Raises `DataError`.
    """
    samples = spread(data.samples(split), limit)
    parts = [samples[at : at + BASELINE_BATCH] for at in range(0, len(samples), BASELINE_BATCH)]
    if not parts:
        return Evaluation(split, 0, math.nan, data.empty_score())
    sums = (data.probabilities(data.targets(split, part)).sum(0, dtype=torch.float64) for part in parts)
    mean = (torch.stack(tuple(sums)).sum(0) / len(samples)).float()
    loss, score = 0.0, data.empty_score()
    for part in parts:
        targets = data.targets(split, part)
        outputs = mean.expand(len(part), *mean.shape)
        loss += float(data.loss(outputs, targets, logits=False)) * len(part)
        score = score + data.score(outputs, targets, logits=False)
    return Evaluation(split, len(samples), loss / len(samples), score)


def _total_loss(data: Data, outputs: Tensor, examples: Examples, logits: bool) -> float:
    """The sum of the samples' losses, in multiples of 2^-32."""
    losses = [
        float(data.loss(outputs[row : row + 1], examples.targets[row : row + 1], logits=logits))
        for row in range(len(examples))
    ]
    return sum(round(loss * 2**32) / 2**32 if math.isfinite(loss) else loss for loss in losses)


def answer(model: nn.Module, examples: Examples, fit: Fit) -> tuple[Tensor, bool]:
    """What a network returns for examples, with or without crops, and whether these are logits."""
    inputs = examples.inputs
    if inputs.ndim == 4:
        return output(model, inputs, fit), fit.logits
    count, crops = inputs.shape[:2]
    outputs = output(model, inputs.flatten(0, 1), fit)
    probabilities = outputs.softmax(1) if fit.logits else outputs
    return probabilities.view(count, crops, -1).mean(1), False


def output(model: nn.Module, inputs: Tensor, fit: Fit) -> Tensor:
    """The output of the task, of a network with one or several."""
    found = model(inputs)
    chosen: Tensor = found[fit.output] if isinstance(found, dict) else found
    return chosen


def place_of(accelerator: Accelerator) -> Place:
    """Which of the processes this one is."""
    return Place(accelerator.process_index, accelerator.num_processes)
