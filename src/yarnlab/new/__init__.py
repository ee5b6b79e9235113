"""`yarnlab new`: a study that extends a model, from the model's own config.json and some text."""
