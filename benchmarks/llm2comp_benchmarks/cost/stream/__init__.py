"""A long stream of texts through `llm2comp index build`, killed half-way: memory, and the cost of the kill."""
