"""Zones: which atoms belong to the machine-learned potential, and with which weight lambda."""
