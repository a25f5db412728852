"""mmCIF files: the same questions as for PDB text, asked of the atom_site table."""

from __future__ import annotations

import re
from io import StringIO

from openmm.app.internal.pdbx.reader.PdbxReader import PdbxReader

from mlmm.errors import StructureError


def check_mmcif(text: str, name: str) -> str:
    """Refuse what the mmCIF reader would settle in silence.

    Returns
    -------
    str
        The space group, or an empty string.

    Raises
    ------
    StructureError
        A table that cannot be read, no atoms, several models, or alternate locations.
    """
    blocks: list = []
    try:
        PdbxReader(StringIO(text)).read(blocks)
        table = blocks[0].getObj("atom_site") if blocks else None
    except Exception as error:  # the reader raises bare Exceptions of several kinds
        raise StructureError(
            "an mmCIF file", f"{name} that cannot be read ({error})", "download it again"
        ) from error
    if table is None or table.getRowCount() == 0:
        raise StructureError("an _atom_site table", f"none in {name}", "give an mmCIF file with coordinates")

    def column(label: str) -> list[str]:
        index = table.getAttributeIndex(label)
        return [row[index] for row in table.getRowList()] if index >= 0 else []

    models = sorted(set(column("pdbx_PDB_model_num")))
    if len(models) > 1:
        raise StructureError(
            "one model",
            f"{len(models)} in {name} (pdbx_PDB_model_num {', '.join(models[:5])})",
            "keep the rows of one",
        )
    locations = sorted(set(column("label_alt_id")) - {".", "?"})
    if locations:
        raise StructureError(
            "one location per atom in an mmCIF file",
            f"alternate locations {', '.join(locations)} in {name}",
            "give the entry in PDB format, where the location with the highest occupancy is chosen",
        )
    match = re.search(r"^_symmetry\.space_group_name_H-M\s+(.+?)\s*$", text, flags=re.MULTILINE)
    return match[1].strip("'\"") if match else ""
