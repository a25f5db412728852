"""Learning a potential from labels: data sets, training, uncertainty, active learning."""
