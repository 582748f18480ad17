"""What is durable of a run: what became of its blocks, who holds which, and how that is written down."""
