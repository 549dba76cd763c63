"""Tasks that networks are trained for: a file for each kind of data. A new task is a class there and a line here."""

from __future__ import annotations

from mgcompile.training.tasks.base import ClassData, Data, Examples, HeldOut, Identity, MapData, Settings, Task
from mgcompile.training.tasks.cifar import CIFAR_TASKS
from mgcompile.training.tasks.digits import DIGIT_TASKS
from mgcompile.training.tasks.folders import FOLDER_TASKS

__all__ = ["TASKS", "ClassData", "Data", "Examples", "HeldOut", "Identity", "MapData", "Settings", "Task"]

TASKS: dict[str, Task] = {task.name: task for task in (*DIGIT_TASKS, *CIFAR_TASKS, *FOLDER_TASKS)}
"""All tasks by name."""
