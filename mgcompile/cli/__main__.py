"""`python -m mgcompile.cli`."""

from mgcompile.cli import main

main(prog_name="mgcompile")
