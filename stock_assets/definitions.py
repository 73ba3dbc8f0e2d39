"""The one entry that Dagster loads: settings in, the whole graph out.

Nothing is decided here; each part is built by the module that owns it.
"""

import dagster as dg

from stock_assets.graph import build_definitions
from stock_assets.settings import load_settings


@dg.definitions
def definitions() -> dg.Definitions:
    """Definitions for the settings that STOCK_ASSETS_SETTINGS names, else the sample market."""
    return build_definitions(load_settings())
