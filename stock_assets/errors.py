"""The one family of errors that a user may see.

Every message names the culprit (file, key, ticker, table) and says what to do about it. Errors of
programming stay what they are; only what a user can cause and mend belongs here.
"""


class StockAssetsError(Exception):
    """Base of all errors that a user can cause and mend. The message is complete by itself."""

    exit_code = 1


class SettingsError(StockAssetsError):
    """A setting is missing, malformed or contradicts another: names the file, the key, the fix."""

    exit_code = 2


class SliceError(StockAssetsError):
    """The asked days or tickers are not cells of the partitions."""

    exit_code = 2


class SourceError(StockAssetsError):
    """A market-data source could not be read at all: names the source, the file and the fix.

    Single bad rows are not errors: they go to `quarantine` with a reason.
    """

    exit_code = 3


class UnknownSymbolError(SourceError):
    """A source answers, and knows no instrument of a ticker's symbol: names both, and the fix."""


class LakeError(StockAssetsError):
    """A Delta table could not be read or written: names the table, the place and the fix."""

    exit_code = 4


class ModelError(StockAssetsError):
    """A model could not be trained, registered or loaded: names the model and the fix."""

    exit_code = 5


class NoticeError(StockAssetsError):
    """A notice could not be told or noted: names the channel or the file, and the fix."""

    exit_code = 6
