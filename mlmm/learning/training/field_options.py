"""Options of training models that see the charges around; only the standard library is imported here."""

from __future__ import annotations

from dataclasses import dataclass

from mlmm.options import check_fields, documented, setting, word

__all__ = ["AMPOptions", "FieldANIOptions"]


@documented
@dataclass(frozen=True, kw_only=True)
class AMPOptions:
    """Where AMP-BMS starts from, and which of its weights are trained."""

    start: str = setting("amp-bms", "weights at the start: amp-bms, or a file that an earlier training wrote")
    trained: str = word(
        "all", ("all", "last"), "all weights, or those of the last step of messages and what reads it"
    )

    def __post_init__(self) -> None:
        check_fields(self)


@documented
@dataclass(frozen=True, kw_only=True)
class FieldANIOptions:
    """Where field-aware ANI starts from, and the networks of the field."""

    start: str = setting(
        "ani1x",
        "networks of the energy at the start: ani1x, ani1ccx, ani2x, or a file; from a file of an earlier "
        "training of this kind all networks, whose widths stay",
    )
    hidden: tuple[int, ...] = setting(
        (48, 48), "widths of the hidden layers of the field's networks", item=int
    )

    def __post_init__(self) -> None:
        check_fields(self)
