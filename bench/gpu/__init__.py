"""The proof on a card: `python -m lipstream.bench.gpu -o DIR`. See docs/gpu.md."""
