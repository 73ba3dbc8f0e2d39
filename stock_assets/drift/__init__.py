"""Drift: how far each ticker's latest sessions have moved from those before.

`distances` has the numbers, `verdict` what they mean for the universe (the one place for that),
`pages` where a day's page is saved, `reports` how Evidently draws it. All are pure functions of
`features`; who runs them and what a verdict sets off is in `assets` and `automation`.
"""
