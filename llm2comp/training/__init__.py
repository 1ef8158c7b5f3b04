"""Training: pretraining of small backbones, compression (stage 1), contrastive learning (stages 2 and 3), recipes."""
