"""Free-energy compensation G(lambda) of adaptive zones: calibrated, refined, verified."""
