"""AMP-BMS: a message-passing potential for charged biomolecules in the field of point charges."""
