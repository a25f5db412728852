"""Systems that bring their parameters: Amber, GROMACS and CHARMM files, OpenMM Systems."""
