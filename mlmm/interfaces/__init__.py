"""The hybrid system in other programs' terms."""
