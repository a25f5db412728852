"""ANI with charges that equilibrate in the potential of the surroundings."""
