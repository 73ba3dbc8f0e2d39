"""The decision of each day: train, or carry on with the model in force; and why.

A pure function of the rows of earlier days, what people ordered, what drift says, and features
and bars up to the day before: a year replayed at once decides what a year of evenings decided.
What the model is is in `model.py`, whether a challenger passes in `gate.py`, how an order comes
about in `orders.py`, what a training is called by in `fingerprint.py`, where models are kept in
`registry.py`.
"""

from __future__ import annotations

import bisect
import datetime as dt
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from stock_assets.calendars import union_sessions
from stock_assets.forecasting.baseline import BASELINE, baseline_forecasts, lookback_start
from stock_assets.forecasting.fingerprint import fingerprint
from stock_assets.forecasting.forecaster import Known
from stock_assets.forecasting.gate import (
    BASELINE_LOSS,
    CHALLENGER,
    IN_FORCE,
    RULES,
    Verdict,
    judge,
    pinball_losses,
)
from stock_assets.forecasting.in_force import History, InForce, ordered_states
from stock_assets.forecasting.labels import labels
from stock_assets.forecasting.leak_alarm import sound
from stock_assets.forecasting.model import (
    fit,
    importance,
    model_inputs,
    trainable,
)
from stock_assets.forecasting.orders import order_words
from stock_assets.forecasting.registry import Registered, Registry, TrainingRecord
from stock_assets.forecasting.splitting import Split, split
from stock_assets.forecasting.training_report import measures, report
from stock_assets.lake.schemas import Models

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from stock_assets.drift.verdict import Signal
    from stock_assets.settings import Settings

    LoadTrainingData = Callable[[dt.date, dt.date], tuple[pl.DataFrame, pl.DataFrame]]
    """(first day, last day) -> features and bars of all tickers the lake holds."""
    LoadSignals = Callable[[dt.date, dt.date], Mapping[dt.date, Signal]]
    """(first day, last day) -> what the markets said on those days."""

_FORCED = "forced"
_PERFORMANCE = re.compile(r"performance \([^()]*\)")

CATCH_UP = 63
"""Sessions up to the newest that are looked at for a training that was missed: a quarter."""

CHAMPION_ALIAS, CHALLENGER_ALIAS = "champion", "challenger"


@dataclass(frozen=True)
class Attempt:
    """One training that a slice asked for."""

    day: dt.date
    model_id: str
    accepted: bool
    reason: str
    reused: bool
    """Whether the registry had it already, so that nothing was fitted."""
    seconds: float


@dataclass(frozen=True)
class DecisionResult:
    """Rows of `Models` for the cells asked, and the trainings behind them."""

    rows: pl.DataFrame
    attempts: tuple[Attempt, ...]

    @property
    def last_day(self) -> dt.date | None:
        """The last day decided."""
        last = self.rows["day"].max()
        return last if isinstance(last, dt.date) else None

    @property
    def aliases(self) -> dict[str, str | None]:
        """What the registry's aliases should point at once the rows are in the lake.

        Nothing where nothing was tried or ordered: carrying on moves no alias, and then needs no
        registry. None takes the title away: no model is the champion while the baseline serves.
        """
        found: dict[str, str | None] = {}
        if self.attempts or "ordered" in self.rows["decision"]:
            last = self.rows.sort("day", "ticker")["model"][-1]
            found[CHAMPION_ALIAS] = None if last == BASELINE else str(last)
        if self.attempts:
            found[CHALLENGER_ALIAS] = self.attempts[-1].model_id
        return found


