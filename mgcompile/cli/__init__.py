"""The command line. Specs are files, names of the zoo, or `-` for standard input.

Exit status: 0; 1 where something fails that is no fault of the input; 2 where a spec or the command itself is wrong;
130 where it was interrupted.
"""

TYPE_CHECKING = False  # that of `typing` would be the first of the imports that an interrupt finds unprotected
if TYPE_CHECKING:
    from mgcompile.cli.commands import main

__all__ = ["main"]


def __getattr__(name: str) -> object:
    if name != "main":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from mgcompile.cli.interrupts import quiet_interrupts

        with quiet_interrupts():
            from mgcompile.cli.commands import main
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    globals()["main"] = main
    return main
