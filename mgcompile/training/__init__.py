"""Training on the paper's tasks: data, tasks, metrics."""
