"""The hand-written tables, one file a kind; the order here is the order of `KINDS`."""

from moslora.data.everyday.tables.before_after import BEFORE_AFTER
from moslora.data.everyday.tables.bigger_than import BIGGER_THAN
from moslora.data.everyday.tables.colour_of import COLOUR_OF
from moslora.data.everyday.tables.does import DOES
from moslora.data.everyday.tables.found_in import FOUND_IN
from moslora.data.everyday.tables.is_a import IS_A
from moslora.data.everyday.tables.is_like import IS_LIKE
from moslora.data.everyday.tables.made_of import MADE_OF
from moslora.data.everyday.tables.opposite import OPPOSITE
from moslora.data.everyday.tables.part_of import PART_OF
from moslora.data.everyday.tables.shapes import Table
from moslora.data.everyday.tables.used_for import USED_FOR
from moslora.data.everyday.tables.who_uses import WHO_USES

TABLES: tuple[Table, ...] = (
    IS_A,
    IS_LIKE,
    DOES,
    USED_FOR,
    WHO_USES,
    FOUND_IN,
    MADE_OF,
    PART_OF,
    COLOUR_OF,
    OPPOSITE,
    BEFORE_AFTER,
    BIGGER_THAN,
)
