"""The force field on the side of OpenMM: its terms as tables, removed or scaled."""
