"""examples -> scores and weights: encoder, models, optimizers, replay."""
