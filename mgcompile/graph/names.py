"""What the parts of a graph may be called. Names become code: attributes of the model, variables, keys.

A name is a dotted path, `stage2.0.conv1.level0`. Its parts hold ASCII letters, digits, `_` and `-` alone, so that none
can end the text it stands in; and no part may be a word that Python or PyTorch needs for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from keyword import iskeyword

__all__ = ["MODEL_WORDS", "MODULE_WORDS", "clashes", "path_fault", "reserved"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODULE_WORDS = _words(
    """
    T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double
    dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu
    load_state_dict modules mtia named_buffers named_children named_modules named_parameters parameters
    register_backward_hook register_buffer register_forward_hook register_forward_pre_hook
    register_full_backward_hook register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter register_state_dict_post_hook
    register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule share_memory state_dict to
    to_empty train training type xpu zero_grad _apply _backward_hooks _backward_pre_hooks _buffers _call_impl
    _compiled_call_impl _forward_hooks _forward_hooks_always_called _forward_hooks_with_kwargs
    _forward_pre_hooks _forward_pre_hooks_with_kwargs _get_backward_hooks _get_backward_pre_hooks _get_name
    _is_full_backward_hook _load_from_state_dict _load_state_dict_post_hooks _load_state_dict_pre_hooks
    _maybe_warn_non_full_backward_hook _modules _named_members _non_persistent_buffers_set _parameters
    _register_load_state_dict_pre_hook _register_state_dict_hook _replicate_for_data_parallel
    _save_to_state_dict _slow_forward _state_dict_hooks _state_dict_pre_hooks _version _wrapped_call_impl
    """
)
"""What an `nn.Module` has. Written down, for a spec is checked without torch; a test holds it against torch's own."""

MODEL_WORDS = MODULE_WORDS | _words(
    """
    add_submodule code delete_all_unused_submodules delete_submodule graph meta print_readable recompile
    shape_env to_folder _boxed_call _code _create_node_hooks _deepcopy_hooks _deepcopy_init _erase_node_hooks
    _graph _lineno_map _prologue_start _recompile_submodules _register_create_node_hook _register_deepcopy_hook
    _register_erase_node_hook _register_replace_node_hook _replace_hooks _set_replace_hook _tracer_cls
    _tracer_extras _unregister_create_node_hook _unregister_deepcopy_hook _unregister_erase_node_hook
    _unregister_replace_node_hook _wrapped_call opaque place
    """
)
"""What a whole model has: a `torch.fx.GraphModule`, with what `lowering` adds to it and to its exported source."""

MOST_LENGTH = 10_000
_PART = re.compile(r"[A-Za-z0-9_-]{1,100}")


@lru_cache(maxsize=4096)
def reserved(part: str, *, first: bool) -> bool:
    """Whether a part of a name is a word of Python's or PyTorch's; the first part is an attribute of the model itself.

    Two underscores at the beginning are Python's: within a class it reads such a name as another one.

    >>> reserved("half", first=False), reserved("graph", first=True), reserved("graph", first=False)
    (True, True, False)
    """
    return iskeyword(part) or part.startswith("__") or part in (MODEL_WORDS if first else MODULE_WORDS)


def path_fault(name: object) -> str:
    """What keeps a text from being a dotted path of plain names; empty where nothing does.

    >>> path_fault("stage2.0.conv1"), path_fault('a", None) or f("')
    ('', 'expected a dotted path of letters, digits, _ and -')
    """
    if not isinstance(name, str) or len(name) > MOST_LENGTH or not all(map(_PART.fullmatch, name.split("."))):
        return "expected a dotted path of letters, digits, _ and -"
    return ""


def clashes(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each name of weights with the one that it lies within: a module of its own holds no others."""
    owned = set(names)
    for name in owned:
        parts = name.split(".")
        yield from ((name, outer) for end in range(1, len(parts)) if (outer := ".".join(parts[:end])) in owned)
