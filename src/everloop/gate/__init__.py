"""Gates: the evaluator measures a model version and signs what it found."""
