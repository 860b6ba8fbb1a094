"""One run: build → loop → evaluate → checkpoint → run folder."""
