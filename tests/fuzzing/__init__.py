"""Mutated input: what makes it (`mutation`), what is done with it (`targets`), and who watches (`judging`)."""
