"""From labelled images to a model file: the estimator, and one run from its folder to its judged model."""
