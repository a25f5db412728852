"""Force field and potential joined into one OpenMM System: the only place where both sides meet."""
