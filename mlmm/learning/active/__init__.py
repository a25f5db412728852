"""Active learning: explore, choose, label, train, measure, until errors on held-out labels are small."""