def decide(  # noqa: PLR0913, PLR0917
    cells: pl.DataFrame,
    known: pl.DataFrame,
    drift: Mapping[dt.date, Signal],
    training_data: LoadTrainingData,
    registry: Registry,
    settings: Settings,
    *,
    orders: pl.DataFrame | None = None,
    forced: Mapping[dt.date, str] | None = None,
    lake_versions: Mapping[str, int] | None = None,
) -> DecisionResult:
    """Decide every (day, ticker) of `cells`, in the order of the days.

    `known` are rows of `Models` from the lake: the latest before the slice of every ticker, and
    those of other tickers within it; rows of `cells` themselves are ignored, so that a rerun does
    not see its own past. `drift` is what the markets say by day (`drift.verdict.signals`).
    `training_data` is called at most once, with the days a training of this slice may look at.
    `orders` are all rows of `Orders`; on the day from which one counts, what it says is in force
    and no training is tried. On days in `forced` training is tried whatever is due, for its reason.

    A model that this code cannot serve (`Registry.unfit`) is not carried on: a training is tried as
    if there were none.

    Nothing dated later than a day reaches its decision; a training looks at labels that ended
    before the day, so that it is the same before and after another exchange's close that evening.
    A day once forced stays so in later replays, if `forced_days` of its old rows are handed in.
    """
    trainer = _Trainer(training_data, registry, settings, lake_versions or {}, _last_day(cells))
    others = known.join(cells, on=["day", "ticker"], how="anti")
    walk = _Walk(trainer, others, orders, settings)
    rows: list[dict[str, Any]] = []
    days = cells.select("day", "ticker").unique().sort("day", "ticker")
    for (day,), own in days.group_by("day", maintain_order=True):
        assert isinstance(day, dt.date)
        rows += walk.day(day, own["ticker"].to_list(), drift.get(day), (forced or {}).get(day))
    version = (lake_versions or {}).get("features")
    schema = Models.create_empty().schema
    frame = pl.DataFrame(rows, schema={k: v for k, v in schema.items() if k != "features_version"})
    return DecisionResult(
        frame.with_columns(pl.lit(version, pl.Int64).alias("features_version"))
        .select(Models.column_names())
        .sort("day", "ticker"),
        tuple(trainer.attempts),
    )


def forced_days(models: pl.DataFrame) -> dict[dt.date, str]:
    """Days on which, as rows of `Models` say, a training was tried that nothing here calls for.

    With the reason: somebody forced it, or live scores did, which come after the decision.
    """
    pattern = rf"(?:^|; )({_FORCED}|{_PERFORMANCE.pattern})[:,]"
    found = models.select("day", pl.col("reason").str.extract(pattern)).drop_nulls().unique("day")
    return dict(found.iter_rows())


def forced_words(value: str) -> str:
    """The reason of a training that somebody asked for, from the value of the run's tag."""
    return value if _PERFORMANCE.fullmatch(value) else _FORCED


def performance_words(failures: str) -> str:
    """The reason of a training that live scores call for, such as `forced_days` knows again."""
    return f"performance ({failures.translate(str.maketrans('()', '[]'))})"


def rested(day: dt.date, known: pl.DataFrame, settings: Settings) -> bool:
    """Whether `day` is not decided yet and the cooldown since the last attempt has passed.

    `known` as for `training_due`.
    """
    if known.is_empty() or known.filter(pl.col("day") == day).height:
        return False
    attempted = known["attempted_day"].max()
    waited = _waited(day, InForce(attempted_day=attempted), settings)  # type: ignore[arg-type]
    return waited is not None and waited > settings.forecast.cooldown


def training_due(  # noqa: PLR0913
    day: dt.date,
    known: pl.DataFrame,
    drift: Signal | None,
    settings: Settings,
    orders: pl.DataFrame | None = None,
    *,
    unfit: Collection[str] = (),
) -> str | None:
    """Why `day` is to be decided at its close; None when the model in force is carried on.

    `known` are each ticker's latest rows of `Models` up to `day`, `orders` all rows of `Orders`,
    `unfit` the models that this code cannot serve. A training would be tried, or an order is not in
    `known` yet. A day that has been decided is not due again but for an order given since.
    """
    return _due(
        day, known, _latest(known, settings), drift, settings, ordered_states(orders), unfit
    )


def _latest(known: pl.DataFrame, settings: Settings) -> InForce:
    """What is in force after the decisions of `known`."""
    history = History()
    for row in known.sort("day", "ticker").iter_rows(named=True):
        history.record(row["ticker"], InForce.of_row(row))
    return history.state(settings.tickers[0])


def _due(  # noqa: PLR0913, PLR0917
    day: dt.date,
    known: pl.DataFrame,
    latest: InForce,
    drift: Signal | None,
    settings: Settings,
    ordered: Mapping[dt.date, InForce],
    unfit: Collection[str],
) -> str | None:
    """`training_due`, where what is in force has been found out: once for many days."""
    orders = [
        state for begin, state in ordered.items() if begin <= day and state.model not in unfit
    ]
    if orders and not (known["attempted_day"] >= orders[-1].attempted_day).any():
        return f"{orders[-1].model} was ordered from {orders[-1].attempted_day} on"
    if (known["day"] == day).any():
        return None
    return _trigger(day, InForce() if latest.model in unfit else latest, drift, settings)


