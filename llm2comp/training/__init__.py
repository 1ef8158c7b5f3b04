"""Training: pretraining of small backbones, compression (stage 1), contrastive learning (stages 2 and 3), recipes.

Also the training pairs derived from raw text (`pairs`). Imports `llm2comp.model` and what lies below it.
"""
