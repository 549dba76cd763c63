"""What a user writes: reading, checking, expanding, and building the graph that it means."""

from mgcompile.spec.loading import Spec, SpecLike, load, parse_param, parse_spec, zoo_folder, zoo_names

__all__ = ["Spec", "SpecLike", "load", "parse_param", "parse_spec", "zoo_folder", "zoo_names"]
