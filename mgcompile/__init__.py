"""mgcompile: a declarative compiler for multi-scale neural networks."""
