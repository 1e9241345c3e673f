"""All tables: which recipes they hold, what the paper says of each, and what is compared with what."""

from studies.tables import other, paper, small
from studies.tables.types import Contrast, Row, Table

TABLES: dict[str, Table] = {table.name: table for module in (paper, small, other) for table in module.tables()}


def tables_of(recipe: str) -> list[tuple[Table, Row]]:
    """The tables, and the row in each, that show a recipe."""
    return [(table, row) for table in TABLES.values() for row in table.rows if row.recipe == recipe]


__all__ = ['TABLES', 'Contrast', 'Row', 'Table', 'tables_of']
