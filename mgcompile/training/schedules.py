"""Learning rates: each a function of the step alone, so that a training that goes on needs no state of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mgcompile.training.recipe import Recipe

__all__ = ["SCHEDULES", "learning_rate"]


def _constant(recipe: Recipe, step: int) -> float:
    return recipe.lr


def _step(recipe: Recipe, step: int) -> float:
    """The rate times `drop_factor` at each of `drops`, which are parts of all steps."""
    # In whole steps: 0.3 of 10 is step 3, whatever 0.3 * 10 is in floating point. The first step is never lowered.
    passed = sum(step >= max(round(part * recipe.steps), 1) for part in recipe.drops)
    return recipe.lr * recipe.drop_factor**passed


def _exponential(recipe: Recipe, step: int) -> float:
    """From `lr` at the first step to `final_lr` at the last, by an equal factor a step."""
    return float(recipe.lr * (recipe.final_lr / recipe.lr) ** _done(recipe, step))


def _cosine(recipe: Recipe, step: int) -> float:
    return _half_wave(recipe.lr, recipe.final_lr, _done(recipe, step))


def _one_cycle(recipe: Recipe, step: int) -> float:
    """Up from a 25th of `lr` in the part `warmup` of the steps, then down to `final_lr`, by half waves of a cosine."""
    rise = recipe.warmup * (recipe.steps - 1)
    if step < rise:
        return _half_wave(recipe.lr / 25, recipe.lr, step / rise)
    return _half_wave(recipe.lr, recipe.final_lr, (step - rise) / ((recipe.steps - 1 - rise) or 1))


def _done(recipe: Recipe, step: int) -> float:
    return step / max(recipe.steps - 1, 1)


def _half_wave(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


SCHEDULES: dict[str, Callable[[Recipe, int], float]] = {
    "constant": _constant,
    "step": _step,
    "exponential": _exponential,
    "cosine": _cosine,
    "one-cycle": _one_cycle,
}
"""What `schedule` in a recipe may be."""


def learning_rate(recipe: Recipe, step: int) -> float:
    """That of a step, 0 to `recipe.steps - 1`."""
    return SCHEDULES[recipe.schedule](recipe, step)
