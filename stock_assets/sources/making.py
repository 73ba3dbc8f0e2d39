"""Making a source by its name in the settings. What each kind does is its own module's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stock_assets.errors import SettingsError
from stock_assets.settings import (
    CbrSettings,
    FilesSettings,
    MoexSettings,
    SimulatedSettings,
    TInvestSettings,
)
from stock_assets.sources.cbr import CbrSource
from stock_assets.sources.files import FilesSource
from stock_assets.sources.moex import MoexSource
from stock_assets.sources.simulated import SimulatedSource
from stock_assets.sources.tinvest import TInvestSource

if TYPE_CHECKING:
    from stock_assets.settings import Settings
    from stock_assets.sources.base import Source

_APIS: dict[type, Any] = {
    MoexSettings: MoexSource,
    TInvestSettings: TInvestSource,
    CbrSettings: CbrSource,
}


def make_source(name: str, settings: Settings, *, resume: bool = True) -> Source:
    """The source called `name` in the settings. Raises `SettingsError` when there is none.

    With `resume` an API's answers may come from a run that died; without, all is asked anew.
    """
    found = settings.sources.get(name)
    if isinstance(found, SimulatedSettings):
        return SimulatedSource(name, found)
    if isinstance(found, FilesSettings):
        return FilesSource(name, found, settings)
    if found is not None:
        made: Source = _APIS[type(found)](name, found, settings, resume=resume)
        return made
    message = f"there is no source {name!r}; the settings define {sorted(settings.sources)}"
    raise SettingsError(message)
