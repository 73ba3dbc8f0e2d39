"""What the model is compared to: known ways of forecasting, each a `Method`, by name.

One module a method (or a family). What they share is in `scale.py`, `calibration.py` and the
features; which of them a comparison shows, and what it says of them, is the comparison's affair.
The baseline that the product falls back on is `baseline.py`, here under the name `ewma`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stock_assets.forecasting.baselines.ewma import Ewma, EwmaGaussian
from stock_assets.forecasting.baselines.garch import Garch
from stock_assets.forecasting.baselines.har import Har
from stock_assets.forecasting.baselines.regressions import LINEAR, RANDOM_FOREST
from stock_assets.forecasting.baselines.series import AutoEtsMethod, ProphetMethod

if TYPE_CHECKING:
    from stock_assets.forecasting.forecaster import Method

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        EwmaGaussian(),
        Ewma(),
        Garch(),
        Har(),
        LINEAR,
        RANDOM_FOREST,
        ProphetMethod(),
        AutoEtsMethod(),
    )
}
"""Every method by its name, in the order in which tables show them."""

OPTIONAL = ("prophet", "autoets")
"""Those of the extra `compare`: slow, and shown only when they are asked for."""
