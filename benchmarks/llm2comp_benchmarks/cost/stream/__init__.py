"""A long stream of texts through `index build`, killed half-way: memory, and what the kill cost."""
