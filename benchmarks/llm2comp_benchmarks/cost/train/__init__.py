"""`llm2comp bench train`: a training step of stage 1 beside a plain implementation of it."""