def trainings_due(  # noqa: PLR0913
    newest: dt.date,
    known: pl.DataFrame,
    signals_of: LoadSignals,
    settings: Settings,
    orders: pl.DataFrame | None = None,
    *,
    unfit: Collection[str] = (),
) -> dict[dt.date, str]:
    """The days since the last decision, up to `newest`, on which a training is due; and why.

    `known` as for `training_due` of `newest`. Each day is judged by what was decided before all of
    them: on the first, `decide` over the days from there on tries a training too. Not looked at
    are days more than `CATCH_UP` sessions back: where a training has been due since before these,
    or nothing was ever decided, only `newest` is named. Nor is a model that this code cannot serve
    missed before `newest`: it could be served then.
    """
    sessions = union_sessions(settings.exchanges)
    decided = known["day"].max()
    end = bisect.bisect_left(sessions, newest)
    begin = end if decided is None else bisect.bisect_right(sessions, decided)
    first = max(begin, end + 1 - CATCH_UP)
    days = (*sessions[first:end], newest)
    drift = signals_of(days[0], newest)
    latest, ordered = _latest(known, settings), ordered_states(orders)
    reasons = {
        day: _due(
            day,
            known,
            latest,
            drift.get(day),
            settings,
            ordered,
            unfit if day == newest else (),
        )
        for day in days
    }
    found = {day: why for day, why in reasons.items() if why is not None}
    if begin < first and days[0] in found:
        return {day: why for day, why in found.items() if day == newest}
    return found


def _last_day(cells: pl.DataFrame) -> dt.date:
    last = cells["day"].max()
    return last if isinstance(last, dt.date) else dt.date.min


class _Walk:
    """The state of the decision as the days go by."""

    def __init__(
        self,
        trainer: _Trainer,
        known: pl.DataFrame,
        orders: pl.DataFrame | None,
        settings: Settings,
    ) -> None:
        self.trainer = trainer
        self.settings = settings
        self.ordered = ordered_states(orders)
        self.order_words = order_words(orders)
        self.history = History(self.ordered)
        self.unfit = trainer.registry.unfit()
        self.others = known.sort("day", "ticker").to_dicts()
        self.others_of: dict[dt.date, list[dict[str, Any]]] = {}
        for row in self.others:
            self.others_of.setdefault(row["day"], []).append(row)
        self.place = 0

    def day(
        self,
        day: dt.date,
        tickers: Sequence[str],
        drift: Signal | None,
        forced: str | None,
    ) -> list[dict[str, Any]]:
        """The rows of one day."""
        self._record_others(lambda row: row["day"] < day)
        self.history.reach(day)
        order = self.ordered.get(day)
        if order is not None:
            reason = self.order_words[day]
            if forced:
                reason += "; the forced training was not tried"
            if order.model in self.unfit:
                row = self._kept(InForce(), f"{reason}; but {self._unfit(order)}")
            else:
                row = _row(order, decision="ordered", reason=reason)
            rows: dict[str, dict[str, Any]] | None = dict.fromkeys(tickers, row)
        else:
            rows = self._copied(self.others_of.get(day, []), tickers)
        if rows is None:
            states = {ticker: self.history.state(ticker) for ticker in tickers}
            decided = {
                state: self._decision(day, state, drift, forced=forced)
                for state in dict.fromkeys(states.values())
            }
            rows = {ticker: decided[state] for ticker, state in states.items()}
        complete = [
            {**row, "day": day, "ticker": ticker, "drift_share": drift.share if drift else None}
            for ticker, row in rows.items()
        ]
        for row in complete:
            self.history.record(row["ticker"], InForce.of_row(row))
        return complete

    def _record_others(self, earlier: Callable[[dict[str, Any]], bool]) -> None:
        while self.place < len(self.others) and earlier(self.others[self.place]):
            row = self.others[self.place]
            self.history.record(row["ticker"], InForce.of_row(row))
            self.place += 1

    def _copied(
        self, same_day: list[dict[str, Any]], tickers: Sequence[str]
    ) -> dict[str, dict[str, Any]] | None:
        """The outcome of a training that another run tried on this day, if it covers `tickers`."""
        for row in same_day:
            if row["challenger"] is None or row["model"] in self.unfit:
                continue
            found = self.trainer.registry.find(row["challenger"])
            if found is not None and set(tickers) <= set(found.record.tickers):
                return dict.fromkeys(tickers, row)
        return None

    def _decision(
        self, day: dt.date, state: InForce, drift: Signal | None, *, forced: str | None
    ) -> dict[str, Any]:
        """A row without its cell: what is in force after `day` for all whose state is `state`."""
        lost = ""
        if state.model in self.unfit:
            lost, state = f"{self._unfit(state)}; ", InForce()
        why = forced or _trigger(day, state, drift, self.settings)
        if why is None:
            return self._kept(state, self._waiting(day, state))
        why = lost + why
        attempt = self.trainer.attempt(day, state, why)
        if isinstance(attempt, str):
            return self._kept(state, f"{why}, but {attempt}")
        record = attempt.record
        after = InForce(state.model, state.model_version, state.trained_day, day)
        if record.verdict.accepted:
            after = InForce(record.model_id, attempt.version, day, day)
        elif record.verdict.demoted:
            after = InForce(attempted_day=day)
        return _row(
            after,
            decision=record.verdict.decision,
            reason=f"{why}: {record.verdict.reason}",
            challenger=record.model_id,
            verdict=record.verdict,
        )

    def _unfit(self, state: InForce) -> str:
        return f"{state.model} {self.unfit[state.model]}"

    def _waiting(self, day: dt.date, state: InForce) -> str:
        forecast, waited = self.settings.forecast, _waited(day, state, self.settings)
        assert waited is not None
        due = forecast.cadence
        # An order and the attempts after it are told apart by their days: it counts as its day's.
        ordered = None if state.attempted_day is None else self.ordered.get(state.attempted_day)
        if state.model == BASELINE:
            left = min(due, forecast.cooldown + 1) - waited
            why = f"ordered on {ordered.attempted_day}" if ordered else "no model in force"
            return f"{why}; next attempt in {left} sessions"
        since = f"ordered on {ordered.attempted_day}" if ordered else f"trained {state.trained_day}"
        return f"{since}; next training in {due - waited} sessions"

    @staticmethod
    def _kept(state: InForce, reason: str) -> dict[str, Any]:
        return _row(
            state, decision=BASELINE if state.model == BASELINE else "carried", reason=reason
        )


