"""Structure files: PDB and mmCIF text read, checked, and turned into atom records."""
