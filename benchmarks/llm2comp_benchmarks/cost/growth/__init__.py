"""`llm2comp bench growth`: how time and memory grow with tokens, length, memory tokens and vocabulary."""