def _row(
    state: InForce,
    *,
    decision: str,
    reason: str,
    challenger: str | None = None,
    verdict: Verdict | None = None,
) -> dict[str, Any]:
    return {
        "model": state.model,
        "model_version": state.model_version,
        "trained_day": state.trained_day,
        "attempted_day": state.attempted_day,
        "decision": decision,
        "reason": reason,
        "challenger": challenger,
        "challenger_loss": verdict.challenger_loss if verdict else None,
        "in_force_loss": verdict.in_force_loss if verdict else None,
        "baseline_loss": verdict.baseline_loss if verdict else None,
        "baseline_t": verdict.baseline_t if verdict else None,
        "in_force_t": verdict.in_force_t if verdict else None,
        "in_force_baseline_t": verdict.in_force_baseline_t if verdict else None,
        "validation_days": verdict.validation_days if verdict else None,
        "leak_alarm": verdict.leak_alarm if verdict else None,
    }


@dataclass(frozen=True)
class _Data:
    """What was loaded for a slice: features, labels, and the rows that have both."""

    features: pl.DataFrame
    labelled: pl.DataFrame
    rows: pl.DataFrame


def _trigger(day: dt.date, state: InForce, drift: Signal | None, settings: Settings) -> str | None:
    """Why a training is due on `day`; None when it is not."""
    waited = _waited(day, state, settings)
    if waited is None:
        return "no model in force"
    # What has changed says more than how long ago the last attempt was.
    if drift is not None and drift.alarm and waited > settings.forecast.cooldown:
        return f"drift, {drift.alarm}"
    if state.model == BASELINE and waited > settings.forecast.cooldown:
        return f"no model in force, {waited} sessions since the last attempt"
    if waited >= settings.forecast.cadence:
        return f"cadence, {waited} sessions since the last attempt"
    return None


def _waited(day: dt.date, state: InForce, settings: Settings) -> int | None:
    """Sessions of any exchange of the universe since the last attempt."""
    if state.attempted_day is None:
        return None
    sessions = union_sessions(settings.exchanges)
    return bisect.bisect_left(sessions, day) - bisect.bisect_left(sessions, state.attempted_day)


class _Trainer:
    """Makes challengers, or finds them in the registry; loads data at most once."""

    def __init__(
        self,
        training_data: LoadTrainingData,
        registry: Registry,
        settings: Settings,
        lake_versions: Mapping[str, int],
        last_day: dt.date,
    ) -> None:
        self.training_data = training_data
        self.registry = registry
        self.settings = settings
        self.lake_versions = lake_versions
        self.last_day = last_day
        self.sessions = union_sessions(settings.exchanges)
        self.attempts: list[Attempt] = []
        self._loaded: _Data | None = None

    def attempt(self, day: dt.date, state: InForce, why: str) -> Registered | str:
        """The challenger of `day` to what is in force, judged; or why none can be trained.

        `why` it is tried is told of the training, and no part of it.
        """
        data = self._known_before(day)
        window = self._window_start(day)
        rows = data.rows.filter(pl.col("day") >= window)
        least = self.settings.forecast.min_training_rows
        if rows.height < least:
            return f"only {rows.height:,} of {least:,} labelled rows to train on"
        yesterday = day - dt.timedelta(1)
        sets = split(rows, yesterday)
        if sets is None or any(rows.filter(part).is_empty() for part in sets.parts()):
            return "the labelled days are too few to divide"
        began = time.perf_counter()
        digits = fingerprint(
            data.features,
            data.labelled,
            in_force=state.model,
            window=self.settings.forecast.window,
        )
        model_id = f"catboost-{day}-{digits}"
        found = self.registry.find(model_id)
        reused = found is not None
        if found is None:
            found = self._train(model_id, day, rows, sets, data=data, state=state, why=why)
        else:
            self.registry.note_trigger(model_id, why)
        verdict = found.record.verdict
        seconds = time.perf_counter() - began
        self.attempts.append(
            Attempt(day, model_id, verdict.accepted, verdict.reason, reused, seconds)
        )
        return found

    def _train(  # noqa: PLR0913
        self,
        model_id: str,
        day: dt.date,
        rows: pl.DataFrame,
        sets: Split,
        *,
        data: _Data,
        state: InForce,
        why: str,
    ) -> Registered:
        began = time.perf_counter()
        model = fit(rows.filter(sets.training()), sets.calibration_first)
        later, known = rows.filter(sets.validation()), Known(data.features, data.labelled)
        forecasts = {
            CHALLENGER: model.forecast(later, known),
            BASELINE_LOSS: baseline_forecasts(later, data.features, data.labelled),
        }
        if state.model != BASELINE:
            forecasts[IN_FORCE] = self.registry.load(state.model).forecast(later, known)
        soundings = sound(forecasts[CHALLENGER], forecasts[BASELINE_LOSS], later)
        verdict = judge(pinball_losses(forecasts, later), soundings)
        record = TrainingRecord(
            model_id=model_id,
            day=day,
            tickers=tuple(rows["ticker"].unique().sort()),
            rows=rows.height,
            verdict=verdict,
            sets={
                "training_first": str(rows["day"].min()),
                "calibration_first": sets.calibration_first.isoformat(),
                "validation_first": sets.validation_first.isoformat(),
                "validation_end": sets.end.isoformat(),
            },
            measures=measures(verdict, soundings, forecasts[CHALLENGER], later),
            lake_versions=self.lake_versions,
        )
        seconds = {"training_seconds": time.perf_counter() - began}
        return self.registry.register(
            model,
            record,
            trigger=why,
            report=lambda: report(
                importance(model), model_inputs(later.tail(5)), forecasts[CHALLENGER], later
            ),
            parameters={"window": self.settings.forecast.window, "gate_rules": RULES},
            metrics=seconds,
        )

    def _window_start(self, day: dt.date) -> dt.date:
        first = bisect.bisect_left(self.sessions, day) - self.settings.forecast.window
        return self.sessions[max(0, first)]

    def _data_start(self, day: dt.date) -> dt.date:
        """First day of data a training looks at: the baseline of its first day looks back too."""
        return lookback_start(self.settings.exchanges, self._window_start(day))

    def _known_before(self, day: dt.date) -> _Data:
        """The data that a training on `day` may see, loaded with what later days will need."""
        if self._loaded is None:
            features, bars = self.training_data(self._data_start(day), self.last_day)
            labelled = labels(bars)
            self._loaded = _Data(features, labelled, trainable(features, labelled))
        ended = (pl.col("label_end") < day) & (pl.col("day") >= self._data_start(day))
        seen = (pl.col("day") < day) & (pl.col("day") >= self._data_start(day))
        return _Data(
            self._loaded.features.filter(seen),
            self._loaded.labelled.filter(ended),
            self._loaded.rows.filter(ended),
        )
